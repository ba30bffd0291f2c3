//! `loss_grpo`: every loss type of TRL's GRPO, and its advantages.

use align_model::number::{NonNegative, Positive, UnitInterval};
use align_rl::{
    KlEstimator, KlPenalty, PolicyObjective, PolicyShare, PolicyTokens,
    loss::{
        AdvantageEstimator, AdvantageScale, Aggregation, CispoBounds, EntropyBonus, GammaShape,
        ImportanceCorrection, Population, RatioLevel, StepTotals, Surrogate, quantile,
    },
};
use burn::tensor::Tensor;
use serde_json::Value;

use super::{
    Check, Clips, Covered, GRADIENT, GoldenFile, LOSS, METRIC, Packing, check_advantages, check_clip_ratios,
    flat, host, mean, number, tensor,
};

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    for (name, case) in file.json["cases"].as_object().unwrap() {
        for (index, result) in case["results"].as_array().unwrap().iter().enumerate() {
            check.case();
            check_result(check, &format!("{name}[{index}]"), &case["inputs"], result);
        }
    }
    for expected in file.json["advantages"].as_array().unwrap() {
        check.case();
        check_advantages(check, expected, estimator(expected), None, None);
    }
    Ok(())
}

/// A field that is there and not null.
fn given<'a>(options: &'a Value, key: &str) -> Option<&'a Value> {
    options.get(key).filter(|value| !value.is_null())
}

fn is_true(options: &Value, key: &str) -> bool {
    given(options, key).and_then(Value::as_bool).unwrap_or(false)
}

fn estimator(expected: &Value) -> AdvantageEstimator {
    let epsilon = NonNegative::new(1e-4);
    if expected["aggregation"] == "normalize_then_sum" {
        return AdvantageEstimator::Gdpo { epsilon, population: Population::Sequences };
    }
    let scale = match expected["scale_rewards"].as_str().unwrap() {
        "group" => AdvantageScale::Group,
        "batch" => AdvantageScale::Batch,
        "none" => AdvantageScale::None,
        other => panic!("no scale {other}"),
    };
    AdvantageEstimator::Group { scale, epsilon }
}

fn non_negative(options: &Value, key: &str) -> NonNegative {
    NonNegative::try_from(number(&options[key])).unwrap()
}

fn positive(options: &Value, key: &str) -> Positive {
    Positive::try_from(number(&options[key])).unwrap()
}

fn is_gmpo(options: &Value) -> bool {
    options.get("algo").is_some_and(|algo| algo == "gmpo")
}

fn surrogate(options: &Value) -> Surrogate {
    let low = non_negative(options, "epsilon");
    let high = given(options, "epsilon_high").map_or(low, |_| non_negative(options, "epsilon_high"));
    if is_gmpo(options) {
        return Surrogate::GeometricMean { low, high };
    }
    match options["loss_type"].as_str().unwrap() {
        "cispo" => {
            let upper = Positive::try_from(high.get()).unwrap();
            Surrogate::Cispo { bounds: CispoBounds::Absolute { upper } }
        }
        "sapo" => Surrogate::Sapo {
            positive_temperature: positive(options, "sapo_temperature_pos"),
            negative_temperature: positive(options, "sapo_temperature_neg"),
        },
        "vespo" => Surrogate::Vespo {
            positive: gamma_shape(options, "pos", [2.0, 3.0]),
            negative: gamma_shape(options, "neg", [3.0, 2.0]),
        },
        _ => {
            let ceiling = given(options, "delta").map(|delta| Positive::try_from(number(delta)).unwrap());
            Surrogate::Clipped { low, high, ceiling }
        }
    }
}

/// TRL's numbers for one sign of the advantage, or its defaults.
fn gamma_shape(options: &Value, sign: &str, [power, decay]: [f64; 2]) -> GammaShape {
    let read = |name: &str, default| given(options, &format!("vespo_{name}_{sign}")).map_or(default, number);
    let positive = |value| Positive::try_from(value).unwrap();
    GammaShape { power: positive(read("k", power)), decay: positive(read("lambda", decay)) }
}

fn objective(inputs: &Value, options: &Value) -> PolicyObjective {
    let aggregation = match options["loss_type"].as_str().unwrap() {
        "grpo" | "sapo" => Aggregation::SequenceMean {},
        "bnpo" | "dapo" | "cispo" | "vespo" => Aggregation::TokenMean {},
        "luspo" => Aggregation::SequenceSum {},
        "dr_grpo" => Aggregation::FixedLength {
            max_completion_length: (inputs["max_completion_length"].as_u64().unwrap() as usize)
                .try_into()
                .unwrap(),
        },
        other => panic!("no aggregation of {other}"),
    };
    let ratio = match options["importance_sampling_level"].as_str().unwrap() {
        "token" => RatioLevel::Token,
        "sequence" => RatioLevel::Sequence,
        "sequence_token" => RatioLevel::SequenceToken,
        other => panic!("no level {other}"),
    };
    let kl = Positive::try_from(number(&options["beta"])).ok().map(|coefficient| KlPenalty {
        estimator: KlEstimator::K3,
        // GMPO's divergence has no ratio of a token to be corrected with.
        is_bias_corrected: is_true(options, "use_bias_correction_kl") && !is_gmpo(options),
        ..KlPenalty::k3(coefficient)
    });
    let entropy = Some(EntropyBonus { coefficient: non_negative(options, "entropy_coef"), adaptive: None });
    let everything =
        ImportanceCorrection::TokenTruncated { low: NonNegative::new(0.0), high: Positive::new(1e30) };
    PolicyObjective {
        ratio,
        surrogate: surrogate(options),
        aggregation,
        kl,
        importance: is_true(options, "vllm_is").then_some(everything),
        off_policy_threshold: given(options, "off_policy_mask_threshold")
            .map(|threshold| NonNegative::try_from(number(threshold)).unwrap()),
        entropy,
    }
}

/// 1 for tokens among the share of highest entropy, where only those are learnt from.
fn kept(options: &Value, entropies: &[f64]) -> Option<Vec<f64>> {
    let share = given(options, "top_entropy_quantile").map_or(1.0, number);
    let threshold = quantile(entropies, UnitInterval::new(1.0 - share)).filter(|_| share < 1.0)?;
    Some(entropies.iter().map(|&entropy| f64::from(u8::from(entropy >= threshold))).collect())
}

/// The sampler's log-probabilities behind the file's ratios.
fn sampling(inputs: &Value, options: &Value, packing: &Packing, old: &[f64]) -> Option<Vec<f64>> {
    if !is_true(options, "vllm_is") {
        return None;
    }
    let logarithms = |rows: Vec<f64>| -> Vec<f64> { rows.into_iter().map(f64::ln).collect() };
    let mut weights = logarithms(packing.pack(&inputs["importance_sampling_ratio"]));
    if options["loss_type"] == "vespo" {
        // TRL adds up a row's ratios with its padding, where a trainer's are 1 and the file's are not.
        let all = logarithms(flat(&inputs["importance_sampling_ratio"]));
        let width = all.len() / packing.counts.len();
        let mut first = 0;
        for (row, &count) in all.chunks(width).zip(&packing.counts) {
            let own: f64 = weights[first..first + count].iter().sum();
            weights[first] += row.iter().sum::<f64>() - own;
            first += count;
        }
    }
    Some(old.iter().zip(weights).map(|(old, weight)| old - weight).collect())
}

fn check_result(check: &mut Check, what: &str, inputs: &Value, result: &Value) {
    let options = &result["options"];
    let what = &format!("{what} {options}");
    let packing = Packing::new(&inputs["completion_mask"]);
    let device = super::super::device().autodiff();
    let read = |values: &[f64]| tensor(values, &device);
    let policy = packing.pack(&inputs["per_token_logps"]);
    let entropies = packing.pack(&inputs["entropies"]);
    let is_fresh = is_true(options, "old_is_none");
    let old = if is_fresh { policy.clone() } else { packing.pack(&inputs["old_per_token_logps"]) };
    let kept = kept(options, &entropies);
    let tokens = PolicyTokens {
        log_probs: read(&policy).require_grad(),
        old_log_probs: read(&old),
        sampling_log_probs: sampling(inputs, options, &packing, &old).map(|it| read(&it)),
        reference_log_probs: Some(read(&packing.pack(&inputs["ref_per_token_logps"]))),
        divergences: None,
        entropies: read(&entropies).require_grad(),
        advantages: read(&packing.spread(&inputs["advantages"])),
        is_kept: kept.as_deref().map(read),
        is_penalized: None,
        counts: packing.counts.clone(),
    };
    let objective = objective(inputs, options);
    let share = objective.share(&tokens, totals(inputs, options, &packing, kept.as_deref()));
    check_metrics(check, what, result, &packing, (&objective, &share));
    let gradients = share.loss.clone().backward();
    check.close_scalar(
        &format!("{what} loss"),
        share.loss.into_scalar::<f64>(),
        number(&result["loss_f64"]),
        LOSS,
    );
    let mut compare = |name: &str, leaf: &Tensor<1>, expected: &Value| {
        let gradient =
            leaf.grad(&gradients).map_or_else(|| vec![0.0; policy.len()], |gradient| host(&gradient));
        check.close(&format!("{what} {name}"), &packing.unpack(&gradient), &flat(expected), GRADIENT);
    };
    compare("gradient", &tokens.log_probs, &result["grad_f64"]);
    if let Some(expected) = result.get("grad_entropy_f64") {
        compare("entropy gradient", &tokens.entropies, expected);
    }
}

/// The file's batch is one of so many micro-batches; three losses count tokens of the whole instead.
fn totals(inputs: &Value, options: &Value, packing: &Packing, kept: Option<&[f64]>) -> StepTotals {
    let parts = options["current_gradient_accumulation_steps"].as_u64().unwrap() as usize;
    let counts_whole = ["dapo", "cispo", "vespo"].iter().any(|name| options["loss_type"] == *name);
    let tokens = if counts_whole && !is_gmpo(options) {
        number(&inputs["num_items_in_batch"])
    } else {
        (packing.tokens() * parts) as f64
    };
    let kept_tokens = kept.map_or(packing.tokens(), |kept| kept.iter().sum::<f64>() as usize) * parts;
    StepTotals { sequences: packing.counts.len() * parts, tokens, kept_tokens }
}

fn check_metrics(
    check: &mut Check,
    what: &str,
    result: &Value,
    packing: &Packing,
    (objective, share): (&PolicyObjective, &PolicyShare),
) {
    let (metrics, options) = (&result["metrics"], &result["options"]);
    let is_of_sequences = objective.ratio.is_of_sequences() && !is_true(options, "advantages_2d");
    let (low, high) = (host(&share.clipped_low), host(&share.clipped_high));
    check_clip_ratios(check, what, metrics, packing, Clips { low: &low, high: &high, is_of_sequences });
    let of_rows = |values: &[f64]| mean(&packing.rows(values).into_iter().map(mean).collect::<Vec<_>>());
    let clipped = if is_of_sequences { of_rows(&high) } else { mean(&high) };
    let parts = number(&options["current_gradient_accumulation_steps"]);
    let measured = [
        ("kl", share.kl.as_ref().map(|kl| mean(&host(kl)))),
        ("cispo_clip_ratio", Some(clipped)),
        ("vespo/phi_seq_mean", share.gammas.as_ref().map(|gammas| of_rows(&host(gammas)))),
        ("policy_loss", Some(share.policy_loss.clone().into_scalar::<f64>() * parts)),
    ];
    for (name, value) in measured {
        if let (Some(expected), Some(value)) = (metrics.get(name), value) {
            check.close_scalar(&format!("{what} {name}"), value, number(expected), METRIC);
        }
    }
}
