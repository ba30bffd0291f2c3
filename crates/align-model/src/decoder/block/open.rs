//! A block between the way there and the way back.
//!
//! The way back is written out, step by step in reverse. What is element-wise is computed again rather than kept: it costs
//! one pass over memory, and without it a block keeps half as much.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};

use super::{Block, Residual, after};
use crate::{
    causal_lm::Recompute,
    decoder::{
        attention::Projected,
        linear::{Input, WayBack},
        mask::AttentionPlan,
        norm::Norm,
        pass::Pass,
        rope::Rotation,
    },
};

/// What every block of a pass is given.
#[derive(Debug)]
pub(in crate::decoder) struct Surroundings {
    pub(in crate::decoder) rotations: Vec<Rotation>,
    pub(in crate::decoder) plan: AttentionPlan,
    pub(in crate::decoder) pass: Pass,
}

impl Surroundings {
    fn rotation(&self, layer: &Block) -> Option<&Rotation> {
        self.rotations.get(layer.attention.rope())
    }

    /// A block's result without a way back. `layer` is a plain one.
    pub(in crate::decoder) fn forward(&self, layer: &Block, x: Tensor<2>) -> Tensor<2> {
        layer.forward(x, self.rotation(layer), self.pass, |attention, p| attention.attend(&p, &self.plan))
    }
}

/// What is kept of one block: the inputs of its products that are not element-wise functions of others. Plain tensors.
#[derive(Debug)]
pub(in crate::decoder) struct OpenBlock {
    /// The block's input.
    x: Tensor<2>,
    /// Before the norms of single heads, where there are any.
    before_norms: Option<Projected>,
    projected: Projected,
    /// Of attention, unless they are computed again.
    weights: Vec<Tensor<4>>,
    mixed: Tensor<2>,
    /// Attention's result, where it is normalised.
    attended: Option<Tensor<2>>,
    /// The residual stream after attention.
    middle: Tensor<2>,
    gate: Option<Tensor<2>>,
    up: Tensor<2>,
    /// The feed-forward block's result, where it is normalised.
    fed: Option<Tensor<2>>,
}

impl OpenBlock {
    /// Goes through `layer`, a plain one, as far as the way back needs it.
    pub(in crate::decoder) fn new(
        layer: &Block,
        x: Tensor<2>,
        around: &Surroundings,
        recompute: Recompute,
    ) -> Self {
        let pass = around.pass;
        let read = layer.attention.read(&layer.attention_norm.forward(x.clone()), pass);
        let before_norms = layer.attention.norms_heads().then(|| read.clone());
        let projected = layer.attention.turn(read, around.rotation(layer));
        // Within a block that is computed again nothing more is: its weights live for a moment only.
        let (mixed, weights) = if recompute == Recompute::Attention {
            (layer.attention.attend(&projected, &around.plan), Vec::new())
        } else {
            layer.attention.attend_keeping(&projected, &around.plan)
        };
        let attended = layer.attention.output.forward(mixed.clone(), pass);
        let (kept, attended) = normed(layer.attention_post_norm.as_ref(), attended);
        let middle = x.clone() + attended;
        let fed_from = if layer.residual == Residual::Parallel { &x } else { &middle };
        let (gate, up) = layer.mlp.project(&layer.mlp_norm.forward(fed_from.clone()), pass);
        Self { x, before_norms, projected, weights, mixed, attended: kept, middle, gate, up, fed: None }
    }

    /// The block's output.
    pub(in crate::decoder) fn output(&mut self, layer: &Block, pass: Pass) -> Tensor<2> {
        let mixed = layer.mlp.mix(self.gate.clone(), self.up.clone());
        let (kept, fed) = normed(layer.mlp_post_norm.as_ref(), layer.mlp.down.forward(mixed, pass));
        self.fed = kept;
        self.middle.clone() + fed
    }

    /// Goes back. `layer` has the gradients that are wanted, `plain` the same numbers without them. Returns the gradient of
    /// the block's input, if that is needed.
    pub(in crate::decoder) fn close(
        mut self,
        [layer, plain]: [&Block; 2],
        gradient: Tensor<2>,
        around: &Surroundings,
        input: Input,
        gradients: &mut GradientsParams,
    ) -> Option<Tensor<2>> {
        if layer.mlp_post_norm.is_some() && self.fed.is_none() {
            self.output(plain, around.pass);
        }
        let Self { x, before_norms, projected, weights, mixed, attended, middle, gate, up, fed } = self;
        let pass = around.pass;
        let is_parallel = layer.residual == Residual::Parallel;
        let fed_from = if is_parallel { x.clone() } else { middle };
        let of_fed = back(layer.mlp_post_norm.as_ref(), fed, gradient.clone(), gradients);
        let of_fed_from = feed_backward([layer, plain], (fed_from, gate, up), of_fed, pass, gradients);
        let (of_middle, beside) =
            if is_parallel { (gradient, Some(of_fed_from)) } else { (gradient + of_fed_from, None) };

        let of_attended = back(layer.attention_post_norm.as_ref(), attended, of_middle.clone(), gradients);
        let way = WayBack { pass, input: Input::Needed, gradients };
        let of_mixed = layer.attention.output.backward(&mixed, of_attended, way)?;
        let around_attention = match beside {
            Some(beside) => of_middle + beside,
            None => of_middle,
        };
        if input == Input::NotNeeded && !reads_trainably(layer) {
            return None;
        }
        let ends = [mixed, of_mixed];
        let of_projected = layer.attention.attend_backward(&projected, &around.plan, ends, weights);
        drop(projected);
        let rotation = around.rotation(layer);
        let of_read = layer.attention.turn_backward(before_norms, of_projected, rotation, gradients);
        let normed = plain.attention_norm.forward(x.clone());
        let through =
            if input == Input::Needed || trains(&layer.attention_norm) { Input::Needed } else { input };
        let way = WayBack { pass, input: through, gradients };
        let of_normed = layer.attention.read_backward(&normed, of_read, way)?;
        drop(normed);
        let of_x = layer.attention_norm.backward(x, of_normed, gradients);
        (input == Input::Needed).then(|| around_attention + of_x)
    }
}

/// The way back through the feed-forward block and the norm before it. Returns the gradient of what that norm reads.
fn feed_backward(
    [layer, plain]: [&Block; 2],
    (x, gate, up): (Tensor<2>, Option<Tensor<2>>, Tensor<2>),
    gradient: Tensor<2>,
    pass: Pass,
    gradients: &mut GradientsParams,
) -> Tensor<2> {
    let mut through = |linear: &crate::decoder::Linear, x: &Tensor<2>, gradient: Tensor<2>| {
        let way = WayBack { pass, input: Input::Needed, gradients: &mut *gradients };
        let of_x = linear.backward(x, gradient, way);
        of_x.unwrap_or_else(|| unreachable!("the gradient of the input was asked for"))
    };
    let mixed = plain.mlp.mix(gate.clone(), up.clone());
    let of_mixed = through(&layer.mlp.down, &mixed, gradient);
    drop(mixed);
    let (of_gate, of_up) = layer.mlp.mix_backward(gate, up, of_mixed);
    let normed = plain.mlp_norm.forward(x.clone());
    let mut of_normed = through(&layer.mlp.up, &normed, of_up);
    if let (Some(gate), Some(of_gate)) = (&layer.mlp.gate, of_gate) {
        of_normed = of_normed + through(gate, &normed, of_gate);
    }
    drop(normed);
    layer.mlp_norm.backward(x, of_normed, gradients)
}

/// What a norm on `x` needs on the way back, and its result.
fn normed(norm: Option<&Norm>, x: Tensor<2>) -> (Option<Tensor<2>>, Tensor<2>) {
    let kept = norm.map(|_| x.clone());
    (kept, after(norm, x))
}

fn back(
    norm: Option<&Norm>,
    x: Option<Tensor<2>>,
    gradient: Tensor<2>,
    gradients: &mut GradientsParams,
) -> Tensor<2> {
    match (norm, x) {
        (Some(norm), Some(x)) => norm.backward(x, gradient, gradients),
        _ => gradient,
    }
}

/// Whether anything trains between a block's input and attention.
fn reads_trainably(layer: &Block) -> bool {
    let attention = &layer.attention;
    let readers = [&attention.query, &attention.key, &attention.value];
    trains(&layer.attention_norm)
        || readers.into_iter().any(trains)
        || trains(&attention.adapter)
        || trains(&attention.query_norm)
        || trains(&attention.key_norm)
}

/// Whether any parameter of a module has a gradient.
pub(in crate::decoder) fn trains<M: Module>(module: &M) -> bool {
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
