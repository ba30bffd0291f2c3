//! What a step measured.

use align_model::{
    causal_lm::CausalLm,
    logprob::{TokenScores, plain},
    train::Update,
};
use burn::tensor::Tensor;

use super::{Made, PpoTrainer, appraise::Appraisal};
use crate::{error::RlError, loss::Moments, objective::PolicyShare, scoring::ScoredRollouts};

const POLICY_COLUMNS: usize = 4;
const CRITIC_COLUMNS: usize = 4;

/// Measurements of an update on the device.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Shares of the policy's loss, and what they are without the bonus for entropy. `[1]` each
    losses: Vec<Tensor<1>>,
    /// Estimates of the divergence in the loss. `[targets]` each
    kl: Vec<Tensor<1>>,
    /// What the tokens of each pass have, one column after another. `[columns·targets]`
    policy: Vec<Tensor<1>>,
    /// What the states of each pass have, one column after another. `[columns·states]`
    critic: Vec<Tensor<1>>,
}

/// What an update measured.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UpdateMetrics {
    loss: f64,
    /// The loss without the bonus for entropy.
    policy_loss: f64,
    value_loss: f64,
    /// Mean entropy of the policy at the tokens, in nats.
    entropy: f64,
    approximate_kl: f64,
    clipped: f64,
    values_clipped: f64,
    ratio: f64,
    explained_variance: f64,
    /// The mean estimate of a divergence in the loss.
    kl: Option<f64>,
    pub(super) policy_update: Option<Update>,
    pub(super) critic_update: Option<Update>,
}

impl Measured {
    /// Keeps what a pass of the policy says.
    pub(super) fn add_policy(&mut self, scores: &TokenScores, share: &PolicyShare) {
        self.losses.extend([&share.loss, &share.policy_loss].map(|loss| plain(loss.clone())));
        self.kl.extend(share.kl.clone().map(plain));
        let is_clipped = share.clipped_low.clone() + share.clipped_high.clone();
        let columns = [&scores.entropies, &share.log_ratios, &share.ratios, &is_clipped];
        self.policy.push(joined(columns));
    }

    /// Keeps what a pass of the critic says: values, returns, losses, and whether values were clipped. `[states]` each
    pub(super) fn add_critic(&mut self, columns: [&Tensor<1>; CRITIC_COLUMNS]) {
        self.critic.push(joined(columns));
    }

    /// Reads everything from the device at once.
    pub(super) fn read(self) -> UpdateMetrics {
        let lengths = |passes: &[Tensor<1>]| passes.iter().map(|pass| pass.dims()[0]).collect::<Vec<usize>>();
        let (of_policy, of_critic) = (lengths(&self.policy), lengths(&self.critic));
        let (losses, of_kl) = (self.losses.len(), lengths(&self.kl).iter().sum::<usize>());
        let all = self.losses.into_iter().chain(self.kl).chain(self.policy).chain(self.critic).collect();
        let values: Vec<f64> = Tensor::cat(all, 0).into_data().iter::<f64>().collect();
        let (losses, rest) = values.split_at(losses);
        let (kl, rest) = rest.split_at(of_kl);
        let (policy, critic) = rest.split_at(of_policy.iter().sum());
        let [entropies, log_ratios, ratios, clipped] = columns::<POLICY_COLUMNS>(policy, &of_policy);
        let [values, returns, value_losses, values_clipped] = columns::<CRITIC_COLUMNS>(critic, &of_critic);
        let squares: Vec<f64> = log_ratios.iter().map(|log_ratio| log_ratio * log_ratio).collect();
        UpdateMetrics {
            loss: losses.iter().step_by(2).sum(),
            policy_loss: losses.iter().skip(1).step_by(2).sum(),
            value_loss: mean(&value_losses),
            entropy: mean(&entropies),
            approximate_kl: 0.5 * mean(&squares),
            clipped: mean(&clipped),
            values_clipped: mean(&values_clipped),
            ratio: mean(&ratios),
            explained_variance: explained_variance(&values, &returns),
            kl: (of_kl > 0).then(|| mean(kl)),
            policy_update: None,
            critic_update: None,
        }
    }
}

/// Columns one after another, without a graph.
fn joined<const N: usize>(columns: [&Tensor<1>; N]) -> Tensor<1> {
    Tensor::cat(columns.map(|column| plain(column.clone())).to_vec(), 0)
}

/// The columns of all passes, each of which has so many numbers.
fn columns<const N: usize>(mut values: &[f64], lengths: &[usize]) -> [Vec<f64>; N] {
    let mut columns = std::array::from_fn(|_| Vec::new());
    for &length in lengths {
        let (of_pass, rest) = values.split_at(length);
        for (column, of_column) in columns.iter_mut().zip(of_pass.chunks(length / N)) {
            column.extend_from_slice(of_column);
        }
        values = rest;
    }
    columns
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// How much of the returns' variance the values explain: 1 is all of it, 0 no more than their mean does, and below 0 the
/// values are worse than that.
fn explained_variance(values: &[f64], returns: &[f64]) -> f64 {
    let errors = Moments::of(values.iter().zip(returns).map(|(value, of_return)| of_return - value));
    let all = Moments::of(returns.iter().copied()).squares;
    if all > 0.0 { 1.0 - errors.squares / all } else { 0.0 }
}

impl UpdateMetrics {
    /// `½·mean (log π − log π_old)²`
    pub(super) fn approximate_kl(&self) -> f64 {
        self.approximate_kl
    }

    /// Refuses losses that are no numbers.
    pub(super) fn check(&self) -> Result<(), RlError> {
        if !self.value_loss.is_finite() {
            return Err(RlError::ValueLoss { loss: self.value_loss });
        }
        if self.loss.is_finite() { Ok(()) } else { Err(RlError::NotFinite { loss: self.loss }) }
    }

    /// Under TRL's names.
    pub(super) fn named(&self) -> Vec<(&'static str, f64)> {
        named(std::slice::from_ref(self))
    }
}

/// What updates measured together, under TRL's names: means; rates are those of the last.
fn named(updates: &[UpdateMetrics]) -> Vec<(&'static str, f64)> {
    let Some(last) = updates.last() else { return Vec::new() };
    let over = |value: fn(&UpdateMetrics) -> f64| mean(&updates.iter().map(value).collect::<Vec<f64>>());
    let ratios = Moments::of(updates.iter().map(|one| one.ratio));
    let mut metrics = vec![("loss", over(|one| one.loss))];
    let norms = |of: fn(&UpdateMetrics) -> Option<Update>| -> Vec<f64> {
        updates.iter().filter_map(|one| Some(of(one)?.grad_norm)).collect()
    };
    if let (Some(policy), Some(critic)) = (last.policy_update, last.critic_update) {
        metrics.extend([
            ("grad_norm", mean(&norms(|one| one.policy_update))),
            ("learning_rate", policy.learning_rate),
            ("critic/grad_norm", mean(&norms(|one| one.critic_update))),
            ("critic/learning_rate", critic.learning_rate),
        ]);
    }
    if last.kl.is_some() {
        metrics.push(("loss/kl_avg", over(|one| one.kl.unwrap_or_default())));
    }
    metrics.extend([
        ("loss/policy_avg", over(|one| one.policy_loss)),
        ("loss/value_avg", over(|one| one.value_loss)),
        ("policy/approxkl_avg", over(|one| one.approximate_kl)),
        ("policy/clipfrac_avg", over(|one| one.clipped)),
        ("policy/entropy_avg", over(|one| one.entropy)),
        ("entropy", over(|one| one.entropy)),
        ("clip_ratio/region_mean", over(|one| one.clipped)),
        ("val/clipfrac_avg", over(|one| one.values_clipped)),
        ("val/ratio", ratios.mean),
        ("val/ratio_var", ratios.variance()),
        ("val/explained_variance", updates.first().map_or(0.0, |one| one.explained_variance)),
    ]);
    metrics
}

impl<M: CausalLm> PpoTrainer<M> {
    /// Everything that a step measured, under TRL's names.
    pub(super) fn metrics(
        &self,
        rollouts: &ScoredRollouts,
        appraisal: &Appraisal,
        made: &Made,
    ) -> Vec<(&'static str, f64)> {
        let count = appraisal.experience.len() as f64;
        let sampled = appraisal.experience.iter().map(|one| {
            let log_probs = one.experience.old_log_probs.iter().flatten();
            -log_probs.copied().map(f64::from).sum::<f64>()
        });
        let (cost, score) = (mean(&appraisal.penalties), mean(&appraisal.scores));
        let ended = rollouts.samples.iter().filter(|sample| !sample.trajectory.is_truncated()).count();
        let mut metrics = named(&made.updates);
        if let Some((of_completions, of_tokens)) = appraisal.divergences() {
            metrics.extend([("objective/kl", of_completions), ("kl", of_tokens)]);
        }
        metrics.extend([
            ("objective/kl_coef", self.kl.coefficient()),
            ("objective/entropy", sampled.sum::<f64>() / count),
            ("objective/non_score_reward", -cost),
            ("objective/rlhf_reward", score - cost),
            ("objective/scores", score),
            ("val/num_eos_tokens", ended as f64),
            ("updates", made.updates.len() as f64),
            ("episode", self.episodes as f64),
            ("num_tokens", self.tokens_seen as f64),
        ]);
        if made.is_stopped {
            metrics.push(("updates/stopped", 1.0));
        }
        if made.has_failed {
            metrics.push(("updates/failed", 1.0));
        }
        metrics.extend(rollouts.metrics());
        if self.config.rollout.samples.get() == 1 {
            // A group of one never differs in its rewards.
            metrics.retain(|(name, _)| *name != "frac_reward_zero_std");
        }
        metrics
    }
}
