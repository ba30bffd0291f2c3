//! `loss_dpo`: losses of pairs against a reference.

use align_dpo::loss::{
    Divergence, LikelihoodMean, PairLogProbs, PairLoss, PairObjective, SequenceScale, StepTotals,
    WeightedLoss, length_desensitized, policy_weights, weigh_tokens,
};
use align_model::{
    logprob::TokenLogProbs,
    number::{NonNegative, Positive, ProperFraction},
};
use burn::tensor::{Device, Tensor};
use serde_json::Value;

use super::{
    Check, GRADIENT, GoldenFile, LOSS, best, completions::Completions, flat, flip_rate, gradients,
    inner_smoothing, leaf, mean, metrics, number, option, positive, read, read_one, share, smoothing, vector,
};

pub(super) fn run(file: &GoldenFile, check: &mut Check) {
    for (name, case) in file.json["cases"].as_object().unwrap() {
        for result in case["results"].as_array().unwrap() {
            check.case();
            let what = format!("{name} {}", result["options"]);
            of_tokens(&what, &case["inputs"], result, check);
            if let Some(expected) = result.get("grad_seq_logps") {
                of_sums(&what, &case["inputs"], result, &flat(expected), check);
            }
        }
    }
}

/// Loss, gradients with respect to tokens, single pairs and logged numbers.
fn of_tokens(what: &str, inputs: &Value, result: &Value, check: &mut Check) {
    let device = super::super::device().autodiff();
    let completions = Completions::new(&inputs["completion_mask"]);
    let policy = completions.leaves(&inputs["per_token_logps"], &device);
    let options = &result["options"];
    let (pairs, weights) = batch(inputs, options, &completions, &policy, &device);
    let objective = objective(options);
    let loss = objective.share_of_step(&pairs, weights.as_ref(), totals(&completions));
    check.close_scalar(&format!("{what} loss"), read_one(loss.clone()), number(best(result, "loss")), LOSS);
    let [gradient] = gradients(loss, [&policy.values]);
    // TRL sums whole rows, so that the file has gradients off the completions too; nothing of ours is there.
    let expected = completions.pick(best(result, "grad"));
    check.close(&format!("{what} gradient"), &gradient, &expected, GRADIENT);
    if let Some(expected) = result.get("per_pair_loss").filter(|value| !value.is_null()) {
        let alone = |index| alone(&objective, &pairs, weights.as_ref(), index);
        let single: Vec<f64> = (0..pairs.policy_chosen.dims()[0]).map(alone).collect();
        check.close(&format!("{what} of single pairs"), &single, &flat(expected), LOSS);
    }
    logged(what, result, &pairs, objective.beta, check);
}

/// Gradients with respect to sums over completions.
fn of_sums(what: &str, inputs: &Value, result: &Value, expected: &[f64], check: &mut Check) {
    let device = super::super::device().autodiff();
    let completions = Completions::new(&inputs["completion_mask"]);
    let tokens = completions.constants(&inputs["per_token_logps"], &device);
    let (mut pairs, weights) = batch(inputs, &result["options"], &completions, &tokens, &device);
    let chosen = leaf(&flat(&inputs["chosen_logps"]), &device);
    let rejected = leaf(&flat(&inputs["rejected_logps"]), &device);
    (pairs.policy_chosen, pairs.policy_rejected) = (chosen.clone(), rejected.clone());
    pairs.reference_chosen = vector(&flat(&inputs["ref_chosen_logps"]), &device);
    pairs.reference_rejected = vector(&flat(&inputs["ref_rejected_logps"]), &device);
    let objective = objective(&result["options"]);
    let loss = objective.share_of_step(&pairs, weights.as_ref(), totals(&completions));
    let gradient = gradients(loss, [&chosen, &rejected]).concat();
    check.close(&format!("{what} gradient of sums"), &gradient, expected, GRADIENT);
}

/// The batch, and WPO's weights where they are asked for. Rows are the chosen completions, then the rejected ones.
fn batch(
    inputs: &Value,
    options: &Value,
    completions: &Completions,
    policy: &TokenLogProbs,
    device: &Device,
) -> (PairLogProbs, Option<Tensor<1>>) {
    let reference = completions.constants(&inputs["ref_per_token_logps"], device);
    let lengths = &completions.lengths;
    let count = lengths.len() / 2;
    let split = |x: Tensor<1>| (x.clone().narrow(0, 0, count), x.narrow(0, count, count));
    let desensitized = |log_probs: &TokenLogProbs| match share(options, "ld_alpha") {
        Some(alpha) => {
            let partners = [&lengths[count..], &lengths[..count]].concat();
            let weights = length_desensitized(lengths, &partners, alpha, device);
            weigh_tokens(log_probs, weights).summed()
        }
        None => log_probs.summed(),
    };
    let (policy_chosen, policy_rejected) = split(desensitized(policy));
    let (reference_chosen, reference_rejected) = split(desensitized(&reference));
    let tokens: Vec<f64> = lengths.iter().map(|&length| length as f64).collect();
    let (chosen_tokens, rejected_tokens) = split(vector(&tokens, device));
    let weights = (options["use_weighting"] == true).then(|| {
        let squares = vector(&completions.pick(&inputs["log_sum_sq_probs"]), device);
        let (chosen, rejected) = split(policy_weights(policy, squares));
        chosen * rejected
    });
    let pairs = PairLogProbs {
        policy_chosen,
        policy_rejected,
        reference_chosen,
        reference_rejected,
        chosen_tokens,
        rejected_tokens,
        unweighted_chosen: Some(split(policy.summed()).0),
    };
    (pairs, weights)
}

fn totals(completions: &Completions) -> StepTotals {
    let pairs = completions.lengths.len() / 2;
    StepTotals { pairs, likelihood_tokens: completions.lengths[..pairs].iter().sum() }
}

/// The loss of one pair that is a batch of its own.
fn alone(objective: &PairObjective, pairs: &PairLogProbs, weights: Option<&Tensor<1>>, index: usize) -> f64 {
    let one = |x: &Tensor<1>| x.clone().narrow(0, index, 1);
    let pair = PairLogProbs {
        policy_chosen: one(&pairs.policy_chosen),
        policy_rejected: one(&pairs.policy_rejected),
        reference_chosen: one(&pairs.reference_chosen),
        reference_rejected: one(&pairs.reference_rejected),
        chosen_tokens: one(&pairs.chosen_tokens),
        rejected_tokens: one(&pairs.rejected_tokens),
        unweighted_chosen: pairs.unweighted_chosen.as_ref().map(one),
    };
    let totals = StepTotals { pairs: 1, likelihood_tokens: read_one(pair.chosen_tokens.clone()) as usize };
    read_one(objective.share_of_step(&pair, weights.map(one).as_ref(), totals))
}

fn logged(what: &str, result: &Value, pairs: &PairLogProbs, beta: Positive, check: &mut Check) {
    let (chosen, rejected) = pairs.log_ratios();
    let (chosen, rejected) = (read(chosen * beta.get()), read(rejected * beta.get()));
    let margins: Vec<f64> = chosen.iter().zip(&rejected).map(|(c, r)| c - r).collect();
    let right: Vec<f64> = margins.iter().map(|&margin| f64::from(u8::from(margin > 0.0))).collect();
    let ours = [
        ("rewards/chosen", mean(&chosen)),
        ("rewards/rejected", mean(&rejected)),
        ("rewards/accuracies", mean(&right)),
        ("rewards/margins", mean(&margins)),
        ("logps/chosen", mean(&read(pairs.policy_chosen.clone()))),
        ("logps/rejected", mean(&read(pairs.policy_rejected.clone()))),
    ];
    metrics(what, result, &ours, check);
}

/// TRL's options as an objective.
pub fn objective(options: &Value) -> PairObjective {
    let losses = match &options["loss_type"] {
        Value::Array(names) => names.iter().map(|name| loss(name, options)).collect(),
        name => vec![loss(name, options)],
    };
    let weights: Vec<f64> =
        options.get("loss_weights").filter(|w| !w.is_null()).map_or_else(|| vec![1.0; losses.len()], flat);
    let weighted = |(loss, weight)| WeightedLoss { loss, weight: NonNegative::new(weight) };
    PairObjective {
        beta: positive(options, "beta", 0.1),
        divergence: divergence(options),
        losses: losses.into_iter().zip(weights).map(weighted).collect(),
    }
}

fn divergence(options: &Value) -> Divergence {
    match options.get("f_divergence_type").and_then(Value::as_str) {
        None | Some("reverse_kl") => Divergence::ReverseKl {},
        Some("forward_kl") => Divergence::ForwardKl {},
        Some("js_divergence") => Divergence::JensenShannon {},
        Some("alpha_divergence") => {
            Divergence::Alpha { alpha: option(options, "f_alpha_divergence_coef", 0.5) }
        }
        Some(other) => panic!("no divergence {other}"),
    }
}

fn loss(name: &Value, options: &Value) -> PairLoss {
    match name.as_str().unwrap() {
        // TRL smooths no labels in either of these.
        "sigmoid" => PairLoss::Sigmoid { label_smoothing: ProperFraction::new(0.0) },
        "sigmoid_norm" => PairLoss::SigmoidNorm { label_smoothing: ProperFraction::new(0.0) },
        "hinge" => PairLoss::Hinge { scale: SequenceScale::Sum },
        "ipo" => PairLoss::Ipo { scale: SequenceScale::Mean },
        "exo_pair" => PairLoss::ExoPair { label_smoothing: inner_smoothing(options) },
        "nca_pair" => PairLoss::NcaPair {},
        "robust" => PairLoss::Robust { label_smoothing: flip_rate(options) },
        "bco_pair" => PairLoss::BcoPair {},
        "sppo_hard" => PairLoss::SppoHard {},
        "aot" => PairLoss::Aot { label_smoothing: smoothing(options) },
        "aot_unpaired" => PairLoss::AotUnpaired { label_smoothing: smoothing(options) },
        "apo_zero" => PairLoss::ApoZero {},
        "apo_down" => PairLoss::ApoDown {},
        "discopop" => PairLoss::Discopop { temperature: positive(options, "discopop_tau", 0.05) },
        "sft" => PairLoss::Sft { mean: LikelihoodMean::Tokens },
        other => panic!("no loss {other}"),
    }
}
