use serde_json::json;

use super::super::{DataError, Located, SftRecord, SourceConfig, read};
use crate::chat::Message;

fn read_table(name: &str, content: impl AsRef<[u8]>) -> Result<Vec<Located<SftRecord>>, DataError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    read(&SourceConfig::new(path.to_str().unwrap()).into()).map(|data| data.records)
}

#[test]
fn quoted_cells_hold_commas_quotes_and_line_breaks() {
    let table = "\u{feff}text,id\r\n\"a, \"\"b\"\"\nc\",7\r\n\r\nd,\r\n";
    let records = read_table("a.csv", table).unwrap();
    assert_eq!(records[0].record, SftRecord::Text { text: "a, \"b\"\nc".into() });
    assert_eq!(records[1].record, SftRecord::Text { text: "d".into() });
    assert_eq!(records.iter().map(|located| located.line).collect::<Vec<_>>(), [2, 5]);
    assert_eq!(records[0].extra["id"], json!("7"));
    assert!(records[1].extra.is_empty(), "an empty cell is an absent value");
}

#[test]
fn tabs_separate_too() {
    let records = read_table("a.tsv", "prompt\tcompletion\na, b\tc\n").unwrap();
    let expected = SftRecord::PromptCompletion { prompt: "a, b".into(), completion: "c".into() };
    assert_eq!(records[0].record, expected);
}

#[test]
fn cells_may_spell_messages_in_json() {
    let messages = json!([Message::user("hi"), Message::assistant("say \"hello\"")]);
    let cell = format!("\"{}\"", messages.to_string().replace('"', "\"\""));
    let records = read_table("a.csv", format!("messages,tools\n{cell},[]\n")).unwrap();
    let SftRecord::Conversation { messages: read, template } = &records[0].record else {
        panic!("{records:?}")
    };
    assert_eq!(json!(read), messages);
    assert_eq!(template.tools, Some(vec![]));

    let user = json!([Message::user("hi")]).to_string().replace('"', "\"\"");
    let assistant = json!([Message::assistant("a")]).to_string().replace('"', "\"\"");
    let records =
        read_table("a.csv", format!("prompt,completion\n\"{user}\",\"{assistant}\"\n[1],[2]\n")).unwrap();
    assert!(matches!(records[0].record, SftRecord::PromptCompletionChat { .. }));
    assert_eq!(
        records[1].record,
        SftRecord::PromptCompletion { prompt: "[1]".into(), completion: "[2]".into() }
    );
}

#[test]
fn errors_name_line_and_column() {
    let cases: [(&[u8], &str); 6] = [
        (b"text\na\nb,c\n", ":3: 2 cells, but the header has 1: quote cells"),
        (b"text,text\na,b\n", ": the header names the column `text` twice"),
        (b"text\ncaf\xe9\n", ":2: column `text` is not valid UTF-8"),
        (b"caf\xe9\na\n", ":1:4: not valid UTF-8"),
        (
            b"messages\n\"[{'role': 'user'}]\"\n",
            ":2: column `messages` holds messages as Python prints them: write",
        ),
        (b"txt\na\n", ":2: found only the column `txt`"),
    ];
    for (content, expected) in cases {
        let error = read_table("a.csv", content).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for content in ["", "text\n"] {
        assert!(matches!(read_table("a.csv", content), Err(DataError::Empty { .. })), "{content:?}");
    }
}
