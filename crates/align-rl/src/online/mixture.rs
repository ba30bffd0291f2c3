//! Two language models as one that is between them.

use align_model::{
    causal_lm::{Cache, CausalLm, IncrementalLm, TokenBatch},
    number::UnitInterval,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::log_softmax},
};

use super::OnlineError;

/// The geometric mixture of a policy and its reference, which Nash-MD plays against.
///
/// ```text
/// log μ(y_t) = c·z_ref(y_t) + (1 − c)·z_π(y_t) − log Σ …        z: logits
/// ```
///
/// # Source
/// Munos et al. 2023, *Nash Learning from Human Feedback*, [arXiv:2312.00886](https://arxiv.org/abs/2312.00886), §7.
#[derive(Module, Debug)]
pub struct GeometricMixture<M> {
    policy: M,
    reference: M,
    /// Weight of the reference.
    #[module(skip)]
    coefficient: f64,
    /// Width of the policy's hidden states.
    #[module(skip)]
    width: usize,
}

/// Keys and values of both models.
#[derive(Debug)]
pub struct MixtureCache<C> {
    policy: C,
    reference: C,
}

impl<M: IncrementalLm> GeometricMixture<M> {
    /// Mixes two models, neither of which is trained.
    ///
    /// # Errors
    /// If they do not know the same number of tokens.
    pub fn new(policy: &M, reference: &M, coefficient: UnitInterval) -> Result<Self, OnlineError> {
        let (policy, reference) = (policy.valid(), reference.valid());
        let (expected, found) = (policy.vocab_size(), reference.vocab_size());
        if expected != found {
            return Err(OnlineError::OtherVocabulary { expected, found });
        }
        let [_, width] = policy.hidden(&TokenBatch::from_sequences(&[vec![0]])).dims();
        Ok(Self { policy, reference, coefficient: coefficient.get(), width })
    }
}

/// Hidden states are those of both models side by side, `[tokens, width of both]`.
impl<M: IncrementalLm> CausalLm for GeometricMixture<M> {
    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        Tensor::cat(vec![self.policy.hidden(batch), self.reference.hidden(batch)], 1)
    }

    fn shares_prompts(&self) -> bool {
        self.policy.shares_prompts() && self.reference.shares_prompts()
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let [_, both] = hidden.dims();
        let of_policy = self.policy.logits(hidden.clone().narrow(1, 0, self.width));
        let of_reference = self.reference.logits(hidden.narrow(1, self.width, both - self.width));
        // [positions, vocab]
        log_softmax(of_reference * self.coefficient + of_policy * (1.0 - self.coefficient), 1)
    }

    fn vocab_size(&self) -> usize {
        self.policy.vocab_size()
    }

    fn max_positions(&self) -> usize {
        self.policy.max_positions().min(self.reference.max_positions())
    }

    fn device(&self) -> Device {
        self.policy.device()
    }
}

impl<M: IncrementalLm> IncrementalLm for GeometricMixture<M> {
    type Cache = MixtureCache<M::Cache>;

    fn prefill(&self, prompts: &TokenBatch) -> (Tensor<2>, Self::Cache) {
        let (of_policy, policy) = self.policy.prefill(prompts);
        let (of_reference, reference) = self.reference.prefill(prompts);
        (Tensor::cat(vec![of_policy, of_reference], 1), MixtureCache { policy, reference })
    }

    fn extend(&self, tokens: &[u32], cache: &mut Self::Cache) -> Tensor<2> {
        let of_policy = self.policy.extend(tokens, &mut cache.policy);
        let of_reference = self.reference.extend(tokens, &mut cache.reference);
        Tensor::cat(vec![of_policy, of_reference], 1)
    }
}

impl<C: Cache> Cache for MixtureCache<C> {
    fn select(&mut self, rows: &[usize]) {
        self.policy.select(rows);
        self.reference.select(rows);
    }

    fn rows(&self) -> usize {
        self.policy.rows()
    }
}
