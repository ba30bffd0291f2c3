//! Any reward as a judge.

use std::fmt;

use align_model::number::Positive;

use super::{Comparison, JudgeError, PairwiseJudge, Verdict};
use crate::{
    function::{BoxedReward, RewardFn, score_rollouts},
    rollout::Rollout,
    score::Score,
};

/// The Bradley–Terry judge of a reward: `P(a ≻ b) = σ((r_a − r_b) / scale)`.
///
/// A reward model trained on preferences has the scale 1. Both answers are scored in one batch; where one of them is
/// unscored, the pair is unjudged.
///
/// # Source
/// Bradley and Terry 1952, *Rank Analysis of Incomplete Block Designs*.
pub struct RewardJudge {
    reward: BoxedReward,
    scale: Positive,
}

impl RewardJudge {
    /// Judges by this reward.
    #[must_use]
    pub fn new(reward: BoxedReward, scale: Positive) -> Self {
        Self { reward, scale }
    }
}

impl PairwiseJudge for RewardJudge {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn judge(&mut self, comparisons: &[Comparison]) -> Result<Vec<Verdict>, JudgeError> {
        let rollouts: Vec<Rollout> =
            comparisons.iter().flat_map(|comparison| [comparison.a.clone(), comparison.b.clone()]).collect();
        let scores = score_rollouts(&mut self.reward, &rollouts)?.scores;
        let judge = |pair: &[Score]| match pair {
            [Score::Value(a), Score::Value(b)] => Verdict::from(sigmoid((a - b) / self.scale.get())),
            [Score::Unscored { reason }, _] => Verdict::unjudged(format!("a is unscored: {reason}")),
            [_, Score::Unscored { reason }] => Verdict::unjudged(format!("b is unscored: {reason}")),
            _ => Verdict::unjudged("a pair is incomplete"),
        };
        Ok(scores.chunks(2).map(judge).collect())
    }
}

impl fmt::Debug for RewardJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RewardJudge");
        debug.field("reward", &self.reward.name()).field("scale", &self.scale).finish()
    }
}

/// `1 / (1 + e^−x)`, without overflow on either side.
fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::judge_pairs, *};
    use crate::function::each_fn;

    fn by_number(scale: f64) -> RewardJudge {
        let reward = each_fn("number", |rollout: &Rollout| {
            rollout.completion.parse::<f64>().map_err(|_| "no number".to_string())
        });
        RewardJudge::new(Box::new(reward), Positive::new(scale))
    }

    proptest! {
        #[test]
        fn exchanged_answers_have_the_other_probability(
            a in -1e3f64..1e3, b in -1e3f64..1e3, c in -1e3f64..1e3, scale in 0.1f64..10.0,
        ) {
            let pair = |a: f64, b: f64| Comparison::new("p", a.to_string(), b.to_string());
            let pairs = [pair(a, b), pair(b, a), pair(a, c)];
            let verdicts = judge_pairs(&mut by_number(scale), &pairs).unwrap();
            let p: Vec<f64> = verdicts.iter().map(|verdict| verdict.preference().unwrap()).collect();
            prop_assert!((p[0] + p[1] - 1.0).abs() < 1e-12);
            prop_assert!((c <= b) == (p[2] >= p[0]) || (p[2] - p[0]).abs() < 1e-12);
        }
    }

    #[test]
    fn the_probability_is_bradley_terrys() {
        let pairs = [Comparison::new("p", "2", "1"), Comparison::new("p", "1000", "-1000")];
        let verdicts = judge_pairs(&mut by_number(1.0), &pairs).unwrap();
        assert!((verdicts[0].preference().unwrap() - 0.731_058_578_630_004_9).abs() < 1e-12);
        assert_eq!(verdicts[1], Verdict::Preference(1.0));
        let verdicts = judge_pairs(&mut by_number(2.0), &pairs[..1]).unwrap();
        assert!((verdicts[0].preference().unwrap() - 0.622_459_331_201_854_6).abs() < 1e-12);
    }

    #[test]
    fn an_unscored_answer_leaves_the_pair_unjudged() {
        let pairs = [Comparison::new("p", "x", "1"), Comparison::new("p", "1", "x")];
        let verdicts = judge_pairs(&mut by_number(1.0), &pairs).unwrap();
        assert_eq!(verdicts[0], Verdict::unjudged("a is unscored: no number"));
        assert_eq!(verdicts[1], Verdict::unjudged("b is unscored: no number"));
    }
}
