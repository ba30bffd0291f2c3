//! Which layers get adapters.

use align_model::{
    adapter::{AdapterError, LoraConfig, Targets},
    number::Positive,
};

use crate::models::{family, model, rng};

/// Names of the layers that get an adapter, without what PEFT puts around them.
fn chosen(model_type: &str, config: &LoraConfig) -> Result<Vec<String>, AdapterError> {
    let adapted = model(model_type).with_adapter(family(model_type), config, &mut rng(0))?;
    let name = |name: &str| {
        Some(name.strip_prefix("base_model.model.")?.strip_suffix(".lora_A.weight")?.to_string())
    };
    Ok(adapted.adapter_parameters().trained.iter().filter_map(|p| name(&p.name)).collect())
}

fn named(names: &[&str]) -> LoraConfig {
    LoraConfig {
        targets: Targets::Modules(names.iter().map(|&n| n.into()).collect()),
        ..LoraConfig::default()
    }
}

#[test]
fn families_have_pefts_defaults() {
    let first = |model_type| chosen(model_type, &LoraConfig::default()).unwrap();
    assert_eq!(first("llama")[..2], ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"]);
    assert_eq!(first("gpt2"), ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]);
    assert_eq!(first("gpt_neox")[0], "gpt_neox.layers.0.attention.query_key_value");
}

#[test]
fn names_match_from_their_end_at_dots() {
    assert_eq!(chosen("llama", &named(&["mlp.up_proj"])).unwrap().len(), 2);
    assert_eq!(
        chosen("llama", &named(&["model.layers.1.mlp.up_proj"])).unwrap(),
        ["model.layers.1.mlp.up_proj"]
    );
    assert_eq!(
        chosen("gpt2", &named(&["c_proj"])).unwrap().len(),
        4,
        "of attention and of the feed-forward block"
    );
    assert_eq!(chosen("gpt2", &named(&["mlp.c_proj"])).unwrap().len(), 2);
}

#[test]
fn all_linear_leaves_the_head_out() {
    let all = LoraConfig { targets: Targets::AllLinear, ..LoraConfig::default() };
    assert_eq!(chosen("llama", &all).unwrap().len(), 14);
    assert_eq!(chosen("gpt_neox", &all).unwrap().len(), 8);
    let fewer =
        LoraConfig { exclude: ["down_proj".into()].into(), layers_to_transform: Some([1].into()), ..all };
    let fewer = chosen("llama", &fewer).unwrap();
    assert_eq!(fewer.len(), 6);
    assert!(fewer.iter().all(|name| name.contains("layers.1.") && !name.contains("down_proj")));
}

#[test]
fn names_that_mean_nothing_are_named() {
    let q_proj = named(&["q_proj"]);
    let eight = 8.try_into().unwrap();
    let mistakes = [
        (named(&["q_proj", "query"]), vec!["targets", "`query`", "q_proj", "down_proj"]),
        (named(&["proj"]), vec!["targets", "`proj`"]),
        (named(&["embed_tokens"]), vec!["embed_tokens"]),
        (LoraConfig { exclude: ["lm".into()].into(), ..q_proj.clone() }, vec!["exclude", "`lm`"]),
        (
            LoraConfig { rank_pattern: [("v_proj".into(), eight)].into(), ..q_proj.clone() },
            vec!["rank_pattern", "v_proj", "there are q_proj"],
        ),
        (
            LoraConfig { alpha_pattern: [("x".into(), Positive::new(1.0))].into(), ..q_proj.clone() },
            vec!["alpha_pattern", "`x`"],
        ),
        (
            LoraConfig { layers_to_transform: Some([0, 2].into()), ..q_proj.clone() },
            vec!["layers_to_transform", "block 2", "has 2"],
        ),
        (LoraConfig { exclude: ["q_proj".into()].into(), ..q_proj }, vec!["no layer is left"]),
    ];
    for (config, parts) in mistakes {
        let message = chosen("llama", &config).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "`{message}` does not say `{part}`");
        }
    }
}

#[test]
fn the_longest_pattern_counts() {
    let config = LoraConfig {
        rank_pattern: [
            ("q_proj".into(), 2.try_into().unwrap()),
            ("layers.1.self_attn.q_proj".into(), 5.try_into().unwrap()),
        ]
        .into(),
        ..named(&["q_proj", "k_proj"])
    };
    let adapted = model("llama").with_adapter(family("llama"), &config, &mut rng(0)).unwrap();
    let rank = |linear: &align_model::decoder::Linear| linear.adapter.as_ref().unwrap().rank();
    let ranks = adapted.layers.iter().map(|b| [rank(&b.attention.query), rank(&b.attention.key)]);
    assert_eq!(ranks.collect::<Vec<_>>(), [[2, 8], [5, 8]]);
}

#[test]
fn configurations_are_read_strictly() {
    let read = |json: &str| serde_json::from_str::<LoraConfig>(json);
    assert_eq!(read("{}").unwrap(), LoraConfig::default());
    let config =
        read(r#"{"kind": "dora", "rank": 4, "targets": ["q_proj"], "scaling": "rank_stabilized"}"#).unwrap();
    assert_eq!(config, serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap());
    assert_eq!(read(r#"{"targets": "all-linear"}"#).unwrap().targets, Targets::AllLinear);
    for mistake in [r#"{"lora_alpha": 8}"#, r#"{"rank": 0}"#, r#"{"alpha": 0}"#, r#"{"dropout": 1}"#] {
        assert!(read(mistake).is_err(), "{mistake}");
    }
    let message = read(r#"{"targets": "q_proj"}"#).unwrap_err().to_string();
    assert!(message.contains("[\"q_proj\"]"), "{message}");
}
