//! `kind: "reference"`: real models against transformers: logits, hidden states, continuations, text.

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    chat::{ChatTemplates, Message, RenderOptions},
    decoder::Decoder,
    logprob::{Targets, token_log_probs},
    pretrained::{Checkpoint, SafetensorsWeights, WeightSource},
    tokenizer::{SpecialTokenText, SpecialTokens, Tokenizer},
};
use burn::tensor::Tensor;
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    arch::Padded,
    file::{flat, ids, number, rows, text},
    smollm2::smollm2,
};

/// Residual streams of trained models have entries in the thousands and logits reach 30, so errors are measured against
/// the largest. transformers itself, f32 against f64, differs by 3e-6 of it on these logits.
const SCALED: Tolerance = Tolerance::OfLargest(1e-5);

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let checkpoint = match text(&file.json, "model") {
        name if name.starts_with("smollm2") => smollm2().ok_or("ALIGN_SMOLLM2 names no model")?,
        name => Checkpoint::open(&file.directory.join(name)).unwrap(),
    };
    let model = checkpoint.load(&super::device()).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let list = |key: &str| file.json[key].as_array().cloned().unwrap_or_default();
    let arrays =
        SafetensorsWeights::open_file(&file.directory.join(format!("{}_full_logits.safetensors", file.name)));
    for (index, case) in list("logits").iter().enumerate() {
        check.case();
        logits(check, &model, case);
        full_logits(check, &model, index, &ids(&case["input_ids"]), arrays.as_ref().unwrap());
    }
    for case in &list("padded") {
        padded(check, &model, case);
    }
    for case in &list("generation") {
        generation(check, &model, &tokenizer, case);
    }
    for case in &list("tokenization") {
        tokenization(check, &tokenizer, case);
    }
    for case in &list("chat_template") {
        chat(check, &tokenizer, case);
    }
    Ok(())
}

fn read(tensor: Tensor<2>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn logits(check: &mut Check, model: &Decoder, case: &Value) {
    let tokens = ids(&case["input_ids"]);
    let batch = TokenBatch::from_sequences(&[&tokens]);
    let logits = model.logits(model.hidden(&batch));
    let first = rows_of(&case["logits_8x64"]);
    let corner = logits.clone().slice([0..first, 0..64]);
    check.close("logits", &read(corner), &flat(&case["logits_8x64"]), SCALED);
    check.close("max", &read(logits.clone().max_dim(1)), &flat(&case["max"]), SCALED);
    let argmax: Vec<u32> = logits.argmax(1).into_data().iter::<u32>().collect();
    check.equal("argmax", &argmax, &ids(&case["argmax"]));
    let log_probs = token_log_probs(model, &batch, &Targets::all(&batch));
    let values: Vec<f64> = log_probs.values.clone().into_data().iter::<f64>().collect();
    check.close("token_logprobs", &values, &flat(&case["token_logprobs"]), SCALED);
    let sum: Vec<f64> = log_probs.summed().into_data().iter::<f64>().collect();
    check.close("sum_logprob", &sum, &[number(&case["sum_logprob"])], SCALED);
}

fn rows_of(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

fn full_logits(
    check: &mut Check,
    model: &Decoder,
    index: usize,
    tokens: &[u32],
    arrays: &SafetensorsWeights,
) {
    let stored = |name: &str| -> Vec<f64> {
        arrays.read(&format!("{name}_{index}")).unwrap().values.into_iter().map(f64::from).collect()
    };
    let states = model.hidden_states(&TokenBatch::from_sequences(&[tokens]));
    check.close("hidden_embed", &read(states[0].clone()), &stored("hidden_embed"), SCALED);
    check.close("hidden_after_layer1", &read(states[1].clone()), &stored("hidden_after_layer1"), SCALED);
    let last = states[states.len() - 1].clone();
    check.close("hidden_final_norm", &read(last.clone()), &stored("hidden_final_norm"), SCALED);
    check.close("all logits", &read(model.logits(last)), &stored("logits"), SCALED);
}

fn padded(check: &mut Check, model: &Decoder, case: &Value) {
    check.case();
    let mask = rows(&case["attention_mask"]);
    let batch = Padded::new(&rows(&case["input_ids"]), &mask).batch;
    let values: Vec<f64> =
        token_log_probs(model, &batch, &Targets::all(&batch)).values.into_data().iter::<f64>().collect();
    let stored: Vec<Vec<f64>> = case["token_logprobs_masked"].as_array().unwrap().iter().map(flat).collect();
    // Entry t is about token t + 1 and is masked where either of the two is padding.
    let expected: Vec<f64> = mask
        .iter()
        .zip(&stored)
        .flat_map(|(mask, row)| (0..row.len()).filter(|&t| mask[t] * mask[t + 1] != 0).map(|t| row[t]))
        .collect();
    check.close("padded token_logprobs", &values, &expected, SCALED);
    let last: Vec<i32> =
        batch.starts().iter().zip(batch.lengths()).map(|(s, l)| (s + l - 1) as i32).collect();
    let hidden = model.hidden(&batch).select(0, Tensor::from_data(&last[..], &model.device()));
    let corner = model.logits(hidden).narrow(1, 0, 64);
    check.close("last_real_logits", &read(corner), &flat(&case["last_real_logits_64"]), SCALED);
}

fn generation(check: &mut Check, model: &Decoder, tokenizer: &Tokenizer, case: &Value) {
    check.case();
    let expected = ids(&case["new_ids"]);
    if let Value::String(prompt) = &case["prompt"] {
        let prompt = tokenizer.encode(prompt, SpecialTokens::Add).unwrap();
        check.equal("prompt ids", &prompt, &ids(&case["input_ids"]));
    }
    let actual = super::greedy(model, &[ids(&case["input_ids"])], expected.len());
    check.equal("greedy", &actual[0], &expected);
    let decoded = tokenizer.decode(&actual[0], SpecialTokenText::Keep).unwrap();
    check.equal("generated text", decoded.trim_start(), text(case, "text").trim_start());
}

fn tokenization(check: &mut Check, tokenizer: &Tokenizer, case: &Value) {
    check.case();
    let found = tokenizer.encode(text(case, "text"), SpecialTokens::Add).unwrap();
    check.equal("ids", &found, &ids(&case["ids"]));
    let decoded = |special| tokenizer.decode(&found, special).unwrap();
    check.equal("decoded", decoded(SpecialTokenText::Keep).as_str(), text(case, "decoded"));
    check.equal("decoded_skip", decoded(SpecialTokenText::Skip).as_str(), text(case, "decoded_skip"));
}

fn chat(check: &mut Check, tokenizer: &Tokenizer, case: &Value) {
    check.case();
    let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
    let options = RenderOptions {
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap_or(false),
        ..RenderOptions::default()
    };
    let templates = ChatTemplates::from_tokenizer(tokenizer).unwrap();
    let rendered = templates.render(&messages, None, &options).unwrap();
    check.equal("rendered", rendered.text.as_str(), text(case, "rendered"));
    let found = templates.render_ids(tokenizer, &messages, None, &options).unwrap();
    check.equal("chat ids", &found, &ids(&case["ids"]));
}
