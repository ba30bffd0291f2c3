//! `loss_kto` and `loss_bco`: losses of single completions.

use align_dpo::loss::{ClassWeights, RunningMean, UnpairedLogProbs, UnpairedLoss, bco_loss, kto_baseline};
use burn::tensor::{Device, Tensor};
use serde_json::Value;

use super::{
    Check, GRADIENT, GoldenFile, LOSS, best, completions::Completions, flat, gradients, leaf, mean, metrics,
    number, positive, read, read_one, vector, weight,
};

pub(super) fn run_kto(file: &GoldenFile, check: &mut Check) {
    let device = super::super::device().autodiff();
    for (name, case) in file.json["cases"].as_object().unwrap() {
        let inputs = &case["inputs"];
        let completions = Completions::new(&inputs["completion_mask"]);
        let labels = flat(&inputs["label"]);
        for result in case["results"].as_array().unwrap() {
            check.case();
            let (what, options) = (format!("{name} {}", result["options"]), &result["options"]);
            let policy = completions.leaves(&inputs["per_token_logps"], &device);
            let reference = completions.constants(&inputs["ref_per_token_logps"], &device).summed();
            let desirable = vector(&labels, &device);
            let examples = UnpairedLogProbs { policy: policy.summed(), reference, desirable };
            let baseline = baseline(inputs, &device);
            let loss = kto(options);
            let beta = positive(options, "beta", 0.1);
            let value = loss.per_example(&examples, beta, baseline.clone()).mean();
            check.close_scalar(
                &format!("{what} loss"),
                read_one(value.clone()),
                number(best(result, "loss")),
                LOSS,
            );
            let [gradient] = gradients(value, [&policy.values]);
            let expected = completions.pick(best(result, "grad"));
            check.close(&format!("{what} gradient"), &gradient, &expected, GRADIENT);
            if let Some(expected) = result.get("grad_seq_logps") {
                let sums = of_sums(inputs, result, baseline.clone(), &device);
                check.close(&format!("{what} gradient of sums"), &sums, &flat(expected), GRADIENT);
            }
            if matches!(loss, UnpairedLoss::Kto { .. }) {
                metrics(&what, result, &[("kl", read_one(baseline))], check);
            }
            logged(&what, result, &examples, &labels, check);
        }
    }
}

fn of_sums(inputs: &Value, result: &Value, baseline: Tensor<1>, device: &Device) -> Vec<f64> {
    let policy = leaf(&flat(&inputs["logps"]), device);
    let reference = vector(&flat(&inputs["ref_logps"]), device);
    let desirable = vector(&flat(&inputs["label"]), device);
    let examples = UnpairedLogProbs { policy: policy.clone(), reference, desirable };
    let beta = positive(&result["options"], "beta", 0.1);
    let loss = kto(&result["options"]).per_example(&examples, beta, baseline).mean();
    let [gradient] = gradients(loss, [&policy]);
    gradient
}

/// z of the mismatched completions; 0 where the file has none.
fn baseline(inputs: &Value, device: &Device) -> Tensor<1> {
    if inputs.get("KL_completion_mask").is_none_or(Value::is_null) {
        return Tensor::zeros([1], device);
    }
    let mismatched = Completions::new(&inputs["KL_completion_mask"]);
    let sums = |key: &str| mismatched.constants(&inputs[key], device).summed();
    kto_baseline(sums("KL_per_token_logps"), sums("ref_KL_per_token_logps"))
}

/// TRL's options as a loss.
pub fn kto(options: &Value) -> UnpairedLoss {
    let weights = ClassWeights {
        desirable: weight(options, "desirable_weight", 1.0),
        undesirable: weight(options, "undesirable_weight", 1.0),
    };
    match options["loss_type"].as_str().unwrap_or("kto") {
        "kto" => UnpairedLoss::Kto { weights },
        "apo_zero_unpaired" => UnpairedLoss::ApoZeroUnpaired { weights },
        other => panic!("no loss {other}"),
    }
}

fn logged(what: &str, result: &Value, examples: &UnpairedLogProbs, labels: &[f64], check: &mut Check) {
    let beta = positive(&result["options"], "beta", 0.1);
    let rewards = read(examples.log_ratios() * beta.get());
    let log_probs = read(examples.policy.clone());
    let of = |values: &[f64], class: f64| {
        mean(&values.iter().zip(labels).filter(|&(_, &l)| l == class).map(|(v, _)| *v).collect::<Vec<_>>())
    };
    let ours = [
        ("rewards/chosen", of(&rewards, 1.0)),
        ("rewards/rejected", of(&rewards, 0.0)),
        ("rewards/margins", of(&rewards, 1.0) - of(&rewards, 0.0)),
        ("logps/chosen", of(&log_probs, 1.0)),
        ("logps/rejected", of(&log_probs, 0.0)),
    ];
    metrics(what, result, &ours, check);
}

pub(super) fn run_bco(file: &GoldenFile, check: &mut Check) {
    let device = super::super::device().autodiff();
    let mut running = RunningMean::default();
    for step in file.json["steps"].as_array().unwrap() {
        check.case();
        let what = format!("step {}", step["step"]);
        let beta = positive(step, "beta", 0.1);
        let sides = ["chosen", "rejected"];
        let [chosen, rejected] = sides.map(|side| leaf(&flat(&step[format!("{side}_logps")]), &device));
        let reference = sides.map(|side| vector(&flat(&step[format!("ref_{side}_logps")]), &device));
        let log_ratios =
            Tensor::cat(vec![chosen.clone(), rejected.clone()], 0) - Tensor::cat(reference.to_vec(), 0);
        running.update(&read(log_ratios.clone() * beta.get()));
        check.close_scalar(&format!("{what} delta"), running.mean(), number(&step["delta"]), LOSS);
        let desirable = Tensor::cat(vec![chosen.ones_like(), rejected.zeros_like()], 0);
        let shift = vector(&[running.mean()], &device);
        let terms = bco_loss(log_ratios, desirable, shift, beta);
        check.close(&format!("{what} terms"), &read(terms.clone()), &flat(&step["losses"]), LOSS);
        let loss = terms.mean();
        check.close_scalar(&format!("{what} loss"), read_one(loss.clone()), number(best(step, "loss")), LOSS);
        let [of_chosen, of_rejected] = gradients(loss, [&chosen, &rejected]);
        for (name, got) in [("grad_chosen", of_chosen), ("grad_rejected", of_rejected)] {
            check.close(&format!("{what} {name}"), &got, &flat(best(step, name)), GRADIENT);
        }
    }
}
