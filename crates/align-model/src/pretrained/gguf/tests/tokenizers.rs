//! Tokenizers built from small vocabularies.

use serde_json::json;

use crate::pretrained::LoadError;
use crate::pretrained::gguf::GgufModel;
use crate::pretrained::gguf::fixture::{Field, Fixture};

fn texts(tokens: &[&str]) -> Field {
    Field::Texts(tokens.iter().map(|token| (*token).to_owned()).collect())
}

/// A byte-level tokenizer with the control token `<|end|>`, the user-defined token `two words` and a few merges.
pub(super) fn byte_level_fixture(pre: &'static str) -> Fixture {
    let tokens = ["<|end|>", "a", "b", "1", "2", "Ġ", "ab", "Ġa", "12", "ĠĠ", "two words", "Ġab"];
    let mut types = vec![1; tokens.len()];
    types[0] = 3;
    types[10] = 4;
    Fixture::new("llama")
        .field("tokenizer.ggml.model", Field::Text("gpt2"))
        .field("tokenizer.ggml.pre", Field::Text(pre))
        .field("tokenizer.ggml.tokens", texts(&tokens))
        .field("tokenizer.ggml.token_type", Field::I32s(types))
        .field("tokenizer.ggml.merges", texts(&["a b", "Ġ a", "1 2", "Ġ Ġ", "Ġ ab"]))
        .field("tokenizer.ggml.eos_token_id", Field::U32(0))
}

/// A vocabulary as `SentencePiece` has it, with the bytes of `é`.
fn sentence_piece_fixture(architecture: &'static str) -> Fixture {
    let tokens = [
        "<unk>",
        "<s>",
        "</s>",
        "<0xC3>",
        "<0xA9>",
        "\u{2581}",
        "a",
        "b",
        "ab",
        "\u{2581}a",
        "\u{2581}ab",
        "ba",
    ];
    let types = vec![2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1];
    let scores = vec![0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -1.0, -4.0, -3.0];
    Fixture::new(architecture)
        .field("tokenizer.ggml.model", Field::Text("llama"))
        .field("tokenizer.ggml.pre", Field::Text("default"))
        .field("tokenizer.ggml.tokens", texts(&tokens))
        .field("tokenizer.ggml.token_type", Field::I32s(types))
        .field("tokenizer.ggml.scores", Field::F32s(scores))
        .field("tokenizer.ggml.bos_token_id", Field::U32(1))
        .field("tokenizer.ggml.eos_token_id", Field::U32(2))
        .field("tokenizer.ggml.unknown_token_id", Field::U32(0))
}

fn encode(fixture: &Fixture, text: &str) -> Vec<u32> {
    let tokenizer = GgufModel::open(fixture.file().path()).unwrap().tokenizer().unwrap();
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

fn refused(fixture: &Fixture, reason: &str) {
    let error = GgufModel::open(fixture.file().path()).unwrap().tokenizer().unwrap_err();
    assert!(matches!(error, LoadError::Tokenizer { .. }), "{error}");
    assert!(error.to_string().contains(reason), "{error} does not mention {reason:?}");
}

#[test]
fn pre_tokenizers_differ_in_how_they_split_digits() {
    assert_eq!(encode(&byte_level_fixture("smollm"), "ab  12"), [6, 9, 3, 4]);
    assert_eq!(encode(&byte_level_fixture("gpt-2"), "ab  12"), [6, 5, 5, 8]);
    assert_eq!(encode(&byte_level_fixture("default"), "ab ab"), [6, 11]);
    assert_eq!(encode(&byte_level_fixture("qwen2"), "12"), [3, 4]);
    assert_eq!(encode(&byte_level_fixture("llama-bpe"), "12"), [8]);
    assert_eq!(encode(&byte_level_fixture("tekken"), "12"), [3, 4]);
}

#[test]
fn control_and_user_defined_tokens_are_matched_whole() {
    let fixture = byte_level_fixture("smollm");
    assert_eq!(encode(&fixture, "a<|end|>two wordsb"), [1, 0, 10, 2]);
    let tokenizer = GgufModel::open(fixture.file().path()).unwrap().tokenizer().unwrap();
    assert_eq!(tokenizer.decode(&[1, 0, 10, 2], true).unwrap(), "atwo wordsb");
    assert_eq!(tokenizer.decode(&[7, 0], false).unwrap(), " a<|end|>");
    assert_eq!(tokenizer.get_vocab_size(true), 12);
}

#[test]
fn a_file_without_a_pre_tokenizer_is_cut_like_gpt2() {
    let mut fixture = byte_level_fixture("smollm");
    fixture.fields.retain(|(key, _)| key != "tokenizer.ggml.pre");
    assert_eq!(encode(&fixture, "12"), [8]);
}

#[test]
fn flags_add_tokens_around_a_text() {
    let both = byte_level_fixture("smollm")
        .field("tokenizer.ggml.bos_token_id", Field::U32(1))
        .field("tokenizer.ggml.add_bos_token", Field::Bool(true))
        .field("tokenizer.ggml.add_eos_token", Field::Bool(true));
    assert_eq!(encode(&both, "b"), [1, 2, 0]);
    let tokenizer = GgufModel::open(both.file().path()).unwrap().tokenizer().unwrap();
    assert_eq!(tokenizer.encode("b", false).unwrap().get_ids(), [2]);
    assert_eq!(tokenizer.encode(("b", "2"), true).unwrap().get_ids(), [1, 2, 0, 1, 4, 0]);
    let implied = byte_level_fixture("llama-bpe").field("tokenizer.ggml.bos_token_id", Field::U32(1));
    assert_eq!(encode(&implied, "b"), [1, 2]);
}

#[test]
fn sentence_piece_merges_follow_the_scores() {
    let fixture = sentence_piece_fixture("llama");
    assert_eq!(encode(&fixture, "ab"), [1, 10]);
    assert_eq!(encode(&fixture, "bab"), [1, 5, 7, 8]);
    assert_eq!(encode(&fixture, "bé"), [1, 5, 7, 3, 4]);
    assert_eq!(encode(&fixture, " b"), [1, 5, 5, 7]);
    let tokenizer = GgufModel::open(fixture.file().path()).unwrap().tokenizer().unwrap();
    assert_eq!(tokenizer.decode(&[1, 9, 7, 3, 4], true).unwrap(), "abé");
    let without = fixture
        .field("tokenizer.ggml.add_space_prefix", Field::Bool(false))
        .field("tokenizer.ggml.add_bos_token", Field::Bool(false));
    assert_eq!(encode(&without, "ab"), [8]);
}

#[test]
fn gemma_merges_follow_the_order_of_the_tokens() {
    let mut fixture = sentence_piece_fixture("gemma3");
    assert_eq!(encode(&fixture, "aab"), [1, 6, 8]);
    assert_eq!(encode(&fixture, "b ab"), [1, 7, 10]);
    for (key, field) in &mut fixture.fields {
        match field {
            Field::Texts(tokens) => tokens.push("  ".to_owned()),
            Field::I32s(types) if key == "tokenizer.ggml.token_type" => types.push(4),
            _ => {}
        }
    }
    assert_eq!(encode(&fixture, "b  b"), [1, 7, 12, 7]);
}

#[test]
fn tokenizers_that_contradict_themselves_are_refused() {
    refused(&Fixture::new("llama"), "tokenizer.ggml.model is missing");
    refused(&byte_level_fixture("from-the-future"), "`from-the-future`");
    let replaced = |key: &str, field: Field| {
        let mut fixture = byte_level_fixture("smollm");
        fixture.fields.iter_mut().find(|(other, _)| other == key).unwrap().1 = field;
        fixture
    };
    refused(&replaced("tokenizer.ggml.model", Field::Text("t5")), "`t5`");
    refused(&replaced("tokenizer.ggml.tokens", texts(&[])), "no tokens");
    refused(&replaced("tokenizer.ggml.token_type", Field::I32s(vec![1])), "token_type");
    refused(&replaced("tokenizer.ggml.eos_token_id", Field::U32(12)), "eos_token_id is 12");
    for (merges, reason) in [("ab", "not two tokens"), ("a c", "`c`"), ("ab ab", "`abab`")] {
        refused(&replaced("tokenizer.ggml.merges", texts(&[merges])), reason);
    }
    let mut unscored = sentence_piece_fixture("llama");
    unscored.fields.retain(|(key, _)| key != "tokenizer.ggml.scores");
    refused(&unscored, "tokenizer.ggml.scores");
}

#[test]
fn the_configuration_names_special_and_added_tokens() {
    let fixture = byte_level_fixture("smollm").field("tokenizer.chat_template", Field::Text("one"));
    let config = GgufModel::open(fixture.file().path()).unwrap().tokenizer_config().unwrap();
    assert_eq!(config["eos_token"], "<|end|>");
    assert_eq!(config.get("bos_token"), None);
    assert_eq!(config["add_bos_token"], false);
    assert_eq!(config["chat_template"], "one");
    assert_eq!(config["model_max_length"], 16);
    assert_eq!(config["added_tokens_decoder"]["0"]["special"], true);
    assert_eq!(config["added_tokens_decoder"]["10"]["content"], "two words");
    assert_eq!(config["added_tokens_decoder"]["10"]["special"], false);
    let two = fixture.field("tokenizer.chat_template.tool_use", Field::Text("two"));
    let config = GgufModel::open(two.file().path()).unwrap().tokenizer_config().unwrap();
    let templates = json!([{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]);
    assert_eq!(config["chat_template"], templates);
}
