//! Everything that has to be right before a step can be made.

use std::{collections::HashSet, path::Path};

use align_model::{
    chat::ChatTemplates,
    data::{DatasetConfig, Located, SftRecord},
    decoder::Decoder,
    pretrained::Checkpoint,
    sft::SftTokenizer,
    tokenizer::Tokenizer,
};
use anyhow::{Context as _, Result, ensure};
use burn::tensor::Device;

use super::data::{SftData, SftRows};
use crate::{
    dataset::{named, records},
    model,
    run_file::{SftRun, date::RunDate},
    training::{
        directory::{Entry, RunDirectory},
        findings::Findings,
        samples::SamplePrompts,
    },
};

/// A run that nothing stands in the way of.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) run: SftRun,
    pub(super) directory: RunDirectory,
    pub(super) base: Base,
    pub(super) train: SftData,
    pub(super) rows: SftRows,
    pub(super) evaluation: Option<SftData>,
    pub(super) steps: u64,
    device: Device,
}

/// The model to start from, its weights not yet loaded.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) checkpoint: Checkpoint,
    pub(super) tokenizer: Tokenizer,
    pub(super) templates: Option<ChatTemplates>,
}

impl Prepared {
    /// Looks for everything that is wrong with a run. `None` if something stands in the way of going on looking.
    pub(super) fn new(run: SftRun, entry: Entry, findings: &mut Findings) -> Option<Self> {
        run.check(findings);
        let device = findings.keep(run.device.open().map_err(Into::into));
        let directory = findings.keep(RunDirectory::check(&run.out, entry, &run.model));
        let base = findings.keep(Base::open(&run.model));
        if let Some(base) = &base {
            findings.keep(check_length(&run, base));
            findings.keep(base.prompts(&run).map(|_| ()));
        }
        let train = findings.keep(records(&run.data.train));
        let apart = run.data.evaluation.as_ref().and_then(|config| findings.keep(records(config)));
        let (base, train) = (base?, train?);
        let skipped = train.skipped.count;
        let (train, split) = run.data.split(train.records);
        let train = findings.keep(base.tokenized(&run, &run.data.train, &train, skipped));
        let evaluation = match (&run.data.evaluation, apart) {
            (Some(config), Some(set)) => {
                findings.keep(base.tokenized(&run, config, &set.records, set.skipped.count))
            }
            _ if split.is_empty() => None,
            _ => findings.keep(base.tokenized(&run, &run.data.train, &split, 0)),
        };
        let train = train?;
        if let Some(evaluation) = &evaluation {
            warn_of_overlap(&train, evaluation, findings);
        }
        let rows = SftRows::new(&train, &run.sft);
        let steps = run.sft.duration.steps(rows.rows.len(), run.sft.batch_size);
        Some(Self { directory: directory?, device: device?, run, base, train, rows, evaluation, steps })
    }

    /// Loads the weights of the model to start from and puts the adapter on, if there is one.
    pub(super) fn load(&self) -> Result<Decoder> {
        let model = self.base.checkpoint.load(&self.device).context("cannot load the model")?;
        let model = model.with_compute_dtype(self.run.memory.compute).context("memory.compute")?;
        let family = self.base.checkpoint.architecture().family();
        match &self.run.adapter {
            Some(adapter) => adapter.attach(model, family, self.run.sft.seed),
            None => Ok(model),
        }
    }
}

impl Base {
    fn open(path: &Path) -> Result<Self> {
        let checkpoint = model::open(path)?;
        let tokenizer = checkpoint.tokenizer().context("cannot load the model's tokenizer")?;
        let templates = model::chat_templates(&tokenizer)?;
        Ok(Self { checkpoint, tokenizer, templates })
    }

    /// What the model is asked while it learns.
    pub(super) fn prompts(&self, run: &SftRun) -> Result<Option<SamplePrompts<'_>>> {
        let ends = model::end_tokens(&self.checkpoint, &self.tokenizer);
        let read = |table| {
            SamplePrompts::new(table, &self.tokenizer, self.templates.as_ref(), ends, date(run).get())
        };
        run.samples.as_ref().map(read).transpose()
    }

    fn tokenized(
        &self,
        run: &SftRun,
        config: &DatasetConfig,
        records: &[Located<SftRecord>],
        skipped: usize,
    ) -> Result<SftData> {
        let tokenizer = SftTokenizer::new(&run.sft, &self.tokenizer, self.templates.as_ref());
        let tokenizer = SftTokenizer { now: Some(date(run).get()), ..tokenizer };
        SftData::new(named(config), records, skipped, &tokenizer)
    }
}

fn warn_of_overlap(train: &SftData, evaluation: &SftData, findings: &mut Findings) {
    let known: HashSet<&[u32]> = train.examples.iter().map(|example| example.tokens.as_slice()).collect();
    let both = evaluation.examples.iter().filter(|example| known.contains(example.tokens.as_slice())).count();
    if both > 0 {
        let all = evaluation.examples.len();
        findings.warn(format!("{both} of {all} samples for evaluation are trained on as well"));
    }
}

fn date(run: &SftRun) -> RunDate {
    run.date.unwrap_or_else(RunDate::now)
}

fn check_length(run: &SftRun, base: &Base) -> Result<()> {
    let (length, context) = (run.sft.max_length.get(), base.checkpoint.architecture().config().max_positions);
    ensure!(
        length <= context,
        "sft.max_length = {length} is more than the model can read: its context has {context} tokens"
    );
    Ok(())
}
