//! Against a model on this machine, where the environment names one.

use std::path::PathBuf;

use serde_json::Value;

use crate::pretrained::WeightSource;
use crate::pretrained::gguf::GgufModel;

fn golden(name: &str) -> Option<Value> {
    let folder = PathBuf::from(std::env::var_os("ALIGN_GOLDEN_DIR")?);
    Some(serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap())
}

fn smollm2() -> Option<GgufModel> {
    Some(GgufModel::open(&PathBuf::from(std::env::var_os("ALIGN_SMOLLM2")?)).unwrap())
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn smollm2_tokenizes_as_the_goldens_say() {
    let (Some(model), Some(golden)) = (smollm2(), golden("tokenizer_smollm2.json")) else { return };
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.encode("a  1", true).unwrap().get_ids(), [81, 256, 33]);
    assert_eq!(golden["vocab_size"], tokenizer.get_vocab_size(true));
    let cases = golden["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let encoding = tokenizer.encode_char_offsets(text, true).unwrap();
        assert_eq!(encoding.get_ids(), ids(&case["ids"]), "{text:?}");
        assert_eq!(serde_json::json!(encoding.get_tokens()), case["tokens"], "{text:?}");
        assert_eq!(serde_json::json!(encoding.get_offsets()), case["offsets"], "{text:?}");
        assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), case["decoded"], "{text:?}");
        let plain = tokenizer.decode(encoding.get_ids(), true).unwrap();
        assert_eq!(plain, case["decoded_skip_special_tokens"], "{text:?}");
    }
    let config = model.tokenizer_config().unwrap();
    for (role, special) in golden["special_tokens"].as_object().unwrap() {
        assert_eq!(config[role], special[0]);
        assert_eq!(
            tokenizer.token_to_id(special[0].as_str().unwrap()),
            special[1].as_u64().map(|id| id as u32)
        );
    }
}

#[test]
fn smollm2_tokenizes_as_the_reference_says() {
    let (Some(model), Some(golden)) = (smollm2(), golden("smollm2_reference.json")) else { return };
    let tokenizer = model.tokenizer().unwrap();
    for case in golden["tokenization"].as_array().unwrap() {
        let encoding = tokenizer.encode(case["text"].as_str().unwrap(), true).unwrap();
        assert_eq!(encoding.get_ids(), ids(&case["ids"]), "{}", case["text"]);
        assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), case["decoded"]);
        assert_eq!(tokenizer.decode(encoding.get_ids(), true).unwrap(), case["decoded_skip"]);
    }
    if let Some(template) = golden["chat_template_source"].as_str() {
        assert_eq!(model.tokenizer_config().unwrap()["chat_template"], template);
    }
}

#[test]
fn smollm2_has_the_configuration_of_its_checkpoint() {
    let Some(model) = smollm2() else { return };
    let config = model.config().unwrap();
    for (key, expected) in [
        ("model_type", serde_json::json!("llama")),
        ("hidden_size", 576.into()),
        ("intermediate_size", 1536.into()),
        ("num_hidden_layers", 30.into()),
        ("num_attention_heads", 9.into()),
        ("num_key_value_heads", 3.into()),
        ("head_dim", 64.into()),
        ("rms_norm_eps", 1e-5.into()),
        ("rope_theta", 100_000.0.into()),
        ("rope_scaling", Value::Null),
        ("vocab_size", 49152.into()),
        ("tie_word_embeddings", true.into()),
        ("max_position_embeddings", 8192.into()),
        ("bos_token_id", 1.into()),
        ("eos_token_id", 2.into()),
    ] {
        assert_eq!(config[key], expected, "{key}");
    }
    assert_eq!(model.names().len(), 272);
    assert_eq!(model.shape("model.layers.29.self_attn.k_proj.weight"), Some(vec![192, 576]));
    assert_eq!(model.shape("lm_head.weight"), None);
}
