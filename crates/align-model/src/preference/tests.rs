use std::{path::Path, str::FromStr, sync::Arc};

use serde_json::{Map, Value, json};

use super::*;
use crate::{
    chat::ChatTemplates,
    data::{Located, PreferenceRecord, Record, Row, UnpairedRecord},
    tokenizer::Tokenizer,
};

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %} \
     <assistant> {{ message.content }} {{ eos_token }}{% else %} <user> {{ message.content }}{% endif %}\
     {% endfor %}{% if add_generation_prompt %} <assistant> {% endif %}";

/// Words are tokens, `ab` is a word of its own; text gets `<bos>` (0) in front and `<eos>` is 1.
fn tokenizer() -> Tokenizer {
    let words = ["<bos>", "<eos>", "<unk>", "<user>", "<assistant>", "a", "b", "c", "ab"];
    let vocab: Map<String, Value> =
        words.iter().enumerate().map(|(id, w)| ((*w).into(), id.into())).collect();
    let added = |id: usize| {
        json!({ "id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let definition = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": (0..5).map(added).collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [json!({ "SpecialToken": { "id": "<bos>", "type_id": 0 } }), text], "pair": [text],
            "special_tokens": { "<bos>": { "id": "<bos>", "ids": [0], "tokens": ["<bos>"] } },
        },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    });
    let inner = tokenizers::Tokenizer::from_str(&definition.to_string()).unwrap();
    let config = json!({ "bos_token": "<bos>", "eos_token": "<eos>", "chat_template": TEMPLATE });
    Tokenizer::from_parts(inner, config).unwrap()
}

fn located<R: Record>(row: &Value) -> Located<R> {
    let mut row = Row::new(row.as_object().unwrap().clone());
    let record = R::from_row(&mut row).unwrap();
    Located { source: 0, path: Arc::from(Path::new("data.jsonl")), line: 7, record, extra: row.into_rest() }
}

fn with<T>(max_length: usize, on_too_long: OnTooLong, run: impl FnOnce(&PreferenceTokenizer<'_>) -> T) -> T {
    let tokenizer = tokenizer();
    let templates = ChatTemplates::from_tokenizer(&tokenizer).unwrap();
    let slices = vec!["first".to_owned()];
    let templates = Some(&templates);
    run(&PreferenceTokenizer { tokenizer: &tokenizer, templates, max_length, on_too_long, now: None, slices })
}

fn pairs(max_length: usize, row: Value) -> PreferenceSamples<PreferenceExample> {
    with(max_length, OnTooLong::Truncate, |tokenizer| {
        tokenizer.pairs(&[located::<PreferenceRecord>(&row)]).unwrap()
    })
}

#[test]
fn texts_are_ended_and_the_prompt_is_tokenised_once() {
    let row = json!({ "prompt": "a b", "chosen": " c", "rejected": " a a", "margin": 1.5 });
    let samples = pairs(100, row);
    let expected = PreferenceExample {
        prompt: vec![0, 5, 6],
        chosen: vec![7, 1],
        rejected: vec![5, 5, 1],
        gold: None,
        margin: Some(1.5),
        slice: Some("first".into()),
    };
    assert_eq!((samples.left_out(), samples.uneven_boundaries, samples.truncated), (0, 0, 0));
    assert_eq!(samples.examples, [expected]);
}

#[test]
fn conversations_end_as_their_template_ends_them() {
    let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
    let row = json!({
        "prompt": [turn("user", "a")], "chosen": [turn("assistant", "b")], "rejected": [turn("assistant", "c")],
    });
    let example = pairs(100, row).examples.remove(0);
    assert_eq!((example.prompt, example.chosen), (vec![0, 3, 5, 4], vec![6, 1]));
    assert_eq!((example.rejected, example.margin), (vec![7, 1], None));
}

#[test]
fn what_is_too_long_is_cut_or_left_out() {
    let row = json!({ "prompt": "a b", "chosen": " c", "rejected": " a a a" });
    let samples = pairs(5, row.clone());
    assert_eq!((samples.truncated, samples.examples[0].rejected.as_slice()), (1, &[5, 5][..]));
    assert_eq!(samples.examples[0].chosen, [7, 1]);

    let samples = pairs(3, row.clone());
    assert_eq!((samples.nothing_left, samples.examples.len()), (1, 0));
    let samples = pairs(2, row.clone());
    assert_eq!((samples.nothing_left, samples.left_out()), (1, 1));

    let left_out = with(5, OnTooLong::LeaveOut, |tokenizer| tokenizer.pair(&located(&row)).unwrap());
    assert_eq!(left_out.example, Err(LeftOut::TooLong));
    let kept = with(7, OnTooLong::LeaveOut, |tokenizer| tokenizer.pair(&located(&row)).unwrap());
    assert!(kept.example.is_ok() && !kept.is_truncated);
}

#[test]
fn what_teaches_nothing_is_left_out_and_counted() {
    let same = json!({ "prompt": "a", "chosen": " c", "rejected": "  c" });
    assert_eq!(pairs(100, same).identical, 1, "the texts differ, their tokens do not");
    let cut = json!({ "prompt": "a", "chosen": " c a", "rejected": " c b" });
    assert_eq!((pairs(3, cut.clone()).identical, pairs(4, cut).identical), (1, 0));
    let empty = json!({ "prompt": "a", "chosen": " c", "rejected": " " });
    assert_eq!(pairs(100, empty).empty, 1);
    let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
    let empty = json!({
        "prompt": [turn("user", "a")], "chosen": [turn("assistant", "")], "rejected": [turn("assistant", "c")],
    });
    assert_eq!(pairs(100, empty).empty, 1);
}

#[test]
fn an_uneven_boundary_is_counted() {
    let samples = pairs(100, json!({ "prompt": "a", "chosen": "b c", "rejected": " b" }));
    assert_eq!(samples.uneven_boundaries, 1);
    let example = &samples.examples[0];
    assert_eq!((example.prompt.as_slice(), example.chosen.as_slice()), (&[0, 5][..], &[7, 1][..]));
}

#[test]
fn judged_completions_keep_their_label() {
    let row = json!({ "prompt": "a", "completion": " b", "label": false });
    let samples = with(100, OnTooLong::Truncate, |tokenizer| {
        tokenizer.unpaired(&[located::<UnpairedRecord>(&row)]).unwrap()
    });
    let slice = Some("first".to_owned());
    let expected = UnpairedExample { prompt: vec![0, 5], completion: vec![6, 1], desirable: false, slice };
    assert_eq!(samples.examples, [expected]);
}

#[test]
fn a_conversation_without_a_template_says_where_it_stands() {
    let tokenizer = tokenizer();
    let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
    let row = json!({
        "prompt": [turn("user", "a")], "chosen": [turn("assistant", "b")], "rejected": [turn("assistant", "c")],
    });
    let plain = PreferenceTokenizer {
        tokenizer: &tokenizer,
        templates: None,
        max_length: 9,
        on_too_long: OnTooLong::Truncate,
        now: None,
        slices: Vec::new(),
    };
    let error = plain.pair(&located(&row)).unwrap_err();
    assert_eq!(error.to_string(), "data.jsonl:7");
}

#[test]
fn a_third_completion_is_tokenised_as_the_others_are() {
    let triple =
        |row: Value| with(6, OnTooLong::Truncate, |tokenizer| tokenizer.triple(&located(&row)).unwrap());
    let whole = triple(json!({"prompt": "a", "chosen": " b", "rejected": " c", "reference": " b c a b c a"}));
    assert!(whole.is_truncated);
    let example = whole.example.unwrap();
    assert_eq!(example.prompt, [0, 5]);
    assert_eq!(example.chosen, [6, 1]);
    assert_eq!(example.gold, Some(vec![6, 7, 5, 6]));
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let chat = triple(json!({
        "prompt": [message("user", "a")], "chosen": [message("assistant", "b")],
        "rejected": [message("assistant", "c")], "reference": [message("assistant", "a")],
    }));
    assert_eq!(chat.example.unwrap().gold.unwrap()[0], 5);
    let without = triple(json!({"prompt": "a", "chosen": " b", "rejected": " c"}));
    assert_eq!(without.example, Err(LeftOut::NoGold));
    let empty = triple(json!({"prompt": "a", "chosen": " b", "rejected": " c", "reference": " "}));
    assert_eq!(empty.example, Err(LeftOut::Empty));
}
