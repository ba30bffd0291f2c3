//! A forward pass that can go back.

use std::fmt;

use burn::{module::Module, optim::GradientsParams, tensor::Tensor};
use serde::{Deserialize, Serialize};

/// What a training pass is told besides its tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassOptions {
    /// What is computed a second time on the way back, to save memory.
    pub recompute: Recompute,
    /// Where dropout masks come from; without one nothing is dropped.
    pub dropout: Option<DropoutSeed>,
}

/// What is computed a second time on the way back instead of being kept from the way there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing: every intermediate result is kept. Fastest.
    #[default]
    Nothing,
    /// Every layer: only the inputs of layers are kept, and one layer's intermediate results exist at a time.
    Layers,
}

/// Decides the dropout masks of one pass: the same seed gives the same masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutSeed(pub u64);

/// The hidden states of a training pass and the way back from them to the parameters.
pub struct HiddenPass<'a> {
    hidden: Tensor<2>,
    backward: Option<Backward<'a>>,
}

type Backward<'a> = Box<dyn FnOnce(Tensor<2>) -> GradientsParams + 'a>;

impl<'a> HiddenPass<'a> {
    /// Hidden states `[tokens, hidden]`, without a graph, and what turns a loss's gradient with respect to them, of the
    /// same shape, into gradients of the parameters.
    #[must_use]
    pub fn new(hidden: Tensor<2>, backward: impl FnOnce(Tensor<2>) -> GradientsParams + 'a) -> Self {
        Self { hidden, backward: Some(Box::new(backward)) }
    }

    /// Hidden states that carry their whole graph, or none at all if the model has no gradients.
    #[must_use]
    pub fn keeping_graph<M: Module>(model: &'a M, hidden: Tensor<2>) -> Self {
        if !hidden.is_autodiff() {
            return Self { hidden, backward: None };
        }
        Self::new(hidden.clone().inner(), move |gradient| {
            if !hidden.is_tracked() {
                // Nothing below the head is trained.
                return GradientsParams::new();
            }
            let surrogate = (hidden * Tensor::from_inner(gradient)).sum();
            GradientsParams::from_grads(surrogate.backward(), model)
        })
    }

    /// The hidden states, without a graph. Shape `[tokens, hidden]`.
    #[must_use]
    pub fn hidden(&self) -> Tensor<2> {
        self.hidden.clone()
    }

    /// Whether there is a way back.
    #[must_use]
    pub fn has_gradients(&self) -> bool {
        self.backward.is_some()
    }

    /// The parameters' gradients. `gradient`: of the loss with respect to the hidden states, `[tokens, hidden]`,
    /// without a graph.
    ///
    /// # Panics
    /// If the model's parameters have no gradients.
    #[must_use]
    pub fn backward(self, gradient: Tensor<2>) -> GradientsParams {
        let Some(backward) = self.backward else { panic_without_gradients() };
        backward(gradient)
    }
}

#[allow(clippy::panic, reason = "a programmer's mistake")]
fn panic_without_gradients() -> ! {
    panic!("the model's parameters have no gradients: call `train` on it first")
}

impl fmt::Debug for HiddenPass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HiddenPass")
            .field("hidden", &self.hidden.dims())
            .field("has_gradients", &self.has_gradients())
            .finish()
    }
}
