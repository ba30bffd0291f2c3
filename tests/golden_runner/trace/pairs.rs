//! Traces of `DPOTrainer`, `CPOTrainer`, `ORPOTrainer` and `TPOTrainer`.

use align_dpo::{
    DpoConfig, DpoTrainer, Objective, PairWeighting, Reference, ReferencePolicy,
    loss::{Desensitized, LengthDesensitization, ReferenceFreeObjective},
};
use align_model::{
    number::{Positive, PositiveUnit, UnitInterval},
    preference::PreferenceExample,
    train::Step,
};
use serde_json::Value;

use super::{
    super::loss_preference::{cpo, objective, tpo},
    Check, GoldenFile, LOSS, METRIC, Start, compare_gradients, number, prompt_and_completion, rows,
};

/// Means over tokens, which TRL takes pass by pass.
const OF_TOKENS: [&str; 5] =
    ["entropy", "mean_token_accuracy", "nll_loss", "logits/chosen", "logits/rejected"];

pub(super) fn run(trainer: &str, file: &GoldenFile, check: &mut Check) {
    let start = Start::of(file);
    let config = config(trainer, &file.json["config"]);
    let steps = file.json["steps"].as_array().unwrap();
    let has_gold = config.objective.reads_gold();
    let windows: Vec<Vec<Vec<PreferenceExample>>> = steps
        .iter()
        .map(|step| {
            step["micro_batches"].as_array().unwrap().iter().map(|m| pairs(&m["inputs"], has_gold)).collect()
        })
        .collect();
    let reference = match config.reference_policy() {
        Some(_) => Reference::Model(start.reference()),
        None => Reference::Nothing,
    };
    let Start { model, family, .. } = start;
    let total = number(&file.json["config"]["max_steps"]) as u64;
    let mut learner = DpoTrainer::new(model, reference, &config, total).unwrap();
    let (gradients, _) = learner.gradients(&windows[0].concat()).unwrap();
    compare_gradients(
        check,
        learner.model(),
        gradients,
        &super::stored_gradients(file),
        &super::names(family),
    );
    for (step, window) in steps.iter().zip(&windows) {
        check.case();
        let report = learner.step(window.concat().as_slice()).unwrap();
        super::compare_step(check, step, &report, |name| match name {
            "learning_rate" | "num_tokens" => Some(LOSS),
            // These trainers average over padding as well.
            "logits/chosen" | "logits/rejected" if !["dpo", "tpo"].contains(&trainer) => None,
            name if OF_TOKENS.contains(&name) => (window.len() == 1).then_some(METRIC),
            _ => Some(METRIC),
        });
    }
    super::compare_last(file, check, learner.model(), family);
}

fn config(trainer: &str, json: &Value) -> DpoConfig {
    let batch = number(&json["per_device_train_batch_size"]) as usize;
    let accumulation = number(&json["gradient_accumulation_steps"]) as usize;
    let share = |key: &str| json.get(key).filter(|value| !value.is_null()).map(number);
    let is_set = |key: &str| json.get(key).and_then(Value::as_bool) == Some(true);
    DpoConfig {
        objective: match trainer {
            "dpo" => Objective::Dpo(objective(json)),
            "orpo" => {
                let beta = Positive::new(number(&json["beta"]));
                Objective::ReferenceFree(ReferenceFreeObjective::orpo(beta))
            }
            "tpo" => Objective::ReferenceFree(tpo(json)),
            _ => Objective::ReferenceFree(cpo(json)),
        },
        length_desensitization: share("ld_alpha").map(|alpha| LengthDesensitization {
            alpha: UnitInterval::new(alpha),
            of: Desensitized::PolicyAndReference,
        }),
        weighting: if is_set("use_weighting") { PairWeighting::Policy } else { PairWeighting::Equal },
        reference: is_set("sync_ref_model").then(|| ReferencePolicy::Moving {
            every: (number(&json["ref_model_sync_steps"]) as u64).try_into().unwrap(),
            mixup: PositiveUnit::new(number(&json["ref_model_mixup_alpha"])),
        }),
        batch_size: (batch * accumulation).try_into().unwrap(),
        micro_batch_size: batch.try_into().unwrap(),
        loss_batch_size: Some(batch.try_into().unwrap()),
        update: super::update(json),
        ..DpoConfig::default()
    }
}

/// A forward pass's pairs, padding taken off.
fn pairs(inputs: &Value, has_gold: bool) -> Vec<PreferenceExample> {
    let sides: Vec<Vec<(Vec<u32>, Vec<u32>)>> = if inputs.get("chosen_input_ids").is_some() {
        let side = |side: &str| {
            let of = |name: &str| rows(&inputs[format!("{side}_{name}")]);
            let (tokens, attention, labels) = (of("input_ids"), of("attention_mask"), of("labels"));
            let row = |i: usize| {
                prompt_and_completion(&tokens[i], &attention[i], |column| labels[i][column] != -100)
            };
            (0..tokens.len()).map(row).collect()
        };
        ["chosen", "rejected"].map(side).into()
    } else {
        let of = |name: &str| rows(&inputs[name]);
        let (tokens, attention, mask) = (of("input_ids"), of("attention_mask"), of("completion_mask"));
        let row = |i: usize| prompt_and_completion(&tokens[i], &attention[i], |column| mask[i][column] != 0);
        let all: Vec<_> = (0..tokens.len()).map(row).collect();
        all.chunks(all.len() / if has_gold { 3 } else { 2 }).map(<[_]>::to_vec).collect()
    };
    let pair = |i: usize| {
        let prompt = sides[0][i].0.clone();
        assert!(sides.iter().all(|side| side[i].0 == prompt), "the completions of a pair have one prompt");
        let completion = |side: usize| sides.get(side).map(|side| side[i].1.clone());
        PreferenceExample {
            prompt,
            chosen: completion(0).unwrap(),
            rejected: completion(1).unwrap(),
            gold: completion(2),
            margin: None,
            slice: None,
        }
    };
    (0..sides[0].len()).map(pair).collect()
}
