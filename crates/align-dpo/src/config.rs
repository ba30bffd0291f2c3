//! The settings of learning from preferences.

use std::num::{NonZeroU64, NonZeroUsize};

use align_model::{
    causal_lm::Recompute,
    number::{Positive, PositiveUnit, ProperFraction},
    sft::Duration,
    train::{FollowPolicy, ScheduleError, UpdateConfig},
};
use serde::{Deserialize, Serialize};

use crate::{
    loss::{
        Baseline, Divergence, DynamicBetaConfig, ImplicitReward, LengthDesensitization, PairLoss,
        PairObjective, ReferenceFreeLoss, ReferenceFreeObjective, UnpairedLoss,
    },
    objective::Objective,
};

const EIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
const MAX_LENGTH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
const SYNC_STEPS: NonZeroU64 = NonZeroU64::MIN.saturating_add(511);

/// What the policy is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReferencePolicy {
    /// A model that stays as it is: a copy of the one that training begins with, unless another is given.
    Frozen {},
    /// The policy without its adapter, which takes no memory of its own.
    AdapterOff {},
    /// Log-probabilities that were computed before training, kept in a file.
    Precomputed {},
    /// The policy of some steps ago: it begins as the policy does, and every so many steps it moves toward it.
    Moving {
        /// Steps between two moves. TRL's `ref_model_sync_steps`: 512.
        #[serde(default = "sync_steps")]
        every: NonZeroU64,
        /// How far it moves: 1 makes it the policy. TRL's `ref_model_mixup_alpha`: 0.6.
        #[serde(default = "mixup")]
        mixup: PositiveUnit,
    },
    /// A moving average of the policy, taken after each step.
    Averaged {
        /// How much of the average remains at each step.
        decay: ProperFraction,
    },
}

impl ReferencePolicy {
    /// How it follows the policy; `None` if it never moves.
    pub(crate) fn follows(self) -> Option<FollowPolicy> {
        match self {
            Self::Frozen {} | Self::AdapterOff {} | Self::Precomputed {} => None,
            Self::Moving { every, mixup } => Some(FollowPolicy::moving(every, mixup)),
            Self::Averaged { decay } => Some(FollowPolicy::averaged(decay)),
        }
    }
}

/// How much each pair counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairWeighting {
    /// All the same.
    #[default]
    Equal,
    /// By how likely the policy itself would write it: WPO, TRL's `use_weighting`.
    Policy,
}

/// Everything that learning from pairs needs to be repeated, but the model and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoConfig {
    /// What is minimised.
    pub objective: Objective,
    /// Tokens beyond the other completion's length count for less: LD-DPO, TRL's `ld_alpha`.
    pub length_desensitization: Option<LengthDesensitization>,
    /// β follows the margins of each batch, around the objective's: β-DPO. Rewards are measured with the objective's, and so
    /// is the loss of an evaluation.
    pub dynamic_beta: Option<DynamicBetaConfig>,
    /// How much each pair counts.
    pub weighting: PairWeighting,
    /// What the policy is measured against. Unless given, a frozen copy for an objective that needs a reference.
    pub reference: Option<ReferencePolicy>,
    /// How long the run is.
    pub duration: Duration,
    /// Pairs an optimiser step. transformers: 8.
    pub batch_size: NonZeroUsize,
    /// Pairs a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// Pairs that a loss is a mean of, where that is more than the mean of one number a pair: the tokens of likelihood
    /// terms, the sorted margins of `aot`, the mean margin of a dynamic β. The whole batch unless given; TRL: the batch of one device, so that gradient
    /// accumulation changes its results. A step's loss is the mean over such groups.
    pub loss_batch_size: Option<NonZeroUsize>,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Tokens of a prompt with its completion, at most. TRL: 1024.
    pub max_length: NonZeroUsize,
    /// Learning rate, schedule, optimiser, clipping. TRL's learning rate: 1e-6.
    pub update: UpdateConfig,
    /// Seed of the order of pairs and of dropout.
    pub seed: u64,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self {
            objective: Objective::default(),
            length_desensitization: None,
            dynamic_beta: None,
            weighting: PairWeighting::default(),
            reference: None,
            duration: Duration::Epochs(Positive::new(3.0)),
            batch_size: EIGHT,
            micro_batch_size: EIGHT,
            loss_batch_size: None,
            recompute: Recompute::default(),
            max_length: MAX_LENGTH,
            update: slow_update(),
            seed: 42,
        }
    }
}

impl DpoConfig {
    /// A run with this objective and TRL's values for everything else.
    #[must_use]
    pub fn of(objective: Objective) -> Self {
        Self { objective, ..Self::default() }
    }

    /// What the policy is measured against; `None` for an objective that needs no reference.
    #[must_use]
    pub fn reference_policy(&self) -> Option<ReferencePolicy> {
        self.objective.needs_reference().then(|| self.reference.unwrap_or(ReferencePolicy::Frozen {}))
    }

    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), PreferenceConfigError> {
        check_sizes(self.batch_size, self.micro_batch_size)?;
        self.update.schedule.check(self.update.learning_rate.get())?;
        if self.reference.is_some() && !self.objective.needs_reference() {
            return Err(PreferenceConfigError::NeedlessReference);
        }
        let is_weighted = self.weighting == PairWeighting::Policy;
        match &self.objective {
            Objective::Dpo(objective) => {
                if self.dynamic_beta.is_some() && !objective.needs_reference() {
                    return Err(PreferenceConfigError::NoBeta);
                }
                check_pairs(objective, is_weighted)
            }
            Objective::ReferenceFree(objective) => {
                let only_dpo = |key| PreferenceConfigError::OnlyDpo { key };
                if is_weighted {
                    return Err(only_dpo("weighting"));
                }
                if self.length_desensitization.is_some() {
                    return Err(only_dpo("length_desensitization"));
                }
                if self.dynamic_beta.is_some() {
                    return Err(only_dpo("dynamic_beta"));
                }
                check_reference_free(objective)
            }
        }
    }
}

fn check_pairs(objective: &PairObjective, is_weighted: bool) -> Result<(), PreferenceConfigError> {
    if objective.losses.is_empty() {
        return Err(PreferenceConfigError::NoLoss);
    }
    if objective.losses.iter().all(|weighted| weighted.weight.get() <= 0.0) {
        return Err(PreferenceConfigError::NoWeight);
    }
    if is_weighted && objective.couples_pairs() {
        return Err(PreferenceConfigError::WeightedCoupledPairs);
    }
    if objective.divergence != (Divergence::ReverseKl {})
        && let Some(loss) = objective.losses.iter().find(|weighted| ignores_divergence(weighted.loss))
    {
        return Err(PreferenceConfigError::IgnoredDivergence { loss: name_of(&loss.loss) });
    }
    Ok(())
}

fn check_reference_free(objective: &ReferenceFreeObjective) -> Result<(), PreferenceConfigError> {
    let is_shaped = objective.reward != (ImplicitReward::LogProbability {});
    if is_shaped && matches!(objective.loss, ReferenceFreeLoss::Orpo {}) {
        return Err(PreferenceConfigError::OrpoReward);
    }
    Ok(())
}

/// Whether a loss looks at log-ratios themselves, whatever the divergence.
fn ignores_divergence(loss: PairLoss) -> bool {
    matches!(loss, PairLoss::Aot { .. } | PairLoss::AotUnpaired { .. } | PairLoss::ApoZero {})
}

/// The name of a loss as a run file spells it.
fn name_of(loss: &PairLoss) -> String {
    let value = serde_json::to_value(loss).ok();
    let name = value.as_ref().and_then(|value| value["kind"].as_str()).map(str::to_owned);
    name.unwrap_or_else(|| format!("{loss:?}"))
}

/// Everything that learning from judged completions needs to be repeated, but the model and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KtoConfig {
    /// What is minimised.
    pub loss: UnpairedLoss,
    /// How strongly the policy is held to its reference.
    pub beta: Positive,
    /// What the policy is measured against.
    pub reference: ReferencePolicy,
    /// How long the run is.
    pub duration: Duration,
    /// Examples an optimiser step. transformers: 8.
    pub batch_size: NonZeroUsize,
    /// Examples a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// Examples among which completions are exchanged and whose mean divergence is the point of reference of `kto`. The
    /// whole batch unless given; TRL: the batch of one device, so that gradient accumulation changes its results. A step's
    /// loss is the mean over such groups.
    pub loss_batch_size: Option<NonZeroUsize>,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Tokens of a prompt with its completion, at most. TRL: 1024.
    pub max_length: NonZeroUsize,
    /// Learning rate, schedule, optimiser, clipping. TRL's learning rate: 1e-6.
    pub update: UpdateConfig,
    /// Seed of the order of examples and of dropout.
    pub seed: u64,
}

impl Default for KtoConfig {
    fn default() -> Self {
        let DpoConfig { duration, batch_size, micro_batch_size, recompute, max_length, update, seed, .. } =
            DpoConfig::default();
        Self {
            loss: UnpairedLoss::default(),
            beta: Positive::new(0.1),
            reference: ReferencePolicy::Frozen {},
            duration,
            batch_size,
            micro_batch_size,
            loss_batch_size: None,
            recompute,
            max_length,
            update,
            seed,
        }
    }
}

impl KtoConfig {
    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), PreferenceConfigError> {
        check_sizes(self.batch_size, self.micro_batch_size)?;
        self.update.schedule.check(self.update.learning_rate.get())?;
        if !self.exchanges_completions() {
            return Ok(());
        }
        let (batch, group) = (self.batch_size.get(), self.loss_batch_size.unwrap_or(self.batch_size).get());
        if group < 2 {
            let key = if self.loss_batch_size.is_some() { "loss_batch_size" } else { "batch_size" };
            return Err(PreferenceConfigError::LonelyExample { key });
        }
        if batch % group == 1 {
            return Err(PreferenceConfigError::LonelyRest { batch, group });
        }
        Ok(())
    }

    /// Whether the loss is measured on completions of other prompts as well, so that a reference is asked about what
    /// depends on which examples meet in a batch.
    #[must_use]
    pub fn exchanges_completions(&self) -> bool {
        self.loss.baseline() == Some(Baseline::Divergence)
    }
}

fn check_sizes(batch: NonZeroUsize, micro: NonZeroUsize) -> Result<(), PreferenceConfigError> {
    let (micro, batch) = (micro.get(), batch.get());
    if micro > batch { Err(PreferenceConfigError::MicroBatchTooLarge { micro, batch }) } else { Ok(()) }
}

/// A combination of settings makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PreferenceConfigError {
    /// A pass larger than a step.
    #[error("`micro_batch_size` = {micro} is larger than `batch_size` = {batch}")]
    MicroBatchTooLarge {
        /// `micro_batch_size`
        micro: usize,
        /// `batch_size`
        batch: usize,
    },
    /// The schedule does not fit the rate.
    #[error("update.schedule: {0}")]
    Schedule(#[from] ScheduleError),
    /// Nothing to minimise.
    #[error("`objective.losses` is empty: name at least one loss, such as {{ kind = \"sigmoid\" }}")]
    NoLoss,
    /// Every term has the weight 0.
    #[error("every `weight` of `objective.losses` is 0: nothing would be learnt")]
    NoWeight,
    /// Weights of pairs with a loss that has no term of one pair.
    #[error(
        "`weighting` = \"policy\" has no meaning with `aot` or `aot_unpaired`, which compare whole batches and not pairs"
    )]
    WeightedCoupledPairs,
    /// A divergence that a loss would not look at.
    #[error(
        "`objective.divergence` has no part in `{loss}`, which is made of log-ratios: leave one of them out"
    )]
    IgnoredDivergence {
        /// The loss.
        loss: String,
    },
    /// A reference that nothing would look at.
    #[error("`reference` has no meaning with this `objective`, which needs none: leave it out")]
    NeedlessReference,
    /// A setting of objectives with a reference.
    #[error("`{key}` has no meaning with a `reference_free` objective: leave it out")]
    OnlyDpo {
        /// The setting.
        key: &'static str,
    },
    /// Odds of something that is no probability.
    #[error("`objective.reward` has no meaning with `orpo`, which is made of odds: leave it out")]
    OrpoReward,
    /// A β that nothing would look at.
    #[error("`dynamic_beta` has no meaning with `sft` alone, which has no β: leave it out")]
    NoBeta,
    /// No other example to exchange completions with.
    #[error(
        "`{key}` must be at least 2 for `kto`: its point of reference is measured on the completions of other prompts"
    )]
    LonelyExample {
        /// The setting.
        key: &'static str,
    },
    /// A last group of one example.
    #[error(
        "`loss_batch_size` = {group} leaves one example of `batch_size` = {batch} alone, and `kto` needs others in each group"
    )]
    LonelyRest {
        /// `batch_size`
        batch: usize,
        /// `loss_batch_size`
        group: usize,
    },
    /// The reference that was given is not what the settings say.
    #[error("`reference` asks for {expected}, and the trainer was given {given}")]
    OtherReference {
        /// What the settings ask for.
        expected: &'static str,
        /// What it got.
        given: &'static str,
    },
}

/// What TRL's trainers of preferences use: a rate of 1e-6.
fn slow_update() -> UpdateConfig {
    UpdateConfig { learning_rate: Positive::new(1e-6), ..UpdateConfig::default() }
}

fn sync_steps() -> NonZeroU64 {
    SYNC_STEPS
}

fn mixup() -> PositiveUnit {
    PositiveUnit::new(0.6)
}
