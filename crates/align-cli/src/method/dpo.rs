//! Learning from pairs: DPO and its relatives, ORPO, CPO, `SimPO`, TPO.

use std::num::NonZeroUsize;

use align_dpo::{DpoConfig, DpoTrainer, Objective, ReferenceLogProbs};
use align_model::{
    causal_lm::TokenBatch,
    data::TripleRecord,
    decoder::Decoder,
    preference::{OnTooLong, PreferenceExample},
    train::Averaged,
};
use anyhow::Result;

use super::{Around, Kit, Lesson, Measured, Method, Plan, Settings, Texts, Tokenize, preference};
use crate::training::report::Fact;

/// Learning from pairs.
#[derive(Debug)]
pub(crate) struct Dpo;

impl Method for Dpo {
    const TITLE: &'static str = "Preference learning from pairs";
    type Config = DpoConfig;
    type Record = TripleRecord;
    type Example = PreferenceExample;
    type Row = PreferenceExample;
    type Model = Decoder;
    type Trainer = DpoTrainer<Decoder>;

    fn tokenize<'a>(config: &'a DpoConfig, texts: Texts<'a>) -> Tokenize<'a, Self> {
        let tokenizers = preference::Tokenizers::new(texts, config.max_length.get(), OnTooLong::Truncate);
        if config.objective.reads_gold() {
            return Box::new(move |located| tokenizers.tokenized(|tokenizer| tokenizer.triple(located)));
        }
        Box::new(move |located| tokenizers.pair(&preference::alone(located, located.record.pair.clone())))
    }

    fn rows(_: &DpoConfig, examples: &[PreferenceExample]) -> Vec<PreferenceExample> {
        examples.to_vec()
    }

    fn tokens(row: &PreferenceExample) -> usize {
        preference::tokens(row)
    }

    fn pass(_: &DpoConfig, rows: &[&PreferenceExample]) -> (TokenBatch, usize) {
        preference::pass(rows)
    }

    fn copies(config: &DpoConfig) -> usize {
        preference::copies(config.reference_policy())
    }

    fn trainer(
        config: &DpoConfig,
        model: Decoder,
        lesson: Lesson<'_, PreferenceExample>,
    ) -> Result<DpoTrainer<Decoder>> {
        let reference = preference::reference(config.reference_policy(), &model, || {
            let pairs = lesson.examples.concat();
            let ask = || ReferenceLogProbs::of_pairs(&model, &pairs, config.micro_batch_size);
            preference::precomputed(&model, lesson.cache, &pairs, ask)
        })?;
        Ok(DpoTrainer::new(model, reference, config, lesson.steps)?)
    }

    fn evaluate(
        _: &DpoConfig,
        trainer: &Averaged<DpoTrainer<Decoder>>,
        examples: &[PreferenceExample],
        _: &Kit<'_>,
    ) -> Result<Measured> {
        Ok(preference::measured(&trainer.trainer().evaluate(&trainer.result(), examples)?))
    }

    fn facts(config: &DpoConfig) -> Vec<Fact> {
        let objective = match &config.objective {
            Objective::Dpo(objective) => preference::named(&objective.losses),
            Objective::ReferenceFree(objective) => preference::named(&objective.loss),
        };
        let reference =
            config.reference_policy().map(|policy| Fact::new("reference", preference::named(&policy)));
        let beta = config.dynamic_beta.map(|_| Fact::new("beta", "follows the margins"));
        std::iter::once(Fact::new("objective", objective)).chain(reference).chain(beta).collect()
    }
}

impl Settings for DpoConfig {
    const NAME: &'static str = "dpo";

    fn check(&self) -> Result<()> {
        Ok(Self::check(self)?)
    }

    fn check_around(&self, around: Around) -> Result<()> {
        preference::check_reference(Self::NAME, self.reference_policy(), around)
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
