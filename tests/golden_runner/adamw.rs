//! Steps of AdamW against `torch.optim.AdamW`.

use align_model::{
    number::{NonNegative, Positive, ProperFraction},
    train::{AdamW, AdamWConfig, WeightDecayOn},
};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    clipping::Bag,
    file::{flat, number},
};

const TOLERANCE: Tolerance = Tolerance::Mixed { relative: 2e-6, absolute: 1e-6 };

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    for case in file.json["cases"].as_array().unwrap() {
        if case["settings"]["amsgrad"].as_bool().unwrap_or(false) {
            return Err("AMSGrad is not offered".into());
        }
        for precision in ["f64", "f32"] {
            check.case();
            steps(&file.json["start"], case, precision, check);
        }
    }
    Ok(())
}

fn steps(start: &Value, case: &Value, precision: &str, check: &mut Check) {
    let settings = &case["settings"];
    let mut optimiser = AdamW::new(AdamWConfig {
        beta1: ProperFraction::new(number(&settings["betas"][0])),
        beta2: ProperFraction::new(number(&settings["betas"][1])),
        epsilon: Positive::new(number(&settings["eps"])),
        weight_decay: NonNegative::new(number(&settings["weight_decay"])),
        weight_decay_on: WeightDecayOn::Named(names(&case["weight_decay_applies_to"])),
    });
    let (names, mut bag) = Bag::of(start, &super::device().autodiff());
    // The files call a tensor by its own name, the model by its place.
    let place = |name: &str| format!("tensors.{}", names.iter().position(|n| n == name).unwrap());
    optimiser = AdamW::new(AdamWConfig {
        weight_decay_on: match &optimiser.config().weight_decay_on {
            WeightDecayOn::Named(decayed) => WeightDecayOn::Named(decayed.iter().map(|n| place(n)).collect()),
            other => other.clone(),
        },
        ..optimiser.config().clone()
    });
    for step in case["steps"].as_array().unwrap() {
        let expected = &step[precision];
        let gradients = bag.gradients(&names, &expected["grad"]);
        bag = optimiser.step(number(&settings["lr"]), bag, gradients);
        let state = optimiser.state().unwrap();
        for (name, values) in names.iter().zip(bag.values()) {
            let what = |key: &str| format!("{settings} step {} {precision} {key} {name}", step["step"]);
            let moments = &state.parameters[&place(name)];
            let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            check.close(&what("param"), &wide(&values), &flat(&expected["param"][name]), TOLERANCE);
            check.close(
                &what("exp_avg"),
                &wide(&moments.exp_avg),
                &flat(&expected["exp_avg"][name]),
                TOLERANCE,
            );
            let squares = flat(&expected["exp_avg_sq"][name]);
            check.close(&what("exp_avg_sq"), &wide(&moments.exp_avg_sq), &squares, TOLERANCE);
            check.equal(&what("step"), &moments.step, &step["step"].as_u64().unwrap());
        }
    }
}

fn names(value: &Value) -> std::collections::BTreeSet<String> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}
