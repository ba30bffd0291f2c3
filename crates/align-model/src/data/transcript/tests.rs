use serde_json::json;

use super::*;

fn converted(transcript: Transcript, columns: Value) -> Result<Value, RecordError> {
    let Value::Object(mut columns) = columns else { panic!("no object") };
    match transcript.convert(&mut columns).into_values().next() {
        Some(problem) => Err(problem),
        None => Ok(Value::Object(columns)),
    }
}

fn anthropic(text: &str) -> Result<Value, RecordError> {
    converted(Transcript::Anthropic, json!({"messages": text})).map(|mut row| row["messages"].take())
}

#[test]
fn turns_are_trimmed_messages() {
    let text = "\n\nHuman: Hi.\n\nAre you Human: or not?\n\nAssistant:  An assistant.\nHuman: no. \n\nHuman: Oh\n\nAssistant:";
    let expected = json!([
        {"role": "user", "content": "Hi.\n\nAre you Human: or not?"},
        {"role": "assistant", "content": "An assistant.\nHuman: no."},
        {"role": "user", "content": "Oh"},
        {"role": "assistant", "content": ""},
    ]);
    assert_eq!(anthropic(text).unwrap(), expected);
    assert_eq!(anthropic(text.trim()).unwrap(), expected);
}

#[test]
fn a_prompt_ends_where_the_assistant_begins() {
    let row = json!({
        "prompt": "\n\nHuman: Hi.\n\nAssistant:", "chosen": " Hello.", "rejected": "\n\nAssistant: Go away.", "id": "\n\nx",
    });
    let expected = json!({
        "prompt": [{"role": "user", "content": "Hi."}],
        "chosen": [{"role": "assistant", "content": "Hello."}],
        "rejected": [{"role": "assistant", "content": "Go away."}],
        "id": "\n\nx",
    });
    assert_eq!(converted(Transcript::Anthropic, row).unwrap(), expected);
}

#[test]
fn what_is_no_transcript_is_refused() {
    let cases = [
        ("Hello.", "it begins with \"Hello.\", expected \"\\n\\nHuman:\""),
        ("\n\nAssistant: Hello.", "it begins with \"Assistant: Hello.\", expected \"\\n\\nHuman:\""),
        (
            "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c",
            "turns 2 and 3 are both of `Assistant:`, expected speakers to alternate",
        ),
    ];
    for (text, expected) in cases {
        let error = anthropic(text).unwrap_err().to_string();
        assert_eq!(error, format!("column `messages` is no transcript of a conversation: {expected}"));
    }
}

#[test]
fn sharegpt_turns_are_messages() {
    let call = json!({"name": "clock", "arguments": {"zone": "UTC"}});
    let row = json!({"conversations": [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Time?", "weight": 0},
        {"from": "function_call", "value": call.to_string()},
        {"from": "observation", "value": "noon"},
        {"from": "gpt", "value": "Noon."},
        {"role": "user", "content": "Thanks."},
    ]});
    let expected = json!({"messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Time?", "weight": 0},
        {"role": "assistant", "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "content": "noon"},
        {"role": "assistant", "content": "Noon."},
        {"role": "user", "content": "Thanks."},
    ]});
    assert_eq!(converted(Transcript::ShareGpt, row).unwrap(), expected);

    let pair = json!({"prompt": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}});
    let expected = json!({"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "b"}]});
    assert_eq!(converted(Transcript::ShareGpt, pair).unwrap(), expected);
}

#[test]
fn sharegpt_turns_need_a_known_speaker() {
    let cases = [
        (json!({"from": "narrator", "value": "a"}), "message 1 is from `narrator`; known are system, human"),
        (json!({"value": "a"}), "message 1 has no `from` that is a string"),
        (
            json!({"from": "function_call", "value": "clock()"}),
            "message 1 is a function call, but its `value`",
        ),
        (json!("a"), "message 1 of column `messages` is a string"),
    ];
    for (turn, expected) in cases {
        let error = converted(Transcript::ShareGpt, json!({"messages": [turn]})).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
