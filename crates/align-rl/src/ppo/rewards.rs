//! From scores to a reward for every token, and on to advantages and returns.

use super::{AdvantageWhitening, PpoConfig, RewardShaping, RewardWhitening};
use crate::{
    Trajectory,
    loss::{Moments, ScorePlacement, Whitening, gae, penalize_missing_end, place_score, whiten},
};

/// What one trajectory's rewards are made of.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) trajectory: &'a Trajectory,
    pub(super) score: f64,
    /// What the divergence costs each action. `[actions]`
    pub(super) penalties: Vec<f64>,
    /// What each action is rewarded with besides; nothing at all without such rewards. `[actions]`
    pub(super) of_actions: &'a [f64],
    /// What the critic says. `[states]`
    pub(super) values: Vec<f64>,
}

/// What one trajectory's tokens were worth.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Worth {
    /// `[actions]`
    pub(super) advantages: Vec<f64>,
    /// `[states]`
    pub(super) returns: Vec<f64>,
}

impl RewardShaping {
    /// A score as it is paid.
    pub(super) fn shaped(&self, score: f64, trajectory: &Trajectory) -> f64 {
        let clipped = self.clip.map_or(score, |range| score.clamp(range.low, range.high));
        let penalty = self.missing_end_penalty.map_or(0.0, align_model::number::Positive::get);
        penalize_missing_end(clipped, !trajectory.is_truncated(), penalty)
    }

    /// The rewards of a trajectory's states. `[states]`
    fn of_states(&self, outcome: &Outcome<'_>) -> Vec<f64> {
        let of_action = |action: usize| outcome.of_actions.get(action).copied().unwrap_or(0.0);
        let penalties = outcome.penalties.iter().enumerate();
        let rewards: Vec<f64> = penalties.map(|(action, penalty)| of_action(action) - penalty).collect();
        let placement =
            if outcome.trajectory.is_truncated() { ScorePlacement::LastAction } else { self.placement };
        place_score(&rewards, self.shaped(outcome.score, outcome.trajectory), placement)
    }
}

/// Advantages and returns of a step's trajectories.
pub(super) fn worth(outcomes: &[Outcome<'_>], config: &PpoConfig) -> Vec<Worth> {
    let mut rewards: Vec<Vec<f64>> =
        outcomes.iter().map(|outcome| config.rewards.of_states(outcome)).collect();
    if config.rewards.whitening == RewardWhitening::KeepMean {
        let mean = Moments::of(rewards.iter().flatten().copied()).mean;
        rewards = over_all(rewards, |all| {
            whiten(all, Whitening::Corrected).into_iter().map(|white| white + mean).collect()
        });
    }
    let (mut advantages, mut returns) = (Vec::new(), Vec::new());
    for (outcome, rewards) in outcomes.iter().zip(rewards) {
        let mut of_states = gae(&rewards, &outcome.values, config.gamma, config.lambda);
        returns.push(
            of_states.iter().zip(&outcome.values).map(|(advantage, value)| advantage + value).collect(),
        );
        of_states.truncate(outcome.trajectory.actions());
        advantages.push(of_states);
    }
    if let Some(convention) = AdvantageWhitening::convention(config.advantage_whitening) {
        advantages = over_all(advantages, |all| whiten(all, convention));
    }
    let pairs = advantages.into_iter().zip(returns);
    pairs.map(|(advantages, returns)| Worth { advantages, returns }).collect()
}

/// Applies a function to all numbers of all lists as one.
fn over_all(lists: Vec<Vec<f64>>, function: impl FnOnce(&[f64]) -> Vec<f64>) -> Vec<Vec<f64>> {
    let mut changed = function(&lists.concat()).into_iter();
    lists.iter().map(|list| changed.by_ref().take(list.len()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use align_model::number::{Positive, UnitInterval};
    use align_reward::rollout::FinishReason;
    use serde_json::Value;

    use super::*;
    use crate::kl::KlEstimator;

    const ZEROS: [f64; 16] = [0.0; 16];

    fn numbers(row: &Value) -> Vec<f64> {
        row.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    }

    fn trajectory(actions: usize, is_truncated: bool) -> Trajectory {
        Trajectory {
            group: 0,
            prompt: vec![1],
            tokens: vec![3; actions],
            is_action: vec![true; actions],
            sampling_log_probs: vec![0.0; actions],
            supports: None,
            finish: if is_truncated { FinishReason::Length } else { FinishReason::Stop },
        }
    }

    #[track_caller]
    fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let tolerance = 1e-6 * expected.abs() + 1e-6;
            assert!((found - expected).abs() <= tolerance, "{what}, entry {index}: {found}, not {expected}");
        }
    }

    /// TRL pads rows to one length; the last state of a row that is not full is the one after its last token.
    #[test]
    fn advantages_and_returns_are_those_of_trl() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/loss_ppo.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let inputs = &golden["inputs"];
        let row = |name: &str, index: usize| numbers(&inputs[name][index]);
        for rollout in golden["rollout"].as_array().unwrap() {
            let options = &rollout["options"];
            let number = |name: &str| options[name].as_f64().unwrap();
            let is_white = options["whiten_rewards"].as_bool().unwrap();
            let whitening = if is_white { RewardWhitening::KeepMean } else { RewardWhitening::Off };
            let config = PpoConfig {
                rewards: RewardShaping { whitening, ..PpoConfig::trl().rewards },
                gamma: UnitInterval::new(number("gamma")),
                lambda: UnitInterval::new(number("lam")),
                ..PpoConfig::trl()
            };
            let estimator = serde_json::from_value::<KlEstimator>(options["kl_estimator"].clone()).unwrap();
            let scores = numbers(&inputs["scores"]);
            let width = row("logprobs", 0).len();
            let actions: Vec<usize> =
                numbers(&inputs["sequence_lengths"]).into_iter().map(|last| last as usize + 1).collect();
            let trajectories: Vec<Trajectory> =
                actions.iter().map(|&actions| trajectory(actions, actions == width)).collect();
            let outcome = |(index, trajectory): (usize, &'_ Trajectory)| {
                let (policy, reference) = (row("logprobs", index), row("ref_logprobs", index));
                let cost = |t: usize| number("kl_coef") * estimator.estimate(policy[t], reference[t]);
                let states = (actions[index] + 1).min(width);
                (
                    scores[index],
                    (0..trajectory.actions()).map(cost).collect(),
                    row("values", index)[..states].to_vec(),
                )
            };
            let outcomes: Vec<Outcome<'_>> = trajectories
                .iter()
                .enumerate()
                .map(|(index, trajectory)| {
                    let (score, penalties, values) = outcome((index, trajectory));
                    Outcome {
                        trajectory,
                        score,
                        penalties,
                        of_actions: &ZEROS[..trajectory.actions()],
                        values,
                    }
                })
                .collect();
            for (index, found) in worth(&outcomes, &config).iter().enumerate() {
                let expected = |name: &str| numbers(&rollout[name][index]);
                assert_eq!(found.advantages.len(), actions[index]);
                assert_close("advantages", &found.advantages, &expected("advantages_f64"));
                assert_close("returns", &found.returns, &expected("returns_f64"));
            }
        }
    }

    #[test]
    fn scores_are_clipped_then_penalised_then_placed() {
        let mut shaping = RewardShaping {
            clip: Some(crate::loss::ScoreRange { low: -1.0, high: 1.0 }),
            missing_end_penalty: Some(Positive::new(0.5)),
            ..RewardShaping::default()
        };
        let paid = |shaping: &RewardShaping, is_truncated: bool| {
            let of_actions = [2.0, 0.0];
            let trajectory = trajectory(2, is_truncated);
            let (penalties, values) = (vec![0.25, 0.0], Vec::new());
            shaping.of_states(&Outcome {
                trajectory: &trajectory,
                score: 7.0,
                penalties,
                of_actions: &of_actions,
                values,
            })
        };
        assert_eq!(paid(&shaping, false), [1.75, 1.0]);
        assert_eq!(paid(&shaping, true), [1.75, 0.5]);
        shaping.placement = ScorePlacement::AfterLastAction;
        assert_eq!(paid(&shaping, false), [1.75, 0.0, 1.0]);
        assert_eq!(paid(&shaping, true), [1.75, 0.5]);
    }

    #[test]
    fn a_whole_trace_without_whitening_is_the_return_less_the_value() {
        let config = PpoConfig {
            lambda: UnitInterval::new(1.0),
            advantage_whitening: AdvantageWhitening::Off,
            ..PpoConfig::default()
        };
        let trajectory = trajectory(3, false);
        let (penalties, values) = (vec![0.1, 0.2, 0.3], vec![0.5, 0.25, 0.125]);
        let outcome =
            Outcome { trajectory: &trajectory, score: 2.0, penalties, of_actions: &[0.0; 3], values };
        let found = &worth(&[outcome], &config)[0];
        assert_close("returns", &found.returns, &[1.4, 1.5, 1.7]);
        assert_close("advantages", &found.advantages, &[0.9, 1.25, 1.575]);
    }
}
