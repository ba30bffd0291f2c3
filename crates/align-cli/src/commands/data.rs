//! `align data`: looking at data.

mod report;

use std::{
    io::IsTerminal as _,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use align_model::{
    data::{Combine, DatasetConfig, SourceConfig},
    inspect::{InspectedRow, Inspection, Problem, inspect},
    sft::{SftConfig, SftTokenizer},
};
use anyhow::{Context as _, Result, bail};
use chrono::Local;
use serde::{Deserialize, Serialize};

use crate::{
    args::{DataArguments, DataCommand, InspectArguments},
    dataset, model,
    run_file::{self, Run},
};

/// Does what was asked.
pub(crate) fn run(args: &DataArguments) -> Result<()> {
    match &args.command {
        DataCommand::Inspect(args) => run_inspect(args),
    }
}

/// What is inspected, and as what.
struct Subject {
    data: DatasetConfig,
    evaluation: Option<DatasetConfig>,
    model: Option<PathBuf>,
    sft: SftConfig,
}

/// The settings where there is no run file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    sft: SftConfig,
}

/// Everything, for a program to read.
#[derive(Serialize)]
struct Output<'a> {
    data: &'a DatasetConfig,
    evaluation: Option<&'a DatasetConfig>,
    model: Option<&'a Path>,
    #[serde(flatten)]
    inspection: &'a Inspection,
    problems: Vec<Problem>,
}

fn run_inspect(args: &InspectArguments) -> Result<()> {
    let Subject { data, evaluation: held_out, model, sft } = subject(args)?;
    let training = dataset::records::<InspectedRow>(&data)?.records;
    let evaluation = match &held_out {
        Some(held_out) => dataset::records::<InspectedRow>(held_out)?.records,
        None => Vec::new(),
    };
    let config = args.config();
    let inspection = match &model {
        None => inspect(&training, &evaluation, None, &config),
        Some(path) => {
            let checkpoint = model::open(path)?;
            let tokenizer = checkpoint.tokenizer().context("cannot load the model's tokenizer")?;
            let templates = model::chat_templates(&tokenizer)?;
            let context = checkpoint.architecture().config().max_positions;
            let max_length = sft.max_length.min(NonZeroUsize::new(context).unwrap_or(sft.max_length));
            // What truncation and each kind of packing would do is reported side by side.
            let sft = SftConfig { max_length, packing: None, ..sft };
            let now = Some(Local::now().naive_local());
            let tokenizer = SftTokenizer { now, ..SftTokenizer::new(&sft, &tokenizer, templates.as_ref()) };
            inspect(&training, &evaluation, Some(&tokenizer), &config)
        }
    };
    let problems = inspection.problems();
    if args.json {
        let (evaluation, model, problems) = (held_out.as_ref(), model.as_deref(), problems.clone());
        let output = Output { data: &data, evaluation, model, inspection: &inspection, problems };
        println!("{}", serde_json::to_string_pretty(&output)?);
    } else {
        let marks =
            if std::io::stdout().is_terminal() { report::Marks::Colour } else { report::Marks::Brackets };
        print!("{}", report::text(&inspection, marks));
    }
    if args.strict && !problems.is_empty() {
        bail!("the data has problems: {}", report::summary(&problems));
    }
    Ok(())
}

fn subject(args: &InspectArguments) -> Result<Subject> {
    let (data, evaluation) = (files(&args.data), files(&args.evaluation));
    let Some(path) = &args.config else {
        let Settings { sft } = run_file::parse("", Path::new("the settings"), &args.overrides)?;
        let data = data.context("name the data with --data, or a run file with --config")?;
        return Ok(Subject { data, evaluation, model: args.model.clone(), sft });
    };
    let run: Run<SftConfig> = run_file::read(path, &args.overrides)?;
    run.method.check().with_context(|| format!("{}: [sft] contradicts itself", path.display()))?;
    Ok(Subject {
        data: data.unwrap_or(run.data.train),
        evaluation: evaluation.or(run.data.evaluation),
        model: Some(args.model.clone().unwrap_or(run.model)),
        sft: run.method,
    })
}

/// Files of the command line as one data set; `None` where there are none.
fn files(paths: &[PathBuf]) -> Option<DatasetConfig> {
    let sources = paths.iter().map(|path| SourceConfig::new(path.to_string_lossy())).collect();
    (!paths.is_empty()).then(|| DatasetConfig { sources, combine: Combine::default() })
}
