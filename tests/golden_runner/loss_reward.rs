//! `loss_reward`: losses of pairs of scores.

use align_model::number::UnitInterval;
use align_reward::loss::{bradley_terry_loss, centering_loss};
use burn::tensor::Tensor;
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{flat, number},
};

const LOSS: Tolerance = Tolerance::Mixed { relative: 1e-5, absolute: 1e-6 };
const GRADIENT: Tolerance = Tolerance::OfLargest(1e-5);

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let device = super::device().autodiff();
    let inputs = &file.json["inputs"];
    let read = |value: &Value| -> Tensor<1> {
        let values: Vec<f32> = flat(value).into_iter().map(|v| v as f32).collect();
        Tensor::from_data(values.as_slice(), &device)
    };
    for result in file.json["results"].as_array().unwrap() {
        check.case();
        let options = &result["options"];
        let (chosen, rejected) =
            (read(&inputs["chosen"]).require_grad(), read(&inputs["rejected"]).require_grad());
        let margin = options["margin"].as_bool().unwrap_or(false).then(|| read(&inputs["margin"]));
        let smoothing = UnitInterval::new(options.get("label_smoothing").map_or(0.0, number));
        let pairs = bradley_terry_loss(chosen.clone(), rejected.clone(), margin, smoothing).mean();
        let loss = match options.get("center_rewards_coefficient").filter(|value| !value.is_null()) {
            Some(coefficient) => {
                pairs + centering_loss(chosen.clone(), rejected.clone()).mean() * number(coefficient)
            }
            None => pairs,
        };
        let gradients = loss.backward();
        let value = loss.inner().into_scalar::<f64>();
        check.close_scalar(&format!("{options} loss"), value, number(&result["loss_f64"]), LOSS);
        let gradient: Vec<f64> = [&chosen, &rejected]
            .into_iter()
            .flat_map(|scores| scores.grad(&gradients).unwrap().into_data().iter::<f64>().collect::<Vec<_>>())
            .collect();
        check.close(&format!("{options} gradient"), &gradient, &flat(&result["grad_f64"]), GRADIENT);
    }
    Ok(())
}
