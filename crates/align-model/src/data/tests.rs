use std::io::ErrorKind;

use serde_json::json;

use super::*;
use crate::chat::Message;

fn read(content: impl AsRef<[u8]>) -> Result<Vec<Located<SftRecord>>, DataError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.jsonl");
    std::fs::write(&path, content).unwrap();
    read_jsonl(&path)
}

fn one(row: &Value) -> SftRecord {
    read(row.to_string()).unwrap().remove(0).record
}

fn problem(row: &Value) -> RecordError {
    match read(row.to_string()).unwrap_err() {
        DataError::Record { line: 1, problem, .. } => problem,
        other => panic!("{other}"),
    }
}

fn message(role: &str, content: &str) -> Message {
    Message::new(role, content)
}

#[test]
fn all_four_layouts_are_read() {
    assert_eq!(one(&json!({"text": "Once."})), SftRecord::Text { text: "Once.".into() });
    assert_eq!(
        one(&json!({"prompt": "a", "completion": "b"})),
        SftRecord::PromptCompletion { prompt: "a".into(), completion: "b".into() }
    );
    let (user, assistant) = (message("user", "hi"), message("assistant", "hello"));
    assert_eq!(
        one(&json!({"messages": [user, assistant]})),
        SftRecord::Conversation {
            messages: vec![user.clone(), assistant.clone()],
            template: TemplateColumns::default()
        }
    );
    assert_eq!(
        one(&json!({"prompt": [user], "completion": [assistant]})),
        SftRecord::PromptCompletionChat {
            prompt: vec![user],
            completion: vec![assistant],
            template: TemplateColumns::default()
        }
    );
}

#[test]
fn every_record_knows_its_file_and_line() {
    let records = read("{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n").unwrap();
    assert_eq!(records.iter().map(|located| located.line).collect::<Vec<_>>(), [1, 3]);
    assert!(records.iter().all(|located| located.path.ends_with("train.jsonl")));
}

#[test]
fn layouts_may_be_mixed_in_one_file() {
    let records = read("{\"text\": \"a\"}\n{\"prompt\": \"b\", \"completion\": \"c\"}").unwrap();
    assert!(matches!(records[0].record, SftRecord::Text { .. }));
    assert!(matches!(records[1].record, SftRecord::PromptCompletion { .. }));
}

#[test]
fn tools_and_template_variables_go_to_the_template() {
    let tool = json!({"type": "function", "function": {"name": "clock", "parameters": {}}});
    let row = json!({
        "messages": [message("user", "hi"), message("assistant", "hello")],
        "tools": [tool],
        "chat_template_kwargs": {"enable_thinking": false},
    });
    let SftRecord::Conversation { template, .. } = one(&row) else { panic!("not a conversation") };
    assert_eq!(template.tools, Some(vec![tool.clone()]));
    assert_eq!(template.chat_template_kwargs["enable_thinking"], json!(false));

    let mut spelt = row;
    spelt["tools"] = json!(json!([tool]).to_string());
    let SftRecord::Conversation { template, .. } = one(&spelt) else { panic!("not a conversation") };
    assert_eq!(template.tools, Some(vec![tool]));
}

#[test]
fn tools_of_plain_text_are_an_extra_column() {
    let records = read(json!({"text": "a", "tools": []}).to_string()).unwrap();
    assert_eq!(extra_columns(&records), BTreeMap::from([("tools".to_owned(), 1)]));
}

#[test]
fn extra_columns_are_kept_and_counted() {
    let rows = [json!({"id": 7, "text": "a", "lang": "en"}), json!({"text": "b", "id": 8})];
    let records = read(rows.map(|row| row.to_string()).join("\n")).unwrap();
    assert_eq!(records[0].extra, *json!({"id": 7, "lang": "en"}).as_object().unwrap());
    assert_eq!(extra_columns(&records), BTreeMap::from([("id".to_owned(), 2), ("lang".to_owned(), 1)]));
}

#[test]
fn where_layouts_overlap_the_rest_is_extra() {
    let messages = json!([message("user", "hi"), message("assistant", "hello")]);
    let records =
        read(json!({"prompt": "hi", "text": "hi hello", "messages": messages}).to_string()).unwrap();
    assert!(matches!(records[0].record, SftRecord::Conversation { .. }));
    assert_eq!(records[0].extra.keys().collect::<Vec<_>>(), ["prompt", "text"]);
}

#[test]
fn nulls_are_absent_values() {
    let row = json!({
        "text": null, "prompt": null, "completion": null, "tools": null,
        "messages": [
            {"role": "user", "content": "hi", "tool_calls": null},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "id": null}}]},
        ],
    });
    let records = read(row.to_string()).unwrap();
    let SftRecord::Conversation { messages, template } = &records[0].record else {
        panic!("not a conversation")
    };
    assert_eq!(messages[0], message("user", "hi"));
    assert_eq!(json!(messages[1]), json!({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}));
    assert_eq!(template.tools, None);
    assert!(records[0].extra.is_empty());
}

#[test]
fn content_may_be_a_list_of_parts() {
    let parts = json!([{"type": "text", "text": "hi"}]);
    let row = json!({"messages": [{"role": "user", "content": parts}, message("assistant", "hello")]});
    let SftRecord::Conversation { messages, .. } = one(&row) else { panic!("not a conversation") };
    assert_eq!(messages[0].content(), Some(&parts));
}

#[test]
fn windows_files_are_read() {
    let records = read("\u{feff}{\"text\": \"a\"}\r\n{\"text\": \"b\"}\r\n\r\n").unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[1].record, SftRecord::Text { text: "b".into() });
}

#[test]
fn blank_lines_at_the_end_are_fine() {
    assert_eq!(read("{\"text\": \"a\"}\n\n  \n").unwrap().len(), 1);
}

#[test]
fn an_absent_file_is_named() {
    let error = read_jsonl::<SftRecord>("no/such/file.jsonl").unwrap_err();
    assert_eq!(error.to_string(), "cannot read no/such/file.jsonl");
    assert!(matches!(error, DataError::Read { source, .. } if source.kind() == ErrorKind::NotFound));
}

#[test]
fn a_directory_is_not_a_data_file() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(read_jsonl::<SftRecord>(directory.path()), Err(DataError::Read { .. })));
}

#[test]
fn a_file_without_records_is_an_error() {
    for content in ["", "\n\n", "\u{feff}", " \r\n"] {
        assert!(matches!(read(content), Err(DataError::Empty { .. })), "{content:?}");
    }
}

#[test]
fn a_malformed_line_is_named_with_its_column() {
    let error = read("{\"text\": \"a\"}\n{\"text\": \"b\" \"c\"}\n").unwrap_err();
    assert!(matches!(error, DataError::Malformed { line: 2, column: 14, .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.ends_with("train.jsonl:2:14: not a JSON object: expected `,` or `}`"), "{message}");
}

#[test]
fn a_truncated_line_is_malformed() {
    let message = read("{\"text\": \"a\"}\n{\"text\": \"b").unwrap_err().to_string();
    assert!(message.ends_with(":2:11: not a JSON object: EOF while parsing a string"), "{message}");
}

#[test]
fn a_line_that_is_no_object_is_malformed() {
    for line in ["17", "\"text\"", "null", "{} {}", "text: a", "{\"text\": NaN}", "{\"text\": \"\\ud800\"}"] {
        assert!(matches!(read(line), Err(DataError::Malformed { line: 1, .. })), "{line}");
    }
}

#[test]
fn a_json_array_is_recognised() {
    for content in ["[{\"text\": \"a\"}]", "[\n  {\n    \"text\": \"a\"\n  }\n]\n"] {
        let error = read(content).unwrap_err();
        assert!(matches!(error, DataError::JsonArray { line: 1, .. }), "{error:?}");
        assert!(error.to_string().contains("jq -c '.[]'"), "{error}");
    }
}

#[test]
fn invalid_utf8_is_named_with_line_and_column() {
    let error = read(b"{\"text\": \"a\"}\n{\"text\": \"caf\xe9\"}\n").unwrap_err();
    assert!(matches!(error, DataError::NotUtf8 { line: 2, column: 14, .. }), "{error:?}");
    assert!(error.to_string().contains("train.jsonl:2:14: not valid UTF-8"), "{error}");
}

#[test]
fn wrong_columns_are_listed_with_a_hint() {
    let rows = [
        (json!({"conversations": []}), "rename `conversations` to `messages`"),
        (json!({"prompt": "a", "response": "b"}), "rename `response` to `completion`"),
        (json!({"prompt": "a", "chosen": "b", "rejected": "c"}), "rename `chosen` to `completion`"),
        (json!({"chosen": [], "rejected": []}), "rename `chosen` to `messages`"),
        (json!({"prompt": "a"}), "`completion` is missing"),
        (
            json!({"completion": "a"}),
            "`prompt` is missing; rename `completion` to `text` to train on it alone",
        ),
        (
            json!({"instruction": "a", "input": "", "output": "b"}),
            "rename `instruction` to `prompt` and `output` to `completion`",
        ),
        (
            json!({"Question": "a", "Answer": "b"}),
            "rename `Question` to `prompt` and `Answer` to `completion`",
        ),
        (json!({"Text": "a"}), "rename `Text` to `text`"),
        (json!({"content": "a"}), "rename `content` to `text`"),
    ];
    for (row, expected) in rows {
        let RecordError::Columns { hint, .. } = problem(&row) else { panic!("{row}") };
        assert_eq!(hint.as_deref(), Some(expected), "{row}");
    }
    assert_eq!(
        problem(&json!({"prompt": "a", "response": "b", "completion": null})).to_string(),
        "found the columns `prompt`, `response`, expected `prompt` and `completion`, or `messages`, or `text`: \
         rename `response` to `completion`"
    );
    assert_eq!(
        problem(&json!({"x": 1})).to_string(),
        "found only the column `x`, expected `prompt` and `completion`, or `messages`, or `text`"
    );
    assert!(problem(&json!({})).to_string().starts_with("found no columns, expected"));
}

#[test]
fn columns_of_the_wrong_type_are_errors() {
    let chat = json!([message("assistant", "a")]);
    let rows = [
        (json!({"text": 1}), "column `text` is a number, expected a string"),
        (json!({"messages": "hi"}), "column `messages` is a string, expected a list of messages"),
        (
            json!({"messages": "\n\nHuman: hi"}),
            "column `messages` is a transcript (read the source with `transcript` = \"anthropic\"), \
             expected a list of messages",
        ),
        (
            json!({"prompt": {}, "completion": "a"}),
            "column `prompt` is an object, expected a string or a list of messages",
        ),
        (
            json!({"messages": chat, "tools": {}}),
            "column `tools` is an object, expected a list, or a string with a JSON list",
        ),
        (
            json!({"messages": chat, "tools": "none"}),
            "column `tools` is another string, expected a list, or a string with a JSON list",
        ),
        (
            json!({"messages": chat, "chat_template_kwargs": true}),
            "column `chat_template_kwargs` is a boolean, expected an object",
        ),
    ];
    for (row, expected) in rows {
        assert_eq!(problem(&row).to_string(), expected);
    }
}

#[test]
fn prompt_and_completion_must_have_one_form() {
    let chat = json!([message("assistant", "a")]);
    assert_eq!(
        problem(&json!({"prompt": "a", "completion": chat})),
        RecordError::MixedForms { string: "prompt", messages: "completion" }
    );
    assert_eq!(
        problem(&json!({"prompt": chat, "completion": "a"})),
        RecordError::MixedForms { string: "completion", messages: "prompt" }
    );
}

#[test]
fn empty_message_lists_are_errors() {
    let chat = json!([message("assistant", "a")]);
    assert_eq!(problem(&json!({"messages": []})), RecordError::EmptyMessages { column: "messages" });
    assert_eq!(
        problem(&json!({"prompt": [], "completion": chat})),
        RecordError::EmptyMessages { column: "prompt" }
    );
}

#[test]
fn messages_need_role_and_content() {
    let rows = [
        (
            json!({"from": "human", "value": "hi"}),
            "message 2 of column `messages` has no `role` (its keys: from, value): \
             read the source with `transcript` = \"sharegpt\"",
        ),
        (json!({"content": "hi"}), "message 2 of column `messages` has no `role` (its keys: content)"),
        (
            json!({"role": "assistant", "text": "hi"}),
            "message 2 of column `messages` has no `content` (its keys: role, text): \
             rename `text` to `content` in every message",
        ),
        (
            json!({"role": 1, "content": "hi"}),
            "message 2 of column `messages`: `role` is a number, expected a string",
        ),
        (
            json!({"role": "user", "content": 5}),
            "message 2 of column `messages`: `content` is a number, expected a string or a list of parts",
        ),
        (
            json!("hi"),
            "message 2 of column `messages` is a string, expected an object with `role` and `content`",
        ),
    ];
    for (second, expected) in rows {
        assert_eq!(problem(&json!({"messages": [message("user", "q"), second]})).to_string(), expected);
    }
}

#[test]
fn a_conversation_needs_an_assistant() {
    let messages = json!([message("human", "hi"), message("gpt", "hello"), message("human", "bye")]);
    assert_eq!(
        problem(&json!({"messages": messages})).to_string(),
        "column `messages` has no message with the role `assistant`, so there is nothing to learn \
         (its roles: human, gpt)"
    );
    let user = json!([message("user", "hi")]);
    assert_eq!(
        problem(&json!({"prompt": user, "completion": user})),
        RecordError::NoAssistant { column: "completion", roles: vec!["user".into()] }
    );
}

#[test]
fn errors_stop_at_the_first_bad_row_and_name_its_line() {
    let error = read("{\"text\": \"a\"}\n{\"txt\": \"b\"}\n{\"text\": 3}\n").unwrap_err();
    assert!(matches!(error, DataError::Record { line: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("train.jsonl:2: found only the column `txt`"), "{error}");
}
