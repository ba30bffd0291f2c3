//! What a parameter is to autodiff, which a replacement of its values would lose.

use burn::tensor::{GradientCheckpointingStrategy, Tensor};

pub(super) enum Tracking {
    Plain,
    Autodiff { requires_grad: bool, checkpointing: Option<GradientCheckpointingStrategy> },
}

impl Tracking {
    pub(super) fn of<const D: usize>(parameter: &Tensor<D>) -> Self {
        if parameter.is_autodiff() {
            Self::Autodiff {
                requires_grad: parameter.is_require_grad(),
                checkpointing: parameter.gradient_checkpointing_strategy(),
            }
        } else {
            Self::Plain
        }
    }

    pub(super) fn restore<const D: usize>(self, updated: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Plain => updated,
            Self::Autodiff { requires_grad, checkpointing } => {
                let mut parameter = updated.autodiff();
                if let Some(strategy) = checkpointing {
                    parameter = parameter.with_gradient_checkpointing_strategy(strategy);
                }
                parameter.set_require_grad(requires_grad)
            }
        }
    }
}
