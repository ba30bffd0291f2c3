//! Inspecting data: planted mistakes are found, in words and as JSON.

use serde_json::Value;

use crate::workplace::Workplace;

/// Line 2 repeats line 1, line 4 has no assistant, line 5 a role twice, line 6 is no demonstration, line 7 is long.
const TRAIN: &str = r#"{"prompt": [{"role": "user", "content": "what is a cat"}], "completion": [{"role": "assistant", "content": "a cat is an animal"}], "source": "farm"}
{"prompt": [{"role": "user", "content": "what is a cat"}], "completion": [{"role": "assistant", "content": "a cat is an animal"}], "source": "copy"}
{"text": "it is a dog"}
{"messages": [{"role": "user", "content": "who says moo"}]}
{"messages": [{"role": "user", "content": "who"}, {"role": "user", "content": "says moo"}, {"role": "assistant", "content": "a cow"}]}
{"question": "what is a cow"}
{"prompt": "what is a dog who is a dog what is a dog who says moo what is a cow", "completion": " it is an animal it is an animal"}
"#;

const EVALUATION: &str = r#"{"text": "It is a dog!"}
{"question": "what is a dog who is a dog what is a dog who says", "choices": ["a cow"]}
{"text": "what is an animal who says it is a cow"}
"#;

fn place() -> Workplace {
    let place = Workplace::new();
    place.write("train.jsonl", TRAIN);
    place.write("evaluation.jsonl", EVALUATION);
    place
}

fn json(place: &Workplace, arguments: &str) -> Value {
    let said = place.align(&format!("data inspect --data train.jsonl {arguments} --json")).succeeded();
    serde_json::from_str(&said).unwrap()
}

fn lines(places: &Value) -> Vec<u64> {
    places.as_array().unwrap().iter().map(|place| place["line"].as_u64().unwrap()).collect()
}

#[test]
fn planted_mistakes_are_found() {
    let place = place();
    let found = json(&place, "--evaluation evaluation.jsonl");
    assert_eq!((found["records"].as_u64(), found["layouts"]["refused"].as_u64()), (Some(7), Some(2)));
    assert_eq!(found["unused_columns"]["source"], 2);
    assert_eq!(found["refused"][0]["place"]["line"], 6);
    assert_eq!(found["conversations"][0]["oddities"][0]["kind"], "no_assistant");
    assert_eq!(found["conversations"][1]["oddities"][0]["kind"], "same_role_twice");
    assert_eq!(lines(&found["exact_duplicates"][0]["places"]), [1, 2]);
    assert!(found["tokens"].is_null());
    let overlap = &found["overlap"];
    assert_eq!(overlap["exact"][0]["evaluation"]["line"], 1);
    assert_eq!(overlap["exact"][0]["training"]["line"], 3);
    assert_eq!(
        (overlap["ngrams"]["compared"].as_u64(), overlap["ngrams"]["too_short"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(overlap["ngrams"]["records"][0]["evaluation"]["line"], 2);
    let problems: Vec<&str> = found["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["kind"].as_str().unwrap())
        .collect();
    assert_eq!(problems, ["refused", "odd_conversations", "exact_duplicates", "contamination"]);
}

#[test]
fn a_model_shows_what_is_learnt_and_what_is_cut() {
    let place = place();
    let found = json(&place, "--model model --set sft.max_length=16 --samples 9");
    let tokens = &found["tokens"];
    // Two of 11, one of 5, one of 8, and the long one of 28.
    assert_eq!(tokens["lengths"]["count"], 5);
    assert_eq!(
        (tokens["lengths"]["minimum"].as_u64(), tokens["lengths"]["maximum"].as_u64()),
        (Some(5), Some(28))
    );
    assert_eq!(tokens["truncated"]["samples"], 1);
    assert_eq!(tokens["truncated"]["tokens"], 12);
    assert_eq!(lines(&tokens["without_loss"]), [7]);
    let packing = tokens["packing"].as_array().unwrap();
    let names: Vec<&Value> = packing.iter().map(|one| &one["packing"]).collect();
    assert_eq!(names, [&Value::Null, &"bfd".into(), &"bfd_split".into(), &"wrapped".into()]);
    assert!(packing[1]["rows"].as_u64() < packing[0]["rows"].as_u64());
    let samples = tokens["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 5);
    let learnt = samples[0]["segments"].as_array().unwrap().iter().filter(|piece| piece["learnt"] == true);
    let learnt: String = learnt.map(|piece| piece["text"].as_str().unwrap()).collect();
    assert_eq!(learnt.trim(), "a cat is an animal <end>");
}

#[test]
fn the_report_is_for_people() {
    let place = place();
    let said = place
        .align("data inspect --config run.toml --data train.jsonl --evaluation evaluation.jsonl --samples 1")
        .succeeded();
    for expected in [
        "records             7\n",
        "unused columns      source (2)\n",
        "train.jsonl:6: found only the column `question`",
        "train.jsonl:4: the assistant says nothing\n",
        "train.jsonl:5: message 2: user speaks twice in a row\n",
        "0 samples are longer than 32 tokens; 0 tokens are lost",
        "train.jsonl:1, train.jsonl:2 (similarity 1.00)\n",
        "evaluation.jsonl:1: as train.jsonl:3 (similarity 1.00)\n",
        "what is a cat⟦ a cat is an animal <end>⟧",
        "problems            1 rows that cannot be trained on, 2 odd conversations, 1 repeated records, ",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn problems_fail_only_a_strict_inspection() {
    let place = place();
    let said = place.align("data inspect --data train.jsonl --strict");
    said.failed("the data has problems: 1 rows that cannot be trained on");
    assert!(said.out.contains("records             7"), "{}", said.out);
    place.align("data inspect --data data.jsonl --model model --strict").succeeded();
    place.align("data inspect --data none.jsonl").failed("cannot read none.jsonl");
    place
        .align("data inspect --data data.jsonl --set sft.max_len=3")
        .failed("--set sft.max_len=3: unknown field");
    assert_eq!(place.align("data inspect").code, 2);
}
