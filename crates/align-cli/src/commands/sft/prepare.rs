//! Everything that has to be right before a step can be made.

use std::{collections::HashSet, path::Path};

use align_model::{
    chat::ChatTemplates,
    data::{Dataset, Located, SftRecord},
    decoder::Decoder,
    pretrained::Checkpoint,
    sft::SftTokenizer,
    tokenizer::Tokenizer,
};
use anyhow::{Context as _, Result, ensure};
use burn::tensor::Device;

use super::{
    batches::{SftBatches, SftRows},
    data::{Extent, SftData},
    stream::{SftStream, SharedPosition, StreamedBatches},
};
use crate::{
    dataset::{first_records, named, on_this_machine, records},
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
    /// What is trained on; of a stream, its first window.
    pub(super) train: SftData,
    /// The rows of that.
    pub(super) rows: SftRows,
    /// What is trained on, if it is streamed.
    pub(super) stream: Option<SftStream>,
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
        let train = findings.keep(TrainingRecords::read(&run));
        let apart = run.data.evaluation.as_ref().and_then(|config| findings.keep(records(config)));
        let (base, train) = (base?, train?);
        let TrainingRecords { set, extent, stream } = train;
        let skipped = set.skipped.count;
        let (train, split) = run.data.split(set.records);
        let named_train = (named(&run.data.train), extent);
        let train = findings.keep(base.tokenized(&run, named_train, &train, skipped));
        let evaluation = match (&run.data.evaluation, apart) {
            (Some(config), Some(set)) => {
                let named = (named(config), Extent::Whole);
                findings.keep(base.tokenized(&run, named, &set.records, set.skipped.count))
            }
            _ if split.is_empty() => None,
            _ => findings.keep(base.tokenized(&run, (named(&run.data.train), Extent::Whole), &split, 0)),
        };
        let train = train?;
        if let Some(evaluation) = &evaluation {
            warn_of_overlap(&train, evaluation, findings);
        }
        let rows = SftRows::new(&train, &run.sft);
        let steps = run.sft.duration.steps(rows.rows.len(), run.sft.batch_size);
        let (directory, device) = (directory?, device?);
        Some(Self { run, directory, base, train, rows, stream, evaluation, steps, device })
    }

    /// The batches of the run, without end; those of a stream go on from `reached`.
    pub(super) fn batches(&self, reached: SharedPosition) -> Result<SftBatches<'_>> {
        let Some(stream) = &self.stream else {
            return Ok(SftBatches::InMemory(self.rows.batches(&self.run.sft)));
        };
        let tokenizer = self.base.sample_tokenizer(&self.run);
        let batches = StreamedBatches::new(stream, &self.run.sft, tokenizer, reached)?;
        Ok(SftBatches::Streamed(Box::new(batches)))
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

/// What is trained on, before it is tokenised; of a stream, its first window.
struct TrainingRecords {
    set: Dataset<SftRecord>,
    extent: Extent,
    stream: Option<SftStream>,
}

impl TrainingRecords {
    fn read(run: &SftRun) -> Result<Self> {
        let config = &run.data.train;
        let Some(streaming) = run.data.streaming else {
            return Ok(Self { set: records(config)?, extent: Extent::Whole, stream: None });
        };
        let (files, window) = (on_this_machine(config)?, streaming.window);
        let (set, is_whole) = first_records(&files, window)?;
        let extent = if is_whole { Extent::WholeStream } else { Extent::FirstWindow };
        Ok(Self { set, extent, stream: Some(SftStream { files, window }) })
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
        origin: (String, Extent),
        records: &[Located<SftRecord>],
        skipped: usize,
    ) -> Result<SftData> {
        SftData::new(origin, records, skipped, &self.sample_tokenizer(run))
    }

    fn sample_tokenizer(&self, run: &SftRun) -> SftTokenizer<'_> {
        let tokenizer = SftTokenizer::new(&run.sft, &self.tokenizer, self.templates.as_ref());
        SftTokenizer { now: Some(date(run).get()), ..tokenizer }
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
