//! `kind: "chat_template"`: conversations rendered by `transformers`, with the assistant's tokens where marked.

use std::ops::Range;

use align_model::{
    chat::{ChatError, ChatTemplate, ChatTemplates, Message, RenderOptions},
    tokenizer::{SpecialTokens, Tokenizer},
};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile,
    file::{ids, rows, text},
    tokenizer::named_tokenizer,
};

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let json = &file.json;
    let template = ChatTemplate::new("default", text(json, "template")).map_err(|e| e.to_string());
    let template = match template {
        Ok(template) => template,
        Err(error) => {
            check.case();
            check.fail(error);
            return Ok(());
        }
    };
    let special_tokens = json["special_tokens"].as_object().cloned().unwrap_or_default();
    let templates = ChatTemplates::single(template, special_tokens);
    let tokenizer = json["tokenizer"].as_str().and_then(|name| named_tokenizer(file, name));
    for case in json["cases"].as_array().unwrap() {
        check.case();
        run_case(case, &templates, tokenizer.as_ref(), check);
    }
    Ok(())
}

fn run_case(case: &Value, templates: &ChatTemplates, tokenizer: Option<&Tokenizer>, check: &mut Check) {
    let name = format!("{} {}", text(case, "name"), case["options"]);
    let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
    let tools = case["tools"].as_array().map(Vec::as_slice);
    let options = options(&case["options"]);
    let rendered = templates.render(&messages, tools, &options);
    if let Some(expected) = case.get("error").filter(|error| !error.is_null()) {
        match rendered {
            Ok(rendered) => check.fail(format!("{name}: rendered {:?}, expected {expected}", rendered.text)),
            Err(ChatError::Raised { message, .. }) => {
                check.equal(&name, message.as_str(), text(expected, "message"));
            }
            Err(error) if text(expected, "type") == "TemplateError" => {
                check.fail(format!("{name}: {error}, expected {expected}"));
            }
            Err(_) => {}
        }
        return;
    }
    let rendered = match rendered {
        Ok(rendered) => rendered,
        Err(error) => return check.fail(format!("{name}: {error}")),
    };
    check.equal(&name, rendered.text.as_str(), text(case, "rendered"));
    let masked = case.get("mask_error").is_none_or(Value::is_null);
    if let (Some(spans), true) = (case.get("generation_spans"), masked) {
        let expected: Vec<Range<usize>> =
            rows(spans).into_iter().map(|span| span[0] as usize..span[1] as usize).collect();
        check.equal(&format!("{name} spans"), &rendered.generation_spans, &expected);
    }
    if let Some(tokenizer) = tokenizer {
        compare_tokens(case, &name, templates, tokenizer, check);
    }
}

fn compare_tokens(
    case: &Value,
    name: &str,
    templates: &ChatTemplates,
    tokenizer: &Tokenizer,
    check: &mut Check,
) {
    let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
    let tools = case["tools"].as_array().map(Vec::as_slice);
    let options = options(&case["options"]);
    if let Some(expected) = case.get("input_ids") {
        let actual = tokenizer.encode(text(case, "rendered"), SpecialTokens::Omit).unwrap();
        check.equal(&format!("{name} ids"), &actual, &ids(expected));
    }
    let masked = templates.render_tokens(tokenizer, &messages, tools, &options);
    if case.get("mask_error").is_some_and(|error| !error.is_null()) {
        if masked.is_ok() {
            check.fail(format!("{name}: a mask where none can be had"));
        }
    } else if let Some(expected) = case.get("assistant_mask") {
        match masked {
            Ok(masked) => {
                let mask: Vec<u32> = masked.assistant_mask.iter().map(|set| u32::from(*set)).collect();
                check.equal(&format!("{name} mask"), &mask, &ids(expected));
                check.equal(&format!("{name} masked ids"), &masked.ids, &ids(&case["input_ids"]));
            }
            Err(error) => check.fail(format!("{name} mask: {error}")),
        }
    }
}

/// Everything that is not an option of the renderer is a variable of the template.
fn options(json: &Value) -> RenderOptions {
    let mut variables = json.as_object().cloned().unwrap_or_default();
    let mut flag = |key: &str| variables.shift_remove(key).and_then(|value| value.as_bool()).unwrap_or(false);
    let (add_generation_prompt, continue_final_message) =
        (flag("add_generation_prompt"), flag("continue_final_message"));
    RenderOptions { add_generation_prompt, continue_final_message, variables, ..RenderOptions::default() }
}
