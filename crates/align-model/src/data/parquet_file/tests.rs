use std::{fs::File, path::Path, sync::Arc};

use parquet::{
    column::writer::ColumnWriter,
    data_type::ByteArray,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use proptest::prelude::*;
use serde_json::json;

use super::super::{
    Compression, DataError, DatasetConfig, Format, PreferenceRecord, RecordError, SftRecord, SourceConfig,
    UnpairedRecord, read, stream,
};
use super::{DataFile, ParquetRows};
use crate::chat::Message;

const SCHEMA: &str = "message rows {
    optional group messages (LIST) { repeated group list { optional group element {
        optional binary role (UTF8); optional binary content (UTF8);
    } } }
    optional binary text (UTF8);
    required boolean label;
}";

/// A row of that schema.
#[derive(Clone, Default)]
struct Columns {
    messages: Option<Vec<(&'static str, String)>>,
    text: Option<String>,
    label: bool,
}

fn write(path: &Path, groups: &[Vec<Columns>]) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = Arc::new(WriterProperties::default());
    let mut file = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for rows in groups {
        let mut group = file.next_row_group().unwrap();
        let mut index = 0;
        while let Some(mut column) = group.next_column().unwrap() {
            match column.untyped() {
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    let (values, definitions, repetitions) = texts(rows, index);
                    let repetitions = (index < 2).then_some(repetitions.as_slice());
                    writer.write_batch(&values, Some(&definitions), repetitions).unwrap();
                }
                ColumnWriter::BoolColumnWriter(writer) => {
                    let values: Vec<bool> = rows.iter().map(|row| row.label).collect();
                    writer.write_batch(&values, None, None).unwrap();
                }
                _ => panic!("another column"),
            }
            column.close().unwrap();
            index += 1;
        }
        group.close().unwrap();
    }
    file.close().unwrap();
}

/// Values, definition and repetition levels of one column of text.
fn texts(rows: &[Columns], column: usize) -> (Vec<ByteArray>, Vec<i16>, Vec<i16>) {
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if column == 2 {
            definitions.push(i16::from(row.text.is_some()));
            values.extend(row.text.as_deref().map(ByteArray::from));
            continue;
        }
        match &row.messages {
            None => definitions.push(0),
            Some(list) if list.is_empty() => definitions.push(1),
            Some(list) => {
                for (at, (role, content)) in list.iter().enumerate() {
                    values.push(if column == 0 { *role } else { content.as_str() }.into());
                    definitions.push(4);
                    repetitions.push(i16::from(at > 0));
                }
                continue;
            }
        }
        repetitions.push(0);
    }
    (values, definitions, repetitions)
}

fn text(text: &str) -> Columns {
    Columns { text: Some(text.to_owned()), ..Columns::default() }
}

fn config(path: &Path) -> DatasetConfig {
    path.to_str().unwrap().into()
}

#[test]
fn nested_columns_become_messages() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.parquet");
    let messages = vec![("user", "hi".to_owned()), ("assistant", "höllo".to_owned())];
    let conversation = Columns { messages: Some(messages), ..Columns::default() };
    write(&path, &[vec![text("a"), conversation], vec![], vec![text("b")]]);

    let records = read::<SftRecord>(&config(&path)).unwrap().records;
    assert_eq!(records.iter().map(|located| located.line).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(records[0].record, SftRecord::Text { text: "a".into() });
    let SftRecord::Conversation { messages, .. } = &records[1].record else { panic!("{records:?}") };
    assert_eq!(*messages, [Message::user("hi"), Message::assistant("höllo")]);
    assert_eq!(records[1].extra["label"], json!(false));
    assert!(!records[1].extra.contains_key("text"), "null is an absent value");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_rows_survive(groups in prop::collection::vec(prop::collection::vec(
        (prop::collection::vec("(?s).{0,6}", 0..4), prop::option::of("(?s).{0,6}")), 0..40,
    ), 1..4)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("train.parquet");
        let row = |(contents, text): &(Vec<String>, Option<String>)| Columns {
            messages: Some(contents.iter().map(|content| ("user", content.clone())).collect()),
            text: text.clone(),
            label: contents.len() % 2 == 1,
        };
        write(&path, &groups.iter().map(|rows| rows.iter().map(row).collect()).collect::<Vec<_>>());
        let file = DataFile { path: path.into(), format: Format::Parquet, compression: Compression::None };
        let read: Vec<_> = ParquetRows::open(&file).unwrap().map(Result::unwrap).collect();
        let rows = groups.iter().flatten().enumerate().map(|(index, (contents, text))| {
            let messages: Vec<_> = contents.iter().map(Message::user).collect();
            let columns = json!({"messages": messages, "text": text, "label": contents.len() % 2 == 1});
            (index + 1, columns.as_object().unwrap().clone())
        });
        assert_eq!(read, rows.collect::<Vec<_>>());
    }
}

#[test]
fn wrong_types_are_named_with_column_and_row() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.parquet");
    let empty = Columns { messages: Some(vec![]), ..Columns::default() };
    write(&path, &[vec![text("a")], vec![empty]]);
    let error = read::<SftRecord>(&config(&path)).unwrap_err();
    assert!(error.to_string().contains("train.parquet:2: column `messages` has no messages"), "{error}");

    let source =
        SourceConfig::new(path.to_str().unwrap()).column("prompt", "label").column("completion", "text");
    let error = read::<SftRecord>(&source.into()).unwrap_err();
    assert!(
        error.to_string().contains(":1: column `prompt` is a boolean, expected a string or a list"),
        "{error}"
    );

    let source = SourceConfig::new(path.to_str().unwrap()).column("chosen", "good");
    let error = read::<PreferenceRecord>(&source.into()).unwrap_err();
    assert!(
        error.to_string().ends_with("is not there; found the columns `messages`, `text`, `label`"),
        "{error}"
    );
}

#[test]
fn booleans_are_labels() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.parquet");
    write(&path, &[vec![Columns { label: true, ..text("a") }]]);
    let source =
        SourceConfig::new(path.to_str().unwrap()).column("prompt", "text").column("completion", "text");
    let records = read::<UnpairedRecord>(&source.into()).unwrap().records;
    let expected = UnpairedRecord::Text { prompt: "a".into(), completion: "a".into(), label: true };
    assert_eq!(records[0].record, expected);
}

#[test]
fn compressed_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.parquet");
    write(&path, &[vec![text("a"), text("b")]]);
    let compressed = directory.path().join("train.parquet.zst");
    std::fs::write(&compressed, zstd::encode_all(File::open(&path).unwrap(), 0).unwrap()).unwrap();
    assert_eq!(read::<SftRecord>(&config(&compressed)).unwrap().records.len(), 2);
}

#[test]
fn files_that_are_cut_off_or_no_parquet_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.parquet");
    write(&path, &[vec![text("a"); 100]]);
    let whole = std::fs::read(&path).unwrap();
    for length in [4, 9, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = read::<SftRecord>(&config(&path)).unwrap_err();
        assert!(matches!(error, DataError::Truncated { .. }), "{length}: {error}");
    }
    for content in ["", "PAR", "{\"text\": \"a\"}\n"] {
        std::fs::write(&path, content).unwrap();
        let error = read::<SftRecord>(&config(&path)).unwrap_err();
        assert!(matches!(error, DataError::Parquet { row: None, .. }), "{error}");
    }
}

#[test]
fn damaged_files_are_errors_and_no_panics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.parquet");
    write(&path, &[vec![text("abcdefgh"); 20], vec![text("b")]]);
    let whole = std::fs::read(&path).unwrap();
    for place in (4..whole.len() - 8).step_by(7) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        std::fs::write(&path, &damaged).unwrap();
        if let Err(error) = read::<SftRecord>(&config(&path)) {
            assert!(
                matches!(
                    error,
                    DataError::Parquet { .. } | DataError::Record { .. } | DataError::Empty { .. }
                ),
                "{error:?}"
            );
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.parquet");
    let schema = Arc::new(parse_message_type("message rows { required binary text; }").unwrap());
    let create = File::create(&path).unwrap();
    let mut file = SerializedFileWriter::new(create, schema, Arc::default()).unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let ColumnWriter::ByteArrayColumnWriter(writer) = column.untyped() else { panic!("another column") };
    writer.write_batch(&[ByteArray::from("unmarked"), ByteArray::from(vec![0xff])], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();

    let mut records = stream::<SftRecord>(&config(&path)).unwrap();
    assert_eq!(records.next().unwrap().unwrap().record, SftRecord::Text { text: "unmarked".into() });
    let error = records.next().unwrap().unwrap_err();
    assert!(
        matches!(&error, DataError::Record { line: 2, problem: RecordError::Binary { column }, .. } if column == "text"),
        "{error}"
    );
    assert!(records.next().is_none(), "a stream ends after its first error");
}
