//! A forward pass that can go back.

use std::fmt;

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Gradients, Tensor},
};
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
    /// Attention weights alone, whose number is quadratic in a sequence's length. They cost little to compute.
    Attention,
    /// Every layer: only the inputs of layers are kept, and one layer's intermediate results exist at a time.
    Layers,
}

/// Decides the dropout masks of one pass: the same seed gives the same masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutSeed(pub u64);

impl DropoutSeed {
    /// A seed that is a function of numbers, such as a run's seed, the step and the pass within it: a run that is resumed
    /// draws the same masks without remembering anything.
    #[must_use]
    pub fn of(numbers: &[u64]) -> Self {
        // The mixing function of SplitMix64, Steele et al. 2014.
        let mix = |mut x: u64| {
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        let add = |seed: u64, &number: &u64| mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ mix(number));
        Self(numbers.iter().fold(0, add))
    }
}

/// The hidden states of a training pass and the way back from them to the parameters.
pub struct HiddenPass<'a> {
    hidden: Tensor<2>,
    backward: Option<HiddenBackward<'a>>,
}

type HiddenBackward<'a> = Box<dyn FnOnce(Tensor<2>, &mut GradientsParams) + 'a>;

impl<'a> HiddenPass<'a> {
    /// Hidden states `[tokens, hidden]`, without a graph, and what turns a loss's gradient with respect to them, of the
    /// same shape, into gradients of the parameters and adds those to the ones it is given.
    #[must_use]
    pub fn new(hidden: Tensor<2>, backward: impl FnOnce(Tensor<2>, &mut GradientsParams) + 'a) -> Self {
        Self { hidden, backward: Some(Box::new(backward)) }
    }

    /// Hidden states `[tokens, hidden]` without a way back.
    #[must_use]
    pub fn without_gradients(hidden: Tensor<2>) -> Self {
        Self { hidden, backward: None }
    }

    /// Hidden states `[tokens, hidden]` that carry their whole graph, or none at all if the model has no gradients.
    #[must_use]
    pub fn keeping_graph<M: Module>(model: &'a M, hidden: Tensor<2>) -> Self {
        if !hidden.is_autodiff() {
            return Self::without_gradients(hidden);
        }
        Self::new(hidden.clone().inner(), move |gradient, gradients| {
            if let Some(mut found) = backward([(hidden, gradient)]) {
                absorb(gradients, &mut found, model);
            }
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

    /// Adds the parameters' gradients to `gradients`. `gradient`: of the loss with respect to the hidden states,
    /// `[tokens, hidden]`, without a graph.
    ///
    /// # Panics
    /// If the model's parameters have no gradients.
    pub fn backward(self, gradient: Tensor<2>, gradients: &mut GradientsParams) {
        assert!(self.has_gradients(), "the model's parameters have no gradients: call `train` on it first");
        let Some(backward) = self.backward else { unreachable!("it was just looked for") };
        backward(gradient, gradients);
    }
}

/// The logits of some positions of a training pass and the way back from them.
pub struct LogitsPass<'a> {
    /// Logits, without a graph. Shape `[positions, vocab]`.
    pub logits: Tensor<2>,
    /// Goes back.
    pub backward: LogitsBackward<'a>,
}

/// The way back from logits to hidden states and to the head.
pub struct LogitsBackward<'a>(BoxedLogitsBackward<'a>);

type BoxedLogitsBackward<'a> = Box<dyn FnOnce(Tensor<2>, &mut GradientsParams) -> Tensor<2> + 'a>;

impl<'a> LogitsPass<'a> {
    /// Logits without a graph, and what turns a loss's gradient with respect to them, of the same shape, into its gradient
    /// with respect to the hidden states, `[positions, hidden]`, and adds the head's gradients to the ones it is given.
    #[must_use]
    pub fn new(
        logits: Tensor<2>,
        backward: impl FnOnce(Tensor<2>, &mut GradientsParams) -> Tensor<2> + 'a,
    ) -> Self {
        Self { logits, backward: LogitsBackward(Box::new(backward)) }
    }

    /// The logits that `head` makes of `hidden`, `[positions, hidden]`, with their graph.
    #[must_use]
    pub fn keeping_graph<M: Module>(
        model: &'a M,
        hidden: Tensor<2>,
        head: impl FnOnce(Tensor<2>) -> Tensor<2>,
    ) -> Self {
        let leaf = Tensor::from_inner(hidden).require_grad();
        let logits = head(leaf.clone());
        Self::new(logits.clone().inner(), move |gradient, gradients| {
            let mut found = backward([(logits, gradient)]);
            if let Some(found) = &mut found {
                absorb(gradients, found, model);
            }
            let of_hidden = found.and_then(|mut found| leaf.grad_remove(&mut found));
            of_hidden.unwrap_or_else(|| leaf.inner().zeros_like())
        })
    }
}

impl LogitsBackward<'_> {
    /// The gradient with respect to the hidden states, `[positions, hidden]`; the head's gradients are added to
    /// `gradients`. `gradient`: of the loss with respect to the logits, `[positions, vocab]`, without a graph.
    #[must_use]
    pub fn run(self, gradient: Tensor<2>, gradients: &mut GradientsParams) -> Tensor<2> {
        (self.0)(gradient, gradients)
    }
}

/// Goes back from tensors whose gradients are known. `None` if none of them has a graph.
fn backward<const D: usize>(ends: impl IntoIterator<Item = (Tensor<D>, Tensor<D>)>) -> Option<Gradients> {
    let products = ends
        .into_iter()
        .filter(|(end, _)| end.is_tracked())
        .map(|(end, gradient)| (end * Tensor::from_inner(gradient)).sum());
    products.reduce(|sum, product| sum + product).map(|sum| sum.backward())
}

/// Goes back through a small graph of its own: `forward` is given leaves of `inputs` and returns results with their
/// gradients. Returns the gradients of the inputs; those of `module`'s parameters are added to `gradients`. All tensors that
/// go in and come out are plain.
pub(crate) fn backward_through<M: Module, const N: usize, const D: usize, E>(
    module: &M,
    inputs: [Tensor<D>; N],
    forward: impl FnOnce([Tensor<D>; N]) -> E,
    gradients: &mut GradientsParams,
) -> [Tensor<D>; N]
where
    E: IntoIterator<Item = (Tensor<D>, Tensor<D>)>,
{
    let leaves = inputs.map(|x| Tensor::from_inner(x).require_grad());
    let mut found = backward(forward(leaves.clone()));
    if let Some(found) = &mut found {
        absorb(gradients, found, module);
    }
    leaves.map(|leaf| {
        let gradient = found.as_mut().and_then(|found| leaf.grad_remove(found));
        gradient.unwrap_or_else(|| leaf.inner().zeros_like())
    })
}

/// A tensor without its graph.
pub(crate) fn plain<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.is_autodiff() { x.inner() } else { x }
}

/// The first rows of a parameter, as a value of its own.
pub(crate) fn leading_rows<const D: usize>(x: Tensor<D>, rows: usize) -> Tensor<D> {
    if x.is_autodiff() { Tensor::from_inner(x.inner().narrow(0, 0, rows)) } else { x.narrow(0, 0, rows) }
}

/// Moves the gradients of `module`'s parameters out of `from`, adding them to those that `into` has.
fn absorb<M: Module>(into: &mut GradientsParams, from: &mut Gradients, module: &M) {
    module.visit(&mut Absorb { into, from });
}

/// Adds one parameter's gradient.
pub(crate) fn add_gradient<const D: usize>(
    gradients: &mut GradientsParams,
    parameter: &Param<Tensor<D>>,
    gradient: Tensor<D>,
) {
    let sum = match gradients.remove::<D>(parameter.id) {
        Some(so_far) => so_far + gradient,
        None => gradient,
    };
    gradients.register(parameter.id, sum);
}

struct Absorb<'a> {
    into: &'a mut GradientsParams,
    from: &'a mut Gradients,
}

impl ModuleVisitor for Absorb<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if !parameter.is_require_grad() {
            return;
        }
        if let Some(gradient) = parameter.val().grad_remove(self.from) {
            add_gradient(self.into, parameter, gradient);
        }
    }
}

impl fmt::Debug for HiddenPass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HiddenPass")
            .field("hidden", &self.hidden.dims())
            .field("has_gradients", &self.has_gradients())
            .finish()
    }
}

impl fmt::Debug for LogitsPass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogitsPass").field("logits", &self.logits.dims()).finish_non_exhaustive()
    }
}

impl fmt::Debug for LogitsBackward<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogitsBackward").finish_non_exhaustive()
    }
}
