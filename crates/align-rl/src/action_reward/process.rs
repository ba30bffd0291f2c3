//! Process reward models as rewards of actions.

use std::fmt;

use align_model::causal_lm::CausalLm;
use align_reward::{function::RewardError, model::RewardModel};

use super::{ActionReward, ActionRewardFn};
use crate::{Trajectory, rollout::Sampled};

/// A [process reward model](align_reward::trainer::ProcessTrainer) that rewards the end of each step by the probability that
/// the step is right.
///
/// It reads the policy's own tokens, so that both have to have the same tokenizer. A step ends with a separator, and the last
/// one where the completion ends.
pub struct ProcessRewards<M: CausalLm> {
    name: String,
    model: RewardModel<M>,
    separators: Vec<u32>,
    class: usize,
}

impl<M: CausalLm> ProcessRewards<M> {
    /// This model, called `name` in errors. `separators` are the tokens that end a step, such as all those that hold a line
    /// break; `class` is the label of a step that is right, 1 in a model that tells wrong from right.
    ///
    /// # Panics
    /// If the head has no such class.
    #[must_use]
    pub fn new(name: impl Into<String>, model: &RewardModel<M>, separators: Vec<u32>, class: usize) -> Self {
        assert!(class < model.labels(), "the head has no such class");
        Self { name: name.into(), model: burn::module::Module::valid(model), separators, class }
    }

    /// Where steps end: the place among the tokens, and that among the actions. What an environment said ends none.
    fn ends(&self, trajectory: &Trajectory) -> Vec<(usize, usize)> {
        let is_action = trajectory.is_action.iter().enumerate().filter(|(_, is_action)| **is_action);
        let actions: Vec<usize> = is_action.map(|(token, _)| token).collect();
        let last = actions.len().saturating_sub(1);
        let ends = actions
            .into_iter()
            .enumerate()
            .filter(|&(action, token)| action == last || self.separators.contains(&trajectory.tokens[token]));
        ends.map(|(action, token)| (token, action)).collect()
    }
}

impl<M: CausalLm> ActionRewardFn for ProcessRewards<M> {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, samples: &[Sampled]) -> Result<Vec<Vec<ActionReward>>, RewardError> {
        let limit = self.model.backbone.max_positions();
        let of_one = |(index, sample): (usize, &Sampled)| {
            let trajectory = &sample.trajectory;
            let ends = self.ends(trajectory);
            if ends.is_empty() {
                return Ok(Vec::new());
            }
            let before = trajectory.prompt.len();
            let tokens = [trajectory.prompt.as_slice(), &trajectory.tokens].concat();
            if tokens.len() > limit {
                let reason = format!(
                    "sample {index} has {} tokens, the process reward model's context {limit}: lower `max_new_tokens`",
                    tokens.len()
                );
                return Err(RewardError::Failed { function: self.name.clone(), reason });
            }
            let positions: Vec<usize> = ends.iter().map(|(token, _)| before + token).collect();
            let probabilities = self.model.step_probabilities(&tokens, &positions, self.class);
            let reward = |((_, action), value): ((usize, usize), f64)| ActionReward { action, value };
            Ok(ends.into_iter().zip(probabilities).map(reward).collect())
        };
        samples.iter().enumerate().map(of_one).collect()
    }
}

impl<M: CausalLm> fmt::Debug for ProcessRewards<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, separators, class, .. } = self;
        let mut debug = f.debug_struct("ProcessRewards");
        debug
            .field("name", name)
            .field("separators", separators)
            .field("class", class)
            .finish_non_exhaustive()
    }
}
