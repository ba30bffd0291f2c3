//! Everything that has to be right before a step can be made.

use std::{collections::HashSet, path::Path};

use align_model::{
    chat::ChatTemplates,
    data::{Dataset, DatasetConfig, Located, read},
    decoder::Decoder,
    pretrained::Checkpoint,
    tokenizer::Tokenizer,
};
use anyhow::{Context as _, Result, ensure};
use burn::tensor::Device;

use super::{
    batches::{Batches, Rows},
    data::{Extent, TrainingData, content},
    stream::{SharedPosition, Stream, StreamedBatches},
};
use crate::{
    dataset::{LocalDataset, first_records, named, on_this_machine, records},
    method::{Example, Kit, Method, RewardModels, Settings, Start, Texts, Tokenize, TrainedModel as _},
    model,
    run_file::{Run, adapter::AdapterTable, date::RunDate},
    training::{
        directory::{Entry, RunDirectory},
        findings::Findings,
        samples::SamplePrompts,
    },
};

/// A run that nothing stands in the way of.
#[derive(Debug)]
pub(super) struct Prepared<M: Method> {
    pub(super) run: Run<M::Config>,
    pub(super) directory: RunDirectory,
    pub(super) base: Base,
    /// What is trained on; of a stream, its first window.
    pub(super) train: TrainingData<M::Example>,
    /// The rows of that.
    pub(super) rows: Rows<M::Row>,
    /// What is trained on, if it is streamed.
    pub(super) stream: Option<Stream>,
    pub(super) evaluation: Option<TrainingData<M::Example>>,
    pub(super) steps: u64,
    /// Names of the sources of what is trained on, where there are several.
    slices: Vec<String>,
    /// The tokens that end what the model says.
    ends: Vec<u32>,
    /// Reward models that are loaded already.
    reward_models: RewardModels,
    device: Device,
}

/// The model to start from, its weights not yet loaded.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) checkpoint: Checkpoint,
    pub(super) tokenizer: Tokenizer,
    pub(super) templates: Option<ChatTemplates>,
}

impl<M: Method> Prepared<M> {
    /// Looks for everything that is wrong with a run. `None` if something stands in the way of going on looking.
    pub(super) fn new(run: Run<M::Config>, entry: Entry, findings: &mut Findings) -> Option<Self> {
        run.check(findings);
        let device = findings.keep(run.device.open().map_err(Into::into));
        let directory = findings.keep(RunDirectory::check(&run.out, entry, &run.model));
        let base = findings.keep(Base::open(&run.model));
        if let Some(base) = &base {
            findings.keep(check_length(&run, base));
            findings.keep(base.prompts(&run).map(|_| ()));
        }
        let train = findings.keep(TrainingRecords::<M>::read(&run));
        let apart = run.data.evaluation.as_ref().and_then(|config| findings.keep(records(config)));
        let (base, train) = (base?, train?);
        let TrainingRecords { set, slices, extent, stream } = train;
        let skipped = set.skipped.count;
        let (train, split) = run.data.split(set.records);
        let tokenize = base.tokenize::<M>(&run, &slices);
        let mut tokenized = |config: &DatasetConfig, extent, records: &[Located<M::Record>], skipped| {
            findings.keep(TrainingData::new::<M>((named(config), extent), records, skipped, &tokenize))
        };
        let train = tokenized(&run.data.train, extent, &train, skipped);
        let evaluation = match (&run.data.evaluation, apart) {
            (Some(config), Some(set)) => tokenized(config, Extent::Whole, &set.records, set.skipped.count),
            _ if split.is_empty() => None,
            _ => tokenized(&run.data.train, Extent::Whole, &split, 0),
        };
        drop(tokenize);
        let train = train?;
        if let Some(evaluation) = &evaluation {
            warn_of_overlap(&train, evaluation, findings);
        }
        let (rows, plan) = (Rows::new::<M>(&train, &run.method), run.method.plan());
        let steps = plan.duration.steps(rows.rows.len(), plan.batch_size);
        let (directory, device) = (directory?, device?);
        let ends = model::end_tokens(&base.checkpoint, &base.tokenizer);
        let reward_models = RewardModels::default();
        let prepared = Self {
            run,
            directory,
            base,
            train,
            rows,
            stream,
            evaluation,
            steps,
            slices,
            ends,
            reward_models,
            device,
        };
        for data in [Some(&prepared.train), prepared.evaluation.as_ref()].into_iter().flatten() {
            let checked = M::check_examples(&prepared.run.method, &data.examples, &prepared.kit());
            findings.keep(checked.with_context(|| data.source.clone()));
        }
        Some(prepared)
    }

    /// What a trainer may work with.
    pub(super) fn kit(&self) -> Kit<'_> {
        let Self { run, base: Base { checkpoint, tokenizer, .. }, ends, reward_models, device, .. } = self;
        let adapter = run.adapter.as_ref().and_then(AdapterTable::saved);
        Kit {
            start: Start { path: &run.model, checkpoint, adapter, device },
            tokenizer,
            ends,
            rewards: &run.rewards,
            critic: run.critic.as_ref(),
            teacher: run.teacher.as_ref(),
            compute: run.memory.compute,
            reward_models,
            now: date(run).get(),
        }
    }

    /// The batches of the run, without end; those of a stream go on from `reached`.
    pub(super) fn batches(&self, reached: SharedPosition) -> Result<Batches<'_, M>> {
        let (config, plan) = (&self.run.method, self.run.method.plan());
        let Some(stream) = &self.stream else {
            return Ok(Batches::InMemory(self.rows.batches(plan.batch_size.get(), plan.seed)));
        };
        let batches =
            StreamedBatches::new(stream, config, self.base.tokenize::<M>(&self.run, &self.slices), reached)?;
        Ok(Batches::Streamed(Box::new(batches)))
    }

    /// Loads the weights of the model to start from and puts the adapter on, if there is one.
    pub(super) fn load(&self) -> Result<M::Model> {
        let (run, checkpoint) = (&self.run, &self.base.checkpoint);
        let dress = |decoder: Decoder| {
            let decoder = decoder.with_compute_dtype(run.memory.compute).context("memory.compute")?;
            let family = checkpoint.architecture().family();
            match &run.adapter {
                Some(adapter) => adapter.attach(decoder, family, run.method.plan().seed),
                None => Ok(decoder),
            }
        };
        M::Model::load(self.kit().start, run.method.plan().seed, Box::new(dress))
    }
}

/// What is trained on, before it is tokenised; of a stream, its first window.
struct TrainingRecords<M: Method> {
    set: Dataset<M::Record>,
    slices: Vec<String>,
    extent: Extent,
    stream: Option<Stream>,
}

impl<M: Method> TrainingRecords<M> {
    fn read(run: &Run<M::Config>) -> Result<Self> {
        let LocalDataset { files, slices } = on_this_machine(&run.data.train)?;
        let Some(window) = run.data.streaming.map(|streaming| streaming.window) else {
            return Ok(Self { set: read(&files)?, slices, extent: Extent::Whole, stream: None });
        };
        let (set, is_whole) = first_records(&files, window)?;
        let extent = if is_whole { Extent::WholeStream } else { Extent::FirstWindow };
        Ok(Self { set, slices, extent, stream: Some(Stream { files, window }) })
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
    pub(super) fn prompts<C: Settings>(&self, run: &Run<C>) -> Result<Option<SamplePrompts<'_>>> {
        let ends = model::end_tokens(&self.checkpoint, &self.tokenizer);
        let read = |table| {
            SamplePrompts::new(table, &self.tokenizer, self.templates.as_ref(), ends, date(run).get())
        };
        run.samples.as_ref().map(read).transpose()
    }

    /// How this run makes examples of records.
    fn tokenize<'a, M: Method>(&'a self, run: &'a Run<M::Config>, slices: &'a [String]) -> Tokenize<'a, M> {
        let (tokenizer, templates) = (&self.tokenizer, self.templates.as_ref());
        let context = self.checkpoint.architecture().config().max_positions;
        M::tokenize(&run.method, Texts { tokenizer, templates, now: date(run).get(), slices, context })
    }
}

fn warn_of_overlap<E: Example>(
    train: &TrainingData<E>,
    evaluation: &TrainingData<E>,
    findings: &mut Findings,
) {
    let known: HashSet<Vec<&[u32]>> = train.examples.iter().map(content).collect();
    let both = evaluation.examples.iter().filter(|example| known.contains(&content(*example))).count();
    if both > 0 {
        let (all, plural) = (evaluation.examples.len(), E::PLURAL);
        findings.warn(format!("{both} of {all} {plural} for evaluation are trained on as well"));
    }
}

fn date<C>(run: &Run<C>) -> RunDate {
    run.date.unwrap_or_else(RunDate::now)
}

fn check_length<C: Settings>(run: &Run<C>, base: &Base) -> Result<()> {
    let (length, context) =
        (run.method.plan().max_length.get(), base.checkpoint.architecture().config().max_positions);
    ensure!(
        length <= context,
        "{}.{} = {length} is more than the model can read: its context has {context} tokens",
        C::NAME,
        C::LENGTH
    );
    Ok(())
}
