//! What follows a token, discounted: returns, and advantages over what a critic expected.

use align_model::number::UnitInterval;
use serde::{Deserialize, Serialize};

/// Generalised advantage estimation over one sequence.
///
/// ```text
/// δ_t = r_t + γ·V_{t+1} − V_t        A_t = δ_t + γ·λ·A_{t+1}        V after the last = 0
/// ```
///
/// Returns, which a critic is trained on, are advantages plus values. `values` may be as long as `rewards` only; what an
/// environment said between two actions takes no part: the next value is that of the next action.
///
/// # Source
/// Schulman et al. 2015, [arXiv:1506.02438](https://arxiv.org/abs/1506.02438), Eq. 16.
///
/// # Panics
/// If the two differ in length.
#[must_use]
pub fn gae(rewards: &[f64], values: &[f64], discount: UnitInterval, trace_decay: UnitInterval) -> Vec<f64> {
    assert_eq!(rewards.len(), values.len(), "one reward and one value a token");
    let (gamma, lambda) = (discount.get(), trace_decay.get());
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        advantage = delta + gamma * lambda * advantage;
        next_value = values[t];
        advantages[t] = advantage;
    }
    advantages
}

/// What is still to come at each token of one sequence, discounted: `G_t = r_t + γ·G_{t+1}`.
#[must_use]
pub fn returns_to_go(rewards: &[f64], discount: UnitInterval) -> Vec<f64> {
    let mut returns = rewards.to_vec();
    for t in (1..returns.len()).rev() {
        returns[t - 1] += discount.get() * returns[t];
    }
    returns
}

/// At which token a sequence's score is paid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScorePlacement {
    /// At the last action.
    #[default]
    LastAction,
    /// One position after it, which has a value and no action: TRL's PPO, wherever a sequence does not fill its row. The score
    /// then reaches the last action only through `λ` and what the critic expects there.
    AfterLastAction,
}

/// The rewards of one sequence's tokens and its score, one entry longer where the score has a position of its own.
///
/// A sequence without a token has nowhere to be paid at its last action: it remains empty.
#[must_use]
pub fn place_score(token_rewards: &[f64], score: f64, placement: ScorePlacement) -> Vec<f64> {
    let mut rewards = token_rewards.to_vec();
    match placement {
        ScorePlacement::LastAction => {
            if let Some(last) = rewards.last_mut() {
                *last += score;
            }
        }
        ScorePlacement::AfterLastAction => rewards.push(score),
    }
    rewards
}

/// A score, less the penalty if the response never ended by itself.
#[must_use]
pub fn penalize_missing_end(score: f64, has_ended: bool, penalty: f64) -> f64 {
    if has_ended { score } else { score - penalty }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: UnitInterval = UnitInterval::new(1.0);

    #[test]
    fn advantages_follow_the_recursion() {
        let (gamma, lambda) = (UnitInterval::new(0.5), UnitInterval::new(0.5));
        // δ = [1 + 0.5·2 − 1, 0 + 0.5·3 − 2, 4 − 3] = [1, −0.5, 1]
        assert_eq!(gae(&[1.0, 0.0, 4.0], &[1.0, 2.0, 3.0], gamma, lambda), [0.9375, -0.25, 1.0]);
        assert!(gae(&[], &[], gamma, lambda).is_empty());
    }

    #[test]
    fn a_score_is_paid_where_its_placement_says() {
        assert_eq!(place_score(&[0.5, 0.25], 1.0, ScorePlacement::LastAction), [0.5, 1.25]);
        assert_eq!(place_score(&[0.5, 0.25], 1.0, ScorePlacement::AfterLastAction), [0.5, 0.25, 1.0]);
        assert!(place_score(&[], 1.0, ScorePlacement::LastAction).is_empty());
        assert!((penalize_missing_end(0.5, false, 1.0) + 0.5).abs() < 1e-15);
        assert!((penalize_missing_end(0.5, true, 1.0) - 0.5).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn gae_of_ones_is_return_to_go_less_value(
            pairs in prop::collection::vec((-5.0..5.0_f64, -5.0..5.0_f64), 1..30)
        ) {
            let (rewards, values): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let advantages = gae(&rewards, &values, ONE, ONE);
            for ((advantage, to_go), value) in advantages.iter().zip(returns_to_go(&rewards, ONE)).zip(&values) {
                prop_assert!((advantage - (to_go - value)).abs() < 1e-10);
            }
        }

        #[test]
        fn gae_without_a_trace_is_the_error_of_one_step(
            pairs in prop::collection::vec((-5.0..5.0_f64, -5.0..5.0_f64), 2..30)
        ) {
            let (rewards, values): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let advantages = gae(&rewards, &values, ONE, UnitInterval::new(0.0));
            prop_assert!((advantages[0] - (rewards[0] + values[1] - values[0])).abs() < 1e-12);
        }
    }
}
