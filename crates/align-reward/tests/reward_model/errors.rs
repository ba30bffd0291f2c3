//! What cannot be learnt from is named, and the model left alone.

use align_model::train::Step as _;
use align_reward::{
    model::ScoringError,
    trainer::{
        GradedExample, Margins, RankedExample, RatingLoss, RewardConfig, RewardConfigError, RewardObjective,
        RewardTrainer, RewardTrainingError, evaluate_pairs,
    },
};

use crate::toy::{
    CONTEXT, centred_pairs, config, grades, model, pairs, parameters, rankings, ratings, tokens,
};

fn trainer(labels: usize, objective: RewardObjective) -> RewardTrainer<align_model::decoder::Decoder> {
    RewardTrainer::new(model(labels), &config(objective, 4), 1).unwrap()
}

#[test]
fn pairs_that_cannot_be_learnt_from() {
    let mut trainer = trainer(1, centred_pairs());
    let before = parameters(trainer.model());
    assert_eq!(trainer.step(&pairs()[..0]).unwrap_err(), RewardTrainingError::NoExamples);
    let mut empty = pairs();
    empty[2].rejected.clear();
    let error = trainer.step(&empty[..]).unwrap_err();
    assert_eq!(error, RewardTrainingError::EmptyResponse { index: 2, response: 1 });
    let mut long = pairs();
    long[1].chosen = tokens(CONTEXT, 3);
    let expected = RewardTrainingError::TooLong { index: 1, tokens: CONTEXT + 5, limit: CONTEXT };
    assert_eq!(trainer.step(&long[..]).unwrap_err(), expected);
    assert_eq!(evaluate_pairs(trainer.model(), &long, &config(centred_pairs(), 4)).unwrap_err(), expected);
    let mut partly = pairs();
    partly[3].margin = None;
    let error = trainer.step(&partly[..]).unwrap_err();
    assert_eq!(error, RewardTrainingError::MissingMargin { with: 3, without: 3 });
    assert_eq!(
        error.to_string(),
        "3 pairs of this batch have a margin, example 3 has none: give every pair one, or set `margins` = \"ignore\""
    );
    partly[3].margin = Some(f32::NAN);
    assert!(matches!(trainer.step(&partly[..]), Err(RewardTrainingError::Value { index: 3, .. })));
    assert_eq!(before, parameters(trainer.model()));
}

#[test]
fn margins_can_be_left_alone() {
    let ignoring = |margins| RewardObjective::Pairs {
        center_rewards_coefficient: None,
        label_smoothing: align_model::number::UnitInterval::new(0.0),
        margins,
    };
    let mut partly = pairs();
    partly[3].margin = None;
    let ignored = trainer(1, ignoring(Margins::Ignore)).step(&partly[..]).unwrap();
    for pair in &mut partly {
        pair.margin = None;
    }
    let without = trainer(1, ignoring(Margins::Use)).step(&partly[..]).unwrap();
    assert_eq!(ignored, without);
}

#[test]
fn other_data_than_the_objective_s() {
    let expected = |found, expected| RewardTrainingError::OtherData { found, expected };
    let mut of_pairs = trainer(1, centred_pairs());
    assert_eq!(of_pairs.step(&rankings()[..]).unwrap_err(), expected("rankings", "pairs"));
    assert_eq!(of_pairs.step(&ratings()[..]).unwrap_err(), expected("ratings", "pairs"));
    assert_eq!(of_pairs.step(&grades()[..]).unwrap_err(), expected("grades", "pairs"));
    let mut of_rankings = trainer(1, RewardObjective::Ranked {});
    assert_eq!(of_rankings.step(&pairs()[..]).unwrap_err(), expected("pairs", "rankings"));
    let one = [RankedExample { prompt: vec![1], responses: vec![vec![2]] }];
    let error = of_rankings.step(&one[..]).unwrap_err();
    assert_eq!(error, RewardTrainingError::TooFewResponses { index: 0, responses: 1 });
}

#[test]
fn ratings_and_grades_out_of_range() {
    let mut trainer = trainer(2, RewardObjective::Regression { loss: RatingLoss::BinaryCrossEntropy });
    let mut unrated = ratings();
    unrated[1].ratings = vec![None, None];
    assert_eq!(trainer.step(&unrated[..]).unwrap_err(), RewardTrainingError::Unlabelled { index: 1 });
    unrated[1].ratings = vec![Some(1.5), None];
    let error = trainer.step(&unrated[..]).unwrap_err();
    assert_eq!(error.to_string(), "example 1 of this batch: a rating is 1.5, expected a number from 0 to 1");
    unrated[1].ratings = vec![Some(0.5)];
    let error = trainer.step(&unrated[..]).unwrap_err();
    assert_eq!(error, RewardTrainingError::Ratings { index: 1, found: 1, labels: 2 });

    let mut trainer = self::trainer(1, RewardObjective::Ordinal { grades: 3.try_into().unwrap() });
    let wrong = [GradedExample { prompt: vec![1], response: vec![2], grade: 3 }];
    let error = trainer.step(&wrong[..]).unwrap_err();
    assert_eq!(error.to_string(), "example 0 of this batch: the grade is 3, expected a number from 0 to 2");
}

#[test]
fn settings_that_contradict_each_other_or_the_model() {
    let error = |labels, config: &RewardConfig| RewardTrainer::new(model(labels), config, 1).unwrap_err();
    let large = config(centred_pairs(), 5);
    assert_eq!(error(1, &large), RewardConfigError::MicroBatchTooLarge { micro: 5, batch: 4 });
    let expected = RewardConfigError::Labels { data: "pairs", found: 2, expected: 1 };
    assert_eq!(error(2, &config(centred_pairs(), 1)), expected);
    let one = RewardObjective::Ordinal { grades: 1.try_into().unwrap() };
    assert_eq!(error(1, &config(one, 1)), RewardConfigError::TooFewGrades { grades: 1 });
    let mut graded = model(1);
    graded.head = graded.head.with_grades(4);
    let three = RewardObjective::Ordinal { grades: 3.try_into().unwrap() };
    let error = RewardTrainer::new(graded, &config(three, 1), 1).unwrap_err();
    assert_eq!(error, RewardConfigError::Grades { found: 4, expected: 3 });
}

#[test]
fn sequences_that_cannot_be_scored() {
    let model = model(1);
    assert_eq!(model.score_sequences(&[vec![1], vec![]], 2), Err(ScoringError::Empty { index: 1 }));
    let long = ScoringError::TooLong { index: 0, tokens: CONTEXT + 1, limit: CONTEXT };
    assert_eq!(model.score_sequences(&[tokens(CONTEXT + 1, 1)], 2), Err(long));
}

#[test]
fn configurations_are_trl_s_and_refuse_what_they_do_not_know() {
    let default = RewardConfig::default();
    assert!((default.update.learning_rate.get() - 1e-4).abs() < 1e-12);
    assert_eq!((default.max_length.get(), default.batch_size.get()), (1024, 8));
    let parse = |text: &str| serde_json::from_str::<RewardConfig>(text);
    let config = parse(r#"{"objective": {"kind": "pairs", "center_rewards_coefficient": 0.01}}"#).unwrap();
    assert!(
        matches!(config.objective, RewardObjective::Pairs { center_rewards_coefficient: Some(c), .. } if c.get() < 0.02)
    );
    assert!(parse(r#"{"objective": {"kind": "ranked", "label_smoothing": 0.1}}"#).is_err());
    assert!(parse(r#"{"objectiv": {"kind": "ranked"}}"#).is_err());
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(parse(&written).unwrap(), config);
}
