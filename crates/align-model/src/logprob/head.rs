//! What one chunk of logits says of its targets, and the gradient back to those logits.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::rows::RowSums;

/// Quantities of one chunk, with what the gradient needs. Plain tensors, without a graph.
#[derive(Debug, Clone)]
pub(super) struct ChunkScores {
    /// `[chunk, vocab]`
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
    /// KL divergence from the reference's distribution, and `log π − log π_ref`, `[chunk, vocab]`.
    pub(super) divergence: Option<(Tensor<2>, Tensor<2>)>,
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
    /// `logits`, `reference`: `[chunk, vocab]`; `tokens`: `[chunk]`.
    pub(super) fn new(logits: Tensor<2>, tokens: Tensor<1, Int>, reference: Option<Tensor<2>>) -> Self {
        let tokens = tokens.unsqueeze_dim(1);
        let (logits, RowSums { probabilities, normaliser, entropies, uniform_log_probs, most_likely }) =
            RowSums::new(logits);
        let log_probs = logits.clone().gather(1, tokens.clone()) - normaliser.clone();
        let mean_logits = uniform_log_probs.clone() + normaliser.clone();
        let correct = most_likely.equal(tokens.clone()).float();
        let divergence = reference.map(|reference| {
            let (reference, RowSums { normaliser: of_reference, .. }) = RowSums::new(reference);
            let reference_log_probs = reference - of_reference;
            let ratio = logits.clone() - normaliser.clone() - reference_log_probs;
            ((probabilities.clone() * ratio.clone()).sum_dim(1), ratio)
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
        }
    }

    /// `log Σ p²` over the vocabulary. `[chunk, 1]`
    pub(super) fn collisions(&self) -> Tensor<2> {
        // Divided by its largest term, for the square of a small probability is 0 in f32.
        let largest = self.probabilities.clone().max_dim(1);
        let scaled = self.probabilities.clone() / largest.clone();
        scaled.powi_scalar(2).sum_dim(1).log() + largest.log() * 2.0
    }

    /// The gradient with respect to the logits, `[chunk, vocab]`:
    ///
    /// ```text
    /// ∂log p_y/∂z = 1_y − p        ∂H/∂z = −p (log p + H)
    /// ∂mean(log p)/∂z = 1/V − p    ∂KL/∂z = p (log p − log q − KL)
    /// ```
    pub(super) fn into_logit_gradient(self, gradients: ChunkGradients) -> Tensor<2> {
        let Self { logits, probabilities, tokens, normaliser, entropies, divergence, .. } = self;
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
            add((p() - 1.0 / vocab) * -gradient);
        }
        if let (Some(gradient), Some((divergence, ratio))) = (gradients.divergences, divergence) {
            add(p() * (ratio - divergence) * gradient);
        }
        let Some(gradient) = gradients.log_probs else {
            return total.unwrap_or_else(|| logits.zeros_like());
        };
        drop(logits);
        // The last use of the probabilities, so that this happens in their memory.
        let spread = probabilities * -gradient.clone();
        let of_log_probs = spread.scatter(1, tokens, gradient, IndexingUpdateOp::Add);
        match total {
            Some(sum) => sum + of_log_probs,
            None => of_log_probs,
        }
    }
}
