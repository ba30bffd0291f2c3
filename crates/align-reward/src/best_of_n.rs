//! Choosing among several completions of a prompt: best of n, rejection sampling, and what they are worth.
//!
//! Unscored rollouts never win and are never kept.

use std::num::NonZeroUsize;

use align_model::number::PositiveUnit;
use serde::{Deserialize, Serialize};

use crate::{
    function::{RewardError, RewardFn, score_rollouts},
    rollout::Rollout,
    score::Score,
};

/// The place of the highest score, the first of equals; `None` if none is scored.
///
/// ```
/// use align_reward::{best_of_n::best_of, score::Score};
///
/// assert_eq!(best_of(&[Score::Value(0.1), Score::unscored("timed out"), Score::Value(0.7)]), Some(2));
/// assert_eq!(best_of(&[Score::unscored("timed out")]), None);
/// ```
#[must_use]
pub fn best_of(scores: &[Score]) -> Option<usize> {
    let values = scores.iter().enumerate().filter_map(|(index, score)| Some((index, score.value()?)));
    let higher = |best: (usize, f64), next: (usize, f64)| if next.1 > best.1 { next } else { best };
    values.reduce(higher).map(|(index, _)| index)
}

/// The best rollout of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Winner {
    /// The prompt's [group](Rollout::group).
    pub group: u64,
    /// The best rollout's place in the batch; `None` if none of the group is scored.
    pub index: Option<usize>,
}

/// Scores a batch and takes the best of each group, in the order in which groups first appear.
///
/// # Errors
/// If the reward fails.
pub fn best_of_each_group<R: RewardFn + ?Sized>(
    reward: &mut R,
    rollouts: &[Rollout],
) -> Result<Vec<Winner>, RewardError> {
    let scores = score_rollouts(reward, rollouts)?.scores;
    let best = |members: Vec<usize>| {
        let own: Vec<Score> = members.iter().map(|&index| scores[index].clone()).collect();
        Winner { group: rollouts[members[0]].group, index: best_of(&own).map(|place| members[place]) }
    };
    Ok(groups(rollouts).into_iter().map(best).collect())
}

/// Which rollouts rejection sampling keeps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Keep {
    /// So many of each group, the best.
    BestOfGroup {
        /// How many.
        count: NonZeroUsize,
    },
    /// All whose score is this high.
    AtLeast {
        /// The lowest score that is kept.
        score: f64,
    },
    /// This part of all that are scored, rounded up: the best of the batch, whatever their groups.
    BestFraction {
        /// The part.
        fraction: PositiveUnit,
    },
}

/// The places of the rollouts that are kept, in ascending order. Of equal scores the first are kept.
///
/// # Panics
/// If there are not as many scores as rollouts.
#[must_use]
pub fn select(rollouts: &[Rollout], scores: &[Score], keep: Keep) -> Vec<usize> {
    assert_eq!(rollouts.len(), scores.len(), "every rollout needs a score");
    let mut kept = match keep {
        Keep::AtLeast { score } => {
            let high = |index: &usize| scores[*index].value().is_some_and(|value| value >= score);
            (0..scores.len()).filter(high).collect()
        }
        Keep::BestOfGroup { count } => {
            let best = |members| ranked(members, scores).into_iter().take(count.get());
            groups(rollouts).into_iter().flat_map(best).collect::<Vec<_>>()
        }
        Keep::BestFraction { fraction } => {
            let ranked = ranked((0..scores.len()).collect(), scores);
            let count = (fraction.get() * ranked.len() as f64).ceil() as usize;
            ranked.into_iter().take(count).collect()
        }
    };
    kept.sort_unstable();
    kept
}

/// What best of `n` by one score is worth by another, from `N ≥ n` samples of one prompt: the expected `gold` of the
/// sample with the highest `proxy` among `n` drawn without replacement.
///
/// ```text
/// Σ_{i=n..N} C(i−1, n−1) / C(N, n) · gold₍ᵢ₎        samples sorted by proxy, ascending
/// ```
///
/// Every subset of size `n` counts once, so the estimate is unbiased and has less variance than one draw of `n`.
/// Samples with equal proxies share their weights. Rows are (proxy, gold). `None` if there are fewer than `n`
/// samples.
///
/// # Source
/// Nakano et al. 2021, [arXiv:2112.09332](https://arxiv.org/abs/2112.09332), appendix I; Gao et al. 2022,
/// [arXiv:2210.10760](https://arxiv.org/abs/2210.10760).
///
/// # Panics
/// If a proxy is NaN.
#[must_use]
#[allow(clippy::float_cmp, reason = "only equal proxies tie")]
pub fn best_of_n_estimate(samples: &[(f64, f64)], n: NonZeroUsize) -> Option<f64> {
    let (total, n) = (samples.len(), n.get());
    if total < n {
        return None;
    }
    assert!(samples.iter().all(|(proxy, _)| !proxy.is_nan()), "a proxy is NaN");
    let mut sorted = samples.to_vec();
    sorted.sort_by(|left, right| left.0.total_cmp(&right.0));
    // C(i−2, n−1) / C(i−1, n−1) = (i − n) / (i − 1), from C(N−1, n−1) / C(N, n) = n / N downwards: nothing overflows.
    let mut weights = vec![0.0; total];
    let mut weight = n as f64 / total as f64;
    for place in (n..=total).rev() {
        weights[place - 1] = weight;
        weight *= (place - n) as f64 / (place.max(2) - 1) as f64;
    }
    let mut estimate = 0.0;
    let mut start = 0;
    while start < total {
        let end = start + sorted[start..].iter().take_while(|(proxy, _)| *proxy == sorted[start].0).count();
        let weight = weights[start..end].iter().sum::<f64>() / (end - start) as f64;
        estimate += weight * sorted[start..end].iter().map(|(_, gold)| gold).sum::<f64>();
        start = end;
    }
    Some(estimate)
}

/// `ln n − (n − 1)/n`: how far, in nats, best of `n` is from the policy that it samples from, at most.
///
/// It is the exact Kullback–Leibler divergence where no two samples are ever equal and no two scores tie, and an
/// upper bound otherwise.
///
/// # Source
/// Stiennon et al. 2020, [arXiv:2009.01325](https://arxiv.org/abs/2009.01325), appendix G.3; that it is a bound:
/// Beirami et al. 2024, [arXiv:2401.01879](https://arxiv.org/abs/2401.01879).
#[must_use]
pub fn best_of_n_kl_bound(n: NonZeroUsize) -> f64 {
    let n = n.get() as f64;
    n.ln() - (n - 1.0) / n
}

/// The places of each group's rollouts, groups in the order in which they first appear.
fn groups(rollouts: &[Rollout]) -> Vec<Vec<usize>> {
    let mut places = std::collections::HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, rollout) in rollouts.iter().enumerate() {
        let place = *places.entry(rollout.group).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(index);
    }
    groups
}

/// The scored among these places, best first, the first of equals first.
fn ranked(members: Vec<usize>, scores: &[Score]) -> Vec<usize> {
    let mut ranked: Vec<(usize, f64)> =
        members.into_iter().filter_map(|index| Some((index, scores[index].value()?))).collect();
    ranked.sort_by(|left, right| right.1.total_cmp(&left.1));
    ranked.into_iter().map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::function::each_fn;

    fn score() -> impl Strategy<Value = Score> {
        prop_oneof![4 => (-5i32..5).prop_map(|value| Score::Value(value.into())), 1 => Just(Score::unscored("x"))]
    }

    /// All subsets of size `n`.
    #[allow(clippy::float_cmp, reason = "only equal proxies tie")]
    fn brute_force(samples: &[(f64, f64)], n: usize) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for mask in 0u32..1 << samples.len() {
            if mask.count_ones() as usize == n {
                let chosen = (0..samples.len()).filter(|i| mask >> i & 1 == 1).map(|i| samples[i]);
                let best = chosen.clone().map(|s| s.0).fold(f64::NEG_INFINITY, f64::max);
                let tied: Vec<f64> = chosen.filter(|s| s.0 == best).map(|s| s.1).collect();
                sum += tied.iter().sum::<f64>() / tied.len() as f64;
                count += 1.0;
            }
        }
        sum / count
    }

    proptest! {
        #[test]
        fn the_unscored_never_win(scores in prop::collection::vec(score(), 0..12)) {
            match best_of(&scores) {
                Some(index) => {
                    let best = scores[index].value().unwrap();
                    prop_assert!(scores.iter().filter_map(Score::value).all(|value| value <= best));
                }
                None => prop_assert!(scores.iter().all(Score::is_unscored)),
            }
        }

        #[test]
        fn nothing_unscored_is_kept(
            rows in prop::collection::vec((0u64..3, score()), 0..20), count in 1usize..4, low in -5f64..5.0,
        ) {
            let rollouts: Vec<Rollout> = rows.iter().map(|(g, _)| Rollout::new("p", "c").in_group(*g)).collect();
            let scores: Vec<Score> = rows.iter().map(|(_, score)| score.clone()).collect();
            let count = NonZeroUsize::new(count).unwrap();
            for keep in [
                Keep::BestOfGroup { count },
                Keep::AtLeast { score: low },
                Keep::BestFraction { fraction: PositiveUnit::new(0.4) },
            ] {
                let kept = select(&rollouts, &scores, keep);
                prop_assert!(kept.iter().all(|index| !scores[*index].is_unscored()));
                prop_assert!(kept.is_sorted_by(|a, b| a < b));
            }
            let kept = select(&rollouts, &scores, Keep::BestOfGroup { count });
            for group in 0..3 {
                let of = |indices: &mut dyn Iterator<Item = usize>| indices.filter(|i| rows[*i].0 == group).count();
                let scored = of(&mut (0..rows.len()).filter(|i| !scores[*i].is_unscored()));
                prop_assert_eq!(of(&mut kept.iter().copied()), scored.min(count.get()));
            }
        }

        #[test]
        fn the_estimate_counts_every_subset(
            samples in prop::collection::vec((-3i32..3, -9f64..9.0), 1..9), n in 1usize..9,
        ) {
            // Ties are broken at random among the tied of a subset, which is what sharing weights over all samples means.
            let mut proxies: Vec<f64> = samples.iter().map(|s| f64::from(s.0)).collect();
            for (index, proxy) in proxies.iter_mut().enumerate() {
                *proxy += index as f64 * 1e-3;
            }
            let distinct: Vec<(f64, f64)> = proxies.iter().zip(&samples).map(|(p, s)| (*p, s.1)).collect();
            let estimate = best_of_n_estimate(&distinct, NonZeroUsize::new(n).unwrap());
            if n > samples.len() {
                prop_assert_eq!(estimate, None);
            } else {
                prop_assert!((estimate.unwrap() - brute_force(&distinct, n)).abs() < 1e-9);
            }
            let tied: Vec<(f64, f64)> = samples.iter().map(|s| (f64::from(s.0), s.1)).collect();
            if let Some(estimate) = best_of_n_estimate(&tied, NonZeroUsize::new(n).unwrap()) {
                prop_assert!((estimate - brute_force(&tied, n)).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn many_samples_do_not_overflow() {
        let samples: Vec<(f64, f64)> = (0..12_600).map(|i| (f64::from(i), 1.0)).collect();
        for n in [1, 100, 12_500, 12_600] {
            let estimate = best_of_n_estimate(&samples, NonZeroUsize::new(n).unwrap()).unwrap();
            assert!((estimate - 1.0).abs() < 1e-9, "{n} {estimate}");
        }
    }

    #[test]
    fn each_group_has_its_winner() {
        let rollouts: Vec<Rollout> = [(7, "a"), (3, "bb"), (7, "ccc"), (3, ""), (5, "")]
            .map(|(group, text)| Rollout::new("p", text).in_group(group))
            .to_vec();
        let mut reward = each_fn("length", |rollout: &Rollout| {
            Some(rollout.completion.len() as f64).filter(|length| *length > 0.0)
        });
        let winners = best_of_each_group(&mut reward, &rollouts).unwrap();
        let expected = [(7, Some(2)), (3, Some(1)), (5, None)];
        assert_eq!(winners, expected.map(|(group, index)| Winner { group, index }));
    }

    #[test]
    fn the_bound_is_known() {
        let bound = |n| best_of_n_kl_bound(NonZeroUsize::new(n).unwrap());
        assert!(bound(1).abs() < 1e-12);
        assert!((bound(16) - 1.835_088_722_239_781).abs() < 1e-12);
    }
}
