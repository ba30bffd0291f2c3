//! How a step is laid out and cut into passes changes nothing.

use align_model::{causal_lm::PassOptions, pretrained::ClassifierKind, train::Step};
use align_reward::{
    model::{RewardModel, ScorePass},
    trainer::{RatingLoss, RewardObjective, RewardReport, RewardTrainer, RewardTrainingError},
};
use burn::module::Module;

use crate::toy::{
    Whole, assert_close, centred_pairs, config, decoder, grades, head, model, pairs, parameters, rankings,
    ratings,
};

/// Weights after one step are no measure: `AdamW` turns the rounding of tiny gradients into full steps.
fn assert_same(one: &RewardReport, other: &RewardReport) {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs() + 1e-7;
    assert!(close(one.loss, other.loss), "{one:?} {other:?}");
    assert!(close(one.grad_norm, other.grad_norm), "{one:?} {other:?}");
    assert!(close(one.mean_reward, other.mean_reward), "{one:?} {other:?}");
    assert!(close(one.min_reward, other.min_reward), "{one:?} {other:?}");
    assert_eq!((one.accuracy, one.num_tokens), (other.accuracy, other.num_tokens));
}

#[test]
fn a_shared_prompt_is_two_sequences() {
    let whole = RewardModel::new(Whole { decoder: decoder() }, head(ClassifierKind::Sequence, 1));
    let mut whole = RewardTrainer::new(whole, &config(centred_pairs(), 4), 3).unwrap();
    let mut shared = RewardTrainer::new(model(1), &config(centred_pairs(), 4), 3).unwrap();
    for _ in 0..3 {
        assert_same(&shared.step(&pairs()[..]).unwrap(), &whole.step(&pairs()[..]).unwrap());
    }
}

#[test]
fn shared_and_whole_gradients_agree() {
    let trained = Module::train(model(1));
    let pair = &pairs()[2];
    let gradients = |batch: &align_model::causal_lm::TokenBatch, ends: [usize; 2]| {
        let pass = ScorePass::forward(&trained, batch, &ends, PassOptions::default());
        let scores = pass.scores().squeeze_dim::<1>(1);
        let loss = scores.clone().narrow(0, 0, 1) * 2.0 - scores.narrow(0, 1, 1).square();
        let gradients = pass.backward(loss);
        let embedding = gradients.get::<2>(trained.backbone.embedding.id).unwrap();
        let head = gradients.get::<2>(trained.head.weight.id).unwrap();
        [embedding, head].map(|g| g.into_data().iter::<f32>().collect::<Vec<_>>())
    };
    let (prompt, chosen, rejected) = (pair.prompt.len(), pair.chosen.len(), pair.rejected.len());
    let mut shared = align_model::causal_lm::TokenBatch::default();
    shared.push_sharing(&pair.prompt, &[&pair.chosen, &pair.rejected]);
    let whole = [[&pair.prompt[..], &pair.chosen].concat(), [&pair.prompt[..], &pair.rejected].concat()];
    let whole = align_model::causal_lm::TokenBatch::from_sequences(&whole);
    let of_shared = gradients(&shared, [prompt + chosen - 1, prompt + chosen + rejected - 1]);
    let of_whole = gradients(&whole, [prompt + chosen - 1, 2 * prompt + chosen + rejected - 1]);
    for (shared, whole) in of_shared.iter().zip(&of_whole) {
        assert_close(shared, whole, 1e-5);
    }
}

/// Two steps in one pass and in four.
fn in_passes<E: Clone>(labels: usize, objective: RewardObjective, examples: &[E])
where
    RewardTrainer<align_model::decoder::Decoder>:
        Step<[E], Report = RewardReport, Error = RewardTrainingError>,
{
    let trainer = |micro| RewardTrainer::new(model(labels), &config(objective, micro), 2).unwrap();
    let (mut one, mut four) = (trainer(4), trainer(1));
    for _ in 0..2 {
        assert_same(&one.step(examples).unwrap(), &four.step(examples).unwrap());
    }
    let mut three = trainer(3);
    assert_same(&three.step(examples).unwrap(), &trainer(4).step(examples).unwrap());
}

#[test]
fn passes_change_nothing() {
    in_passes(1, centred_pairs(), &pairs());
    in_passes(1, RewardObjective::Ranked {}, &rankings());
    for loss in [RatingLoss::SquaredError, RatingLoss::BinaryCrossEntropy] {
        in_passes(2, RewardObjective::Regression { loss }, &ratings());
    }
    in_passes(1, RewardObjective::Ordinal { grades: 3.try_into().unwrap() }, &grades());
}

#[test]
fn every_parameter_learns() {
    let objective = RewardObjective::Ordinal { grades: 3.try_into().unwrap() };
    let mut trainer = RewardTrainer::new(model(1), &config(objective, 4), 1).unwrap();
    let before = parameters(&trainer.model().head);
    trainer.step(&grades()[..]).unwrap();
    let after = parameters(&trainer.model().head);
    assert!(before.iter().zip(&after).all(|(before, after)| (before - after).abs() > 0.0));
}
