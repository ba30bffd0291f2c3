//! Training passes of the decoder, block by block.
//!
//! There is no graph over the model: each block goes back by formula from what [`OpenBlock`] keeps, for as long as
//! [`Recompute`] says. The way back stops at the lowest block that has something to train, and a frozen parameter costs
//! nothing.

use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{IndexingUpdateOp, Tensor},
};

use super::{
    Decoder, Linear, Weight,
    block::{OpenBlock, Surroundings, trains},
    linear::Input,
    pass::Pass,
};
use crate::causal_lm::{
    CausalLm, HiddenPass, LogitsPass, PassOptions, Recompute, TokenBatch, add_gradient, index_tensor, plain,
};

/// A pass over `batch` and the way back from it.
pub(super) fn hidden_pass<'a>(
    decoder: &'a Decoder,
    batch: &'a TokenBatch,
    options: PassOptions,
) -> HiddenPass<'a> {
    let pass = Pass::from(options);
    if !decoder.device().is_autodiff() {
        return HiddenPass::without_gradients(decoder.forward(batch, pass));
    }
    let plain = decoder.valid();
    let around =
        Surroundings { rotations: plain.rotations(batch.positions()), plan: plain.plan(batch), pass };
    let lowest = Lowest::of(decoder);
    let mut x = plain.embed(batch);
    let mut kept = Vec::with_capacity(decoder.layers.len());
    for (index, layer) in plain.layers.iter().enumerate() {
        if lowest.input_of(index).is_none() {
            x = around.forward(layer, x);
        } else if options.recompute == Recompute::Layers {
            kept.push(Kept::Input(Box::new(x.clone())));
            x = around.forward(layer, x);
        } else {
            let mut open = OpenBlock::new(layer, x, &around, options.recompute);
            x = open.output(layer, pass);
            kept.push(Kept::Open(Box::new(open)));
        }
    }
    let hidden = plain.norm.forward_wide(x.clone());
    HiddenPass::new(hidden, move |gradient, gradients| {
        let dtype = x.dtype();
        let mut gradient = decoder.norm.backward(x, gradient, gradients);
        if !lowest.anything_before_end() {
            return;
        }
        gradient = gradient.cast(dtype);
        for (index, blocks) in decoder.layers.iter().zip(&plain.layers).enumerate().rev() {
            let (Some(input), Some(kept)) = (lowest.input_of(index), kept.pop()) else { return };
            let open = match kept {
                Kept::Open(open) => *open,
                Kept::Input(x) => OpenBlock::new(blocks.1, *x, &around, Recompute::Layers),
            };
            let blocks = [blocks.0, blocks.1];
            let Some(below) = open.close(blocks, gradient, &around, input, gradients) else { return };
            gradient = below;
        }
        embedding_backward(decoder, batch, gradient, gradients);
    })
}

/// Logits and the way back, without a graph where the head is a plain matrix.
pub(super) fn logits_pass(decoder: &Decoder, hidden: Tensor<2>) -> LogitsPass<'_> {
    let weight = match &decoder.head {
        None => &decoder.embedding,
        Some(Linear { weight: Weight::Full(weight), bias: None, adapter: None }) => weight,
        Some(_) => return LogitsPass::keeping_graph(decoder, hidden, |hidden| decoder.logits(hidden)),
    };
    let matrix = plain(weight.val());
    let logits = hidden.clone().matmul(matrix.clone().transpose());
    LogitsPass::new(logits, move |gradient, gradients| {
        let of_hidden = gradient.clone().matmul(matrix);
        if weight.is_require_grad() {
            add_gradient(gradients, weight, gradient.transpose().matmul(hidden));
        }
        of_hidden
    })
}

/// Adds the gradients of the embeddings. `gradient`: of the loss with respect to what the first block reads.
fn embedding_backward(
    decoder: &Decoder,
    batch: &TokenBatch,
    gradient: Tensor<2>,
    gradients: &mut GradientsParams,
) {
    let gradient = gradient.cast(burn::tensor::DType::F32);
    let device = gradient.device();
    if let Some(learned) = decoder.position_embedding.as_ref().filter(|table| table.is_require_grad()) {
        let rows = index_tensor(batch.positions().iter().map(|&position| position as usize), &device);
        add_rows(gradients, learned, rows, gradient.clone());
    }
    if decoder.embedding.is_require_grad() {
        let gradient = gradient.mul_scalar(decoder.config.embedding_scale);
        let gradient = match decoder.learns(batch, &device) {
            Some(learns) => gradient * learns,
            None => gradient,
        };
        add_rows(gradients, &decoder.embedding, batch.token_tensor(&device), gradient);
    }
}

/// Adds `values`, `[rows, width]`, to the named rows of a table's gradient: in place where it has one already.
fn add_rows(
    gradients: &mut GradientsParams,
    table: &Param<Tensor<2>>,
    rows: Tensor<1, burn::tensor::Int>,
    values: Tensor<2>,
) {
    let so_far = gradients.remove::<2>(table.id).unwrap_or_else(|| plain(table.val()).zeros_like());
    gradients.register(table.id, so_far.select_assign(0, rows, values, IndexingUpdateOp::Add));
}

/// What is kept of one block until the way back.
enum Kept {
    /// Its input, `[tokens, hidden]`.
    Input(Box<Tensor<2>>),
    /// Everything.
    Open(Box<OpenBlock>),
}

/// The lowest block that has something to train at it or below it.
#[derive(Debug, Clone, Copy)]
struct Lowest {
    block: usize,
    embeddings: bool,
    end: usize,
}

impl Lowest {
    fn of(decoder: &Decoder) -> Self {
        let tables = [Some(&decoder.embedding), decoder.position_embedding.as_ref()];
        let embeddings = tables.into_iter().flatten().any(|table| table.is_require_grad());
        let end = decoder.layers.len();
        let first = decoder.layers.iter().position(trains).unwrap_or(end);
        Self { block: if embeddings { 0 } else { first }, embeddings, end }
    }

    /// Whether the way back reaches block `index`, and what it has to find there.
    fn input_of(self, index: usize) -> Option<Input> {
        if index < self.block {
            return None;
        }
        Some(if index > self.block || self.embeddings { Input::Needed } else { Input::NotNeeded })
    }

    fn anything_before_end(self) -> bool {
        self.embeddings || self.block < self.end
    }
}
