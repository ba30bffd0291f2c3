//! Judges that favour a place.

use serde::{Deserialize, Serialize};

use super::{Comparison, JudgeError, PairwiseJudge, Verdict, judge_pairs};

/// Asks a judge in both orders and averages: `½ (P(a ≻ b) + 1 − P(b ≻ a))`.
///
/// What the judge gives to the first place cancels out, and [`BothOrders::bias`] says how much it was. A pair that is
/// unjudged in one order is unjudged.
#[derive(Debug)]
pub struct BothOrders<J> {
    judge: J,
    bias: PositionBias,
}

/// How much a judge goes by the place of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionBias {
    /// Pairs that were judged in both orders.
    pub judged: u64,
    /// Pairs of which the answer in the first place won both times.
    pub first_wins_both: u64,
    /// Pairs of which the answer in the second place won both times.
    pub second_wins_both: u64,
    /// Pairs that were judged in one order only.
    pub judged_once: u64,
    /// Pairs that were judged in neither order.
    pub unjudged: u64,
    excess: f64,
}

impl PositionBias {
    /// The mean advantage of the first place: `mean of ½ (P(a ≻ b) + P(b ≻ a)) − ½`, from −½ to ½; 0 for a judge that
    /// does not look at the order. `None` before the first pair.
    #[must_use]
    pub fn first_advantage(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.excess / self.judged as f64)
    }

    /// The part of the pairs whose winner depends on the order; `None` before the first pair.
    #[must_use]
    pub fn inconsistent(&self) -> Option<f64> {
        let both = (self.first_wins_both + self.second_wins_both) as f64;
        (self.judged > 0).then(|| both / self.judged as f64)
    }

    fn push(&mut self, forward: f64, backward: f64) {
        self.judged += 1;
        self.excess += 0.5 * (forward + backward) - 0.5;
        self.first_wins_both += u64::from(forward > 0.5 && backward > 0.5);
        self.second_wins_both += u64::from(forward < 0.5 && backward < 0.5);
    }
}

impl<J: PairwiseJudge> BothOrders<J> {
    /// Around a judge.
    pub fn new(judge: J) -> Self {
        Self { judge, bias: PositionBias::default() }
    }

    /// What was seen so far.
    pub fn bias(&self) -> &PositionBias {
        &self.bias
    }

    fn combine(&mut self, forward: Verdict, backward: Verdict) -> Verdict {
        match (forward, backward) {
            (Verdict::Preference(forward), Verdict::Preference(backward)) => {
                self.bias.push(forward, backward);
                Verdict::from(0.5 * (forward + 1.0 - backward))
            }
            (unjudged @ Verdict::Unjudged { .. }, Verdict::Unjudged { .. }) => {
                self.bias.unjudged += 1;
                unjudged
            }
            (unjudged @ Verdict::Unjudged { .. }, _) | (_, unjudged) => {
                self.bias.judged_once += 1;
                unjudged
            }
        }
    }
}

impl<J: PairwiseJudge> PairwiseJudge for BothOrders<J> {
    fn name(&self) -> &str {
        self.judge.name()
    }

    fn judge(&mut self, comparisons: &[Comparison]) -> Result<Vec<Verdict>, JudgeError> {
        let swapped: Vec<Comparison> = comparisons.iter().map(Comparison::swapped).collect();
        let forward = judge_pairs(&mut self.judge, comparisons)?;
        let backward = judge_pairs(&mut self.judge, &swapped)?;
        let both = forward.into_iter().zip(backward);
        Ok(both.map(|(forward, backward)| self.combine(forward, backward)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::judge_fn, *};

    /// Likes long answers, and the first place.
    fn biased(advantage: f64) -> BothOrders<impl PairwiseJudge> {
        BothOrders::new(judge_fn("biased", move |pair: &Comparison| {
            if pair.a.completion == "?" {
                return Verdict::unjudged("it is a question");
            }
            let better = pair.a.completion.len() as f64 - pair.b.completion.len() as f64;
            Verdict::Preference((0.5 + 0.1 * better + advantage).clamp(0.0, 1.0))
        }))
    }

    #[test]
    fn the_advantage_of_a_place_cancels_out() {
        let pairs = [Comparison::new("p", "aa", "a"), Comparison::new("p", "a", "a")];
        let mut judge = biased(0.2);
        let verdicts = judge_pairs(&mut judge, &pairs).unwrap();
        assert!((verdicts[0].preference().unwrap() - 0.6).abs() < 1e-12);
        assert!((verdicts[1].preference().unwrap() - 0.5).abs() < 1e-12);
        assert!((judge.bias().first_advantage().unwrap() - 0.2).abs() < 1e-12);
        assert_eq!(judge.bias().inconsistent(), Some(1.0));
        assert_eq!(judge.bias().first_wins_both, 2);
    }

    #[test]
    fn a_pair_judged_once_is_unjudged() {
        let pairs = [Comparison::new("p", "?", "a"), Comparison::new("p", "?", "?")];
        let mut judge = biased(0.0);
        let verdicts = judge_pairs(&mut judge, &pairs).unwrap();
        assert!(verdicts.iter().all(|verdict| verdict.preference().is_none()));
        assert_eq!((judge.bias().judged_once, judge.bias().unjudged), (1, 1));
        assert_eq!(judge.bias().first_advantage(), None);
    }

    proptest! {
        #[test]
        fn the_order_of_a_pair_does_not_matter(a in "[a-c]{0,3}", b in "[a-c]{0,3}", advantage in -0.3f64..0.3) {
            let pairs = [Comparison::new("p", a.as_str(), b.as_str())];
            let swapped = [pairs[0].swapped()];
            let once = judge_pairs(&mut biased(advantage), &pairs).unwrap()[0].preference().unwrap();
            let twice = judge_pairs(&mut biased(advantage), &swapped).unwrap()[0].preference().unwrap();
            prop_assert!((once + twice - 1.0).abs() < 1e-12);
        }
    }
}
