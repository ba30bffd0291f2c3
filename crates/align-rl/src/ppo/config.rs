//! The settings of PPO.

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::Recompute,
    generate::{Decoding, Sampling},
    number::{NonNegative, Positive, UnitInterval},
    sft::Duration,
    train::UpdateConfig,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::RlConfigError,
    kl::{KlControl, KlController, KlEstimator},
    loss::{Aggregation, RatioLevel, ScorePlacement, ScoreRange, Surrogate, Whitening},
    objective::PolicyObjective,
    reference::PolicyReference,
    rollout::RolloutConfig,
    watch::{AlarmConfig, Danger, default_alarms},
};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const FOUR: NonZeroUsize = ONE.saturating_add(3);
const EIGHT: NonZeroUsize = ONE.saturating_add(7);
const SIXTY_FOUR: NonZeroUsize = ONE.saturating_add(63);

/// Everything that PPO needs to be repeated, but the models, the rewards and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// What is minimised for the policy; a `kl` in it is a divergence in the loss.
    pub objective: PolicyObjective,
    /// What is minimised for the critic.
    pub value: ValueObjective,
    /// The divergence from the reference in the reward of every token. Unless given, `k1` times 0.05, and nothing where the
    /// objective has a `kl` of its own.
    pub kl: Option<RewardKl>,
    /// What becomes of scores before they are rewards of tokens.
    pub rewards: RewardShaping,
    /// How much a reward one token later is worth. TRL: 1.
    pub gamma: UnitInterval,
    /// How far advantages trust the rewards that came more than the critic: 1 is the whole return, 0 a single step. TRL:
    /// 0.95.
    pub lambda: UnitInterval,
    /// How advantages are whitened, over all tokens of a step.
    pub advantage_whitening: AdvantageWhitening,
    /// What the policy is held to. Unless given, a frozen copy where there is a `kl`.
    pub reference: Option<PolicyReference>,
    /// How completions are sampled. One a prompt is usual.
    pub rollout: RolloutConfig,
    /// How long the run is, in passes over the prompts or in steps.
    pub duration: Duration,
    /// Prompts a step.
    pub batch_size: NonZeroUsize,
    /// Completions a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// Passes over the completions of a step: TRL's `num_ppo_epochs`.
    pub epochs: NonZeroUsize,
    /// Updates that an epoch is cut into: TRL's `num_mini_batches`.
    pub mini_batches: NonZeroUsize,
    /// In which order an epoch takes completions.
    pub order: EpochOrder,
    /// Ends a step's updates once the policy is so far, in nats a token, from the one that sampled: `½·mean (log π − log
    /// π_old)²`. None unless given; 0.01 to 0.05 is usual.
    pub epoch_kl_limit: Option<Positive>,
    /// Learning rate, schedule, optimiser, clipping of the policy. TRL's learning rate: 3e-6.
    pub update: UpdateConfig,
    /// The same of the critic.
    pub critic_update: UpdateConfig,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Seed of the order of prompts and completions, of sampling and of dropout.
    pub seed: u64,
    /// What to look out for while the run goes on, and what to do then.
    pub alarms: Vec<AlarmConfig>,
}

/// What is minimised for the critic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueObjective {
    /// How far a value may move in one step.
    pub clipping: ValueClipping,
    /// What the mean loss is multiplied by before the critic's gradients are clipped. TRL's `vf_coef`: 0.1, in an optimiser
    /// that both models have in common.
    pub coefficient: Positive,
}

/// How far a value may move before it learns no more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ValueClipping {
    /// As far as it will.
    Off {},
    /// So far from what it was when the completions were sampled. TRL: 0.2; OpenRLHF and verl: 0.5.
    Range {
        /// In both directions.
        range: Positive,
    },
}

/// The divergence from the reference as a part of every token's reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RewardKl {
    /// It is no part of the reward.
    Off {},
    /// Each token loses the divergence at it, times a coefficient.
    PerToken {
        /// How it is estimated. `k1` unless given: its expectation is the divergence, and it needs no gradient here.
        #[serde(default = "k1")]
        estimator: KlEstimator,
        /// What it is multiplied by, at first. TRL: 0.05.
        #[serde(default = "five_hundredths")]
        coefficient: Positive,
        /// How the coefficient changes with the divergence of whole completions, in nats: not at all unless given.
        #[serde(default)]
        control: KlControl,
    },
}

/// What becomes of scores before they are rewards of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardShaping {
    /// Scores beyond this count as this; unlimited unless given. OpenRLHF: −10 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<ScoreRange>,
    /// What the score of a completion that did not end by itself loses, after clipping; nothing unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_end_penalty: Option<Positive>,
    /// Which token is given a completion's score.
    pub placement: ScorePlacement,
    /// How rewards of tokens are whitened.
    pub whitening: RewardWhitening,
}

/// How rewards of tokens are whitened, over all tokens of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardWhitening {
    /// Not at all.
    #[default]
    Off,
    /// Their variance becomes 1 and they keep their mean: TRL's `whiten_rewards`.
    KeepMean,
}

/// How advantages are whitened, over all tokens of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageWhitening {
    /// Not at all.
    Off,
    /// [`Whitening::Corrected`]: TRL, verl.
    #[default]
    Corrected,
    /// [`Whitening::Biased`]: `OpenRLHF`.
    Biased,
    /// [`Whitening::Centered`]: their mean becomes 0, their spread stays.
    Centered,
}

/// In which order an epoch takes completions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochOrder {
    /// In another one each time.
    #[default]
    Shuffled,
    /// As they were sampled.
    AsSampled,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            objective: clipped(),
            value: ValueObjective::default(),
            kl: None,
            rewards: RewardShaping::default(),
            gamma: UnitInterval::new(1.0),
            lambda: UnitInterval::new(0.95),
            advantage_whitening: AdvantageWhitening::default(),
            reference: None,
            rollout: RolloutConfig { samples: ONE, ..RolloutConfig::default() },
            duration: Duration::Epochs(Positive::new(1.0)),
            batch_size: SIXTY_FOUR,
            micro_batch_size: EIGHT,
            epochs: FOUR,
            mini_batches: ONE,
            order: EpochOrder::default(),
            epoch_kl_limit: None,
            update: rate(1e-6),
            critic_update: rate(1e-5),
            recompute: Recompute::default(),
            seed: 42,
            alarms: alarms(),
        }
    }
}

impl Default for ValueObjective {
    /// Values are clipped as in TRL, and their loss is not scaled: the critic has an optimiser of its own.
    fn default() -> Self {
        let clipping = ValueClipping::Range { range: Positive::new(0.2) };
        Self { clipping, coefficient: Positive::new(1.0) }
    }
}

impl Default for RewardKl {
    /// TRL's: `k1` times 0.05.
    fn default() -> Self {
        Self::PerToken { estimator: k1(), coefficient: five_hundredths(), control: KlControl::default() }
    }
}

impl PpoConfig {
    /// What TRL's `PPOTrainer` does unless told otherwise. In two things its own code is not followed: gradients are clipped,
    /// as its settings say, and policy and critic have an optimiser each.
    #[must_use]
    pub fn trl() -> Self {
        let temperature = Positive::new(0.7);
        let decoding = Decoding::Sample(Sampling { temperature, ..Sampling::default() });
        let (samples, max_new_tokens) = (ONE, ONE.saturating_add(52));
        Self {
            value: ValueObjective { coefficient: Positive::new(0.1), ..ValueObjective::default() },
            rewards: RewardShaping { placement: ScorePlacement::AfterLastAction, ..RewardShaping::default() },
            rollout: RolloutConfig { samples, max_new_tokens, decoding, ..RolloutConfig::default() },
            update: rate(3e-6),
            critic_update: rate(3e-6),
            ..Self::default()
        }
    }

    /// The divergence in the reward.
    #[must_use]
    pub fn reward_kl(&self) -> RewardKl {
        let unless_given = if self.objective.kl.is_some() { RewardKl::Off {} } else { RewardKl::default() };
        self.kl.unwrap_or(unless_given)
    }

    /// What the policy is held to; `None` without a divergence.
    #[must_use]
    pub fn reference_policy(&self) -> Option<PolicyReference> {
        self.needs_reference().then(|| self.reference.unwrap_or(PolicyReference::Frozen {}))
    }

    /// What steers the divergence in the reward, at the beginning of a run.
    pub(super) fn kl_controller(&self) -> KlController {
        match self.reward_kl() {
            RewardKl::Off {} => KlController::new(NonNegative::new(0.0), KlControl::Fixed {}),
            RewardKl::PerToken { coefficient, control, .. } => {
                KlController::new(NonNegative::new(coefficient.get()), control)
            }
        }
    }

    /// Updates that a step makes, at most.
    #[must_use]
    pub fn updates_per_step(&self) -> u64 {
        (self.epochs.get() * self.mini_batches.get()) as u64
    }

    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), RlConfigError> {
        let completions = self.batch_size.get() * self.rollout.samples.get();
        let mini_batches = self.mini_batches.get();
        if mini_batches > completions {
            let problem = format!("is {mini_batches}, more than the {completions} completions of a step");
            return Err(setting("mini_batches", problem));
        }
        let (micro, batch) = (self.micro_batch_size.get(), completions);
        if micro > batch {
            return Err(RlConfigError::MicroBatchTooLarge { micro, batch });
        }
        self.update.schedule.check(self.update.learning_rate.get())?;
        self.critic_update.schedule.check(self.critic_update.learning_rate.get())?;
        self.objective.check()?;
        if let Some(ScoreRange { low, high }) = self.rewards.clip
            && (low.is_nan() || high.is_nan() || low >= high)
        {
            return Err(setting("rewards.clip", format!("has no range from {low} to {high}")));
        }
        self.check_reference()
    }

    fn check_reference(&self) -> Result<(), RlConfigError> {
        if matches!(self.kl, Some(RewardKl::PerToken { .. })) && self.objective.kl.is_some() {
            let problem =
                "and `objective.kl` would both hold the policy to its reference: leave one of them out";
            return Err(setting("kl", problem));
        }
        if matches!(self.kl, Some(RewardKl::PerToken { estimator: KlEstimator::Exact, .. })) {
            let problem = "has no `exact` in a reward: it is for `objective.kl`";
            return Err(setting("kl.estimator", problem));
        }
        if self.reference.is_some() && !self.needs_reference() {
            let problem = "has no meaning without `kl` or `objective.kl`: leave it out";
            return Err(setting("reference", problem));
        }
        let spends = |alarm: &AlarmConfig| matches!(alarm.when, Danger::KlBudget { .. });
        if self.alarms.iter().any(spends) && !self.needs_reference() {
            return Err(setting("alarms", "have a `kl_budget`, and there is no `kl` to spend"));
        }
        Ok(())
    }

    fn needs_reference(&self) -> bool {
        matches!(self.reward_kl(), RewardKl::PerToken { .. }) || self.objective.kl.is_some()
    }
}

impl AdvantageWhitening {
    /// What it is called among the ways to whiten; `None` for none.
    #[must_use]
    pub fn convention(self) -> Option<Whitening> {
        match self {
            Self::Off => None,
            Self::Corrected => Some(Whitening::Corrected),
            Self::Biased => Some(Whitening::Biased),
            Self::Centered => Some(Whitening::Centered),
        }
    }
}

/// PPO's own objective: ratios of tokens, clipped at 0.2 on both sides, and the mean over tokens.
fn clipped() -> PolicyObjective {
    let fifth = NonNegative::new(0.2);
    PolicyObjective {
        ratio: RatioLevel::Token,
        surrogate: Surrogate::Clipped { low: fifth, high: fifth, ceiling: None },
        aggregation: Aggregation::TokenMean {},
        ..PolicyObjective::default()
    }
}

/// What nearly every run should be warned of; groups of one completion never differ.
fn alarms() -> Vec<AlarmConfig> {
    let mut alarms = default_alarms();
    alarms.retain(|alarm| !matches!(alarm.when, Danger::NoSignal { .. }));
    alarms
}

fn setting(key: &'static str, problem: impl Into<String>) -> RlConfigError {
    RlConfigError::Setting { key, problem: problem.into() }
}

fn rate(learning_rate: f64) -> UpdateConfig {
    UpdateConfig { learning_rate: Positive::new(learning_rate), ..UpdateConfig::default() }
}

fn k1() -> KlEstimator {
    KlEstimator::K1
}

fn five_hundredths() -> Positive {
    Positive::new(0.05)
}
