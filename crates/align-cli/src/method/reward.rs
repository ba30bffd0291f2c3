//! Reward models, from pairs.

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::TokenBatch,
    data::PreferenceRecord,
    decoder::Decoder,
    preference::{OnTooLong, PreferenceExample},
    train::Averaged,
};
use align_reward::{
    model::RewardModel,
    trainer::{RewardConfig, RewardObjective, RewardTrainer, evaluate_pairs},
};
use anyhow::{Result, ensure};

use super::{Kit, Lesson, Measured, Method, ModelKind, Plan, Settings, Texts, Tokenize, preference};
use crate::training::report::Fact;

/// Training a reward model on pairs.
#[derive(Debug)]
pub(crate) struct Reward;

impl Method for Reward {
    const TITLE: &'static str = "Reward modelling";
    type Config = RewardConfig;
    type Record = PreferenceRecord;
    type Example = PreferenceExample;
    type Row = PreferenceExample;
    type Model = RewardModel<Decoder>;
    type Trainer = RewardTrainer<Decoder>;

    fn tokenize<'a>(config: &'a RewardConfig, texts: Texts<'a>) -> Tokenize<'a, Self> {
        let tokenizers = preference::Tokenizers::new(texts, config.max_length.get(), OnTooLong::LeaveOut);
        Box::new(move |located| tokenizers.pair(located))
    }

    fn rows(_: &RewardConfig, examples: &[PreferenceExample]) -> Vec<PreferenceExample> {
        examples.to_vec()
    }

    fn tokens(row: &PreferenceExample) -> usize {
        preference::tokens(row)
    }

    /// The loss is on the last token of each completion.
    fn pass(_: &RewardConfig, rows: &[&PreferenceExample]) -> (TokenBatch, usize) {
        (preference::pass(rows).0, 2 * rows.len())
    }

    fn trainer(
        config: &RewardConfig,
        model: RewardModel<Decoder>,
        lesson: Lesson<'_, PreferenceExample>,
    ) -> Result<RewardTrainer<Decoder>> {
        Ok(RewardTrainer::new(model, config, lesson.steps)?)
    }

    fn evaluate(
        config: &RewardConfig,
        trainer: &Averaged<RewardTrainer<Decoder>>,
        examples: &[PreferenceExample],
        _: &Kit<'_>,
    ) -> Result<Measured> {
        Ok(evaluate_pairs(&trainer.result(), examples, config)?.metrics())
    }

    fn facts(config: &RewardConfig) -> Vec<Fact> {
        vec![Fact::new("learns from", config.objective.data())]
    }
}

impl Settings for RewardConfig {
    const NAME: &'static str = "reward";
    const MODEL: ModelKind = ModelKind::Reward;

    fn check(&self) -> Result<()> {
        ensure!(
            matches!(self.objective, RewardObjective::Pairs { .. }),
            "`objective.kind` = \"pairs\" is what data files can give: rankings, ratings and grades are for programs"
        );
        Ok(Self::check(self)?)
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
