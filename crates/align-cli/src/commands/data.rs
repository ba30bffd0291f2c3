//! `align data`: looking at data.

mod examples;
mod inspected;
mod report;
mod subject;

use std::{io::IsTerminal as _, num::NonZeroUsize, path::Path};

use align_model::{
    data::DatasetConfig,
    inspect::{Inspected, InspectedRow, Inspection, Problem, inspect, inspect_records},
    sft::{SftConfig, SftTokenizer},
};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::{
    args::{DataArguments, DataCommand, InspectArguments},
    dataset,
    method::{
        Settings, Texts, distill::Distill, dpo::Dpo, grpo::Grpo, kto::Kto, online::Online, ppo::Ppo,
        raft::Raft, reward::Reward,
    },
    model,
};
use examples::{Examined, ExampleFindings};
use subject::{Subject, method_of};

/// Does what was asked.
pub(crate) fn run(args: &DataArguments) -> Result<()> {
    match &args.command {
        DataCommand::Inspect(args) => match method_of(args)?.as_str() {
            "dpo" => inspect_examples::<Dpo>(args),
            "kto" => inspect_examples::<Kto>(args),
            "reward" => inspect_examples::<Reward>(args),
            "grpo" => inspect_examples::<Grpo>(args),
            "ppo" => inspect_examples::<Ppo>(args),
            "online" => inspect_examples::<Online>(args),
            "raft" => inspect_examples::<Raft>(args),
            "distill" => inspect_examples::<Distill>(args),
            _ => inspect_demonstrations(args),
        },
    }
}

/// Everything, for a program to read.
#[derive(Serialize)]
struct Output<'a> {
    method: &'static str,
    data: &'a DatasetConfig,
    evaluation: Option<&'a DatasetConfig>,
    model: Option<&'a Path>,
    #[serde(flatten)]
    inspection: &'a Inspection,
    examples: Option<&'a ExampleFindings>,
    problems: Vec<Problem>,
}

fn inspect_demonstrations(args: &InspectArguments) -> Result<()> {
    let subject = Subject::<SftConfig>::new(args)?;
    let training = dataset::records::<InspectedRow>(&subject.data)?.records;
    let evaluation = match &subject.evaluation {
        Some(held_out) => dataset::records::<InspectedRow>(held_out)?.records,
        None => Vec::new(),
    };
    let config = args.config();
    let inspection = match &subject.model {
        None => inspect(&training, &evaluation, None, &config),
        Some(path) => {
            let checkpoint = model::open(path)?;
            let tokenizer = checkpoint.tokenizer().context("cannot load the model's tokenizer")?;
            let templates = model::chat_templates(&tokenizer)?;
            let context = checkpoint.architecture().config().max_positions;
            let settings = &subject.settings;
            let max_length =
                settings.max_length.min(NonZeroUsize::new(context).unwrap_or(settings.max_length));
            // What truncation and each kind of packing would do is reported side by side.
            let sft = SftConfig { max_length, packing: None, ..settings.clone() };
            let now = Some(subject.now);
            let tokenizer = SftTokenizer { now, ..SftTokenizer::new(&sft, &tokenizer, templates.as_ref()) };
            inspect(&training, &evaluation, Some(&tokenizer), &config)
        }
    };
    tell(args, &subject, &inspection, None)
}

/// Looks at the data of any other method.
fn inspect_examples<M: Examined>(args: &InspectArguments) -> Result<()>
where
    M::Record: Inspected,
{
    let subject = Subject::<M::Config>::new(args)?;
    let local = dataset::on_this_machine(&subject.data)?;
    let training = align_model::data::read::<InspectedRow<M::Record>>(&local.files)?.records;
    let evaluation = match &subject.evaluation {
        Some(held_out) => dataset::records::<InspectedRow<M::Record>>(held_out)?.records,
        None => Vec::new(),
    };
    let inspection = inspect_records(&training, &evaluation, &args.config());
    let examples = match &subject.model {
        None => None,
        Some(path) => {
            let checkpoint = model::open(path)?;
            let tokenizer = checkpoint.tokenizer().context("cannot load the model's tokenizer")?;
            let templates = model::chat_templates(&tokenizer)?;
            let texts = Texts {
                tokenizer: &tokenizer,
                templates: templates.as_ref(),
                now: subject.now,
                slices: &local.slices,
                context: checkpoint.architecture().config().max_positions,
            };
            Some(ExampleFindings::new::<M>(&subject.settings, texts, training, args.samples))
        }
    };
    tell(args, &subject, &inspection, examples.as_ref())
}

/// Prints what was found.
fn tell<C: Settings>(
    args: &InspectArguments,
    subject: &Subject<C>,
    inspection: &Inspection,
    examples: Option<&ExampleFindings>,
) -> Result<()> {
    let mut problems = inspection.problems();
    problems.extend(examples.map(ExampleFindings::problems).unwrap_or_default());
    if args.json {
        let output = Output {
            method: C::NAME,
            data: &subject.data,
            evaluation: subject.evaluation.as_ref(),
            model: subject.model.as_deref(),
            inspection,
            examples,
            problems: problems.clone(),
        };
        println!("{}", serde_json::to_string_pretty(&output)?);
    } else {
        let marks =
            if std::io::stdout().is_terminal() { report::Marks::Colour } else { report::Marks::Brackets };
        print!("{}", report::text(inspection, examples, &problems, marks));
    }
    if args.strict && !problems.is_empty() {
        bail!("the data has problems: {}", report::summary(&problems));
    }
    Ok(())
}
