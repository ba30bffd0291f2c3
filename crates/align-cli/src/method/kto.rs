//! Learning from completions that are desirable or not: KTO, APO-zero, BCO.

use std::num::NonZeroUsize;

use align_dpo::{KtoConfig, KtoTrainer, ReferenceLogProbs};
use align_model::{
    causal_lm::TokenBatch,
    data::{PreferenceRecord, Record, RecordError, Row, UnpairedRecord},
    decoder::Decoder,
    preference::{OnTooLong, UnpairedExample},
    train::Averaged,
};
use anyhow::Result;
use serde::Serialize;

use super::{Around, Kit, Lesson, Measured, Method, Plan, Settings, Texts, Tokenize, Tokenized, preference};
use crate::training::report::Fact;

/// Learning from judged completions.
#[derive(Debug)]
pub(crate) struct Kto;

/// A judged completion, or a pair, which is a desirable one and an undesirable one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum JudgedRecord {
    /// One completion with its label.
    Single(UnpairedRecord),
    /// Two completions of which one is preferred.
    Pair(PreferenceRecord),
}

impl Record for JudgedRecord {
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        if row.has("chosen") && row.has("rejected") && !row.has("label") {
            return PreferenceRecord::from_row(row).map(Self::Pair);
        }
        UnpairedRecord::from_row(row).map(Self::Single)
    }
}

impl JudgedRecord {
    fn judgements(&self) -> impl Iterator<Item = UnpairedRecord> {
        let (single, pair) = match self {
            Self::Single(record) => (Some(record.clone()), None),
            Self::Pair(record) => (None, Some(record.clone().unpair())),
        };
        single.into_iter().chain(pair.into_iter().flatten())
    }
}

/// What decides which examples meet in a group, and so which completions are exchanged.
#[derive(Debug, Serialize)]
struct Meetings {
    trained_on: usize,
    steps: u64,
    batch_size: NonZeroUsize,
    loss_batch_size: Option<NonZeroUsize>,
    max_length: NonZeroUsize,
    seed: u64,
}

impl Meetings {
    fn of(config: &KtoConfig, lesson: &Lesson<'_, UnpairedExample>) -> Self {
        let &KtoConfig { batch_size, loss_batch_size, max_length, seed, .. } = config;
        let trained_on = lesson.examples.first().map_or(0, |part| part.len());
        Self { trained_on, steps: lesson.steps, batch_size, loss_batch_size, max_length, seed }
    }
}

/// What a reference says of all examples, and of the completions that are exchanged in each step and in evaluations.
fn ask_reference(
    config: &KtoConfig,
    reference: &Decoder,
    lesson: &Lesson<'_, UnpairedExample>,
    examples: &[UnpairedExample],
) -> ReferenceLogProbs {
    let mut known = ReferenceLogProbs::of_unpaired(reference, examples, config.micro_batch_size);
    let Some((train, evaluated)) = lesson.examples.split_first() else { return known };
    if let Some(order) = &lesson.order {
        for indices in order.clone().take(usize::try_from(lesson.steps).unwrap_or(usize::MAX)) {
            let batch: Vec<&UnpairedExample> = indices.into_iter().map(|index| &train[index]).collect();
            known.ask_for_step(reference, &batch, config);
        }
    } else {
        known.ask_for_step(reference, train, config);
    }
    for part in evaluated {
        known.ask_for_evaluation(reference, part, config);
    }
    known
}

impl Method for Kto {
    const TITLE: &'static str = "Preference learning from judged completions";
    type Config = KtoConfig;
    type Record = JudgedRecord;
    type Example = UnpairedExample;
    type Row = UnpairedExample;
    type Model = Decoder;
    type Trainer = KtoTrainer<Decoder>;

    fn tokenize<'a>(config: &'a KtoConfig, texts: Texts<'a>) -> Tokenize<'a, Self> {
        let tokenizers = preference::Tokenizers::new(texts, config.max_length.get(), OnTooLong::Truncate);
        Box::new(move |located| {
            let all = located.record.judgements().map(|record| {
                let single = preference::alone(located, record);
                tokenizers.tokenized(|tokenizer| tokenizer.single(&single))
            });
            let mut whole = Tokenized { examples: Vec::new(), lengths: Vec::new(), notes: Vec::new() };
            for one in all.collect::<Result<Vec<_>>>()? {
                whole.examples.extend(one.examples);
                whole.lengths.extend(one.lengths);
                whole.notes.extend(one.notes);
            }
            Ok(whole)
        })
    }

    fn rows(_: &KtoConfig, examples: &[UnpairedExample]) -> Vec<UnpairedExample> {
        examples.to_vec()
    }

    fn tokens(row: &UnpairedExample) -> usize {
        preference::tokens(row)
    }

    fn pass(_: &KtoConfig, rows: &[&UnpairedExample]) -> (TokenBatch, usize) {
        preference::pass(rows)
    }

    fn copies(config: &KtoConfig) -> usize {
        preference::copies(Some(config.reference))
    }

    fn trainer(
        config: &KtoConfig,
        model: Decoder,
        lesson: Lesson<'_, UnpairedExample>,
    ) -> Result<KtoTrainer<Decoder>> {
        let reference = preference::reference(Some(config.reference), &model, || {
            let examples = lesson.examples.concat();
            let ask = || ask_reference(config, &model, &lesson, &examples);
            if config.exchanges_completions() {
                let decided_by = (&examples, Meetings::of(config, &lesson));
                preference::precomputed(&model, lesson.cache, &decided_by, ask)
            } else {
                preference::precomputed(&model, lesson.cache, &examples, ask)
            }
        })?;
        Ok(KtoTrainer::new(model, reference, config, lesson.steps)?)
    }

    fn evaluate(
        _: &KtoConfig,
        trainer: &Averaged<KtoTrainer<Decoder>>,
        examples: &[UnpairedExample],
        _: &Kit<'_>,
    ) -> Result<Measured> {
        Ok(preference::measured(&trainer.trainer().evaluate(&trainer.result(), examples)?))
    }

    fn rows_tried(config: &KtoConfig) -> usize {
        let of_pass = config.plan().rows_per_pass();
        if config.exchanges_completions() {
            // One group, of at least two.
            of_pass.max(2).min(config.loss_batch_size.map_or(usize::MAX, NonZeroUsize::get))
        } else {
            of_pass
        }
    }

    fn facts(config: &KtoConfig) -> Vec<Fact> {
        vec![
            Fact::new("objective", preference::named(&config.loss)),
            Fact::new("reference", preference::named(&config.reference)),
        ]
    }
}

impl Settings for KtoConfig {
    const NAME: &'static str = "kto";

    fn check(&self) -> Result<()> {
        Ok(Self::check(self)?)
    }

    fn check_around(&self, around: Around) -> Result<()> {
        preference::check_reference(Self::NAME, Some(self.reference), around)
    }

    fn plan(&self) -> Plan {
        Plan {
            duration: self.duration,
            batch_size: self.batch_size,
            micro_batch_size: self.micro_batch_size,
            max_length: self.max_length,
            packing: None,
            samples: NonZeroUsize::MIN,
            recompute: self.recompute,
            learning_rate: self.update.learning_rate.get(),
            seed: self.seed,
        }
    }
}
