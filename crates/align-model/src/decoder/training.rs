//! Training passes of the decoder, block by block.
//!
//! Each block has graphs of its own, from leaves that hold its input to its output; attention between its projections is
//! gone back through by formula. So a block's intermediate results live exactly as long as [`Recompute`] says, the way
//! back stops at the lowest block that has something to train, and a frozen parameter costs nothing.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{IndexingUpdateOp, Tensor},
};

use super::{
    Decoder, Linear, Weight, attention::Projected, block::Block, mask::AttentionPlan, pass::Pass,
    rope::Rotation,
};
use crate::causal_lm::{
    CausalLm, HiddenPass, LogitsPass, PassOptions, Recompute, TokenBatch, absorb, add_gradient, backward,
    index_tensor,
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
    for (index, layer) in decoder.layers.iter().enumerate() {
        let Some(input) = lowest.input_of(index) else {
            x = around.forward(&plain.layers[index], x);
            continue;
        };
        kept.push(if options.recompute == Recompute::Layers {
            let input_of_block = x.clone();
            x = around.forward(&plain.layers[index], x);
            Kept::Input(Box::new(input_of_block))
        } else {
            let open = OpenBlock::new(layer, x, input, &around, options.recompute);
            x = open.output.clone().inner();
            Kept::Open(Box::new(open))
        });
    }
    drop(plain);
    let end = leaf(x, lowest.anything_before_end());
    let hidden = decoder.norm.forward_wide(end.clone());
    HiddenPass::new(hidden.clone().inner(), move |gradient, gradients| {
        let Some(mut found) = backward([(hidden, gradient)]) else { return };
        absorb(gradients, &mut found, &decoder.norm);
        let Some(mut gradient) = end.grad_remove(&mut found) else { return };
        drop((found, end));
        for (index, layer) in decoder.layers.iter().enumerate().rev() {
            let (Some(input), Some(kept)) = (lowest.input_of(index), kept.pop()) else { return };
            let open = match kept {
                Kept::Open(open) => *open,
                Kept::Input(x) => OpenBlock::new(layer, *x, input, &around, Recompute::Layers),
            };
            let Some(below) = open.close(layer, gradient, &around, gradients) else { return };
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

/// What every block of a pass is given.
struct Surroundings {
    rotations: Vec<Rotation>,
    plan: AttentionPlan,
    pass: Pass,
}

impl Surroundings {
    fn rotation(&self, layer: &Block) -> Option<&Rotation> {
        self.rotations.get(layer.attention.rope())
    }

    fn forward(&self, layer: &Block, x: Tensor<2>) -> Tensor<2> {
        layer.forward(x, self.rotation(layer), self.pass, |attention, p| attention.attend(&p, &self.plan))
    }
}

/// What is kept of one block until the way back.
enum Kept {
    /// Its input, `[tokens, hidden]`.
    Input(Box<Tensor<2>>),
    /// Everything.
    Open(Box<OpenBlock>),
}

/// Whether a block's input needs a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Needed,
    NotNeeded,
}

/// A block between the way there and the way back: two graphs, and attention between them.
struct OpenBlock {
    /// The block's input, as leaves of the graph before attention and of the one after it.
    before: Tensor<2>,
    after: Tensor<2>,
    /// With the first graph.
    projected: Projected,
    /// A leaf of the second graph.
    mixed: Tensor<2>,
    weights: Vec<Tensor<4>>,
    /// With the second graph.
    output: Tensor<2>,
}

impl OpenBlock {
    fn new(layer: &Block, x: Tensor<2>, input: Input, around: &Surroundings, recompute: Recompute) -> Self {
        let before = leaf(x.clone(), input == Input::Needed);
        let projected = layer.project(before.clone(), around.rotation(layer), around.pass);
        let values = projected.clone().map(plain);
        // Within a block that is computed again nothing more is: its weights live for a moment only.
        let (mixed, weights) = if recompute == Recompute::Attention {
            (layer.attention.attend(&values, &around.plan), Vec::new())
        } else {
            layer.attention.attend_keeping(&values, &around.plan)
        };
        let mixed = leaf(mixed, projected.is_tracked());
        let after = leaf(x, input == Input::Needed);
        let output = layer.finish(after.clone(), mixed.clone(), around.pass);
        Self { before, after, projected, mixed, weights, output }
    }

    /// Goes back through the block. Returns the gradient of its input, if that is needed.
    fn close(
        self,
        layer: &Block,
        gradient: Tensor<2>,
        around: &Surroundings,
        gradients: &mut GradientsParams,
    ) -> Option<Tensor<2>> {
        let Self { before, after, projected, mixed, weights, output } = self;
        let mut found = backward([(output, gradient)])?;
        absorb(gradients, &mut found, layer);
        let around_attention = after.grad_remove(&mut found);
        let Some(of_mixed) = mixed.grad_remove(&mut found) else { return around_attention };
        drop((found, after));
        let values = projected.clone().map(plain);
        let ends = [plain(mixed), of_mixed];
        let of_projected = layer.attention.attend_backward(&values, &around.plan, ends, weights);
        drop(values);
        let mut found = backward(projected.zip(of_projected))?;
        absorb(gradients, &mut found, layer);
        match (around_attention, before.grad_remove(&mut found)) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        }
    }
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

/// Whether any parameter of a module has a gradient.
fn trains<M: Module>(module: &M) -> bool {
    struct Any(bool);
    impl ModuleVisitor for Any {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.0 |= parameter.is_require_grad();
        }
    }
    let mut any = Any(false);
    module.visit(&mut any);
    any.0
}

/// A leaf of a graph, with a gradient or as a constant.
fn leaf(x: Tensor<2>, needs_gradient: bool) -> Tensor<2> {
    let x = Tensor::from_inner(x);
    if needs_gradient { x.require_grad() } else { x }
}

fn plain<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.is_autodiff() { x.inner() } else { x }
}
