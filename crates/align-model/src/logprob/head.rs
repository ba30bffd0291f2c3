//! What one chunk of logits says of its targets, and the gradient back to those logits.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::{
    divergence::{ChunkDivergence, Distributions, Divergence},
    rows::RowSums,
    scoring::Reshaping,
};

/// Quantities of one chunk, with what the gradient needs. Plain tensors, without a graph.
#[derive(Debug, Clone)]
pub(super) struct ChunkScores {
    /// Of the distribution that targets are scored under. `[chunk, vocab]`
    logits: Tensor<2>,
    /// `[chunk, vocab]`
    probabilities: Tensor<2>,
    /// `[chunk, 1]`
    tokens: Tensor<2, Int>,
    /// `log Σ exp(logits)`. `[chunk, 1]`
    normaliser: Tensor<2>,
    /// `[chunk, 1]`
    pub(super) log_probs: Tensor<2>,
    /// `[chunk, 1]`
    pub(super) entropies: Tensor<2>,
    /// The mean log-probability over the vocabulary. `[chunk, 1]`
    pub(super) uniform_log_probs: Tensor<2>,
    /// The mean logit over the vocabulary. `[chunk, 1]`
    pub(super) mean_logits: Tensor<2>,
    /// 1 where the most likely token is the target, else 0. `[chunk, 1]`
    pub(super) correct: Tensor<2>,
    /// How far it is from the reference's distribution.
    pub(super) divergence: Option<ChunkDivergence>,
    reshaping: Reshaping,
}

/// Gradients of a loss with respect to the quantities of a chunk, each `[chunk, 1]`; `None` where it does not depend on
/// them.
#[derive(Debug, Clone, Default)]
pub(super) struct ChunkGradients {
    pub(super) log_probs: Option<Tensor<2>>,
    pub(super) entropies: Option<Tensor<2>>,
    pub(super) uniform_log_probs: Option<Tensor<2>>,
    pub(super) divergences: Option<Tensor<2>>,
}

impl ChunkScores {
    /// `logits`: of the model, `[chunk, vocab]`; `tokens`: `[chunk]`; `reference`: of the reference, `[chunk, vocab]`, and
    /// how the distance from it is measured.
    pub(super) fn new(
        logits: Tensor<2>,
        tokens: Tensor<1, Int>,
        reference: Option<(Tensor<2>, Divergence)>,
        reshaping: Reshaping,
    ) -> Self {
        let tokens = tokens.unsqueeze_dim(1);
        let (logits, RowSums { probabilities, normaliser, entropies, uniform_log_probs, most_likely }) =
            RowSums::new(reshaping.apply(logits));
        let uniform_log_probs = match reshaping.mean_logits(&logits) {
            Some(mean) => mean - normaliser.clone(),
            None => uniform_log_probs,
        };
        let log_probs = logits.clone().gather(1, tokens.clone()) - normaliser.clone();
        let mean_logits = uniform_log_probs.clone() + normaliser.clone();
        let correct = most_likely.equal(tokens.clone()).float();
        let divergence = reference.map(|(reference, divergence)| {
            let (reference, of_reference) = RowSums::new(reshaping.apply(reference));
            let model = Distributions {
                probabilities: probabilities.clone(),
                log_probs: logits.clone() - normaliser.clone(),
            };
            let log_probs = reference - of_reference.normaliser;
            divergence.between(model, Distributions { probabilities: of_reference.probabilities, log_probs })
        });
        Self {
            logits,
            probabilities,
            tokens,
            normaliser,
            log_probs,
            entropies,
            uniform_log_probs,
            mean_logits,
            correct,
            divergence,
            reshaping,
        }
    }

    /// `log Σ p²` over the vocabulary. `[chunk, 1]`
    pub(super) fn collisions(&self) -> Tensor<2> {
        // Divided by its largest term, for the square of a small probability is 0 in f32.
        let largest = self.probabilities.clone().max_dim(1);
        let scaled = self.probabilities.clone() / largest.clone();
        scaled.powi_scalar(2).sum_dim(1).log() + largest.log() * 2.0
    }

    /// The gradient with respect to the model's logits, `[chunk, vocab]`. With respect to the distribution's own z, of
    /// which V are allowed:
    ///
    /// ```text
    /// ∂log p_y/∂z = 1_y − p        ∂H/∂z = −p (log p + H)
    /// ∂mean(log p)/∂z = 1/V − p    ∂D/∂z: of a divergence, see there
    /// ```
    pub(super) fn into_logit_gradient(self, gradients: ChunkGradients) -> Tensor<2> {
        let Self { logits, probabilities, tokens, normaliser, entropies, divergence, reshaping, .. } = self;
        let vocab = logits.dims()[1] as f64;
        let p = || probabilities.clone();
        let mut total: Option<Tensor<2>> = None;
        let mut add = |term: Tensor<2>| {
            total = Some(match total.take() {
                Some(sum) => sum + term,
                None => term,
            });
        };
        if let Some(gradient) = gradients.entropies {
            let log_p = logits.clone() - normaliser;
            add(p() * (log_p + entropies) * -gradient);
        }
        if let Some(gradient) = gradients.uniform_log_probs {
            let above_uniform = match reshaping.uniform() {
                Some(uniform) => p() - uniform,
                None => p() - 1.0 / vocab,
            };
            add(above_uniform * -gradient);
        }
        if let (Some(gradient), Some(divergence)) = (gradients.divergences, divergence) {
            add(divergence.logit_gradient(p()) * gradient);
        }
        let Some(gradient) = gradients.log_probs else {
            return total.map_or_else(|| logits.zeros_like(), |total| reshaping.of_model(total));
        };
        drop(logits);
        // The last use of the probabilities, so that this happens in their memory.
        let spread = probabilities * -gradient.clone();
        let of_log_probs = spread.scatter(1, tokens, gradient, IndexingUpdateOp::Add);
        reshaping.of_model(match total {
            Some(sum) => sum + of_log_probs,
            None => of_log_probs,
        })
    }
}
