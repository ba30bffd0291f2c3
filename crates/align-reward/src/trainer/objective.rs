//! The losses of responses, as sums over the examples of a pass.

use align_model::{
    number::{Positive, UnitInterval},
    preference::PreferenceExample,
};
use burn::tensor::{Tensor, TensorData};

use super::{
    GradedExample, Margins, RankedExample, RatedExample, RatingLoss, RewardObjective, RewardTrainingError,
};
use crate::{
    loss::{
        binary_cross_entropy_loss, bradley_terry_loss, centering_loss, cumulative_logit_loss,
        plackett_luce_loss, squared_error_loss,
    },
    model::{ScoreHead, position_tensor},
};

/// The settings of pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairSettings {
    pub(super) centering: Option<Positive>,
    pub(super) smoothing: UnitInterval,
    pub(super) margins: Margins,
}

impl PairSettings {
    /// What an objective says of pairs, if it learns from them.
    pub(super) fn of(objective: RewardObjective) -> Option<Self> {
        match objective {
            RewardObjective::Pairs {
                center_rewards_coefficient: centering,
                label_smoothing: smoothing,
                margins,
            } => Some(Self { centering, smoothing, margins }),
            _ => None,
        }
    }

    /// `scores`: `[2 · pairs, 1]`, chosen and rejected in turn.
    pub(super) fn sum(self, scores: Tensor<2>, pairs: &[PreferenceExample]) -> Tensor<1> {
        let device = scores.device();
        let scores = scores.reshape([pairs.len(), 2]);
        let column = |index: usize| scores.clone().narrow(1, index, 1).squeeze_dim::<1>(1);
        let (chosen, rejected) = (column(0), column(1));
        let margins: Option<Vec<f32>> = match self.margins {
            Margins::Use => pairs.iter().map(|pair| pair.margin).collect(),
            Margins::Ignore => None,
        };
        let margins =
            margins.map(|margins| Tensor::from_data(margins.as_slice(), &device.without_autodiff()));
        let loss = bradley_terry_loss(chosen.clone(), rejected.clone(), margins, self.smoothing).sum();
        match self.centering {
            Some(coefficient) => loss + centering_loss(chosen, rejected).sum() * coefficient.get(),
            None => loss,
        }
    }

    /// Whether margins are finite, and all there or all missing.
    pub(super) fn check(self, pairs: &[PreferenceExample]) -> Result<(), RewardTrainingError> {
        if self.margins == Margins::Ignore {
            return Ok(());
        }
        let not_finite = |pair: &PreferenceExample| pair.margin.is_some_and(|margin| !margin.is_finite());
        if let Some(index) = pairs.iter().position(not_finite) {
            let value = pairs[index].margin.map_or(f64::NAN, f64::from);
            let expected = "a finite number".into();
            return Err(RewardTrainingError::Value { index, what: "the margin", value, expected });
        }
        let with = pairs.iter().filter(|pair| pair.margin.is_some()).count();
        match pairs.iter().position(|pair| pair.margin.is_none()) {
            Some(without) if with > 0 => Err(RewardTrainingError::MissingMargin { with, without }),
            _ => Ok(()),
        }
    }
}

/// `scores`: `[responses, 1]`, list after list, each from best to worst.
pub(super) fn ranked_sum(scores: Tensor<2>, lists: &[RankedExample]) -> Tensor<1> {
    let mut start = 0;
    let mut sum: Option<Tensor<1>> = None;
    // Lists of the same length are one product; those that follow each other are enough to look for.
    for equal in lists.chunk_by(|one, other| one.responses.len() == other.responses.len()) {
        let responses = equal[0].responses.len();
        let count = equal.len() * responses;
        let of_lists = scores.clone().narrow(0, start, count).reshape([equal.len(), responses]);
        let loss = plackett_luce_loss(of_lists).sum();
        sum = Some(match sum {
            Some(sum) => sum + loss,
            None => loss,
        });
        start += count;
    }
    sum.unwrap_or_else(|| scores.sum() * 0.0)
}

pub(super) fn check_ranked(lists: &[RankedExample]) -> Result<(), RewardTrainingError> {
    let short = lists.iter().position(|list| list.responses.len() < 2);
    short.map_or(Ok(()), |index| {
        Err(RewardTrainingError::TooFewResponses { index, responses: lists[index].responses.len() })
    })
}

/// `scores`: `[responses, labels]`.
pub(super) fn rated_sum(scores: Tensor<2>, rated: &[RatedExample], loss: RatingLoss) -> Tensor<1> {
    let device = scores.device().without_autodiff();
    let ratings = rated.iter().flat_map(|example| &example.ratings).enumerate();
    let (places, ratings): (Vec<usize>, Vec<f32>) =
        ratings.filter_map(|(place, rating)| Some((place, (*rating)?))).unzip();
    let scores = scores.flatten::<1>(0, 1).select(0, position_tensor(&places, &device));
    let ratings = Tensor::from_data(ratings.as_slice(), &device);
    match loss {
        RatingLoss::SquaredError => squared_error_loss(scores, ratings).sum(),
        RatingLoss::BinaryCrossEntropy => binary_cross_entropy_loss(scores, ratings).sum(),
    }
}

pub(super) fn check_rated(
    rated: &[RatedExample],
    loss: RatingLoss,
    labels: usize,
) -> Result<(), RewardTrainingError> {
    for (index, example) in rated.iter().enumerate() {
        let found = example.ratings.len();
        if found != labels {
            return Err(RewardTrainingError::Ratings { index, found, labels });
        }
        if example.ratings.iter().all(Option::is_none) {
            return Err(RewardTrainingError::Unlabelled { index });
        }
        let (allowed, expected) = match loss {
            RatingLoss::SquaredError => (f32::MIN..=f32::MAX, "a finite number"),
            RatingLoss::BinaryCrossEntropy => (0.0..=1.0, "a number from 0 to 1"),
        };
        if let Some(rating) = example.ratings.iter().flatten().find(|rating| !allowed.contains(*rating)) {
            let (value, expected) = (f64::from(*rating), expected.into());
            return Err(RewardTrainingError::Value { index, what: "a rating", value, expected });
        }
    }
    Ok(())
}

/// `scores`: `[responses, 1]`.
pub(super) fn graded_sum(head: &ScoreHead, scores: Tensor<2>, examples: &[GradedExample]) -> Tensor<1> {
    let device = scores.device().without_autodiff();
    let grades: Vec<i32> = examples.iter().map(|example| example.grade as i32).collect();
    let grades = Tensor::from_data(TensorData::new(grades, [examples.len()]), &device);
    let scores = scores.squeeze_dim::<1>(1);
    match head.thresholds() {
        Some(thresholds) => cumulative_logit_loss(scores, thresholds, grades).sum(),
        None => unreachable!("the trainer gives the head its grades"),
    }
}

pub(super) fn check_graded(examples: &[GradedExample], grades: usize) -> Result<(), RewardTrainingError> {
    match examples.iter().position(|example| example.grade >= grades) {
        None => Ok(()),
        Some(index) => Err(RewardTrainingError::Value {
            index,
            what: "the grade",
            value: examples[index].grade as f64,
            expected: format!("a number from 0 to {}", grades - 1),
        }),
    }
}
