//! `align data`: looking at data.

mod report;

use std::{
    io::IsTerminal as _,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use align_model::{
    data::{Located, read_jsonl},
    inspect::{InspectedRow, Inspection, Problem, inspect},
    sft::{SftConfig, SftTokenizer},
};
use anyhow::{Context as _, Result, bail};
use chrono::Local;
use serde::{Deserialize, Serialize};

use crate::{
    args::{DataArguments, DataCommand, InspectArguments},
    model,
    run_file::{self, SftRun},
};

/// Does what was asked.
pub(crate) fn run(args: &DataArguments) -> Result<()> {
    match &args.command {
        DataCommand::Inspect(args) => run_inspect(args),
    }
}

/// What is inspected, and as what.
struct Subject {
    data: Vec<PathBuf>,
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
    data: &'a [PathBuf],
    evaluation: &'a [PathBuf],
    model: Option<&'a Path>,
    #[serde(flatten)]
    inspection: &'a Inspection,
    problems: Vec<Problem>,
}

fn run_inspect(args: &InspectArguments) -> Result<()> {
    let Subject { data, model, sft } = subject(args)?;
    let (training, evaluation) = (load(&data)?, load(&args.evaluation)?);
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
        let (evaluation, model, problems) = (args.evaluation.as_slice(), model.as_deref(), problems.clone());
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
    let Some(path) = &args.config else {
        let Settings { sft } = run_file::parse("", Path::new("the settings"), &args.overrides)?;
        return Ok(Subject { data: args.data.clone(), model: args.model.clone(), sft });
    };
    let run: SftRun = run_file::read(path, &args.overrides)?;
    run.sft.check().with_context(|| format!("{}: [sft] contradicts itself", path.display()))?;
    let data = if args.data.is_empty() { vec![run.data] } else { args.data.clone() };
    Ok(Subject { data, model: Some(args.model.clone().unwrap_or(run.model)), sft: run.sft })
}

/// The rows of all files, one file after the other.
fn load(paths: &[PathBuf]) -> Result<Vec<Located<InspectedRow>>> {
    let mut rows = Vec::new();
    for path in paths {
        rows.extend(read_jsonl::<InspectedRow>(path)?);
    }
    Ok(rows)
}
