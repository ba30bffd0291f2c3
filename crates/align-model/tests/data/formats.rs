//! The same records come out of every format, compressed or not.

use align_model::{
    chat::Message,
    data::{DataError, PreferenceRecord, SftRecord, read, stream},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::files::{Files, read_texts};

const COMPRESSIONS: [&str; 3] = ["", ".gz", ".zst"];

/// A file of rows in every format of text.
fn written(rows: &[Value]) -> Vec<(&'static str, String)> {
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    vec![
        ("jsonl", lines.clone()),
        ("json", serde_json::to_string_pretty(rows).unwrap()),
        ("json", lines),
        ("csv", table(rows, ",")),
        ("tsv", table(rows, "\t")),
    ]
}

fn table(rows: &[Value], separator: &str) -> String {
    let columns: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    let cell = |value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("\"{}\"", text.replace('"', "\"\""))
    };
    let mut table = columns.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(separator) + "\r\n";
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|name| cell(&row[name.as_str()])).collect();
        table += &(cells.join(separator) + "\r\n");
    }
    table
}

fn read_everywhere(rows: &[Value], mut check: impl FnMut(Vec<PreferenceRecord>)) {
    let files = Files::new();
    for (format, content) in written(rows) {
        for compression in COMPRESSIONS {
            let source = files.write(&format!("rows.{format}{compression}"), &content);
            let records = read::<PreferenceRecord>(&source.into()).unwrap().records;
            check(records.into_iter().map(|located| located.record).collect());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn texts_survive_every_format(
        rows in prop::collection::vec(("\\PC{1,12}", "[a-z\"\\\\,\t\r\n' é🦀]{1,20}x", "(?s).{0,8}x"), 1..6)
    ) {
        let columns: Vec<Value> = rows
            .iter()
            .map(|(prompt, chosen, rejected)| json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
            .collect();
        let expected: Vec<PreferenceRecord> = rows
            .into_iter()
            .map(|(prompt, chosen, rejected)| PreferenceRecord::Text { prompt, chosen, rejected, margin: None })
            .collect();
        read_everywhere(&columns, |records| assert_eq!(records, expected));
    }

    #[test]
    fn conversations_survive_every_format(contents in prop::collection::vec("(?s).{0,12}", 3..9)) {
        let rows: Vec<Value> = contents
            .chunks_exact(3)
            .map(|texts| json!({
                "prompt": [Message::user(&texts[0])],
                "chosen": [Message::assistant(&texts[1])],
                "rejected": [Message::assistant(&texts[2])],
            }))
            .collect();
        read_everywhere(&rows, |records| {
            assert_eq!(records.len(), rows.len());
            for (record, row) in records.iter().zip(&rows) {
                let PreferenceRecord::Chat { prompt, chosen, rejected, .. } = record else { panic!("{record:?}") };
                assert_eq!(json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}), *row);
            }
        });
    }
}

#[test]
fn streams_give_what_reading_gives() {
    let files = Files::new();
    for name in ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.csv.zst"] {
        let rows: Vec<Value> = (0..50).map(|number| json!({"text": format!("t{number}")})).collect();
        let (_, content) =
            written(&rows).into_iter().find(|(format, _)| name.split('.').nth(1) == Some(format)).unwrap();
        let config = files.write(name, content).into();
        let streamed: Vec<_> = stream::<SftRecord>(&config).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(streamed, read::<SftRecord>(&config).unwrap().records);
        assert_eq!(streamed.len(), 50);
    }
}

#[test]
fn compressed_files_may_have_several_members() {
    let files = Files::new();
    for ending in ["gz", "zst"] {
        let path = files.path(&format!("a.jsonl.{ending}"));
        let member =
            |text: &str| crate::files::compressed(&path, format!("{{\"text\": \"{text}\"}}\n").as_bytes());
        std::fs::write(&path, [member("a"), member("b")].concat()).unwrap();
        assert_eq!(read_texts(path.to_str().unwrap()), ["a", "b"]);
    }
}

#[test]
fn files_that_are_cut_off_or_not_compressed_say_so() {
    let files = Files::new();
    let rows = (0..2000).map(|number| json!({"text": (number * number).to_string()}).to_string());
    let content = rows.collect::<Vec<_>>().join("\n");
    for (ending, part) in [("gz", "gzip stream"), ("zst", "zstd stream")] {
        let name = format!("a.jsonl.{ending}");
        let source = files.write(&name, &content);
        let whole = std::fs::read(files.path(&name)).unwrap();
        for length in [whole.len() / 2, whole.len() - 3] {
            std::fs::write(files.path(&name), &whole[..length]).unwrap();
            let error = read::<SftRecord>(&source.clone().into()).unwrap_err();
            let expected = format!("the file is cut off: its {part} does not end; copy or download it again");
            assert!(error.to_string().contains(&expected), "{error:?}");
        }
        std::fs::write(files.path(&name), &content).unwrap();
        let error = read::<SftRecord>(&source.into()).unwrap_err();
        assert!(matches!(error, DataError::Compressed { .. }), "{error:?}");
    }
}
