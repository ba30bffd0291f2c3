//! What a state is worth: models that predict the rewards that are still to come.

mod learner;

use align_model::{
    causal_lm::{CausalLm, PassOptions},
    logprob::{CompletionLayout, Prompts},
    pretrained::ClassifierKind,
};
use align_reward::model::{RewardModel, ScoreHead, ScorePass};
use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor},
};

use crate::trajectory::{Trajectory, prompted};

pub(crate) use learner::CriticLearner;

/// What says how much reward is still to come.
#[derive(Debug)]
pub enum Critic<M: CausalLm> {
    /// A model of its own: a reward model, or the policy's backbone with a [head that says 0](value_head).
    Separate(RewardModel<M>),
    /// A head on the policy's own hidden states, which costs no further pass. What the head's loss wants of those states
    /// becomes a part of the policy's gradients, so that
    /// [`coefficient`](crate::ppo::ValueObjective::coefficient) decides between the two.
    Shared(ScoreHead),
}

impl<M: CausalLm> Critic<M> {
    /// Numbers that it says of a state.
    #[must_use]
    pub fn labels(&self) -> usize {
        match self {
            Self::Separate(model) => model.labels(),
            Self::Shared(head) => head.labels(),
        }
    }
}

impl<M: CausalLm> From<RewardModel<M>> for Critic<M> {
    fn from(model: RewardModel<M>) -> Self {
        Self::Separate(model)
    }
}

/// Which states of a trajectory have a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValuedStates {
    /// Those in which the policy acts: one value an action.
    BeforeActions,
    /// Those, and the one after the last action of a trajectory that ended by itself, where TRL's PPO puts the score.
    BeforeActionsAndAtEnd,
}

impl ValuedStates {
    /// How many states of a trajectory have a value.
    #[must_use]
    pub fn of(self, trajectory: &Trajectory) -> usize {
        let has_end = self == Self::BeforeActionsAndAtEnd && !trajectory.is_truncated();
        trajectory.actions() + usize::from(has_end)
    }
}

/// Trajectories and the positions at which a critic is read, laid out for one pass.
#[derive(Debug)]
pub struct ValueLayout {
    layout: CompletionLayout,
    positions: Vec<usize>,
    counts: Vec<usize>,
}

/// A head that says 0 of every state, with a bias, for a critic that begins as some model's backbone: it learns the mean
/// return before it tells states apart.
///
/// `hidden`: the width of the backbone's hidden states.
#[must_use]
pub fn value_head(hidden: usize, device: &Device) -> ScoreHead {
    ScoreHead::from_values(ClassifierKind::Token, [1, hidden], vec![0.0; hidden], Some(vec![0.0]), device)
}

impl ValueLayout {
    /// Lays trajectories out, neighbours of one group with their prompt in common if `shares_prompts`.
    ///
    /// # Panics
    /// If a trajectory has no token or no prompt.
    #[must_use]
    pub fn new(trajectories: &[&Trajectory], states: ValuedStates, shares_prompts: bool) -> Self {
        let items = prompted(trajectories.iter().copied());
        assert!(items.iter().all(|item| !item.prompt.is_empty()), "a trajectory begins with a prompt");
        let layout = CompletionLayout::new(&items, Prompts { are_shared: shares_prompts, are_read: false });
        let positions = value_positions(&layout, trajectories, states);
        Self { layout, positions, counts: trajectories.iter().map(|it| states.of(it)).collect() }
    }

    /// How many values each trajectory has.
    #[must_use]
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }
}

/// Where a layout's states with a value are read, trajectory after trajectory.
pub(crate) fn value_positions(
    layout: &CompletionLayout,
    trajectories: &[&Trajectory],
    states: ValuedStates,
) -> Vec<usize> {
    let mut positions = Vec::new();
    for ((trajectory, range), end) in trajectories.iter().zip(&layout.completions).zip(ends(layout)) {
        positions.extend_from_slice(&layout.targets.positions()[range.clone()]);
        if states.of(trajectory) > trajectory.actions() {
            positions.push(end);
        }
    }
    positions
}

/// Where each completion's last token stands.
fn ends(layout: &CompletionLayout) -> Vec<usize> {
    let batch = &layout.batch;
    let mut is_prompt = vec![false; batch.sequences()];
    for &prompt in batch.continues().iter().flatten() {
        is_prompt[prompt] = true;
    }
    let segments = batch.starts().into_iter().zip(batch.lengths()).zip(is_prompt);
    segments.filter(|(_, is_prompt)| !is_prompt).map(|((start, length), _)| start + length - 1).collect()
}

/// A forward pass of a critic, open for a backward pass.
#[derive(Debug)]
pub struct ValuePass<'a, M: CausalLm>(ScorePass<'a, M>);

impl<'a, M: CausalLm> ValuePass<'a, M> {
    /// Reads `critic` at every state of a layout. Gradients flow if its parameters are on an autodiff device.
    ///
    /// # Panics
    /// If no state has a value.
    #[must_use]
    pub fn forward(critic: &'a RewardModel<M>, layout: &'a ValueLayout, options: PassOptions) -> Self {
        Self(ScorePass::forward(critic, &layout.layout.batch, &layout.positions, options))
    }

    /// The values, trajectory after trajectory, with a graph that ends at the pass's hidden states. Shape `[states]`.
    #[must_use]
    pub fn values(&self) -> Tensor<1> {
        self.0.scores().flatten(0, 1)
    }

    /// The gradients of `loss`, a single number `[1]` made of [`values`](Self::values), with respect to the critic's
    /// parameters.
    ///
    /// # Panics
    /// If the critic's parameters have no gradients.
    #[must_use]
    pub fn backward(self, loss: Tensor<1>) -> GradientsParams {
        self.0.backward(loss)
    }
}
