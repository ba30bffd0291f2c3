//! The critic against a graph that keeps everything.

use align_model::causal_lm::{PassOptions, TokenBatch};
use align_reward::model::RewardModel;
use align_rl::{
    Trajectory,
    critic::{ValueLayout, ValuePass, ValuedStates, value_head},
};
use burn::{
    module::Module as _,
    optim::GradientsParams,
    tensor::{Device, Int, Tensor, TensorData},
};

use super::world::{HIDDEN, Separate, assert_close, decoder, experience, flat, head};

fn trajectories() -> Vec<Trajectory> {
    experience(6, true).into_iter().map(|one| one.experience.trajectory).collect()
}

/// A loss that weighs every value differently.
fn loss(values: Tensor<1>) -> Tensor<1> {
    let count = values.dims()[0];
    let weights: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();
    let weights = Tensor::<1>::from_data(TensorData::new(weights, [count]), &values.device());
    (values.clone().powi_scalar(2) + values).mul(weights).sum()
}

#[test]
fn values_and_gradients_are_those_of_the_whole_graph() {
    let critic = RewardModel::new(decoder(2).without_head(), head()).train();
    let (mut sequences, mut positions, mut start) = (Vec::new(), Vec::new(), 0);
    for trajectory in trajectories() {
        let before = start + trajectory.prompt.len();
        let acts = |&t: &usize| trajectory.is_action[t];
        positions.extend((0..trajectory.tokens.len()).filter(acts).map(|t| (before + t - 1) as i32));
        if !trajectory.is_truncated() {
            positions.push((before + trajectory.tokens.len() - 1) as i32);
        }
        start = before + trajectory.tokens.len();
        sequences.push([trajectory.prompt, trajectory.tokens].concat());
    }
    let batch = TokenBatch::from_sequences(&sequences);
    let count = positions.len();
    let device = Device::flex().autodiff();
    let positions = Tensor::<1, Int>::from_data(TensorData::new(positions, [count]), &device);
    let hidden = align_model::causal_lm::CausalLm::hidden(&critic.backbone, &batch).select(0, positions);
    let expected: Tensor<1> = critic.head.forward(hidden).flatten(0, 1);
    let of_all = GradientsParams::from_grads(loss(expected.clone()).backward(), &critic);

    let trajectories = trajectories();
    let references: Vec<&Trajectory> = trajectories.iter().collect();
    for shares in [true, false] {
        let layout = ValueLayout::new(&references, ValuedStates::BeforeActionsAndAtEnd, shares);
        let pass = ValuePass::forward(&critic, &layout, PassOptions::default());
        let read = |values: Tensor<1>| values.into_data().iter::<f32>().collect::<Vec<_>>();
        assert_close("values", &read(pass.values()), &read(expected.clone()), 1e-5);
        let total = loss(pass.values());
        assert_close("gradients", &flat(&critic, &pass.backward(total)), &flat(&critic, &of_all), 1e-4);
    }
}

#[test]
fn a_state_at_the_end_is_that_of_a_trajectory_that_ended() {
    let trajectories = trajectories();
    let references: Vec<&Trajectory> = trajectories.iter().collect();
    let counts = |states| ValueLayout::new(&references, states, false).counts().to_vec();
    let actions: Vec<usize> = trajectories.iter().map(Trajectory::actions).collect();
    assert_eq!(counts(ValuedStates::BeforeActions), actions);
    let with_end = trajectories.iter().map(|it| it.actions() + usize::from(!it.is_truncated()));
    assert_eq!(counts(ValuedStates::BeforeActionsAndAtEnd), with_end.collect::<Vec<_>>());
}

#[test]
fn a_fresh_head_says_zero_and_learns() {
    let critic = RewardModel::new(decoder(2).without_head(), value_head(HIDDEN, &Device::flex())).train();
    let trajectories = trajectories();
    let references: Vec<&Trajectory> = trajectories.iter().collect();
    let layout = ValueLayout::new(&references, ValuedStates::BeforeActions, true);
    let pass = ValuePass::forward(&critic, &layout, PassOptions::default());
    let values = pass.values();
    assert!(values.clone().into_data().iter::<f32>().all(|value| value == 0.0));
    let gradients = pass.backward((values - 1.0).powi_scalar(2).sum());
    assert!(flat(&critic, &gradients).iter().any(|gradient| *gradient != 0.0));
}

#[test]
fn a_model_without_the_gift_reads_whole_sequences() {
    let separate = RewardModel::new(Separate { inner: decoder(2).without_head() }, head());
    let shared = RewardModel::new(decoder(2).without_head(), head());
    let trajectories = trajectories();
    let references: Vec<&Trajectory> = trajectories.iter().collect();
    let states = ValuedStates::BeforeActionsAndAtEnd;
    let read = |values: Tensor<1>| values.into_data().iter::<f32>().collect::<Vec<_>>();
    let layout = ValueLayout::new(&references, states, true);
    let one = read(ValuePass::forward(&shared, &layout, PassOptions::default()).values());
    let layout = ValueLayout::new(&references, states, false);
    let other = read(ValuePass::forward(&separate, &layout, PassOptions::default()).values());
    assert_close("values", &one, &other, 1e-5);
}
