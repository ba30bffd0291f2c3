//! What a run file may say.

use align_dpo::{DpoConfig, KtoConfig, PreferenceConfigError};
use serde_json::{Value, json};

fn dpo(settings: Value) -> Result<(), String> {
    let config: DpoConfig = serde_json::from_value(settings).map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())
}

fn kto(settings: Value) -> Result<(), PreferenceConfigError> {
    serde_json::from_value::<KtoConfig>(settings).unwrap().check()
}

#[test]
fn every_default_is_sound_and_comes_back_from_its_own_text() {
    let (pairs, single) = (DpoConfig::default(), KtoConfig::default());
    pairs.check().unwrap();
    single.check().unwrap();
    assert_eq!(serde_json::from_value::<DpoConfig>(serde_json::to_value(&pairs).unwrap()).unwrap(), pairs);
    assert_eq!(serde_json::from_value::<KtoConfig>(serde_json::to_value(&single).unwrap()).unwrap(), single);
}

#[test]
fn objectives_are_written_by_name() {
    for objective in [
        json!({ "kind": "dpo", "beta": 0.2, "losses": [{ "loss": { "kind": "ipo" } }] }),
        json!({ "kind": "dpo", "losses": [{ "loss": { "kind": "sigmoid" }, "weight": 0.8 },
                                          { "loss": { "kind": "sft" } }] }),
        json!({ "kind": "reference_free", "beta": 2.0, "loss": { "kind": "simpo" } }),
        json!({ "kind": "reference_free", "beta": 0.1, "loss": { "kind": "orpo" },
                "likelihood": { "weight": 1.0, "of": "prompt_and_completion" } }),
        json!({ "kind": "reference_free", "beta": 0.01, "loss": { "kind": "simpo", "margin": { "gamma": 0.5 } },
                "likelihood": { "weight": 1.0, "of": "gold" } }),
    ] {
        assert_eq!(dpo(json!({ "objective": objective })), Ok(()), "{objective}");
    }
    for beta in [json!({}), json!({ "sensitivity": 0.0 }), json!({ "sensitivity": 1.5, "momentum": 1.0 })] {
        assert_eq!(dpo(json!({ "dynamic_beta": beta })), Ok(()), "{beta}");
    }
    for reference in [
        json!({ "kind": "frozen" }),
        json!({ "kind": "adapter_off" }),
        json!({ "kind": "precomputed" }),
        json!({ "kind": "moving" }),
        json!({ "kind": "moving", "every": 10, "mixup": 1.0 }),
        json!({ "kind": "averaged", "decay": 0.99 }),
    ] {
        assert_eq!(dpo(json!({ "reference": reference })), Ok(()), "{reference}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let aot = json!({ "kind": "dpo", "losses": [{ "loss": { "kind": "aot" } }] });
    let free = json!({ "kind": "reference_free", "beta": 0.1, "loss": { "kind": "orpo" } });
    let desensitized = json!({ "objective": free, "length_desensitization": { "alpha": 0.5 } });
    let mut shaped = free.clone();
    shaped["reward"] = json!({ "kind": "alpha", "alpha": 0.5 });
    let likelihood = json!({ "kind": "dpo", "losses": [{ "loss": { "kind": "sft" } }] });
    let weightless = json!({ "kind": "dpo", "losses": [{ "loss": { "kind": "sft" }, "weight": 0.0 }] });
    let diverging = json!({ "kind": "dpo", "divergence": { "kind": "forward_kl" },
                            "losses": [{ "loss": { "kind": "apo_zero" } }] });
    let exact = json!({ "kind": "dpo",
                        "losses": [{ "loss": { "kind": "exo_pair", "label_smoothing": 0.0 } }] });
    let smooth =
        json!({ "kind": "dpo", "losses": [{ "loss": { "kind": "hinge", "label_smoothing": 0.1 } }] });
    for (settings, said) in [
        (json!({ "objective": aot, "weighting": "policy" }), "aot"),
        (json!({ "objective": free, "reference": { "kind": "frozen" } }), "`reference`"),
        (json!({ "objective": free, "weighting": "policy" }), "`weighting`"),
        (desensitized, "`length_desensitization`"),
        (json!({ "objective": shaped }), "`objective.reward`"),
        (json!({ "objective": free, "dynamic_beta": {} }), "`dynamic_beta`"),
        (json!({ "objective": likelihood, "dynamic_beta": {} }), "`sft` alone"),
        (json!({ "dynamic_beta": { "momentum": 0.0 } }), "greater than 0"),
        (json!({ "dynamic_beta": { "sensitivity": -1.0 } }), "at least 0"),
        (json!({ "objective": weightless }), "`weight`"),
        (json!({ "objective": diverging }), "`apo_zero`"),
        (json!({ "objective": { "kind": "dpo", "losses": [] } }), "`objective.losses`"),
        (json!({ "objective": exact }), "greater than 0"),
        (json!({ "objective": smooth }), "label_smoothing"),
        (json!({ "batch_size": 2 }), "`micro_batch_size`"),
        (json!({ "beta": 0.1 }), "beta"),
    ] {
        let error = dpo(settings.clone()).unwrap_err();
        assert!(error.contains(said), "{settings}: {error}");
    }
}

#[test]
fn kto_needs_others_to_exchange_completions_with() {
    let alone = kto(json!({ "batch_size": 1, "micro_batch_size": 1 }));
    assert_eq!(alone, Err(PreferenceConfigError::LonelyExample { key: "batch_size" }));
    let alone = kto(json!({ "loss_batch_size": 1 }));
    assert_eq!(alone, Err(PreferenceConfigError::LonelyExample { key: "loss_batch_size" }));
    let alone = kto(json!({ "loss_batch_size": 7 }));
    assert_eq!(alone, Err(PreferenceConfigError::LonelyRest { batch: 8, group: 7 }));
    assert_eq!(kto(json!({ "loss_batch_size": 3 })), Ok(()));
    assert_eq!(kto(json!({ "loss_batch_size": 16, "batch_size": 8 })), Ok(()));
    assert_eq!(kto(json!({ "batch_size": 1, "micro_batch_size": 1, "loss": { "kind": "bco" } })), Ok(()));
    assert_eq!(kto(json!({ "reference": { "kind": "precomputed" } })), Ok(()));
}
