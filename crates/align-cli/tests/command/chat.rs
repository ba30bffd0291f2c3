//! Talking through a pipe.

use serde_json::Value;

use crate::workplace::Workplace;

#[test]
fn a_conversation_is_held_and_saved() {
    let place = Workplace::new();
    let input = "what is a cat\n\n/system cow\nwhat is a dog\nwho says moo\n/save talk.jsonl\n/nonsense\n/exit\nlost\n";
    let said = place.align_with("chat --model model --greedy --max-new-tokens 4", input);
    assert!(
        said.err.contains("appended to talk.jsonl") && said.err.contains("/reset, /system"),
        "{}",
        said.err
    );
    let answers: Vec<String> = said.succeeded().lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), 3);

    let line: Value = serde_json::from_str(&place.read("talk.jsonl")).unwrap();
    let messages = line["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(messages[2]["content"], answers[1]);
    assert_eq!(messages[4]["content"], answers[2]);

    place.align("sft --config run.toml --data talk.jsonl --set sft.duration={steps=1}").succeeded();
}

#[test]
fn a_conversation_can_begin_anew() {
    let place = Workplace::new();
    let flags = "chat --model model --greedy --max-new-tokens 4";
    let said = place.align_with(flags, "cat\n/reset\ncat\n").succeeded();
    let answers: Vec<&str> = said.lines().collect();
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_line_that_fails_does_not_end_the_conversation() {
    let place = Workplace::new();
    let long = "cat ".repeat(60);
    let input = format!("/save early.jsonl\n{long}\ncat\n/save\n");
    let said = place.align_with("chat --model model --greedy --max-new-tokens 4", &input);
    assert!(said.err.contains("error: nothing has been said yet"), "{}", said.err);
    assert!(said.err.contains("no room in the model's context of 48"), "{}", said.err);
    assert!(said.err.contains("error: /save needs a file"), "{}", said.err);
    assert_eq!(said.succeeded().lines().count(), 1);
}

#[test]
fn a_model_without_template_cannot_chat() {
    let place = Workplace::new();
    std::fs::remove_file(place.path("model/chat_template.jinja")).unwrap();
    place.align_with("chat --model model", "cat\n").failed("has no chat template");
}
