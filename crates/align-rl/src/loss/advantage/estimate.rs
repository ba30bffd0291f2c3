//! The arithmetic of [`AdvantageEstimator`].

use align_model::number::UnitInterval;

use super::{AdvantageEstimator, AdvantageScale, Advantages, Population, ScoreRange, ScoredGroups};
use crate::loss::{
    returns::{ScorePlacement, place_score, returns_to_go},
    whiten::{Moments, Whitening},
};

pub(super) fn advantages(estimator: AdvantageEstimator, scored: &ScoredGroups<'_>) -> Advantages {
    let batch = Batch::new(scored);
    match estimator {
        AdvantageEstimator::Group { scale, epsilon } => batch.spread(batch.group(scale, epsilon.get())),
        AdvantageEstimator::LeaveOneOut { score_range, normalize_epsilon } => {
            let advantages = batch.leave_one_out(score_range);
            batch.spread(match normalize_epsilon {
                Some(epsilon) => normalized(&advantages, epsilon.get()),
                None => advantages,
            })
        }
        AdvantageEstimator::ReinforcePlusPlus { discount, whitening } => {
            batch.white(batch.to_go(&batch.scores, discount), whitening)
        }
        AdvantageEstimator::ReinforcePlusPlusBaseline { whitening } => {
            let centered = batch.less_mean(&batch.scores);
            batch.white(batch.to_go(&centered, UnitInterval::new(1.0)), whitening)
        }
        AdvantageEstimator::ReMax { discount } => batch.less_greedy(scored.greedy_scores, discount),
        AdvantageEstimator::Opo {} => batch.spread(batch.less_length_weighted()),
        AdvantageEstimator::Gdpo { epsilon, population } => {
            let summed = batch.each_normalized(scored, epsilon.get());
            match population {
                Population::Sequences => batch.spread(normalized(&summed, epsilon.get())),
                Population::Tokens => batch.white(batch.tiled(&summed), Whitening::Corrected),
            }
        }
        AdvantageEstimator::PassAtK { scale, epsilon } => batch.spread(batch.best(scale, epsilon.get())),
    }
}

/// What is scored, with its groups found. A number that is `None` belongs to a response that has no score.
struct Batch<'a> {
    scores: Vec<Option<f64>>,
    /// Scores with the sums of their tokens' rewards.
    totals: Vec<Option<f64>>,
    /// The responses of each group.
    groups: Vec<Vec<usize>>,
    counts: &'a [usize],
    /// The rewards of each response's tokens.
    token_rewards: Vec<Vec<f64>>,
}

impl<'a> Batch<'a> {
    fn new(given: &ScoredGroups<'a>) -> Self {
        let ScoredGroups { rewards, weights, groups, counts, token_rewards, .. } = *given;
        assert!(
            groups.len() == rewards.len() && counts.len() == rewards.len(),
            "one entry for each response"
        );
        let tokens: usize = counts.iter().sum();
        assert!(token_rewards.is_none_or(|it| it.len() == tokens), "one reward for each token");
        let scores: Vec<Option<f64>> = rewards.iter().map(|row| weighted_sum(row, weights)).collect();
        let token_rewards = cut(token_rewards, counts);
        let totals = scores.iter().zip(&token_rewards);
        let totals =
            totals.map(|(score, rewards)| score.map(|it| it + rewards.iter().sum::<f64>())).collect();
        Self { scores, totals, groups: members(groups), counts, token_rewards }
    }

    fn group(&self, scale: AdvantageScale, epsilon: f64) -> Vec<Option<f64>> {
        let of_batch = Moments::of(self.totals.iter().copied().flatten()).deviation();
        self.in_groups(&self.totals, |group, score| {
            let moments = moments(group);
            // A group of equal scores has no deviation to divide by, and no difference either.
            if moments.squares == 0.0 {
                0.0
            } else {
                (score - moments.mean) / divisor(scale, &moments, of_batch, epsilon)
            }
        })
    }

    fn leave_one_out(&self, range: Option<ScoreRange>) -> Vec<Option<f64>> {
        let totals: Vec<Option<f64>> = match range {
            None => self.totals.clone(),
            Some(ScoreRange { low, high }) => {
                let sums = self.token_rewards.iter().map(|rewards| rewards.iter().sum::<f64>());
                let clipped = self.scores.iter().map(|score| score.map(|it| it.max(low).min(high)));
                clipped.zip(sums).map(|(score, sum)| score.map(|it| it + sum)).collect()
            }
        };
        let mut advantages = self.in_groups(&totals, |group, score| {
            // n/(n − 1)·(r − mean) is r less the mean of the others.
            let moments = moments(group);
            if moments.squares == 0.0 {
                0.0
            } else {
                (score - moments.mean) * moments.count as f64 / (moments.count - 1) as f64
            }
        });
        for group in &self.groups {
            // Nothing to compare with: it has no advantage and no part in the batch's statistics.
            if group.iter().filter(|&&index| totals[index].is_some()).count() == 1 {
                for &index in group {
                    advantages[index] = None;
                }
            }
        }
        advantages
    }

    fn less_mean(&self, scores: &[Option<f64>]) -> Vec<Option<f64>> {
        self.in_groups(scores, |group, score| score - moments(group).mean)
    }

    fn less_length_weighted(&self) -> Vec<Option<f64>> {
        let mut advantages = vec![None; self.totals.len()];
        for group in &self.groups {
            let scored = || group.iter().filter_map(|&index| Some((index, self.totals[index]?)));
            let tokens: usize = scored().map(|(index, _)| self.counts[index]).sum();
            let weighted: f64 = scored().map(|(index, score)| score * self.counts[index] as f64).sum();
            let is_equal = Moments::of(scored().map(|(_, score)| score).collect::<Vec<_>>()).squares == 0.0;
            for (index, score) in scored() {
                let is_flat = is_equal || tokens == 0;
                advantages[index] = Some(if is_flat { 0.0 } else { score - weighted / tokens as f64 });
            }
        }
        advantages
    }

    fn each_normalized(&self, scored: &ScoredGroups<'_>, epsilon: f64) -> Vec<Option<f64>> {
        let mut sums: Vec<Option<f64>> = self.scores.iter().map(|score| score.map(|_| 0.0)).collect();
        for (function, weight) in scored.weights.iter().enumerate() {
            let column: Vec<Option<f64>> = scored.rewards.iter().map(|row| finite(row[function])).collect();
            let white = self.in_groups(&column, |group, score| {
                let moments = moments(group);
                if moments.squares == 0.0 {
                    0.0
                } else {
                    (score - moments.mean) / (moments.deviation() + epsilon)
                }
            });
            for (sum, white) in sums.iter_mut().zip(white) {
                if let (Some(sum), Some(white)) = (sum, white) {
                    *sum += weight * white;
                }
            }
        }
        let extra = self.token_rewards.iter().map(|rewards| rewards.iter().sum::<f64>());
        sums.into_iter().zip(extra).map(|(sum, extra)| sum.map(|it| it + extra)).collect()
    }

    fn best(&self, scale: AdvantageScale, epsilon: f64) -> Vec<Option<f64>> {
        let of_batch = Moments::of(self.totals.iter().copied().flatten()).deviation();
        let mut advantages: Vec<Option<f64>> = self.totals.iter().map(|it| it.map(|_| 0.0)).collect();
        for group in &self.groups {
            let mut ranked: Vec<(usize, f64)> =
                group.iter().filter_map(|&index| Some((index, self.totals[index]?))).collect();
            // Stable: the first of equals comes first.
            ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            if let [(best, first), (_, second), ..] = ranked[..] {
                let moments = Moments::of(ranked.iter().map(|(_, score)| *score));
                let gap = first - second;
                advantages[best] =
                    Some(if gap == 0.0 { 0.0 } else { gap / divisor(scale, &moments, of_batch, epsilon) });
            }
        }
        advantages
    }

    fn less_greedy(&self, greedy: Option<&[f64]>, discount: UnitInterval) -> Advantages {
        assert!(greedy.is_some(), "give the greedy responses' scores");
        let greedy = greedy.unwrap_or_default();
        assert_eq!(greedy.len(), self.scores.len(), "one greedy score for each response");
        let mut tokens = self.to_go(&self.scores, discount);
        for ((of_response, score), greedy) in tokens.iter_mut().zip(&self.scores).zip(greedy) {
            if score.is_some() {
                for it in of_response {
                    *it -= greedy;
                }
            }
        }
        self.joined(tokens)
    }

    /// `f` of the scores of a response's group and of its own.
    fn in_groups(&self, scores: &[Option<f64>], f: impl Fn(&[f64], f64) -> f64) -> Vec<Option<f64>> {
        let mut result = vec![None; scores.len()];
        for group in &self.groups {
            let known: Vec<f64> = group.iter().filter_map(|&index| scores[index]).collect();
            for &index in group {
                result[index] = scores[index].map(|score| f(&known, score));
            }
        }
        result
    }

    /// The return-to-go at each token of each response; 0 where it has no score.
    fn to_go(&self, scores: &[Option<f64>], discount: UnitInterval) -> Vec<Vec<f64>> {
        let responses = scores.iter().zip(&self.token_rewards);
        responses
            .map(|(score, rewards)| match score {
                Some(score) => {
                    returns_to_go(&place_score(rewards, *score, ScorePlacement::LastAction), discount)
                }
                None => vec![0.0; rewards.len()],
            })
            .collect()
    }

    /// Each response's number at each of its tokens.
    fn tiled(&self, sequences: &[Option<f64>]) -> Vec<Vec<f64>> {
        sequences.iter().zip(self.counts).map(|(it, &count)| vec![it.unwrap_or(0.0); count]).collect()
    }

    fn spread(&self, sequences: Vec<Option<f64>>) -> Advantages {
        Advantages {
            tokens: self.tiled(&sequences).concat(),
            sequences: sequences.into_iter().map(Option::unwrap_or_default).collect(),
            scores: self.scores.clone(),
        }
    }

    /// Whitens what responses with a score have at their tokens.
    fn white(&self, mut tokens: Vec<Vec<f64>>, whitening: Whitening) -> Advantages {
        let scored = |(of_response, score): (&Vec<f64>, &Option<f64>)| score.map(|_| of_response.clone());
        let known = tokens.iter().zip(&self.scores).filter_map(scored).flatten().collect::<Vec<f64>>();
        let moments = Moments::of(known);
        let scale = whitening.scale(&moments);
        for (of_response, score) in tokens.iter_mut().zip(&self.scores) {
            for it in of_response {
                *it = if score.is_some() { (*it - moments.mean) * scale } else { 0.0 };
            }
        }
        self.joined(tokens)
    }

    fn joined(&self, tokens: Vec<Vec<f64>>) -> Advantages {
        let mean = |it: &Vec<f64>| it.iter().sum::<f64>() / it.len().max(1) as f64;
        let sequences = tokens.iter().map(mean).collect();
        Advantages { tokens: tokens.concat(), sequences, scores: self.scores.clone() }
    }
}

/// `(a − mean)/(std + epsilon)` over everything that is known.
fn normalized(values: &[Option<f64>], epsilon: f64) -> Vec<Option<f64>> {
    let moments = Moments::of(values.iter().copied().flatten());
    let normal = |it: f64| {
        if moments.squares == 0.0 { 0.0 } else { (it - moments.mean) / (moments.deviation() + epsilon) }
    };
    values.iter().map(|it| it.map(normal)).collect()
}

fn divisor(scale: AdvantageScale, group: &Moments, of_batch: f64, epsilon: f64) -> f64 {
    match scale {
        AdvantageScale::Group => group.deviation() + epsilon,
        AdvantageScale::Batch => of_batch + epsilon,
        AdvantageScale::None => 1.0,
    }
}

fn moments(values: &[f64]) -> Moments {
    Moments::of(values.iter().copied())
}

fn weighted_sum(row: &[Option<f64>], weights: &[f64]) -> Option<f64> {
    assert_eq!(row.len(), weights.len(), "one weight for each reward function");
    let known = row.iter().zip(weights).filter_map(|(score, weight)| Some(finite(*score)? * weight));
    known.reduce(|sum, score| sum + score)
}

fn finite(score: Option<f64>) -> Option<f64> {
    score.filter(|score| score.is_finite())
}

/// The indices of each group, groups in the order in which they begin.
fn members(groups: &[u64]) -> Vec<Vec<usize>> {
    let mut places = std::collections::HashMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let place = *places.entry(group).or_insert_with(|| {
            members.push(Vec::new());
            members.len() - 1
        });
        members[place].push(index);
    }
    members
}

fn cut(token_rewards: Option<&[f64]>, counts: &[usize]) -> Vec<Vec<f64>> {
    let Some(mut rest) = token_rewards else { return counts.iter().map(|&count| vec![0.0; count]).collect() };
    let cut = counts.iter().map(|&count| {
        let (own, others) = rest.split_at(count);
        rest = others;
        own.to_vec()
    });
    cut.collect()
}
