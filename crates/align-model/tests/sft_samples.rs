//! Records to samples: which tokens carry the loss, what is cut, what is left out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

use std::{num::NonZeroUsize, path::Path, str::FromStr, sync::Arc};

use align_model::{
    chat::ChatTemplates,
    data::{Located, Record, Row, SftRecord},
    sft::{LossOn, SftConfig, SftDataError, SftRecordError, SftSamples, SftTokenizer, Truncation},
    tokenizer::Tokenizer,
};
use serde_json::{Map, Value, json};

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %} \
     <assistant> {% generation %}{{ message.content }} {{ eos_token }}{% endgeneration %}\
     {% else %} <user> {{ message.content }}{% endif %}{% endfor %}\
     {% if add_generation_prompt %} <assistant> {% endif %}";

/// Words are tokens; text gets `<bos>` in front.
fn tokenizer(template: Option<&str>) -> Tokenizer {
    let words = ["<bos>", "<eos>", "<unk>", "<user>", "<assistant>", "a", "b", "c", "d", "e"];
    let vocab: Map<String, Value> =
        words.iter().enumerate().map(|(id, w)| ((*w).into(), id.into())).collect();
    let added = |id: usize| {
        json!({ "id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let first = json!({ "SpecialToken": { "id": "<bos>", "type_id": 0 } });
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let definition = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": (0..5).map(added).collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing", "single": [first, text], "pair": [text],
            "special_tokens": { "<bos>": { "id": "<bos>", "ids": [0], "tokens": ["<bos>"] } },
        },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    });
    let inner = tokenizers::Tokenizer::from_str(&definition.to_string()).unwrap();
    let config = json!({ "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "chat_template": template });
    Tokenizer::from_parts(inner, config).unwrap()
}

fn record(row: Value) -> Located<SftRecord> {
    let Value::Object(columns) = row else { panic!("a row is an object") };
    let mut row = Row::new(columns);
    let record = SftRecord::from_row(&mut row).unwrap();
    Located { source: 0, path: Arc::from(Path::new("data.jsonl")), line: 7, record, extra: row.into_rest() }
}

fn samples(config: &SftConfig, row: Value) -> Result<SftSamples, SftDataError> {
    let tokenizer = tokenizer(Some(TEMPLATE));
    let templates = ChatTemplates::from_tokenizer(&tokenizer).unwrap();
    SftTokenizer::new(config, &tokenizer, Some(&templates)).samples(&[record(row)])
}

/// Tokens of the only sample, those that carry the loss negated.
fn marked(loss_on: LossOn, row: Value) -> Vec<i64> {
    let samples = samples(&SftConfig { loss_on, ..SftConfig::default() }, row).unwrap();
    let example = &samples.examples[0];
    let mark = |(&token, &target): (&u32, &bool)| if target { -i64::from(token) } else { i64::from(token) };
    example.tokens.iter().zip(&example.is_target).map(mark).collect()
}

fn conversation() -> Value {
    let says = |role: &str, content: &str| json!({ "role": role, "content": content });
    json!({ "messages": [says("user", "a"), says("assistant", "b"), says("user", "c"), says("assistant", "d e")] })
}

#[test]
fn plain_text_is_ended_and_all_of_it_counts() {
    assert_eq!(marked(LossOn::Completion, json!({ "text": "a b" })), [0, -5, -6, -1]);
}

#[test]
fn an_end_that_is_there_is_not_doubled() {
    assert_eq!(marked(LossOn::Completion, json!({ "text": "a <eos>" })), [0, -5, -1]);
}

#[test]
fn a_completion_counts_and_its_prompt_does_not() {
    let row = json!({ "prompt": "a b", "completion": " c" });
    assert_eq!(marked(LossOn::Completion, row.clone()), [0, 5, 6, -7, -1]);
    assert_eq!(marked(LossOn::Everything, row), [0, -5, -6, -7, -1]);
}

#[test]
fn a_conversation_counts_as_a_whole_or_where_the_assistant_speaks() {
    let whole = marked(LossOn::Completion, conversation());
    assert_eq!(whole, [0, -3, -5, -4, -6, -1, -3, -7, -4, -8, -9, -1]);
    let assistant = marked(LossOn::Assistant, conversation());
    assert_eq!(assistant, [0, 3, 5, 4, -6, -1, 3, 7, 4, -8, -9, -1]);
}

#[test]
fn the_prompt_of_a_conversation_ends_where_the_answer_begins() {
    let row = json!({
        "prompt": [{ "role": "user", "content": "a" }],
        "completion": [{ "role": "assistant", "content": "b" }],
    });
    assert_eq!(marked(LossOn::Completion, row), [0, 3, 5, 4, -6, -1]);
}

#[test]
fn what_the_assistant_said_in_the_prompt_is_not_learnt() {
    let Value::Array(messages) = conversation()["messages"].take() else { panic!("a list of messages") };
    let row = json!({ "prompt": messages[..3], "completion": messages[3..] });
    assert_eq!(marked(LossOn::Assistant, row), [0, 3, 5, 4, 6, 1, 3, 7, 4, -8, -9, -1]);
}

#[test]
fn either_end_may_be_kept_and_what_has_no_loss_left_is_counted() {
    let row = || json!({ "prompt": "a b c", "completion": " d" });
    let cut = |max_length: usize, truncation| {
        let max_length = max_length.try_into().unwrap();
        samples(&SftConfig { max_length, truncation, ..SftConfig::default() }, row()).unwrap()
    };
    let start = cut(4, Truncation::KeepStart);
    assert_eq!((start.examples.len(), start.truncated, start.without_loss), (0, 1, 1));
    let end = cut(4, Truncation::KeepEnd);
    assert_eq!(end.examples[0].tokens, [6, 7, 8, 1]);
    assert_eq!((end.truncated, end.without_loss), (1, 0));
}

#[test]
fn what_cannot_become_a_sample_says_where_it_stands() {
    let assistant = SftConfig { loss_on: LossOn::Assistant, ..SftConfig::default() };
    let error = samples(&assistant, json!({ "text": "a" })).unwrap_err();
    assert!(matches!(error, SftDataError { line: 7, source: SftRecordError::AssistantOfText, .. }));
    assert_eq!(error.to_string(), "data.jsonl:7");

    let mut row = conversation();
    row["chat_template_kwargs"] = json!({ "messages": [] });
    let error = samples(&SftConfig::default(), row).unwrap_err();
    assert!(matches!(error.source, SftRecordError::ReservedVariable { .. }), "{:?}", error.source);

    let tokenizer = tokenizer(None);
    let config = SftConfig::default();
    let error = SftTokenizer::new(&config, &tokenizer, None).samples(&[record(conversation())]).unwrap_err();
    assert!(matches!(error.source, SftRecordError::NoTemplate));
    assert!(error.source.to_string().contains("tokenizer_config.json"));
}

#[test]
fn a_prompt_that_merges_with_its_completion_is_counted() {
    let samples = samples(&SftConfig::default(), json!({ "prompt": "a b", "completion": "c d" })).unwrap();
    // "b" and "c" are one word now.
    assert_eq!((samples.uneven_boundaries, samples.examples[0].tokens.clone()), (1, vec![0, 5, 2, 8, 1]));
}

#[test]
fn records_can_come_one_by_one() {
    let tokenizer = tokenizer(None);
    let config = SftConfig { max_length: NonZeroUsize::new(2).unwrap(), ..SftConfig::default() };
    let tokenizer = SftTokenizer::new(&config, &tokenizer, None);
    let records =
        [json!({ "text": "a b c" }), json!({ "prompt": "a", "completion": "b" }), json!({ "text": "a" })]
            .map(record);
    let mut samples = SftSamples::default();
    for record in &records {
        samples.push(tokenizer.sample(record).unwrap());
    }
    assert_eq!(samples, tokenizer.samples(&records).unwrap());
    assert_eq!((samples.truncated, samples.without_loss), (3, 1));
    assert_eq!(tokenizer.sample(&records[1]).unwrap().example, None);
}
