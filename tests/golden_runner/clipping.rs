//! Clipping by the global norm against `torch.nn.utils.clip_grad_norm_`.

use align_model::train::clip_gradient_norm;
use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{flat, number},
};

const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

/// A model that is only a list of tensors. Their shape plays no part in what is tested with it.
#[derive(Module, Debug)]
pub struct Bag {
    tensors: Vec<Param<Tensor<1>>>,
}

impl Bag {
    /// The tensors of a JSON object, and their names in the same order.
    pub fn of(tensors: &Value, device: &Device) -> (Vec<String>, Self) {
        let tensors = tensors.as_object().unwrap();
        let params = tensors.values().map(|values| Param::from_tensor(tensor(values, device))).collect();
        (tensors.keys().cloned().collect(), Self { tensors: params })
    }

    /// The gradients that a JSON object has under these names.
    pub fn gradients(&self, names: &[String], values: &Value) -> GradientsParams {
        let mut gradients = GradientsParams::new();
        for (param, name) in self.tensors.iter().zip(names) {
            gradients.register(param.id, tensor(&values[name], &super::device()));
        }
        gradients
    }

    /// The numbers of every tensor.
    pub fn values(&self) -> Vec<Vec<f32>> {
        self.tensors.iter().map(|param| param.val().into_data().try_into_vec().unwrap()).collect()
    }
}

fn tensor(values: &Value, device: &Device) -> Tensor<1> {
    let values: Vec<f32> = flat(values).into_iter().map(|x| x as f32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    for case in file.json["cases"].as_array().unwrap() {
        check.case();
        let (names, bag) = Bag::of(&case["grads"], &super::device());
        let gradients = bag.gradients(&names, &case["grads"]);
        let (gradients, norm) = clip_gradient_norm(gradients, &bag, number(&case["max_norm"]));
        check.close_scalar(
            &format!("{} total_norm", case["name"]),
            norm,
            number(&case["total_norm"]),
            TOLERANCE,
        );
        for (param, name) in bag.tensors.iter().zip(&names) {
            let clipped: Vec<f32> = gradients.get::<1>(param.id).unwrap().into_data().try_into_vec().unwrap();
            let clipped: Vec<f64> = clipped.into_iter().map(f64::from).collect();
            check.close(
                &format!("{} {name}", case["name"]),
                &clipped,
                &flat(&case["clipped"][name]),
                TOLERANCE,
            );
        }
    }
    Ok(())
}
