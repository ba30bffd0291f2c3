//! `loss_cpo_orpo`: losses of pairs without a reference.

use align_dpo::loss::{
    ImplicitReward, Likelihood, LikelihoodMean, LikelihoodOf, Likelihoods, ReferenceFreeLogProbs,
    ReferenceFreeLoss, ReferenceFreeObjective, SequenceScale, SimpoMargin, StepTotals, log_odds,
};
use burn::tensor::Tensor;
use serde_json::Value;

use super::{
    Check, GRADIENT, GoldenFile, LOSS, best, flat, gradients, leaf, mean, number, option, positive, read,
    read_one, smoothing, vector, weight,
};

/// The chosen texts' tokens; the file has their mean negative log-likelihood as one number.
const NLL_TOKENS: usize = 1;

pub(super) fn run(file: &GoldenFile, check: &mut Check) {
    let inputs = &file.json["inputs"];
    for result in file.json["cpo"].as_array().into_iter().flatten() {
        check.case();
        compare(&format!("cpo {}", result["options"]), inputs, result, &cpo(&result["options"]), check);
    }
    for result in file.json["orpo"].as_array().into_iter().flatten() {
        check.case();
        let objective = ReferenceFreeObjective::orpo(positive(&result["options"], "beta", 0.1));
        compare(&format!("orpo {}", result["options"]), inputs, result, &objective, check);
        odds(inputs, result, check);
    }
}

fn compare(
    what: &str,
    inputs: &Value,
    result: &Value,
    objective: &ReferenceFreeObjective,
    check: &mut Check,
) {
    let device = super::super::device().autodiff();
    let (sums, means) = (values(inputs, "sum"), values(inputs, "avg"));
    let lengths = |side: usize| sums[side].iter().zip(&means[side]).map(|(s, m)| (s / m).round());
    let (chosen_tokens, rejected_tokens) = (lengths(0).collect::<Vec<_>>(), lengths(1).collect::<Vec<_>>());
    let (chosen_tokens, rejected_tokens) =
        (vector(&chosen_tokens, &device), vector(&rejected_tokens, &device));
    // The gradients are those of means where TRL's loss takes means.
    let (chosen, rejected, pairs);
    if objective.loss.scale() == SequenceScale::Mean {
        (chosen, rejected) = (leaf(&means[0], &device), leaf(&means[1], &device));
        let (chosen, rejected) =
            (chosen.clone() * chosen_tokens.clone(), rejected.clone() * rejected_tokens.clone());
        pairs = ReferenceFreeLogProbs { chosen, rejected, chosen_tokens, rejected_tokens };
    } else {
        (chosen, rejected) = (leaf(&sums[0], &device), leaf(&sums[1], &device));
        let (chosen, rejected) = (chosen.clone(), rejected.clone());
        pairs = ReferenceFreeLogProbs { chosen, rejected, chosen_tokens, rejected_tokens };
    }
    let log_likelihood = leaf(&[-number(&inputs["chosen_nll"])], &device);
    let texts = Likelihoods { log_probs: log_likelihood.clone(), tokens: log_likelihood.ones_like() };
    let totals = StepTotals { pairs: sums[0].len(), likelihood_tokens: NLL_TOKENS };
    rewards(what, result, &pairs, objective, check);
    let terms = read(objective.loss.per_pair(&pairs, objective.beta, objective.reward));
    // TRL's `losses` of ORPO are what is subtracted.
    let sign = if objective.loss == (ReferenceFreeLoss::Orpo {}) { -1.0 } else { 1.0 };
    let terms: Vec<f64> = terms.into_iter().map(|term| term * sign).collect();
    check.close(&format!("{what} terms"), &terms, &flat(best(result, "losses")), LOSS);
    let loss = objective.share_of_step(&pairs, Some(&texts), totals);
    check.close_scalar(&format!("{what} loss"), read_one(loss.clone()), number(best(result, "loss")), LOSS);
    let [of_chosen, of_rejected, of_likelihood] = gradients(loss, [&chosen, &rejected, &log_likelihood]);
    for (name, got) in [("grad_chosen", of_chosen), ("grad_rejected", of_rejected)] {
        check.close(&format!("{what} {name}"), &got, &flat(best(result, name)), GRADIENT);
    }
    check.close_scalar(
        &format!("{what} grad_nll"),
        -of_likelihood[0],
        number(best(result, "grad_nll")),
        GRADIENT,
    );
}

/// Log-probabilities of the chosen and of the rejected completions.
fn values(inputs: &Value, scale: &str) -> [Vec<f64>; 2] {
    ["chosen", "rejected"].map(|side| flat(&inputs[format!("{scale}_{side}")]))
}

fn rewards(
    what: &str,
    result: &Value,
    pairs: &ReferenceFreeLogProbs,
    objective: &ReferenceFreeObjective,
    check: &mut Check,
) {
    let (chosen, rejected) = pairs.scaled(objective.loss.scale());
    for (name, log_probs) in [("chosen_rewards", chosen), ("rejected_rewards", rejected)] {
        if let Some(expected) = result.get(name).filter(|value| !value.is_null()) {
            let got = read(objective.reward.of(log_probs) * objective.beta.get());
            check.close(&format!("{what} {name}"), &got, &flat(expected), LOSS);
        }
    }
}

/// What TRL logs of the odds.
fn odds(inputs: &Value, result: &Value, check: &mut Check) {
    let device = super::super::device();
    let [chosen, rejected]: [Tensor<1>; 2] = values(inputs, "avg").map(|values| vector(&values, &device));
    let ratios = read(log_odds(chosen) - log_odds(rejected));
    if let Some(expected) = result.get("mean_log_odds") {
        check.close_scalar("orpo mean_log_odds", mean(&ratios), number(expected), LOSS);
    }
    if let Some(expected) = result.get("mean_log_odds_ratio") {
        let of_sigmoid: Vec<f64> = ratios.iter().map(|x| -(-x).exp().ln_1p()).collect();
        check.close_scalar("orpo mean_log_odds_ratio", mean(&of_sigmoid), number(expected), LOSS);
    }
}

/// TRL's options as an objective.
pub fn cpo(options: &Value) -> ReferenceFreeObjective {
    let label_smoothing = smoothing(options);
    let loss = match options["loss_type"].as_str().unwrap_or("sigmoid") {
        "sigmoid" => ReferenceFreeLoss::Sigmoid { label_smoothing },
        "hinge" => ReferenceFreeLoss::Hinge {},
        "ipo" => ReferenceFreeLoss::Ipo { scale: SequenceScale::Mean },
        "simpo" => {
            let margin = SimpoMargin::Gamma(weight(options, "simpo_gamma", 0.5));
            ReferenceFreeLoss::Simpo { margin, label_smoothing }
        }
        other => panic!("no loss {other}"),
    };
    let reward = match option(options, "alpha", 0.0) {
        0.0 => ImplicitReward::LogProbability {},
        alpha => ImplicitReward::Alpha { alpha },
    };
    let likelihood = Likelihood {
        weight: weight(options, "cpo_alpha", 1.0),
        of: LikelihoodOf::Completion,
        mean: LikelihoodMean::Tokens,
    };
    ReferenceFreeObjective {
        beta: positive(options, "beta", 0.1),
        loss,
        reward,
        likelihood: Some(likelihood),
    }
}

/// TRL's options of TPO as an objective.
pub fn tpo(options: &Value) -> ReferenceFreeObjective {
    let label_smoothing = smoothing(options);
    let loss = match options["loss_type"].as_str().unwrap_or("sigmoid") {
        "sigmoid" => ReferenceFreeLoss::Sigmoid { label_smoothing },
        "hinge" => ReferenceFreeLoss::Hinge {},
        "ipo" => ReferenceFreeLoss::Ipo { scale: SequenceScale::Mean },
        "tpo-l" => {
            let margin = SimpoMargin::Gamma(weight(options, "tpo_l_gamma", 0.5));
            ReferenceFreeLoss::Simpo { margin, label_smoothing }
        }
        other => panic!("no loss {other}"),
    };
    let alpha = weight(options, "tpo_alpha", 1.0);
    let objective = ReferenceFreeObjective::tpo(positive(options, "beta", 0.01), loss, alpha);
    // Without it TRL leaves the third completion out.
    let likelihood = objective.likelihood.filter(|likelihood| likelihood.weight.get() > 0.0);
    ReferenceFreeObjective { likelihood, ..objective }
}
