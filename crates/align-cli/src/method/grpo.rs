//! Learning from completions of one prompt that are compared with each other: GRPO and its relatives.

use align_model::{causal_lm::TokenBatch, data::PromptRecord, decoder::Decoder, train::Averaged};
use align_rl::{GroupConfig, GroupTrainer, RlReport, rollout::PromptExample, watch::GoldEvaluation};
use anyhow::Result;

use super::{
    Around, Beside, Kit, LearnsFrom, Lesson, Measured, Method, News, Plan, Settings, Texts, Tokenize,
    preference::named, scored,
};
use crate::{run_file::rewards::RewardsTable, training::report::Fact};

/// Learning from groups of completions.
#[derive(Debug)]
pub(crate) struct Grpo;

impl Method for Grpo {
    const TITLE: &'static str = "Learning from groups of completions";
    type Config = GroupConfig;
    type Record = PromptRecord;
    type Example = PromptExample;
    type Row = PromptExample;
    type Model = Decoder;
    type Trainer = GroupTrainer<Decoder>;

    fn tokenize<'a>(config: &'a GroupConfig, texts: Texts<'a>) -> Tokenize<'a, Self> {
        Box::new(scored::tokenize(&config.rollout, texts))
    }

    fn rows(_: &GroupConfig, examples: &[PromptExample]) -> Vec<PromptExample> {
        examples.to_vec()
    }

    fn tokens(row: &PromptExample) -> usize {
        row.tokens.len()
    }

    fn pass(config: &GroupConfig, rows: &[&PromptExample]) -> (TokenBatch, usize) {
        scored::pass(&config.rollout, config.micro_batch_size.get(), rows)
    }

    fn copies(config: &GroupConfig) -> usize {
        scored::copies(config.reference_policy())
    }

    fn beside(
        config: &GroupConfig,
        examples: &[PromptExample],
        model: &Decoder,
        kit: &Kit<'_>,
    ) -> Result<Vec<Beside>> {
        let sequences = config.prompts_per_step().get() * config.rollout.samples.get();
        scored::beside(&config.rollout, sequences, examples, model, kit)
    }

    fn trainer(
        config: &GroupConfig,
        model: Decoder,
        lesson: Lesson<'_, PromptExample>,
    ) -> Result<GroupTrainer<Decoder>> {
        let kit = &lesson.kit;
        let config = GroupConfig { rollout: scored::ending(&config.rollout, kit), ..config.clone() };
        let reference = scored::reference(config.reference_policy(), &model);
        let (rewards, tokenizer) = (kit.training_rewards()?, Some(kit.tokenizer.clone()));
        Ok(GroupTrainer::new(model, reference, rewards, tokenizer, &config, lesson.steps)?)
    }

    fn evaluate(
        config: &GroupConfig,
        trainer: &Averaged<GroupTrainer<Decoder>>,
        examples: &[PromptExample],
        kit: &Kit<'_>,
    ) -> Result<Measured> {
        scored::evaluate(&config.rollout, config.seed, &trainer.result(), examples, kit)
    }

    fn gold(
        config: &GroupConfig,
        models: [&Decoder; 2],
        examples: &[PromptExample],
        gold: &RewardsTable,
        kit: &Kit<'_>,
    ) -> Result<GoldEvaluation> {
        scored::gold(&config.rollout, config.seed, models, (examples, gold), kit)
    }

    fn news(report: &RlReport) -> News<'_> {
        News { rollouts: &report.rollouts, alarms: &report.alarms }
    }

    fn check_examples(_: &GroupConfig, examples: &[PromptExample], kit: &Kit<'_>) -> Result<()> {
        scored::check_rewards(examples, kit)
    }

    fn tried(
        config: &GroupConfig,
        policy: &Decoder,
        examples: &[PromptExample],
        kit: &Kit<'_>,
    ) -> Result<Vec<String>> {
        scored::tried(&config.rollout, config.seed, policy, examples, kit)
    }

    fn facts(config: &GroupConfig) -> Vec<Fact> {
        let reference = config.reference_policy().map(|policy| Fact::new("reference", named(&policy)));
        let facts = [
            Fact::new("objective", named(&config.algorithm.objective)),
            Fact::new("advantages", named(&config.algorithm.advantages)),
            Fact::new("completions of a prompt", config.rollout.samples),
        ];
        facts.into_iter().chain(reference).collect()
    }
}

impl Settings for GroupConfig {
    const NAME: &'static str = "grpo";
    const LEARNS_FROM: LearnsFrom = LearnsFrom::Rewards;
    const LENGTH: &'static str = "rollout.max_new_tokens";

    fn check(&self) -> Result<()> {
        Ok(Self::check(self)?)
    }

    fn check_around(&self, around: Around) -> Result<()> {
        scored::check_reference(Self::NAME, self.reference_policy(), around)
    }

    fn plan(&self) -> Plan {
        Plan {
            duration: self.duration,
            batch_size: self.prompts_per_step(),
            micro_batch_size: self.micro_batch_size,
            samples: self.rollout.samples,
            max_length: self.rollout.max_new_tokens,
            packing: None,
            recompute: self.recompute,
            learning_rate: self.update.learning_rate.get(),
            seed: self.seed,
        }
    }
}
