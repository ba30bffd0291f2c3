//! Reward models of whole responses.

use align_model::{
    causal_lm::CausalLm,
    checkpoint::{Resumable, State, StateError},
    preference::PreferenceExample,
    train::{Step, Trains},
};
use burn::{module::Module as _, tensor::Tensor};

use super::{
    GradedExample, RankedExample, RatedExample, RewardConfig, RewardConfigError, RewardObjective,
    RewardReport, RewardTrainingError,
    example::Group,
    objective::{PairSettings, check_graded, check_ranked, check_rated, graded_sum, ranked_sum, rated_sum},
    report::{by_slice, spread, wins},
    scoring::{Cut, Made, ScoreTraining, check_groups, lay_out},
};
use crate::model::{RewardModel, ScoreHead};

/// Trains a reward model on pairs, rankings, ratings or grades, whichever its objective names.
///
/// A step's loss is the mean over its examples (of ratings: over the ratings that are there), however many forward passes
/// the step is cut into. The responses to a prompt share one computation of it where the model can do that.
#[derive(Debug)]
pub struct RewardTrainer<M: CausalLm> {
    training: ScoreTraining<M>,
    objective: RewardObjective,
}

impl<M: CausalLm> RewardTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the model's own device. Grades give the head
    /// thresholds if it has none.
    ///
    /// # Errors
    /// If settings contradict each other or the model.
    pub fn new(
        mut model: RewardModel<M>,
        config: &RewardConfig,
        total_steps: u64,
    ) -> Result<Self, RewardConfigError> {
        config.check()?;
        let objective = config.objective;
        if !matches!(objective, RewardObjective::Regression { .. }) && model.labels() != 1 {
            let found = model.labels();
            return Err(RewardConfigError::Labels { data: objective.data(), found, expected: 1 });
        }
        if let RewardObjective::Ordinal { grades } = objective {
            let expected = grades.get() as usize;
            match model.head.grades() {
                None => model.head = model.head.with_grades(expected),
                Some(found) if found != expected => {
                    return Err(RewardConfigError::Grades { found, expected });
                }
                Some(_) => {}
            }
        }
        let cut = Cut {
            micro_batch_size: config.micro_batch_size.get(),
            recompute: config.recompute,
            seed: config.seed,
        };
        Ok(Self { training: ScoreTraining::new(model, cut, config.update.clone(), total_steps)?, objective })
    }

    /// The model as it is now.
    #[must_use]
    pub fn model(&self) -> &RewardModel<M> {
        self.training.model()
    }

    /// Gives the model back, without gradients.
    #[must_use]
    pub fn into_model(self) -> RewardModel<M> {
        self.model().valid()
    }

    /// One step over `groups`; `loss` is the sum over the examples of a range.
    fn step_over(
        &mut self,
        groups: &[Group<'_>],
        loss: impl Fn(&ScoreHead, Tensor<2>, std::ops::Range<usize>) -> Tensor<1>,
    ) -> Result<Made, RewardTrainingError> {
        check_groups(groups, self.model().backbone.max_positions())?;
        let tokens = groups.iter().map(Group::tokens).sum();
        self.training.step(
            groups.len(),
            tokens,
            |model, range| lay_out(&groups[range], model.backbone.shares_prompts()),
            loss,
        )
    }

    fn other_data(&self, found: &'static str) -> RewardTrainingError {
        RewardTrainingError::OtherData { found, expected: self.objective.data() }
    }
}

/// What every kind of data reports.
fn report(made: &Made) -> RewardReport {
    let [min_reward, mean_reward, max_reward] = spread(&made.scores);
    RewardReport {
        loss: made.loss,
        min_reward,
        mean_reward,
        max_reward,
        accuracy: None,
        margin: None,
        absolute_error: None,
        identical_pairs: 0,
        slices: std::collections::BTreeMap::new(),
        num_tokens: made.tokens_seen,
        grad_norm: made.update.grad_norm,
        learning_rate: made.update.learning_rate,
    }
}

impl<M: CausalLm> Step<[PreferenceExample]> for RewardTrainer<M> {
    type Report = RewardReport;
    type Error = RewardTrainingError;

    fn step(&mut self, pairs: &[PreferenceExample]) -> Result<RewardReport, RewardTrainingError> {
        let settings = PairSettings::of(self.objective).ok_or_else(|| self.other_data("pairs"))?;
        settings.check(pairs)?;
        let groups: Vec<Group<'_>> = pairs.iter().map(Group::of_pair).collect();
        let total = pairs.len() as f64;
        let made = self.step_over(&groups, |_, scores, range| settings.sum(scores, &pairs[range]) / total)?;
        let differences: Vec<f64> = made.scores.chunks(2).map(|pair| pair[0] - pair[1]).collect();
        let [accuracy, margin] = wins(&differences);
        Ok(RewardReport {
            accuracy: Some(accuracy),
            margin: Some(margin),
            identical_pairs: pairs.iter().filter(|pair| pair.chosen == pair.rejected).count(),
            slices: by_slice(pairs, &differences),
            ..report(&made)
        })
    }
}

impl<M: CausalLm> Step<[RankedExample]> for RewardTrainer<M> {
    type Report = RewardReport;
    type Error = RewardTrainingError;

    fn step(&mut self, lists: &[RankedExample]) -> Result<RewardReport, RewardTrainingError> {
        if !matches!(self.objective, RewardObjective::Ranked {}) {
            return Err(self.other_data("rankings"));
        }
        check_ranked(lists)?;
        let groups: Vec<Group<'_>> = lists.iter().map(Group::of_list).collect();
        let total = lists.len() as f64;
        let made = self.step_over(&groups, |_, scores, range| ranked_sum(scores, &lists[range]) / total)?;
        let (mut differences, mut rest) = (Vec::new(), made.scores.as_slice());
        for list in lists {
            let (scores, tail) = rest.split_at(list.responses.len());
            for (place, better) in scores.iter().enumerate() {
                differences.extend(scores[place + 1..].iter().map(|worse| better - worse));
            }
            rest = tail;
        }
        let [accuracy, margin] = wins(&differences);
        Ok(RewardReport { accuracy: Some(accuracy), margin: Some(margin), ..report(&made) })
    }
}

impl<M: CausalLm> Step<[RatedExample]> for RewardTrainer<M> {
    type Report = RewardReport;
    type Error = RewardTrainingError;

    fn step(&mut self, rated: &[RatedExample]) -> Result<RewardReport, RewardTrainingError> {
        let RewardObjective::Regression { loss } = self.objective else {
            return Err(self.other_data("ratings"));
        };
        check_rated(rated, loss, self.model().labels())?;
        let groups: Vec<Group<'_>> =
            rated.iter().map(|example| Group::of_one(&example.prompt, &example.response)).collect();
        let ratings = || rated.iter().flat_map(|example| &example.ratings);
        let total = ratings().flatten().count() as f64;
        let made =
            self.step_over(&groups, |_, scores, range| rated_sum(scores, &rated[range], loss) / total)?;
        let said = |score: f64| match loss {
            super::RatingLoss::SquaredError => score,
            super::RatingLoss::BinaryCrossEntropy => (1.0 + (-score).exp()).recip(),
        };
        let errors = ratings()
            .zip(&made.scores)
            .filter_map(|(rating, &score)| rating.map(|rating| (said(score) - f64::from(rating)).abs()));
        let absolute_error = errors.sum::<f64>() / total;
        Ok(RewardReport { absolute_error: Some(absolute_error), ..report(&made) })
    }
}

impl<M: CausalLm> Step<[GradedExample]> for RewardTrainer<M> {
    type Report = RewardReport;
    type Error = RewardTrainingError;

    fn step(&mut self, graded: &[GradedExample]) -> Result<RewardReport, RewardTrainingError> {
        let RewardObjective::Ordinal { grades } = self.objective else {
            return Err(self.other_data("grades"));
        };
        check_graded(graded, grades.get() as usize)?;
        let groups: Vec<Group<'_>> =
            graded.iter().map(|example| Group::of_one(&example.prompt, &example.response)).collect();
        let total = graded.len() as f64;
        let thresholds = self.model().head.thresholds().map(|thresholds| thresholds.inner().into_data());
        let thresholds: Vec<f64> = thresholds.map_or_else(Vec::new, |data| data.iter::<f64>().collect());
        let made =
            self.step_over(&groups, |head, scores, range| graded_sum(head, scores, &graded[range]) / total)?;
        // The median grade: as many thresholds as lie below the score.
        let grade = |score: f64| thresholds.iter().filter(|&&threshold| threshold < score).count();
        let distances: Vec<usize> = made
            .scores
            .iter()
            .zip(graded)
            .map(|(&score, example)| grade(score).abs_diff(example.grade))
            .collect();
        let right = distances.iter().filter(|&&distance| distance == 0).count();
        Ok(RewardReport {
            accuracy: Some(right as f64 / total),
            absolute_error: Some(distances.iter().sum::<usize>() as f64 / total),
            ..report(&made)
        })
    }
}

impl<M: CausalLm> Trains for RewardTrainer<M> {
    type Model = RewardModel<M>;

    fn model(&self) -> &RewardModel<M> {
        Self::model(self)
    }
}

impl<M: CausalLm> Resumable for RewardTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.training.save(state)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.training.restore(state)
    }
}
