//! What the methods that learn from rewards have in common.

use std::{fmt, num::NonZeroUsize};

use align_model::{
    causal_lm::TokenBatch,
    checkpoint::Resumable,
    data::PromptRecord,
    decoder::Decoder,
    memory::parameters,
    tokenizer::Tokenizer,
    train::{Averaged, Step, Trains},
};
use align_reward::{function::score_rollouts, rollout::Rollout, score::Score, spec::RewardSpec};
use align_rl::{
    PolicyReference, Rewards, RlReport,
    group::{HeldOut, PolicyEvaluation},
    rollout::{PromptExample, RolloutConfig},
    watch::GoldEvaluation,
};
use anyhow::{Context as _, Result, ensure};

use super::{
    Beside, Kit, Lesson, Measured, Method, News, Settings, Texts, Tokenize, prompted,
    reward_models::RewardModelFiles,
};
use crate::{
    run_file::rewards::{RewardSource, RewardsTable},
    training::report::Fact,
};

/// A method whose policy answers prompts and learns from what rewards say of the answers.
pub(crate) trait Scored: fmt::Debug + Sized {
    /// What it is, for people.
    const TITLE: &'static str;
    /// The settings, which are a table of the run file.
    type Config: Settings;
    /// Who trains the policy.
    type Trainer: Step<[PromptExample], Report = RlReport> + Trains<Model = Decoder> + Resumable + fmt::Debug;

    /// How the policy answers.
    fn rollout(config: &Self::Config) -> &RolloutConfig;

    /// What the policy is held to, if it is.
    fn reference(_config: &Self::Config) -> Option<PolicyReference> {
        None
    }

    /// The trainer at the start of a run.
    fn trainer(config: &Self::Config, parts: Parts, kit: &Kit<'_>) -> Result<Self::Trainer>;

    /// The largest pass over completions of some prompts.
    fn pass(config: &Self::Config, prompts: &[&PromptExample]) -> (TokenBatch, usize) {
        prompted::pass(Self::rollout(config), config.plan().micro_batch_size.get(), prompts)
    }

    /// What a step needs besides its passes, what is sampled, and reward models.
    fn beside(
        _config: &Self::Config,
        _prompts: &[PromptExample],
        _policy: &Decoder,
        _kit: &Kit<'_>,
    ) -> Result<Vec<Beside>> {
        Ok(Vec::new())
    }

    /// Checks models that the run needs besides the policy and reward models.
    fn check_models(_kit: &Kit<'_>) -> Result<()> {
        Ok(())
    }

    /// What is measured on prompts that are not trained on.
    fn evaluate(
        config: &Self::Config,
        trainer: &Averaged<Self::Trainer>,
        prompts: &[PromptExample],
        kit: &Kit<'_>,
    ) -> Result<Measured> {
        let found = held_out::<Self>(config, &trainer.result(), None, prompts, kit)?;
        Ok(told(found.metrics()))
    }

    /// What the report tells of the settings, but for the reference.
    fn facts(config: &Self::Config) -> Vec<Fact>;
}

/// What a trainer is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(super) policy: Decoder,
    pub(super) reference: Option<Decoder>,
    pub(super) rewards: Rewards,
    pub(super) tokenizer: Option<Tokenizer>,
    /// How completions are sampled, and that they end where the model ends what it says.
    pub(super) rollout: RolloutConfig,
    pub(super) steps: u64,
}

impl<S: Scored> Method for S {
    const TITLE: &'static str = <S as Scored>::TITLE;
    type Config = <S as Scored>::Config;
    type Record = PromptRecord;
    type Example = PromptExample;
    type Row = PromptExample;
    type Model = Decoder;
    type Trainer = <S as Scored>::Trainer;

    fn tokenize<'a>(config: &'a S::Config, texts: Texts<'a>) -> Tokenize<'a, Self> {
        Box::new(prompted::tokenize(S::rollout(config), texts))
    }

    fn rows(_: &S::Config, examples: &[PromptExample]) -> Vec<PromptExample> {
        examples.to_vec()
    }

    fn tokens(row: &PromptExample) -> usize {
        row.tokens.len()
    }

    fn pass(config: &S::Config, rows: &[&PromptExample]) -> (TokenBatch, usize) {
        <S as Scored>::pass(config, rows)
    }

    fn copies(config: &S::Config) -> usize {
        S::reference(config).map_or(0, prompted::copies)
    }

    fn beside(
        config: &S::Config,
        examples: &[PromptExample],
        model: &Decoder,
        kit: &Kit<'_>,
    ) -> Result<Vec<Beside>> {
        let (rollout, plan) = (S::rollout(config), config.plan());
        let sequences = plan.batch_size.get() * rollout.samples.get();
        let mut beside = vec![prompted::keys_and_values(rollout, sequences, examples, model.config())];
        for path in kit.rewards.models() {
            let files = RewardModelFiles::open(path)?;
            let count = parameters(files.checkpoint.architecture().config());
            beside.push(Beside { name: "reward model", bytes: 4 * count as u64 });
        }
        beside.extend(<S as Scored>::beside(config, examples, model, kit)?);
        Ok(beside)
    }

    fn trainer(config: &S::Config, model: Decoder, lesson: Lesson<'_, PromptExample>) -> Result<S::Trainer> {
        let kit = &lesson.kit;
        let parts = Parts {
            reference: S::reference(config).map(|kind| prompted::reference(kind, &model)),
            policy: model,
            rewards: kit.training_rewards()?,
            tokenizer: Some(kit.tokenizer.clone()),
            rollout: prompted::ending(S::rollout(config), kit),
            steps: lesson.steps,
        };
        <S as Scored>::trainer(config, parts, kit)
    }

    fn evaluate(
        config: &S::Config,
        trainer: &Averaged<S::Trainer>,
        examples: &[PromptExample],
        kit: &Kit<'_>,
    ) -> Result<Measured> {
        <S as Scored>::evaluate(config, trainer, examples, kit)
    }

    fn gold(
        config: &S::Config,
        [policy, start]: [&Decoder; 2],
        examples: &[PromptExample],
        gold: &RewardsTable,
        kit: &Kit<'_>,
    ) -> Result<GoldEvaluation> {
        let mut found = held_out::<S>(config, policy, Some(start), examples, kit)?;
        let of = |found: &PolicyEvaluation| {
            found.reward().context("no completion of the held-out prompts has a score")
        };
        let (proxy, kl) = (of(&found)?.mean, found.kl.unwrap_or_default());
        let rollouts: Vec<Rollout> =
            found.scored.samples.iter().map(|sample| sample.rollout.clone()).collect();
        found.scored.scores = Rewards::from(kit.build(gold)?).score(&rollouts)?;
        let gold = of(&found).context("gold.rewards")?;
        Ok(GoldEvaluation { kl, proxy, gold: gold.mean, gold_standard_error: gold.standard_error })
    }

    fn news(report: &RlReport) -> News<'_> {
        News { rollouts: &report.rollouts, alarms: &report.alarms }
    }

    fn check_examples(_: &S::Config, examples: &[PromptExample], kit: &Kit<'_>) -> Result<()> {
        S::check_models(kit)?;
        check_rewards(examples, kit)
    }

    fn tried(
        config: &S::Config,
        policy: &Decoder,
        examples: &[PromptExample],
        kit: &Kit<'_>,
    ) -> Result<Vec<String>> {
        let (rollout, seed) = (prompted::tried(S::rollout(config), kit), config.plan().seed);
        tried(&rollout, seed, policy, examples, kit)
    }

    fn facts(config: &S::Config) -> Vec<Fact> {
        let reference =
            S::reference(config).map(|kind| Fact::new("reference", super::preference::named(&kind)));
        <S as Scored>::facts(config).into_iter().chain(reference).collect()
    }
}

/// One completion of each held-out prompt, what it got, and how far `policy` is from `start`, if that is given.
fn held_out<S: Scored>(
    config: &S::Config,
    policy: &Decoder,
    start: Option<&Decoder>,
    prompts: &[PromptExample],
    kit: &Kit<'_>,
) -> Result<PolicyEvaluation> {
    let once = RolloutConfig { samples: NonZeroUsize::MIN, ..prompted::ending(S::rollout(config), kit) };
    let seed = config.plan().seed;
    let held_out = HeldOut { prompts, rollout: &once, seed, tokenizer: Some(kit.tokenizer) };
    Ok(held_out.evaluate(policy, start, &mut Rewards::from(kit.new_rewards()?))?)
}

/// What is told of an evaluation: with one completion of a prompt there is no spread inside its group.
pub(super) fn told(metrics: Vec<(String, f64)>) -> Measured {
    metrics.into_iter().filter(|(name, _)| name != "frac_reward_zero_std").collect()
}

/// Prompts by which rewards are tried before a run.
const TRIED: usize = 8;

/// Checks that every reward can say something of the first prompts: that it finds the columns that it needs.
pub(super) fn check_rewards(prompts: &[PromptExample], kit: &Kit<'_>) -> Result<()> {
    let rollouts: Vec<Rollout> = prompts
        .iter()
        .take(TRIED)
        .map(|prompt| Rollout { columns: prompt.columns.clone(), ..Rollout::new(prompt.prompt.clone(), "") })
        .collect();
    for (index, part) in kit.rewards.parts.iter().enumerate() {
        match &part.source {
            RewardSource::Model(table) => {
                RewardModelFiles::open(&table.path).with_context(|| format!("rewards[{index}].path"))?;
            }
            RewardSource::Described(spec) => {
                try_reward(spec, &rollouts).with_context(|| format!("rewards[{index}]"))?;
            }
        }
    }
    Ok(())
}

/// Why there is no score.
fn reason(score: Score) -> Option<String> {
    match score {
        Score::Value(_) => None,
        Score::Unscored { reason } => Some(reason),
    }
}

fn try_reward(spec: &RewardSpec, rollouts: &[Rollout]) -> Result<()> {
    let mut reward = spec.build()?;
    let scores = score_rollouts(&mut reward, rollouts)?.scores;
    let reasons: Vec<String> = scores.into_iter().filter_map(reason).collect();
    ensure!(
        reasons.len() < rollouts.len() || rollouts.is_empty(),
        "it scores none of the first {} prompts: {}",
        rollouts.len(),
        reasons.first().map_or("", String::as_str)
    );
    Ok(())
}

/// Some short completions of a policy that has not learnt anything yet, with their scores.
fn tried(
    rollout: &RolloutConfig,
    seed: u64,
    policy: &Decoder,
    prompts: &[PromptExample],
    kit: &Kit<'_>,
) -> Result<Vec<String>> {
    let held_out = HeldOut { prompts, rollout, seed, tokenizer: Some(kit.tokenizer) };
    let scored = held_out.evaluate(policy, None, &mut Rewards::from(kit.new_rewards()?))?.scored;
    let (count, most) = (scored.samples.len(), rollout.max_new_tokens);
    let heading =
        format!("completions {count} of the model as it is, of at most {most} tokens, and what they get");
    let rows = scored.rows(0, &vec![None; count]);
    let totals = scored.scores.totals;
    ensure!(
        count == 0 || totals.iter().any(|score| !score.is_unscored()),
        "[[rewards]] give none of {count} completions a score: {}",
        totals.into_iter().find_map(reason).unwrap_or_default()
    );
    Ok(std::iter::once(heading).chain(rows.iter().map(|row| format!("\n{row}"))).collect())
}
