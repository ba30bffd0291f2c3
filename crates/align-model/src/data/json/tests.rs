use super::super::{DataError, Located, SftRecord, SourceConfig, read};

fn read_field(content: impl AsRef<[u8]>, field: Option<&str>) -> Result<Vec<Located<SftRecord>>, DataError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.json");
    std::fs::write(&path, content).unwrap();
    let source = SourceConfig::new(path.to_str().unwrap());
    let source = SourceConfig { field: field.map(str::to_owned), ..source };
    read(&source.into()).map(|data| data.records)
}

fn texts(content: &str, field: Option<&str>) -> Vec<(usize, String)> {
    let text = |located: Located<SftRecord>| match located.record {
        SftRecord::Text { text } => (located.line, text),
        other => panic!("{other:?}"),
    };
    read_field(content, field).unwrap().into_iter().map(text).collect()
}

fn expected(rows: &[(usize, &str)]) -> Vec<(usize, String)> {
    rows.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
}

#[test]
fn arrays_are_read_element_by_element() {
    let pretty = "[\n  {\n    \"text\": \"a ] } \\\" [\"\n  },\n  {\"text\": \"b\"}, {\"text\": \"c\"}\n]\n";
    let rows = expected(&[(2, "a ] } \" ["), (5, "b"), (5, "c")]);
    assert_eq!(texts(pretty, None), rows);
    assert_eq!(texts("\u{feff} [{\"text\":\"a\"},{\"text\":\"b\"}]", None), expected(&[(1, "a"), (1, "b")]));
}

#[test]
fn a_field_may_hold_the_array() {
    let file = "{\"version\": \"1,}\", \"meta\": {\"data\": []}, \"data\": [\n{\"text\": \"a\"}], \"end\": [1, 2]}\n";
    assert_eq!(texts(file, Some("data")), expected(&[(2, "a")]));
    let error = read_field(file, Some("rows")).unwrap_err();
    assert!(
        error.to_string().ends_with("no field `rows` with a list of rows (found: version, meta, data, end)"),
        "{error}"
    );
    assert!(
        read_field("[]", Some("rows"))
            .unwrap_err()
            .to_string()
            .contains(":1:1: not a JSON object: found `[`")
    );
}

#[test]
fn objects_may_follow_each_other() {
    assert_eq!(
        texts("{\"text\": \"a\"}\n\n{\n\"text\": \"b\"} {\"text\": \"c\"}", None),
        expected(&[(1, "a"), (3, "b"), (4, "c")])
    );
}

#[test]
fn an_empty_file_or_array_has_no_records() {
    for content in ["", " \n", "[]", "[ \n ]\n"] {
        assert!(matches!(read_field(content, None), Err(DataError::Empty { .. })), "{content:?}");
    }
}

#[test]
fn errors_name_line_and_column_of_the_file() {
    let cases = [
        ("[\n  {\"text\": \"a\"},\n  {\"text\" 1}\n]", ":3:11: not a JSON object: expected `:`"),
        ("[\n  {\"text\": \"a\",\n   \"b\" 1}\n]", ":3:8: not a JSON object: expected `:`"),
        ("[{\"text\": \"a\"} {\"text\": \"b\"}]", ":1:16: not a JSON object: found `{`, expected `,` or `]`"),
        ("[{\"text\": \"a\"},\n", ":2:1: not a JSON object: the file ends, expected a value"),
        ("[{\"text\": \"a\"}", ":1:15: not a JSON object: the file ends, expected `,` or `]`"),
        ("[{\"text\": \"a\"},]", ":1:16: not a JSON object: found `]`, expected a value"),
        ("[{\"text\": \"a", ":1:12: not a JSON object: EOF while parsing a string"),
        ("[{\"text\": \"a\"}] 7", ":1:17: not a JSON object: found `7`, expected the end of the file"),
        ("[7]", ":1:2: not a JSON object: invalid type: integer `7`, expected a map"),
        ("[{\"text\": \"a\"},\n {\"txt\": 1}]", ":2: found only the column `txt`"),
        (
            "17",
            ":1:1: not a JSON object: found `1`, expected an array of objects, or objects one after another",
        ),
    ];
    for (content, expected) in cases {
        let error = read_field(content, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{content:?}: {error}");
    }
    let error = read_field(b"[{\"text\":\n \"caf\xe9\"}]", None).unwrap_err();
    assert!(matches!(error, DataError::NotUtf8 { line: 2, column: 6, .. }), "{error}");
}
