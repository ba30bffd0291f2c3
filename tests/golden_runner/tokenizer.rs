//! `kind: "tokenizer"`: texts to tokens and back.

use align_model::tokenizer::{SpecialTokenText, SpecialTokens, Tokenizer};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile,
    file::{ids, rows, text},
    smollm2::smollm2_tokenizer,
};

/// The tokenizer that a golden file names: a directory beside it, or SmolLM2's.
pub(super) fn named_tokenizer(file: &GoldenFile, name: &str) -> Option<Tokenizer> {
    if name.starts_with("smollm2") {
        return smollm2_tokenizer();
    }
    let directory = file.directory.join(name);
    directory
        .is_dir()
        .then(|| Tokenizer::from_directory(&directory).unwrap_or_else(|e| panic!("{name}: {e}")))
}

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let json = &file.json;
    let name = text(json, "tokenizer");
    let Some(tokenizer) = named_tokenizer(file, name) else {
        return Err(format!("the tokenizer {name} is not here"));
    };
    check.case();
    if let Some(size) = json["vocab_size"].as_u64() {
        check.equal("vocab_size", &(tokenizer.vocab_size() as u64), &size);
    }
    for (key, expected) in json["special_tokens"].as_object().into_iter().flatten() {
        let token = tokenizer.special_tokens().get(key).and_then(Value::as_str);
        check.equal(key, &token, &expected[0].as_str());
        let id = token.and_then(|token| tokenizer.token_to_id(token));
        check.equal(key, &id.map(u64::from), &expected[1].as_u64());
    }
    for case in json["cases"].as_array().into_iter().flatten() {
        check.case();
        run_case(case, &tokenizer, check);
    }
    for single in json["single_tokens"].as_array().into_iter().flatten() {
        check.case();
        run_single(single, &tokenizer, check);
    }
    Ok(())
}

fn run_case(case: &Value, tokenizer: &Tokenizer, check: &mut Check) {
    let input = text(case, "text");
    let encoding = tokenizer.encode_with_offsets(input, SpecialTokens::Add).unwrap();
    check.equal(&format!("{input:?} ids"), &encoding.ids, &ids(&case["ids"]));
    check.equal(
        &format!("{input:?} ids without special tokens"),
        &tokenizer.encode(input, SpecialTokens::Omit).unwrap(),
        &ids(&case["ids_without_special_tokens"]),
    );
    let tokens: Vec<String> =
        encoding.ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
    let expected: Vec<String> = serde_json::from_value(case["tokens"].clone()).unwrap();
    check.equal(&format!("{input:?} tokens"), &tokens, &expected);
    let offsets: Vec<Vec<i64>> =
        encoding.offsets.iter().map(|&(start, end)| vec![start as i64, end as i64]).collect();
    check.equal(&format!("{input:?} offsets"), &offsets, &rows(&case["offsets"]));
    for (key, special) in
        [("decoded", SpecialTokenText::Keep), ("decoded_skip_special_tokens", SpecialTokenText::Skip)]
    {
        let ids = ids(&case["ids"]);
        let what = format!("{input:?} {key}");
        check.equal(&what, tokenizer.decode(&ids, special).unwrap().as_str(), text(case, key));
        let mut stream = tokenizer.decode_stream(special);
        let mut streamed: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        streamed += &stream.finish().unwrap();
        check.equal(&format!("{what}, streamed"), streamed.as_str(), text(case, key));
    }
}

fn run_single(single: &Value, tokenizer: &Tokenizer, check: &mut Check) {
    let id = single["id"].as_u64().unwrap() as u32;
    for (key, special) in
        [("decoded", SpecialTokenText::Keep), ("decoded_skip_special_tokens", SpecialTokenText::Skip)]
    {
        if let Some(expected) = single.get(key).and_then(Value::as_str) {
            check.equal(&format!("token {id}"), tokenizer.decode(&[id], special).unwrap().as_str(), expected);
        }
    }
    if let Some(token) = single.get("token").and_then(Value::as_str) {
        check.equal(&format!("token {id}"), &tokenizer.id_to_token(id).as_deref(), &Some(token));
    }
}
