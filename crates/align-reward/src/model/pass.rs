//! A training pass of a reward model.

use align_model::causal_lm::{CausalLm, HiddenPass, PassOptions, TokenBatch};
use burn::{
    optim::GradientsParams,
    tensor::{IndexingUpdateOp, Int, Tensor},
};

use super::{RewardModel, position_tensor};

/// A forward pass of a reward model, open for a backward pass.
#[derive(Debug)]
pub struct ScorePass<'a, M: CausalLm> {
    model: &'a RewardModel<M>,
    pass: HiddenPass<'a>,
    /// Where the head reads. `[positions]`
    positions: Tensor<1, Int>,
    /// What it reads: a leaf of its own, so that the graph of a loss ends there. `[positions, hidden]`
    hidden: Tensor<2>,
}

impl<'a, M: CausalLm> ScorePass<'a, M> {
    /// Runs the backbone over `batch`; the head will read at `positions`. Gradients flow if the model's parameters are on
    /// an autodiff device.
    ///
    /// # Panics
    /// If there are no positions, or one is outside the batch.
    #[must_use]
    pub fn forward(
        model: &'a RewardModel<M>,
        batch: &'a TokenBatch,
        positions: &[usize],
        options: PassOptions,
    ) -> Self {
        assert!(!positions.is_empty(), "a pass needs at least one position to read at");
        assert!(positions.iter().all(|&at| at < batch.tokens().len()), "a position is outside the batch");
        let pass = model.backbone.training_pass(batch, options);
        let hidden = pass.hidden();
        let positions = position_tensor(positions, &hidden.device());
        let hidden = hidden.select(0, positions.clone());
        let hidden = if pass.has_gradients() { Tensor::from_inner(hidden).require_grad() } else { hidden };
        Self { model, pass, positions, hidden }
    }

    /// What the head says, with a graph that reaches the head's parameters. Shape `[positions, labels]`.
    #[must_use]
    pub fn scores(&self) -> Tensor<2> {
        self.model.head.forward(self.hidden.clone())
    }

    /// The gradients of `loss`, a single number `[1]` made of [`scores`](Self::scores), with respect to the model's
    /// parameters.
    ///
    /// # Panics
    /// If the model's parameters have no gradients.
    #[must_use]
    pub fn backward(self, loss: Tensor<1>) -> GradientsParams {
        let Self { model, pass, positions, hidden } = self;
        let mut found = loss.backward();
        let at_positions = hidden.grad_remove(&mut found);
        let mut gradients = GradientsParams::from_grads(found, &model.head);
        let whole = pass.hidden().zeros_like();
        let of_hidden = match at_positions {
            // Two positions may be one and the same: what ends two sequences that share it has both their gradients.
            Some(at_positions) => whole.select_assign(0, positions, at_positions, IndexingUpdateOp::Add),
            None => whole,
        };
        pass.backward(of_hidden, &mut gradients);
        gradients
    }
}
