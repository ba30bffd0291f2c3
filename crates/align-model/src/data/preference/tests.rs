use serde_json::{Value, json};

use super::*;

fn row(value: &Value) -> Row {
    Row::new(value.as_object().unwrap().clone())
}

fn pair(value: &Value) -> Result<PreferenceRecord, RecordError> {
    PreferenceRecord::from_row(&mut row(value))
}

fn texts(chosen: &str, rejected: &str) -> (String, String, String) {
    match pair(&json!({"chosen": chosen, "rejected": rejected})).unwrap() {
        PreferenceRecord::Text { prompt, chosen, rejected, margin: None } => (prompt, chosen, rejected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_explicit_prompt_stays_as_it_is() {
    let record = pair(&json!({"prompt": "The sky is", "chosen": " blue.", "rejected": " brown."})).unwrap();
    let expected = PreferenceRecord::Text {
        prompt: "The sky is".into(),
        chosen: " blue.".into(),
        rejected: " brown.".into(),
        margin: None,
    };
    assert_eq!(record, expected);
}

#[test]
fn an_implicit_prompt_is_what_both_texts_begin_with() {
    // What TRL's `extract_prompt` gives for the same texts.
    let cases = [
        (("The sky is blue.", "The sky is green."), ("The sky is", " blue.", " green.")),
        (("Ein Bär", "Ein Bad"), ("Ein B", "är", "ad")),
        (("ab", "abcd"), ("a", "b", "bcd")),
        (("same", "same"), ("sam", "e", "e")),
        (("a b", "a bc"), ("a ", "b", "bc")),
        (("xa", "ya"), ("", "xa", "ya")),
    ];
    for ((chosen, rejected), (prompt, short_chosen, short_rejected)) in cases {
        let expected = (prompt.to_owned(), short_chosen.to_owned(), short_rejected.to_owned());
        assert_eq!(texts(chosen, rejected), expected, "{chosen} {rejected}");
    }
    let error = pair(&json!({"chosen": "a", "rejected": ""})).unwrap_err();
    assert_eq!(error, RecordError::EmptyColumn { column: "rejected" });
}

#[test]
fn an_implicit_prompt_is_the_messages_that_both_begin_with() {
    let user = || Message::user("Sky?");
    let (blue, green) = (Message::assistant("Blue."), Message::assistant("Green."));
    let expected = PreferenceRecord::Chat {
        prompt: vec![user()],
        chosen: vec![blue.clone()],
        rejected: vec![green.clone()],
        margin: None,
        template: TemplateColumns::default(),
    };
    let columns = json!({"chosen": [user(), blue], "rejected": [user(), green]});
    assert_eq!(pair(&columns).unwrap(), expected);

    let mut with_prompt = columns.clone();
    with_prompt["prompt"] = "Sky?".into();
    let mut row = row(&with_prompt);
    assert_eq!(PreferenceRecord::from_row(&mut row).unwrap(), expected);
    assert_eq!(
        row.into_rest()["prompt"],
        "Sky?",
        "a prompt that the conversations repeat is an extra column"
    );

    let explicit = json!({"prompt": [user()], "chosen": [blue], "rejected": [green]});
    assert_eq!(pair(&explicit).unwrap(), expected);
}

#[test]
fn equal_conversations_keep_their_last_message() {
    let conversation = json!([Message::user("a"), Message::assistant("b")]);
    let PreferenceRecord::Chat { prompt, chosen, rejected, .. } =
        pair(&json!({"chosen": conversation, "rejected": conversation})).unwrap()
    else {
        panic!("no conversation")
    };
    assert_eq!((prompt.len(), chosen.len()), (1, 1));
    assert_eq!(chosen, rejected);
}

#[test]
fn tools_go_to_the_template() {
    let columns = json!({
        "prompt": [Message::user("a")], "chosen": [Message::assistant("b")], "rejected": [Message::assistant("c")],
        "tools": [{"type": "function"}], "chat_template_kwargs": {"enable_thinking": false},
    });
    let PreferenceRecord::Chat { template, .. } = pair(&columns).unwrap() else { panic!("no conversation") };
    assert_eq!(template.tools, Some(vec![json!({"type": "function"})]));
    assert_eq!(template.chat_template_kwargs["enable_thinking"], false);
}

#[test]
fn preferences_that_cannot_be_used_are_refused() {
    let (user, assistant) = (json!([Message::user("a")]), json!([Message::assistant("b")]));
    let cases = [
        (
            json!({"chosen": assistant, "rejected": "b"}),
            "column `rejected` is a string but `chosen` is a list of messages",
        ),
        (
            json!({"prompt": user, "chosen": "b", "rejected": "c"}),
            "column `chosen` is a string but `prompt` is a list of messages",
        ),
        (
            json!({"chosen": assistant, "rejected": assistant}),
            "`chosen` and `rejected` do not begin with the same message",
        ),
        (
            json!({"prompt": user, "chosen": user, "rejected": assistant}),
            "column `chosen` has no message with the role `assistant`",
        ),
        (
            json!({"prompt": "a", "preferred": "b", "loser": "c"}),
            "expected `chosen` and `rejected`, with `prompt` or without: rename `preferred` to `chosen`, rename `loser` to \
             `rejected`",
        ),
        (json!({"prompt": "a", "chosen": "b"}), ": `rejected` is missing"),
    ];
    for (columns, expected) in cases {
        let error = pair(&columns).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn unpaired_preferences_have_a_label() {
    let unpaired = |value: &Value| UnpairedRecord::from_row(&mut row(value));
    for (label, expected) in [
        (json!(true), true),
        (json!(0), false),
        (json!(1.0), true),
        (json!("False"), false),
        (json!("1"), true),
    ] {
        let record = unpaired(&json!({"prompt": "a", "completion": "b", "label": label})).unwrap();
        let expected = UnpairedRecord::Text { prompt: "a".into(), completion: "b".into(), label: expected };
        assert_eq!(record, expected);
    }
    let chat =
        json!({"prompt": [Message::user("a")], "completion": [Message::assistant("b")], "label": false});
    assert!(matches!(unpaired(&chat).unwrap(), UnpairedRecord::Chat { label: false, .. }));
    let error = unpaired(&json!({"prompt": "a", "completion": "b", "label": "good"})).unwrap_err();
    assert_eq!(error.to_string(), "column `label` is a string, expected true or false");
    let error = unpaired(&json!({"prompt": "a", "answer": "b", "label": true})).unwrap_err();
    assert!(error.to_string().ends_with("`label`: rename `answer` to `completion`"), "{error}");
}

#[test]
fn a_pair_becomes_two_labelled_completions() {
    let [good, bad] = pair(&json!({"prompt": "a", "chosen": "b", "rejected": "c"})).unwrap().unpair();
    assert_eq!(good, UnpairedRecord::Text { prompt: "a".into(), completion: "b".into(), label: true });
    assert_eq!(bad, UnpairedRecord::Text { prompt: "a".into(), completion: "c".into(), label: false });
}

#[test]
fn a_margin_is_a_number_where_there_is_one() {
    let margin = |value: Value| {
        let row = json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": value});
        pair(&row).map(|record| match record {
            PreferenceRecord::Text { margin, .. } | PreferenceRecord::Chat { margin, .. } => margin,
        })
    };
    assert_eq!(margin(json!(0.5)), Ok(Some(0.5)));
    assert_eq!(margin(json!("2")), Ok(Some(2.0)));
    assert_eq!(margin(Value::Null), Ok(None));
    let error = margin(json!("large")).unwrap_err();
    assert_eq!(error.to_string(), "column `margin` is a string, expected a finite number");
}
