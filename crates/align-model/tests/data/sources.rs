//! What a source can say: files, formats, columns, transcripts, rows to skip.

use align_model::data::{
    Combine, Compression, DataError, DatasetConfig, DatasetConfigError, Exhaustion, Fingerprint, Format,
    OnBadRow, PreferenceRecord, PromptRecord, SftRecord, SourceConfig, Transcript, read, stream,
};
use serde_json::{from_value, json};

use crate::files::{Files, numbered, read_texts};

#[test]
fn configurations_have_short_and_long_forms() {
    let source = SourceConfig {
        format: Some(Format::Csv),
        compression: Some(Compression::Gzip),
        transcript: Some(Transcript::ShareGpt),
        on_bad_row: OnBadRow::Skip,
        skip: 3,
        limit: Some(7),
        ..SourceConfig::new("a").column("messages", "chosen")
    };
    let table = json!({
        "path": "a", "format": "csv", "compression": "gzip", "columns": {"messages": "chosen"},
        "transcript": "sharegpt", "on_bad_row": "skip", "skip": 3, "limit": 7,
    });
    assert_eq!(from_value::<DatasetConfig>(table.clone()).unwrap(), source.clone().into());

    let list: DatasetConfig = from_value(json!(["b.jsonl", table])).unwrap();
    assert_eq!(list.sources, [SourceConfig::new("b.jsonl"), source]);
    let mixture = json!({
        "sources": [{"path": "a", "weight": 2}, {"path": "b", "weight": 0.5}],
        "combine": {"kind": "interleave", "stop": "all_exhausted", "seed": 7},
    });
    let mixture: DatasetConfig = from_value(mixture).unwrap();
    assert_eq!(mixture.combine, Combine::Interleave { stop: Exhaustion::AllExhausted, seed: 7 });
    for config in [list, mixture] {
        assert_eq!(from_value::<DatasetConfig>(json!(config)).unwrap(), config);
    }
}

#[test]
fn unknown_keys_and_values_are_errors() {
    let cases = [
        (json!({"path": "a", "colums": {}}), "unknown field `colums`, expected one of `path`"),
        (json!({"format": "csv"}), "missing field `path`"),
        (json!({"path": "a", "format": "xml"}), "unknown variant `xml`"),
        (json!({"path": "a", "weight": 0}), "0 is not a finite number greater than 0"),
        (json!({"sources": ["a"], "path": "b"}), "unknown field `path`"),
        (json!(7), "expected the path of a data file, a list of them, or a table"),
    ];
    for (config, expected) in cases {
        let error = from_value::<DatasetConfig>(config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let check = |config| from_value::<DatasetConfig>(config).unwrap().check().unwrap_err();
    assert_eq!(check(json!([])), DatasetConfigError::NoSources);
    assert!(matches!(check(json!({"path": "a", "weight": 2})), DatasetConfigError::UnusedWeight { .. }));
    assert!(matches!(check(json!({"path": "a", "limit": 0})), DatasetConfigError::NoRows { .. }));
    let field = json!({"path": "a", "format": "csv", "field": "data"});
    assert!(matches!(check(field), DatasetConfigError::UnusedField { .. }));
}

#[test]
fn a_path_may_be_a_directory_or_a_pattern() {
    let files = Files::new();
    files.texts("train-1.jsonl.gz", numbered("b", 2));
    files.texts("train-0.jsonl", numbered("a", 2));
    files.texts("test-0.jsonl", numbered("z", 1));
    files.write("notes.md", "no data");
    assert_eq!(read_texts(files.source("train-*.jsonl*")), ["a0", "a1", "b0", "b1"]);
    assert_eq!(read_texts(files.source("")), ["z0", "a0", "a1", "b0", "b1"]);

    let none = read::<SftRecord>(&files.source("valid-*").into()).unwrap_err();
    assert!(matches!(none, DataError::NoFiles { .. }), "{none}");
    let unknown = read::<SftRecord>(&files.source("notes.md").into()).unwrap_err();
    assert!(matches!(unknown, DataError::UnknownFormat { .. }), "{unknown}");
    let absent = read::<SftRecord>(&files.source("absent.jsonl").into()).unwrap_err();
    assert!(matches!(absent, DataError::Read { .. }), "{absent}");
}

#[test]
fn format_and_compression_can_be_said() {
    let files = Files::new();
    let source = files.write("a.gz", "text\na\n");
    std::fs::rename(files.path("a.gz"), files.path("a.bin")).unwrap();
    let path = files.source("a.bin").path;
    let said =
        SourceConfig { path, format: Some(Format::Csv), compression: Some(Compression::Gzip), ..source };
    assert_eq!(read_texts(said), ["a"]);
}

#[test]
fn some_rows_can_be_passed_over() {
    let files = Files::new();
    let source = files.texts("a.jsonl", numbered("a", 10));
    let some = |skip, limit| SourceConfig { skip, limit, ..source.clone() };
    assert_eq!(read_texts(some(7, None)), ["a7", "a8", "a9"]);
    assert_eq!(read_texts(some(2, Some(3))), ["a2", "a3", "a4"]);
    assert_eq!(read_texts(some(9, Some(usize::MAX))), ["a9"]);
    let error = read::<SftRecord>(&some(10, None).into()).unwrap_err();
    assert!(
        error.to_string().ends_with("of 10 rows, 10 were passed over and 0 are not what was asked for"),
        "{error}"
    );
}

#[test]
fn columns_are_renamed_all_at_once() {
    let files = Files::new();
    let rows = "{\"chosen\": \"good\", \"rejected\": \"bad\", \"prompt\": \"q\", \"text\": \"old\"}\n";
    let source = files.write("a.jsonl", rows);
    let swapped = source.clone().column("chosen", "rejected").column("rejected", "chosen");
    let records = read::<PreferenceRecord>(&swapped.into()).unwrap().records;
    let expected = PreferenceRecord::Text {
        prompt: "q".into(),
        chosen: "bad".into(),
        rejected: "good".into(),
        margin: None,
    };
    assert_eq!(records[0].record, expected);

    let sft = source.clone().column("completion", "chosen");
    let records = read::<SftRecord>(&sft.into()).unwrap().records;
    let expected = SftRecord::PromptCompletion { prompt: "q".into(), completion: "good".into() };
    assert_eq!(records[0].record, expected);
    assert_eq!(records[0].extra.keys().collect::<Vec<_>>(), ["rejected", "text"]);

    let error = read::<SftRecord>(&source.column("messages", "dialog").into()).unwrap_err().to_string();
    let expected = "`columns` takes `messages` from the column `dialog`, which is not there; \
                    found the columns `chosen`, `rejected`, `prompt`, `text`";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn demonstrations_come_out_of_preference_transcripts() {
    let files = Files::new();
    let row = json!({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"});
    let source = files.write("a.jsonl.gz", row.to_string());
    let source = SourceConfig { transcript: Some(Transcript::Anthropic), ..source };
    let pairs = read::<PreferenceRecord>(&source.clone().into()).unwrap().records;
    let PreferenceRecord::Chat { prompt, chosen, rejected, .. } = &pairs[0].record else {
        panic!("{pairs:?}")
    };
    assert_eq!(
        (prompt[0].text(), chosen[0].text(), rejected[0].text()),
        ("a".into(), "b".into(), "c".into())
    );
    let sft = read::<SftRecord>(&source.column("messages", "chosen").into()).unwrap().records;
    assert!(matches!(&sft[0].record, SftRecord::Conversation { messages, .. } if messages.len() == 2));
}

#[test]
fn bad_rows_stop_or_are_skipped_and_counted() {
    let files = Files::new();
    let rows = "{\"text\": \"a\"}\n{\"txt\": 1}\n{\"text\" 1}\n{\"text\": \"b\"}\n{\"text\": 7}\n";
    let source = files.write("a.jsonl", rows);
    let error = read::<SftRecord>(&source.clone().into()).unwrap_err();
    assert!(matches!(error, DataError::Record { line: 2, .. }), "{error}");

    let lenient = SourceConfig { on_bad_row: OnBadRow::Skip, ..source };
    let data = read::<SftRecord>(&lenient.clone().into()).unwrap();
    assert_eq!(data.records.iter().map(|located| located.line).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(data.skipped.count, 3);
    let reasons: Vec<String> = data.skipped.first.iter().map(ToString::to_string).collect();
    assert!(reasons[0].contains("a.jsonl:2: found only the column `txt`"), "{reasons:?}");
    assert!(reasons[1].contains("a.jsonl:3:9: not a JSON object"), "{reasons:?}");
    assert!(reasons[2].contains("a.jsonl:5: column `text` is a number"), "{reasons:?}");

    let error = read::<PromptRecord>(&lenient.into()).unwrap_err();
    assert!(
        matches!(&error, DataError::NoneLeft { rows: 5, passed: 0, bad: 5, first: Some(_), .. }),
        "{error:?}"
    );
    let truncated =
        SourceConfig { on_bad_row: OnBadRow::Skip, ..files.write("b.json", "[{\"text\": \"a\"}, {\"te") };
    assert!(read::<SftRecord>(&truncated.into()).is_err(), "a file that ends too early is no bad row");
}

#[test]
fn a_stream_ends_after_an_error() {
    let files = Files::new();
    let source = files.write("a.jsonl", "{\"text\": \"a\"}\n{}\n{\"text\": \"b\"}\n");
    let items: Vec<_> = stream::<SftRecord>(&source.into()).unwrap().collect();
    assert!(matches!(&items[..], [Ok(_), Err(DataError::Record { line: 2, .. })]), "{items:?}");
}

#[test]
fn fingerprints_are_of_content_and_settings() {
    let files = Files::new();
    let of = |source: &SourceConfig| Fingerprint::of(&source.clone().into()).unwrap();
    let source = files.texts("a.jsonl", numbered("a", 3));
    let first = of(&source);
    assert_eq!(first, of(&files.texts("b.jsonl", numbered("a", 3))), "the place does not matter");
    assert_ne!(first, of(&files.texts("c.jsonl", numbered("a", 4))));
    assert_ne!(first, of(&SourceConfig { limit: Some(2), ..source.clone() }));
    assert_ne!(first, of(&source.column("text", "text")));
    assert_eq!(from_value::<Fingerprint>(json!(first)).unwrap(), first);
    assert_eq!(first.to_string().len(), 64);
    assert!("abc".parse::<Fingerprint>().unwrap_err().to_string().contains("64 hexadecimal digits"));
}
