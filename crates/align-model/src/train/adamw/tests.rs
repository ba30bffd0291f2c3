#![allow(clippy::float_cmp)] // compared only where nothing rounds

use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor},
};

use super::*;

#[derive(Module, Debug)]
struct Inner {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Model {
    layers: Vec<Inner>,
    unused: Param<Tensor<1>>,
}

fn model(device: &Device) -> Model {
    let layer = |scale: f32| Inner {
        weight: Param::from_tensor(
            Tensor::from_floats([[0.5, -0.25, 1.0], [2.0, 0.125, -1.5]], device) * scale,
        ),
        bias: Param::from_tensor(Tensor::from_floats([0.5, -0.5, 0.25], device) * scale),
    };
    Model {
        layers: vec![layer(1.0), layer(-0.5)],
        unused: Param::from_tensor(Tensor::from_floats([1.0, 2.0], device)),
    }
}

fn loss(model: &Model, device: &Device, round: usize) -> Tensor<1> {
    let x = Tensor::<2>::from_floats([[1.0, 0.5 + round as f32]], device);
    let outputs = model.layers.iter().map(|layer| {
        (x.clone().matmul(layer.weight.val()) + layer.bias.val().unsqueeze()).powi_scalar(2).sum()
    });
    outputs.reduce(|a, b| a + b).unwrap()
}

fn steps(optimiser: &mut AdamW, mut model: Model, device: &Device, rounds: std::ops::Range<usize>) -> Model {
    for round in rounds {
        let gradients = GradientsParams::from_grads(loss(&model, device, round).backward(), &model);
        model = optimiser.step(0.05, model, gradients);
    }
    model
}

fn values(model: &Model) -> Vec<Vec<f32>> {
    let read = |data: burn::tensor::TensorData| data.try_into_vec::<f32>().unwrap();
    let mut all = vec![read(model.unused.val().into_data())];
    for layer in &model.layers {
        all.push(read(layer.weight.val().into_data()));
        all.push(read(layer.bias.val().into_data()));
    }
    all
}

fn decaying() -> AdamWConfig {
    AdamWConfig { weight_decay: NonNegative::new(0.1), ..AdamWConfig::default() }
}

#[test]
fn the_first_step_moves_by_the_learning_rate() {
    let device = Device::flex().autodiff();
    let (mut optimiser, start) = (AdamW::new(AdamWConfig::default()), model(&device));
    let before = values(&start);
    let after = values(&steps(&mut optimiser, start, &device, 0..1));
    for (a, b) in after[1..].iter().flatten().zip(before[1..].iter().flatten()) {
        assert!(((a - b).abs() - 0.05).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn a_parameter_without_gradient_does_not_even_decay() {
    let device = Device::flex().autodiff();
    let mut optimiser = AdamW::new(AdamWConfig { weight_decay_on: WeightDecayOn::Everything, ..decaying() });
    let after = steps(&mut optimiser, model(&device), &device, 0..3);
    assert_eq!(values(&after)[0], [1.0, 2.0]);
    assert_eq!(
        optimiser.state().unwrap().parameters.into_keys().collect::<Vec<_>>(),
        ["layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight"]
    );
}

#[test]
fn decay_reaches_the_parameters_that_the_policy_names() {
    let device = Device::flex().autodiff();
    let run = |policy: WeightDecayOn, decay: f64| {
        let config = AdamWConfig {
            weight_decay: NonNegative::new(decay),
            weight_decay_on: policy,
            ..AdamWConfig::default()
        };
        values(&steps(&mut AdamW::new(config), model(&device), &device, 0..1))
    };
    let none = run(WeightDecayOn::Everything, 0.0);
    let differs = |policy| {
        let some = run(policy, 0.1);
        some.iter().zip(&none).map(|(a, b)| a != b).collect::<Vec<_>>()
    };
    assert_eq!(differs(WeightDecayOn::Everything), [false, true, true, true, true]);
    assert_eq!(differs(WeightDecayOn::Matrices), [false, true, false, true, false]);
    let named = WeightDecayOn::Named(["layers.1.bias".to_owned()].into());
    assert_eq!(differs(named), [false, false, false, false, true]);
}

#[test]
fn parameters_stay_tracked_leaves_with_their_settings() {
    let device = Device::flex().autodiff().gradient_checkpointing();
    let mut optimiser = AdamW::new(decaying());
    let mut start = model(&device);
    start.layers[0].bias = start.layers[0].bias.clone().set_require_grad(false);
    let ids = start.layers[1].weight.id;
    let after = steps(&mut optimiser, start, &device, 0..2);
    let weight = after.layers[1].weight.val();
    assert!(weight.is_require_grad());
    assert_eq!(weight.gradient_checkpointing_strategy(), device.gradient_checkpointing_strategy());
    assert_eq!(after.layers[1].weight.id, ids);
    assert!(!after.layers[0].bias.val().is_require_grad());
    assert_eq!(values(&after)[2], [0.5, -0.5, 0.25], "frozen");
}

#[test]
fn a_restored_state_goes_on_bit_by_bit_with_a_loaded_model() {
    let device = Device::flex().autodiff();
    let (mut optimiser, start) = (AdamW::new(decaying()), model(&device));
    let half = steps(&mut optimiser, start, &device, 0..4);
    let json = serde_json::to_string(&optimiser.state().unwrap()).unwrap();

    // A model that was loaded has parameters with other identities.
    let mut loaded = model(&device);
    loaded.unused = Param::from_tensor(half.unused.val().detach().require_grad());
    for (layer, saved) in loaded.layers.iter_mut().zip(&half.layers) {
        let leaf = |values: Vec<f32>, shape: [usize; 2]| {
            Tensor::<2>::from_data(burn::tensor::TensorData::new(values, shape), &device)
        };
        layer.weight =
            Param::from_tensor(leaf(saved.weight.val().into_data().try_into_vec().unwrap(), [2, 3]));
        layer.bias = Param::from_tensor(
            leaf(saved.bias.val().into_data().try_into_vec().unwrap(), [1, 3]).reshape([3]).detach(),
        );
        assert_ne!(layer.weight.id, saved.weight.id);
    }
    let state: AdamWState = serde_json::from_str(&json).unwrap();
    let mut resumed = AdamW::from_state(decaying(), state, &loaded).unwrap();

    let straight = steps(&mut optimiser, half, &device, 4..9);
    let continued = steps(&mut resumed, loaded, &device, 4..9);
    assert_eq!(values(&straight), values(&continued));
    assert_eq!(optimiser.state().unwrap(), resumed.state().unwrap());
}

#[test]
fn a_state_of_another_model_is_refused() {
    let device = Device::flex();
    let model = model(&device);
    let state = |name: &str, count: usize| AdamWState {
        parameters: [(
            name.to_owned(),
            ParameterState { step: 1, exp_avg: vec![0.0; count], exp_avg_sq: vec![0.0; count] },
        )]
        .into(),
    };
    let refused = |state| AdamW::from_state(decaying(), state, &model).unwrap_err();
    assert!(matches!(refused(state("layers.7.bias", 3)), AdamWError::UnknownParameter { .. }));
    assert!(matches!(refused(state("unused", 3)), AdamWError::Size { found: 3, expected: 2, .. }));
}
