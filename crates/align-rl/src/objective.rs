//! What a policy is trained on: ratio level × surrogate × aggregation, and what is added to it.

mod check;
mod preset;

use align_model::{
    logprob::{like, vector},
    number::NonNegative,
};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    kl::KlPenalty,
    loss::{
        Aggregation, EntropyBonus, ImportanceCorrection, RatioLevel, Sequences, StepTotals, Surrogate,
        SurrogateInputs, bounded_exp, off_policy_mask,
    },
};

pub use check::ObjectiveError;
pub use preset::Preset;

/// Action tokens of some sequences, sequence after sequence without padding, and what is known of each.
///
/// Gradients flow through `log_probs`, `entropies` and `divergences`; the others are data, with or without a graph.
#[derive(Debug, Clone)]
pub struct PolicyTokens {
    /// `log π(token)` of the policy that is trained. `[targets]`
    pub log_probs: Tensor<1>,
    /// The same when the tokens' advantages were estimated, before the first update. `[targets]`
    pub old_log_probs: Tensor<1>,
    /// The same as the sampler said. `[targets]`
    pub sampling_log_probs: Option<Tensor<1>>,
    /// The same of the reference. `[targets]`
    pub reference_log_probs: Option<Tensor<1>>,
    /// `KL(π ‖ π_ref)` over the vocabulary. `[targets]`
    pub divergences: Option<Tensor<1>>,
    /// The entropy of the policy's next-token distribution. `[targets]`
    pub entropies: Tensor<1>,
    /// What each token was worth. `[targets]`
    pub advantages: Tensor<1>,
    /// 1 for tokens that the surrogate and the entropy bonus see, 0 for others: tokens of low entropy, of Clip-Cov. A
    /// divergence from the reference counts at every token. `[targets]`
    pub is_kept: Option<Tensor<1>>,
    /// 1 for tokens that pay for moving in [`Surrogate::KlCov`]. `[targets]`
    pub is_penalized: Option<Tensor<1>>,
    /// How many of the tokens belong to each sequence.
    pub counts: Vec<usize>,
}

/// A complete objective of the policy. Algorithms are presets of it: see [`Preset`] and the constructors.
///
/// ```text
/// L = Σ_t weight_t · (keep_t · importance_t · surrogate_t + β · KL_t) − coefficient · mean_t H_t
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyObjective {
    /// Over what ratios are taken.
    pub ratio: RatioLevel,
    /// What is minimised at a token.
    pub surrogate: Surrogate,
    /// What a token weighs.
    pub aggregation: Aggregation,
    /// The divergence from the reference that is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<KlPenalty>,
    /// How a sampler that differs from the trainer is corrected for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance: Option<ImportanceCorrection>,
    /// From which mean difference of log-probabilities on a sequence with a negative advantage is left out: TRL's
    /// `off_policy_mask_threshold`. See [`off_policy_mask`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_policy_threshold: Option<NonNegative>,
    /// The reward for entropy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<EntropyBonus>,
}

/// What some tokens add to the loss of their update, and what was seen on the way. All but the loss are without a graph.
#[derive(Debug, Clone)]
pub struct PolicyShare {
    /// The shares of an update's micro-batches add up to its loss. `[1]`
    pub loss: Tensor<1>,
    /// The loss without the entropy bonus. `[1]`
    pub policy_loss: Tensor<1>,
    /// `log π − log π_old`, token by token. `[targets]`
    pub log_ratios: Tensor<1>,
    /// The ratios of the objective's level. `[targets]`
    pub ratios: Tensor<1>,
    /// 1 where the ratio is below its range and the advantage wants it lower. `[targets]`
    pub clipped_low: Tensor<1>,
    /// 1 where the ratio is above its range and the advantage wants it higher. `[targets]`
    pub clipped_high: Tensor<1>,
    /// Estimates of the divergence from the reference, corrected if the penalty says so. `[targets]`
    pub kl: Option<Tensor<1>>,
    /// Weights that correct for the sampler. `[targets]`
    pub importance: Option<Tensor<1>>,
    /// `φ` of VESPO. `[targets]`
    pub gammas: Option<Tensor<1>>,
}

impl PolicyTokens {
    /// The same beside the policy's graph, checked for length.
    fn aligned(&self) -> Self {
        let given: usize = self.counts.iter().sum();
        let align = |x: &Tensor<1>| {
            assert_eq!(x.dims(), [given], "every tensor has one entry for each token that the counts count");
            like(x.clone(), &self.log_probs)
        };
        let data = |x: &Tensor<1>| align(x).detach();
        Self {
            log_probs: align(&self.log_probs),
            old_log_probs: data(&self.old_log_probs),
            sampling_log_probs: self.sampling_log_probs.as_ref().map(data),
            reference_log_probs: self.reference_log_probs.as_ref().map(data),
            divergences: self.divergences.as_ref().map(align),
            entropies: align(&self.entropies),
            advantages: data(&self.advantages),
            is_kept: self.is_kept.as_ref().map(data),
            is_penalized: self.is_penalized.as_ref().map(data),
            counts: self.counts.clone(),
        }
    }
}

impl PolicyObjective {
    /// What `tokens` add to the loss of the update that `totals` describes.
    ///
    /// # Shapes
    /// - everything in `tokens`: `[targets]`; the result's loss: `[1]`
    ///
    /// # Gradient
    /// Flows through the policy's log-probabilities, entropies and divergences. On data that the policy itself has just sampled
    /// every ratio is exactly 1, with a gradient.
    ///
    /// # Panics
    /// If lengths differ, something that the objective [needs](Self::needs_reference) is not there, or `totals` are less than
    /// those of `tokens`.
    #[must_use]
    pub fn share(&self, tokens: &PolicyTokens, totals: StepTotals) -> PolicyShare {
        let tokens = tokens.aligned();
        let counts = tokens.counts.as_slice();
        let log_ratios = tokens.log_probs.clone() - tokens.old_log_probs.clone();
        let sequences = Sequences::new(counts, &log_ratios);
        let ratios = bounded_exp(self.ratio.log_weights(log_ratios.clone(), &sequences));
        let importance = self.importance_weights(&tokens);
        let kl = self.kl.map(|penalty| {
            let PolicyTokens { log_probs, reference_log_probs, divergences, .. } = tokens.clone();
            penalty.per_token(log_probs, reference_log_probs, divergences, ratios.clone())
        });
        let surrogate = self.surrogate.terms(SurrogateInputs {
            log_probs: tokens.log_probs.clone(),
            log_ratios: log_ratios.clone(),
            ratios: ratios.clone(),
            advantages: tokens.advantages.clone(),
            is_kept: tokens.is_kept.clone(),
            is_penalized: tokens.is_penalized.clone(),
            importance: importance.clone(),
            counts,
        });
        let mut terms = surrogate.terms * self.term_weights(&tokens, importance.as_ref(), &sequences);
        if let (Some(penalty), Some(kl)) = (self.kl, kl.clone()) {
            terms = terms + kl * penalty.coefficient.get();
        }
        let weights = vector(self.aggregation.weights(counts, totals), &terms.device());
        let policy_loss = (terms * weights).sum();
        PolicyShare {
            loss: self.with_entropy(policy_loss.clone(), &tokens, totals),
            policy_loss: policy_loss.detach(),
            log_ratios: log_ratios.detach(),
            ratios: ratios.detach(),
            clipped_low: surrogate.clipped_low,
            clipped_high: surrogate.clipped_high,
            kl: kl.map(Tensor::detach),
            importance,
            gammas: surrogate.gammas,
        }
    }

    /// Whether the reference's log-probabilities are needed.
    #[must_use]
    pub fn needs_reference(&self) -> bool {
        self.kl.is_some_and(|penalty| !penalty.is_exact())
    }

    /// Whether divergences over the whole vocabulary are needed.
    #[must_use]
    pub fn needs_divergences(&self) -> bool {
        self.kl.is_some_and(|penalty| penalty.is_exact())
    }

    /// Whether the sampler's log-probabilities are needed.
    #[must_use]
    pub fn needs_sampling_log_probs(&self) -> bool {
        self.importance.is_some()
    }

    fn importance_weights(&self, tokens: &PolicyTokens) -> Option<Tensor<1>> {
        let correction = self.importance?;
        assert!(tokens.sampling_log_probs.is_some(), "give the sampler's log-probabilities to correct for");
        let sampling = tokens.sampling_log_probs.clone()?;
        Some(correction.weights(tokens.old_log_probs.clone(), sampling, &tokens.counts))
    }

    /// What each term of the surrogate is multiplied by. `[targets]`
    fn term_weights(
        &self,
        tokens: &PolicyTokens,
        importance: Option<&Tensor<1>>,
        sequences: &Sequences,
    ) -> Tensor<1> {
        let mut weights = tokens.advantages.ones_like();
        if let Some(threshold) = self.off_policy_threshold {
            let sampling = tokens.sampling_log_probs.as_ref().unwrap_or(&tokens.old_log_probs);
            let (policy, advantages) = (tokens.log_probs.clone(), tokens.advantages.clone());
            weights = off_policy_mask(policy, sampling.clone(), advantages, &tokens.counts, threshold);
        }
        if let Some(kept) = tokens.is_kept.clone().filter(|_| !self.surrogate.is_of_sequences()) {
            weights = weights * kept;
        }
        match importance.filter(|_| !self.surrogate.corrects_itself()) {
            // One term a sequence has one weight: the geometric mean, as the term is one.
            Some(importance) if self.surrogate.is_of_sequences() => {
                let logarithms = importance.clone().clamp_min(1e-10).log();
                weights * bounded_exp(sequences.spread_mean(logarithms))
            }
            Some(importance) => weights * importance.clone(),
            None => weights,
        }
    }

    fn with_entropy(&self, loss: Tensor<1>, tokens: &PolicyTokens, totals: StepTotals) -> Tensor<1> {
        let Some(bonus) = self.entropy.filter(|bonus| bonus.coefficient.get() > 0.0) else { return loss };
        let entropies = match tokens.is_kept.clone() {
            Some(kept) => tokens.entropies.clone() * kept,
            None => tokens.entropies.clone(),
        };
        loss - entropies.sum() * (bonus.coefficient.get() / totals.kept_tokens.max(1) as f64)
    }
}

#[cfg(test)]
mod tests;
