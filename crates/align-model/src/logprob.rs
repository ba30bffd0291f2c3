//! Log-probabilities of tokens and the gradients of any loss on them, without ever holding all logits.
//!
//! A [`LogProbPass`] runs the model once over a packed batch and keeps its hidden states at the positions that predict
//! targets. Logits exist for one chunk of those positions at a time: forward to get log-probabilities, and again
//! backward, when the loss has said how much each of them matters. Any differentiable function of the scores is a loss.
//!
//! ```text
//! tokens ──► hidden [targets, hidden] ──chunks──► scores [targets] ──► loss
//!                 ▲                        ▲                            │
//!                 └── ∂hidden ◄──chunks── ∂logits ◄── ∂scores ◄─────────┘
//! ```

mod divergence;
mod head;
mod layout;
mod rows;
mod scoring;
mod targets;

use burn::{
    optim::GradientsParams,
    tensor::{IndexingUpdateOp, Int, Tensor},
};

use crate::causal_lm::{CausalLm, HiddenPass, LogitsPass, PassOptions, TokenBatch, index_tensor};
pub use divergence::Divergence;
use head::{ChunkGradients, ChunkScores};
pub use layout::{CompletionLayout, Continuation, Prompted, Prompts, like, vector};
pub use scoring::{ScoringDistribution, Support};
pub use targets::{Targets, TokenLogProbs};

/// Logits held at once, at most: 64 MiB of f32, which also fits the smallest buffer limit of the graphics APIs.
pub(crate) const LOGITS_AT_ONCE: usize = 1 << 24;

/// What a model says of its targets. Every tensor is a leaf with a gradient while a [`LogProbPass`] is open on it.
#[derive(Debug, Clone)]
pub struct TokenScores {
    /// Log-probability of each target.
    pub log_probs: TokenLogProbs,
    /// Entropy of the next-token distribution at each target's position, in nats. `[targets]`
    pub entropies: Tensor<1>,
    /// Mean over the vocabulary of the log-probabilities at each position; label smoothing needs it. `[targets]`
    pub uniform_log_probs: Tensor<1>,
    /// The divergence from a reference over the whole vocabulary at each position, where one was given: `KL(π ‖ π_ref)`
    /// unless another was [asked for](LogProbPass::measuring). `[targets]`
    pub divergences: Option<Tensor<1>>,
    /// 1 where the most likely token is the target, else 0. `[targets]`, without a gradient
    pub correct: Tensor<1>,
    /// Mean logit over the vocabulary at each position. `[targets]`, without a gradient
    pub mean_logits: Tensor<1>,
    /// `log Σ π(v)²` over the vocabulary at each position, where it was asked for: how likely two draws are the same
    /// token. `[targets]`, without a gradient
    pub collisions: Option<Tensor<1>>,
}

/// One forward pass of a model, open for a backward pass.
#[derive(Debug)]
pub struct LogProbPass<'a, M: CausalLm> {
    model: &'a M,
    plain: M,
    pass: HiddenPass<'a>,
    /// Where in the batch the targets' hidden states are. `[targets]`
    positions: Tensor<1, Int>,
    /// Those hidden states, without a graph. `[targets, hidden]`
    hidden: Tensor<2>,
    tokens: Tensor<1, Int>,
    targets: Targets,
    reference: Option<Reference<'a, M>>,
    divergence: Divergence,
    distribution: ScoringDistribution,
    /// What else wants the hidden states changed. `[tokens, hidden]`
    hidden_gradient: Option<Tensor<2>>,
    /// Whether `log Σ π(v)²` is wanted.
    has_collisions: bool,
    /// Positions whose logits exist at once, at most.
    rows_at_once: usize,
}

/// The reference's head and its hidden states at the targets' positions, `[targets, hidden]`.
#[derive(Debug)]
struct Reference<'a, M> {
    model: &'a M,
    hidden: Tensor<2>,
}

impl<'a, M: CausalLm> LogProbPass<'a, M> {
    /// Runs `model` over `batch`. Gradients flow if the model's parameters are on an autodiff device.
    ///
    /// # Panics
    /// If there are no targets, the batch has a token or position that the model does not know, or it shares prompts and the
    /// model [cannot read that](CausalLm::shares_prompts).
    #[must_use]
    pub fn forward(model: &'a M, batch: &'a TokenBatch, targets: &Targets) -> Self {
        Self::forward_with(model, batch, targets, PassOptions::default())
    }

    /// As [`forward`](Self::forward), with dropout or recomputation.
    ///
    /// # Panics
    /// As [`forward`](Self::forward) does.
    #[must_use]
    pub fn forward_with(
        model: &'a M,
        batch: &'a TokenBatch,
        targets: &Targets,
        options: PassOptions,
    ) -> Self {
        assert!(!targets.is_empty(), "a pass needs at least one target");
        let is_read = model.shares_prompts() || !batch.shares_prompts();
        assert!(is_read, "this model cannot read prompts that are shared: lay every sequence out whole");
        let pass = model.training_pass(batch, options);
        let device = pass.hidden().device();
        let positions = index_tensor(targets.positions().iter().copied(), &device);
        Self {
            model,
            plain: model.valid(),
            hidden: pass.hidden().select(0, positions.clone()),
            tokens: index_tensor(targets.tokens().iter().map(|&t| t as usize), &device),
            pass,
            positions,
            targets: targets.clone(),
            reference: None,
            divergence: Divergence::default(),
            distribution: ScoringDistribution::default(),
            hidden_gradient: None,
            has_collisions: false,
            rows_at_once: (LOGITS_AT_ONCE / model.vocab_size()).max(1),
        }
    }

    /// Holds the logits of at most so many positions at once, instead of as many as fit 64 MiB.
    ///
    /// # Panics
    /// If `rows` is 0.
    #[must_use]
    pub fn in_chunks_of(mut self, rows: usize) -> Self {
        assert!(rows > 0, "a chunk needs at least one row");
        self.rows_at_once = rows;
        self
    }

    /// Also runs a reference model, without gradients, so that the scores have the exact divergence from it.
    #[must_use]
    pub fn with_reference(mut self, reference: &'a M, batch: &TokenBatch) -> Self {
        let hidden = plain(reference.hidden(batch)).select(0, self.positions.clone());
        self.reference = Some(Reference { model: reference, hidden });
        self
    }

    /// Measures the distance from the reference by another divergence than `KL(π ‖ π_ref)`.
    #[must_use]
    pub fn measuring(mut self, divergence: Divergence) -> Self {
        self.divergence = divergence;
        self
    }

    /// Scores the targets under `distribution` instead of the model's own: log-probabilities, entropies, divergences and
    /// everything else that the scores say, and their gradients. Means over the vocabulary become means over each
    /// target's support.
    ///
    /// # Panics
    /// If there are supports, but not one for each target and with it in it.
    #[must_use]
    pub fn under(mut self, distribution: ScoringDistribution) -> Self {
        distribution.check(&self.targets);
        self.distribution = distribution;
        self
    }

    /// The final hidden states of the whole batch, without a graph: for other heads that read them. Shape
    /// `[tokens, hidden]`.
    #[must_use]
    pub fn hidden(&self) -> Tensor<2> {
        self.pass.hidden()
    }

    /// Takes the gradient of another head's loss with respect to [`hidden`](Self::hidden) along on the way back.
    /// `gradient`: `[tokens, hidden]`, without a graph.
    #[must_use]
    pub fn with_hidden_gradient(mut self, gradient: Tensor<2>) -> Self {
        self.hidden_gradient = Some(gradient);
        self
    }

    /// Scores also say how likely two draws are the same token, [`TokenScores::collisions`].
    #[must_use]
    pub fn with_collisions(mut self) -> Self {
        self.has_collisions = true;
        self
    }

    /// Scores all targets. The result's tensors are leaves: build a loss from them and give it to
    /// [`backward`](Self::backward).
    #[must_use]
    pub fn scores(&self) -> TokenScores {
        let hidden = self.hidden.clone();
        let chunks: Vec<TokenScores> = self
            .chunks()
            .map(|(start, length)| {
                let logits = self.plain.logits(hidden.clone().narrow(0, start, length));
                self.leaves(&self.score(logits, start, length))
            })
            .collect();
        self.join(chunks, |values| self.leaf(values))
    }

    /// The gradients of `loss`, a single number `[1]` made of `scores`, with respect to the model's parameters.
    ///
    /// # Panics
    /// If the model's parameters have no gradients.
    #[must_use]
    pub fn backward(self, loss: Tensor<1>, scores: &TokenScores) -> GradientsParams {
        let mut gradients = loss.backward();
        let mut take = |leaf: &Tensor<1>| leaf.grad_remove(&mut gradients).map(|g| g.unsqueeze_dim::<2>(1));
        let all = ChunkGradients {
            log_probs: take(&scores.log_probs.values),
            entropies: take(&scores.entropies),
            uniform_log_probs: take(&scores.uniform_log_probs),
            divergences: scores.divergences.as_ref().and_then(&mut take),
        };
        self.backward_chunks(|_, start, length| {
            let cut = |x: &Option<Tensor<2>>| x.clone().map(|x| x.narrow(0, start, length));
            ChunkGradients {
                log_probs: cut(&all.log_probs),
                entropies: cut(&all.entropies),
                uniform_log_probs: cut(&all.uniform_log_probs),
                divergences: cut(&all.divergences),
            }
        })
    }

    /// Gradients of a loss that is a sum of one term a token, in a single pass over the head.
    ///
    /// `loss` maps the scores of some tokens to their terms, `[tokens]`. Returns the gradients, the scores, and all
    /// terms, `[targets]`, none of them with a graph.
    ///
    /// # Panics
    /// If the model's parameters have no gradients.
    #[must_use]
    pub fn backward_per_token(
        self,
        loss: impl Fn(&TokenScores) -> Tensor<1>,
    ) -> (GradientsParams, TokenScores, Tensor<1>) {
        let (mut terms, mut seen) = (Vec::new(), Vec::new());
        let (counts, has_collisions) = (self.targets.counts().to_vec(), self.has_collisions);
        let gradients = self.backward_chunks(|chunk, _, _| {
            let scores = leaves(chunk, has_collisions);
            let tracked = map_scores(&scores, |x| Tensor::from_inner(x).require_grad());
            let term = loss(&tracked);
            terms.push(plain(term.clone()));
            seen.push(scores);
            let mut gradients = term.sum().backward();
            let mut take =
                |leaf: &Tensor<1>| leaf.grad_remove(&mut gradients).map(|g| g.unsqueeze_dim::<2>(1));
            ChunkGradients {
                log_probs: take(&tracked.log_probs.values),
                entropies: take(&tracked.entropies),
                uniform_log_probs: take(&tracked.uniform_log_probs),
                divergences: tracked.divergences.as_ref().and_then(take),
            }
        });
        (gradients, join(counts, seen, |values| values), Tensor::cat(terms, 0))
    }

    /// Goes backward through the head chunk by chunk and then, once, through the model.
    fn backward_chunks(
        self,
        mut gradient: impl FnMut(&ChunkScores, usize, usize) -> ChunkGradients,
    ) -> GradientsParams {
        let (mut gradients, mut at_targets) = (GradientsParams::new(), Vec::new());
        for (start, length) in self.chunks() {
            let LogitsPass { logits, backward } =
                self.model.training_logits(self.hidden.clone().narrow(0, start, length));
            let scores = self.score(logits, start, length);
            let of_scores = gradient(&scores, start, length);
            at_targets.push(backward.run(scores.into_logit_gradient(of_scores), &mut gradients));
        }
        let Self { pass, positions, hidden_gradient, .. } = self;
        let of_hidden = hidden_gradient.unwrap_or_else(|| pass.hidden().zeros_like());
        let of_hidden =
            of_hidden.select_assign(0, positions, Tensor::cat(at_targets, 0), IndexingUpdateOp::Add);
        pass.backward(of_hidden, &mut gradients);
        gradients
    }

    fn score(&self, logits: Tensor<2>, start: usize, length: usize) -> ChunkScores {
        let tokens = self.tokens.clone().narrow(0, start, length);
        let reference = self.reference.as_ref().map(|reference| {
            let hidden = reference.hidden.clone().narrow(0, start, length);
            (plain(reference.model.logits(hidden)), self.divergence)
        });
        let reshaping = self.distribution.chunk(start, length, logits.dims()[1], &logits.device());
        ChunkScores::new(logits, tokens, reference, reshaping)
    }

    /// Start and length of each chunk of targets.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<M> {
        let total = self.targets.len();
        // Equal chunks: a small last one would cost as much as a full one.
        let rows = total.div_ceil(total.div_ceil(self.rows_at_once));
        (0..total).step_by(rows).map(move |start| (start, rows.min(total - start)))
    }

    fn leaves(&self, chunk: &ChunkScores) -> TokenScores {
        leaves(chunk, self.has_collisions)
    }

    fn join(&self, chunks: Vec<TokenScores>, wrap: impl Fn(Tensor<1>) -> Tensor<1>) -> TokenScores {
        join(self.targets.counts().to_vec(), chunks, wrap)
    }

    /// A leaf with a gradient, if the model has gradients at all.
    fn leaf(&self, values: Tensor<1>) -> Tensor<1> {
        if self.pass.has_gradients() { Tensor::from_inner(values).require_grad() } else { values }
    }
}

/// Log-probabilities that `model` assigns to the targets, without gradients. Values `[targets]`.
///
/// # Panics
/// If there are no targets, or the batch has a token or position that the model does not know.
pub fn token_log_probs<M: CausalLm>(model: &M, batch: &TokenBatch, targets: &Targets) -> TokenLogProbs {
    token_log_probs_under(model, batch, targets, ScoringDistribution::default())
}

/// Log-probabilities that `model` assigns to the targets under a distribution that is made of its own, without gradients.
/// Values `[targets]`.
///
/// # Panics
/// If there are no targets, the batch has a token or position that the model does not know, or there are supports, but not
/// one for each target and with it in it.
pub fn token_log_probs_under<M: CausalLm>(
    model: &M,
    batch: &TokenBatch,
    targets: &Targets,
    distribution: ScoringDistribution,
) -> TokenLogProbs {
    let model = model.valid();
    LogProbPass::forward(&model, batch, targets).under(distribution).scores().log_probs
}

/// A tensor without its graph.
///
/// # Shapes
/// The same as that of `x`.
#[must_use]
pub fn plain<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.is_autodiff() { x.inner() } else { x }
}

/// A chunk's scores as vectors, `[chunk]`.
fn leaves(chunk: &ChunkScores, has_collisions: bool) -> TokenScores {
    let values = chunk.log_probs.clone().squeeze_dim(1);
    TokenScores {
        log_probs: TokenLogProbs { values, counts: Vec::new() },
        entropies: chunk.entropies.clone().squeeze_dim(1),
        uniform_log_probs: chunk.uniform_log_probs.clone().squeeze_dim(1),
        divergences: chunk.divergence.as_ref().map(|divergence| divergence.values.clone().squeeze_dim(1)),
        correct: chunk.correct.clone().squeeze_dim(1),
        mean_logits: chunk.mean_logits.clone().squeeze_dim(1),
        collisions: has_collisions.then(|| chunk.collisions().squeeze_dim(1)),
    }
}

/// Applies `wrap` to everything that has a gradient.
fn map_scores(scores: &TokenScores, wrap: impl Fn(Tensor<1>) -> Tensor<1>) -> TokenScores {
    let TokenLogProbs { values, counts } = scores.log_probs.clone();
    TokenScores {
        log_probs: TokenLogProbs { values: wrap(values), counts },
        entropies: wrap(scores.entropies.clone()),
        uniform_log_probs: wrap(scores.uniform_log_probs.clone()),
        divergences: scores.divergences.clone().map(&wrap),
        correct: scores.correct.clone(),
        mean_logits: scores.mean_logits.clone(),
        collisions: scores.collisions.clone(),
    }
}

fn join(counts: Vec<usize>, chunks: Vec<TokenScores>, wrap: impl Fn(Tensor<1>) -> Tensor<1>) -> TokenScores {
    let cat = |field: &dyn Fn(&TokenScores) -> Tensor<1>| Tensor::cat(chunks.iter().map(field).collect(), 0);
    let all = |field: &dyn Fn(&TokenScores) -> Option<Tensor<1>>| {
        let found: Option<Vec<Tensor<1>>> = chunks.iter().map(field).collect();
        found.map(|parts| Tensor::cat(parts, 0))
    };
    let joined = TokenScores {
        log_probs: TokenLogProbs { values: cat(&|c| c.log_probs.values.clone()), counts },
        entropies: cat(&|c| c.entropies.clone()),
        uniform_log_probs: cat(&|c| c.uniform_log_probs.clone()),
        divergences: all(&|c| c.divergences.clone()),
        correct: cat(&|c| c.correct.clone()),
        mean_logits: cat(&|c| c.mean_logits.clone()),
        collisions: all(&|c| c.collisions.clone()),
    };
    map_scores(&joined, wrap)
}
