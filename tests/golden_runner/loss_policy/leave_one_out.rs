//! `loss_rloo`: ratios of whole sequences, leave-one-out advantages with the divergence in the reward.

use align_model::number::NonNegative;
use align_rl::{
    KlEstimator, PolicyObjective, PolicyTokens,
    loss::{AdvantageEstimator, ScoreRange, StepTotals, Surrogate},
};
use serde_json::Value;

use super::{
    Check, Clips, Covered, GRADIENT, GoldenFile, LOSS, Packing, check_advantages, check_clip_ratios, flat,
    host, number, tensor,
};

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let inputs = &file.json["inputs"];
    let packing = Packing::new(&inputs["completion_mask"]);
    for result in file.json["loss"].as_array().unwrap() {
        check.case();
        check_loss(check, inputs, result, &packing);
    }
    for expected in file.json["advantages"].as_array().unwrap() {
        check.case();
        let beta = number(&expected["beta"]);
        let old = packing.pack(&inputs["old_per_token_logps"]);
        let reference = packing.pack(&inputs["ref_per_token_logps"]);
        let pairs = old.iter().zip(&reference);
        let penalties: Vec<f64> =
            pairs.map(|(old, reference)| -beta * KlEstimator::K1.estimate(*old, *reference)).collect();
        let range = &expected["reward_clip_range"];
        let score_range = (!range.is_null()).then(|| {
            let bounds = flat(range);
            ScoreRange { low: bounds[0], high: bounds[1] }
        });
        let is_normalized = expected["normalize_advantages"].as_bool().unwrap();
        let normalize_epsilon = is_normalized.then(|| NonNegative::new(1e-4));
        let estimator = AdvantageEstimator::LeaveOneOut { score_range, normalize_epsilon };
        check_advantages(check, expected, estimator, Some(&packing), Some(&penalties));
    }
    Ok(())
}

fn check_loss(check: &mut Check, inputs: &Value, result: &Value, packing: &Packing) {
    let device = super::super::device().autodiff();
    let read = |values: &[f64]| tensor(values, &device);
    let case = result["case"].as_str().unwrap();
    let low = NonNegative::try_from(number(&result["epsilon"])).unwrap();
    let high = NonNegative::try_from(number(&result["epsilon_high"])).unwrap();
    let surrogate = Surrogate::Clipped { low, high, ceiling: None };
    let objective = PolicyObjective { surrogate, ..PolicyObjective::rloo() };
    let policy = packing.pack(&inputs[case]);
    let tokens = PolicyTokens {
        log_probs: read(&policy).require_grad(),
        old_log_probs: read(&packing.pack(&inputs["old_per_token_logps"])),
        sampling_log_probs: None,
        reference_log_probs: None,
        divergences: None,
        entropies: read(&vec![0.0; policy.len()]),
        advantages: read(&packing.spread(&inputs["advantages"])),
        is_kept: None,
        is_penalized: None,
        counts: packing.counts.clone(),
    };
    let what = &format!("{case} {low} {high}");
    let share = objective.share(&tokens, StepTotals::of(&packing.counts));
    let (low, high) = (host(&share.clipped_low), host(&share.clipped_high));
    let clips = Clips { low: &low, high: &high, is_of_sequences: true };
    check_clip_ratios(check, what, &result["metrics"], packing, clips);
    let gradients = share.loss.clone().backward();
    check.close_scalar(
        &format!("{what} loss"),
        share.loss.into_scalar::<f64>(),
        number(&result["loss_f64"]),
        LOSS,
    );
    let gradient = packing.unpack(&host(&tokens.log_probs.grad(&gradients).unwrap()));
    check.close(&format!("{what} gradient"), &gradient, &flat(&result["grad_f64"]), GRADIENT);
}
