//! Traces of `GRPOTrainer` and `RLOOTrainer`.

use align_model::{
    decoder::Decoder,
    generate::{Decoding, Sampling},
    logprob::{CompletionLayout, Prompts, token_log_probs_under},
    number::{NonNegative, Positive, PositiveUnit},
};
use align_reward::{
    compose::PartScores,
    function::each_fn,
    rollout::{FinishReason, Rollout},
    score::Score,
};
use align_rl::{
    Experience, GroupConfig, GroupTrainer, KlPenalty, PolicyObjective, Preset, RewardScores, Rewards,
    ScoredRollouts, Trajectory,
    group::{Algorithm, RolloutTotals, TokenSelection},
    loss::{
        Accumulation, AdaptiveEntropy, Aggregation, CispoBounds, EntropyBonus, GammaShape, RatioLevel,
        Surrogate,
    },
    prompted,
    rollout::{RolloutConfig, Sampled},
    sampling_distribution,
};
use burn::module::Module;
use serde_json::Value;

use super::{
    super::file::flat, Check, GoldenFile, LOSS, METRIC, Start, Tolerance, compare_gradients, number, rows,
};

/// Losses that are 0 but for rounding.
const NEAR_ZERO: Tolerance = Tolerance::Mixed { relative: 1e-4, absolute: 1e-5 };

pub(super) fn run(trainer: &str, file: &GoldenFile, check: &mut Check) {
    let start = Start::of(file);
    let config = &file.json["config"];
    let settings = settings(trainer, config);
    let reference = settings.reference_policy().map(|_| start.reference());
    let Start { model, family, .. } = start;
    // Sampled by the model as any other token; transformers' embedding does not learn from it all the same.
    let model = match model_config(file)["pad_token_id"].as_u64() {
        Some(padding) => model.with_padding_token(padding as u32),
        None => model,
    };
    let total = number(&config["max_steps"]) as u64;
    let rewards = Rewards::one(each_fn("unused", |_: &Rollout| 0.0));
    let mut learner = GroupTrainer::new(model, reference, rewards, None, &settings, total).unwrap();
    let steps = file.json["steps"].as_array().unwrap();
    let windows: Vec<Vec<Experience>> = steps.iter().map(|step| window(file, step)).collect();
    let rollouts: Vec<Option<RolloutTotals>> = steps.iter().map(|step| rollouts(config, step)).collect();
    let first = sampled_by(learner.model(), &windows[0], &settings);
    let (gradients, _) = learner.gradients(&first, rollouts[0]).unwrap();
    let stored = super::stored_gradients(file);
    compare_gradients(check, learner.model(), gradients, &stored, &super::names(family));
    let (mut tokens_seen, mut calls) = (0, file.json["extra"]["rewards"].as_array().unwrap().iter());
    for (index, step) in steps.iter().enumerate() {
        check.case();
        let window = sampled_by(learner.model(), &windows[index], &settings);
        let report = learner.learn_part(&window, rollouts[index]).unwrap();
        super::compare_step_within(check, step, &report, NEAR_ZERO, |name| match name {
            "learning_rate" => Some(LOSS),
            _ => Some(METRIC),
        });
        if step["logged"].get("reward").is_some() {
            let rewards = flat(calls.next().unwrap());
            let window = windows[index..].iter().take(updates(config)).flatten().cloned().collect::<Vec<_>>();
            compare_rollouts(check, step, &window, &rewards, number(&config["num_generations"]) as usize);
            tokens_seen += tokens(&window);
        }
        if let Some(expected) = step["logged"].get("num_tokens") {
            check.equal("num_tokens", &(tokens_seen as f64), &number(expected));
        }
    }
    super::compare_last(file, check, learner.model(), family);
}

fn tokens(window: &[Experience]) -> usize {
    window.iter().map(|one| one.trajectory.prompt.len() + one.trajectory.tokens.len()).sum()
}

/// What is logged of completions and their rewards.
fn compare_rollouts(
    check: &mut Check,
    step: &Value,
    window: &[Experience],
    rewards: &[f64],
    generations: usize,
) {
    let completion = |trajectory: Trajectory| Sampled { trajectory, rollout: Rollout::new("", "") };
    let mut samples: Vec<Sampled> = window.iter().map(|one| completion(one.trajectory.clone())).collect();
    // Rewards are in the order of groups, completions are not; nothing is made of both together.
    for (index, sample) in samples.iter_mut().enumerate() {
        sample.trajectory.group = (index / generations) as u64;
    }
    let totals: Vec<Score> = rewards.iter().map(|&reward| reward.into()).collect();
    let part = PartScores { name: "rf".into(), weight: 1.0, scores: totals.clone(), not_finite: 0 };
    let scored = ScoredRollouts {
        samples,
        scores: RewardScores { parts: vec![part], totals, prices: Vec::new() },
        ..ScoredRollouts::default()
    };
    let named = scored.scores.named_metrics();
    let metrics = scored.metrics().into_iter().map(|(name, value)| (name.to_owned(), value));
    for (name, value) in metrics.chain(named) {
        if let Some(expected) = step["logged"].get(&name) {
            check.close_scalar(&format!("step {} {name}", step["step"]), value, number(expected), METRIC);
        }
    }
}

/// What a step learns from.
fn window(file: &GoldenFile, step: &Value) -> Vec<Experience> {
    let batches = step["micro_batches"].as_array().unwrap();
    let is_fresh = step["logged"].get("reward").is_some() && updates(&file.json["config"]) == 1;
    batches.iter().flat_map(|batch| experience(file, &batch["inputs"], is_fresh)).collect()
}

/// `is_fresh` if the policy has just sampled it.
fn experience(file: &GoldenFile, inputs: &Value, is_fresh: bool) -> Vec<Experience> {
    let config = &file.json["config"];
    let [prompts, prompt_masks, completions, masks] =
        ["prompt_ids", "prompt_mask", "completion_ids", "completion_mask"].map(|name| rows(&inputs[name]));
    let advantages = flat(&inputs["advantages"]);
    let pick = |tokens: &[i64], mask: &[i64]| {
        let kept = tokens.iter().zip(mask).filter(|(_, mask)| **mask != 0);
        kept.map(|(&token, _)| token as u32).collect::<Vec<_>>()
    };
    let prompts: Vec<Vec<u32>> =
        (0..prompts.len()).map(|row| pick(&prompts[row], &prompt_masks[row])).collect();
    let one = |row: usize| {
        let mut tokens = pick(&completions[row], &masks[row]);
        let is_kept = !tokens.is_empty();
        if !is_kept {
            // One that was cut off is as long as any can be.
            tokens.extend(completions[row].iter().map(|&token| token as u32));
        }
        let has_room = tokens.len() < number(&config["max_completion_length"]) as usize;
        let has_ended = tokens.last().is_some_and(|&last| end_tokens(file).contains(&last));
        let trajectory = Trajectory {
            // Completions of one prompt need not stand together.
            group: prompts.iter().position(|prompt| *prompt == prompts[row]).unwrap() as u64,
            prompt: prompts[row].clone(),
            is_action: vec![true; tokens.len()],
            sampling_log_probs: vec![0.0; tokens.len()],
            supports: None,
            finish: if has_room || has_ended { FinishReason::Stop } else { FinishReason::Length },
            tokens,
        };
        let old_log_probs = old_log_probs(inputs, is_fresh, row, trajectory.actions());
        Experience { old_log_probs, is_kept, ..Experience::new(trajectory, advantages[row]) }
    };
    (0..prompts.len()).map(one).collect()
}

/// What the ratios of a row are measured against. RLOO's file has sums over completions, which are no more exact than a sum
/// is: ratios of what was just sampled are 1.
fn old_log_probs(inputs: &Value, is_fresh: bool, row: usize, tokens: usize) -> Option<Vec<f32>> {
    if let Some(old) = inputs.get("old_per_token_logps").filter(|old| !old.is_null()) {
        return Some(flat(&old[row]).into_iter().take(tokens).map(|value| value as f32).collect());
    }
    let sums = inputs.get("old_logps").filter(|_| !is_fresh)?;
    Some(vec![(number(&sums[row]) / tokens as f64) as f32; tokens])
}

/// The window as the model has just sampled it, where that matters: ratios of a mask are those of sampler and trainer, and
/// the file's sampler is the policy before its updates.
fn sampled_by(model: &Decoder, window: &[Experience], settings: &GroupConfig) -> Vec<Experience> {
    let mut window = window.to_vec();
    if settings.algorithm.objective.off_policy_threshold.is_none() {
        return window;
    }
    for one in window.iter_mut().filter(|one| one.is_kept) {
        one.trajectory.sampling_log_probs = one.old_log_probs.clone().unwrap_or_else(|| {
            let items = prompted([&one.trajectory]);
            let layout = CompletionLayout::new(&items, Prompts { are_shared: false, are_read: false });
            let temperature = settings.rollout.temperature();
            let distribution = sampling_distribution([&one.trajectory], temperature);
            let scores = token_log_probs_under(&model.valid(), &layout.batch, &layout.targets, distribution);
            scores.values.into_data().iter::<f32>().collect()
        });
    }
    window
}

/// Updates that are made once with all completions of a generation.
fn updates(config: &Value) -> usize {
    let [generation, accumulation] =
        ["steps_per_generation", "gradient_accumulation_steps"].map(|key| number(&config[key]) as usize);
    (generation / accumulation).max(1)
}

/// What TRL counts tokens over.
fn rollouts(config: &Value, step: &Value) -> Option<RolloutTotals> {
    let tokens = number(step["micro_batches"][0]["inputs"].get("num_items_in_batch")?) as usize;
    Some(RolloutTotals { tokens, updates: updates(config) })
}

/// Tokens that end a completion.
fn end_tokens(file: &GoldenFile) -> Vec<u32> {
    flat(&model_config(file)["eos_token_id"]).into_iter().map(|token| token as u32).collect()
}

fn model_config(file: &GoldenFile) -> Value {
    let path = file.directory.join(super::text(&file.json, "model")).join("config.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The settings that TRL's arguments say.
fn settings(trainer: &str, json: &Value) -> GroupConfig {
    let micro = number(&json["per_device_train_batch_size"]) as usize;
    let rows = micro * number(&json["gradient_accumulation_steps"]) as usize;
    let temperature = positive(json, "temperature").unwrap_or(Positive::new(1.0));
    let mut algorithm = Algorithm::preset(if trainer == "rloo" { Preset::Rloo } else { Preset::Grpo });
    algorithm.objective = objective(trainer, json);
    algorithm.accumulation = accumulation(json);
    if let Some(share) = positive(json, "top_entropy_quantile").filter(|share| share.get() < 1.0) {
        algorithm.selection = TokenSelection::TopEntropy { share: PositiveUnit::new(share.get()) };
    }
    GroupConfig {
        algorithm,
        rollout: RolloutConfig {
            samples: (number(&json["num_generations"]) as usize).try_into().unwrap(),
            decoding: Decoding::Sample(Sampling { temperature, ..Sampling::default() }),
            ..RolloutConfig::default()
        },
        // The number of prompts has no part in a replay, but a pass must not be larger than a step.
        batch_size: rows.try_into().unwrap(),
        micro_batch_size: micro.try_into().unwrap(),
        update: super::update(json),
        ..GroupConfig::default()
    }
}

/// What TRL divides micro-batches by. Where each of them is generated by itself, tokens of a generation are its own.
fn accumulation(json: &Value) -> Accumulation {
    let counts_generation =
        json.get("loss_type").is_some_and(|kind| ["dapo", "cispo", "vespo"].iter().any(|it| kind == it));
    let generates_once = number(&json["steps_per_generation"]) > 1.0;
    if counts_generation && generates_once { Accumulation::RolloutMean } else { Accumulation::MicroBatchMean }
}

/// A number above 0, where there is one.
fn positive(json: &Value, key: &str) -> Option<Positive> {
    json.get(key).filter(|value| !value.is_null()).and_then(|value| Positive::try_from(number(value)).ok())
}

/// A number, where there is one.
fn non_negative(json: &Value, key: &str) -> Option<NonNegative> {
    json.get(key).filter(|value| !value.is_null()).map(|value| NonNegative::try_from(number(value)).unwrap())
}

fn objective(trainer: &str, json: &Value) -> PolicyObjective {
    let low = positive(json, "epsilon").unwrap();
    let high = positive(json, "epsilon_high").unwrap_or(low);
    let [low, high] = [low, high].map(|bound| NonNegative::new(bound.get()));
    let clipped = Surrogate::Clipped { low, high, ceiling: positive(json, "delta") };
    if trainer == "rloo" {
        return PolicyObjective { surrogate: clipped, ..PolicyObjective::rloo() };
    }
    let kind = super::text(json, "loss_type");
    let number_or = |key: &str, default: f64| positive(json, key).unwrap_or(Positive::new(default));
    let shape = |side: &str, power: f64, decay: f64| GammaShape {
        power: number_or(&format!("vespo_k_{side}"), power),
        decay: number_or(&format!("vespo_lambda_{side}"), decay),
    };
    let surrogate = match kind {
        "cispo" => Surrogate::Cispo { bounds: CispoBounds::Absolute { upper: Positive::new(high.get()) } },
        "sapo" => Surrogate::Sapo {
            positive_temperature: number_or("sapo_temperature_pos", 1.0),
            negative_temperature: number_or("sapo_temperature_neg", 1.05),
        },
        "vespo" => Surrogate::Vespo { positive: shape("pos", 2.0, 3.0), negative: shape("neg", 3.0, 2.0) },
        _ => clipped,
    };
    let aggregation = match kind {
        "grpo" | "sapo" => Aggregation::SequenceMean {},
        "dr_grpo" => Aggregation::FixedLength {
            max_completion_length: (number(&json["max_completion_length"]) as usize).try_into().unwrap(),
        },
        "luspo" => Aggregation::SequenceSum {},
        _ => Aggregation::TokenMean {},
    };
    let level = json.get("importance_sampling_level").and_then(Value::as_str);
    let is_bias_corrected = json.get("use_bias_correction_kl").and_then(Value::as_bool) != Some(false);
    PolicyObjective {
        ratio: match level {
            Some("sequence") => RatioLevel::Sequence,
            Some("sequence_token") => RatioLevel::SequenceToken,
            _ => RatioLevel::Token,
        },
        surrogate,
        aggregation,
        kl: positive(json, "beta").map(|beta| KlPenalty { is_bias_corrected, ..KlPenalty::k3(beta) }),
        off_policy_threshold: non_negative(json, "off_policy_mask_threshold"),
        entropy: entropy(json),
        ..PolicyObjective::default()
    }
}

fn entropy(json: &Value) -> Option<EntropyBonus> {
    let is_adaptive = json.get("use_adaptive_entropy").and_then(Value::as_bool) == Some(true);
    let usual = AdaptiveEntropy::default();
    let or = |key: &str, usual: NonNegative| non_negative(json, key).unwrap_or(usual);
    let adaptive = is_adaptive.then(|| AdaptiveEntropy {
        target: or("entropy_target", usual.target),
        delta: or("entropy_coef_delta", usual.delta),
        minimum: or("entropy_coef_min", usual.minimum),
        maximum: or("entropy_coef_max", usual.maximum),
    });
    let coefficient = non_negative(json, "entropy_coef").unwrap_or(NonNegative::new(0.0));
    (is_adaptive || coefficient.get() > 0.0).then_some(EntropyBonus { coefficient, adaptive })
}
