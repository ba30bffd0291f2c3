//! Inspecting data: planted mistakes are found, in words and as JSON.

use serde_json::Value;

use crate::{preferences, rewards, workplace::Workplace};

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

fn inspected(place: &Workplace, arguments: &str) -> Value {
    let said = place.align(&format!("data inspect {arguments} --json")).succeeded();
    serde_json::from_str(&said).unwrap()
}

fn kinds(found: &Value) -> Vec<(&str, u64)> {
    let problems = found["problems"].as_array().unwrap().iter();
    problems.map(|one| (one["kind"].as_str().unwrap(), one["records"].as_u64().unwrap())).collect()
}

#[test]
fn pairs_are_read_as_their_method_reads_them() {
    let place = preferences::place();
    let found = inspected(&place, "--config dpo.toml --samples 2");
    assert_eq!(
        (&found["method"], &found["records"], &found["layouts"]["pair"]),
        (&"dpo".into(), &8.into(), &8.into())
    );
    let examples = &found["examples"];
    assert_eq!((&examples["plural"], &examples["count"]), (&"pairs".into(), &6.into()));
    let parts: Vec<&Value> = examples["parts"].as_array().unwrap().iter().map(|part| &part["name"]).collect();
    assert_eq!(parts, ["prompt", "chosen", "rejected"]);
    assert_eq!(examples["parts"][1]["lengths"]["maximum"], 6);
    assert_eq!((&examples["learnt"], &examples["limit"]["setting"]), (&66.into(), &"dpo.max_length".into()));
    assert_eq!(lines(&examples["notes"]["identical_pair"]), [7]);
    assert_eq!(lines(&examples["notes"]["nothing_left"]), [8]);
    let sample = &examples["samples"][0]["parts"];
    assert_eq!(
        (&sample[0]["text"], &sample[0]["learnt"], &sample[1]["learnt"]),
        (&"what is a cat".into(), &false.into(), &true.into())
    );
    assert_eq!(found["overlap"]["exact"][0]["training"]["line"], 6);
    let expected = [("near_duplicates", 3), ("contamination", 1), ("identical_pairs", 1), ("left_out", 1)];
    assert_eq!(kinds(&found), expected);
    let cut = inspected(&place, "--config dpo.toml --set dpo.max_length=9");
    assert_eq!(cut["examples"]["lost"], 6);
    assert_eq!(cut["examples"]["notes"]["truncated"].as_array().unwrap().len(), 6);

    let reward = inspected(&place, "--config reward.toml --set reward.max_length=10");
    assert_eq!((&reward["method"], &reward["examples"]["learnt"]), (&"reward".into(), &Value::Null));
    assert_eq!(lines(&reward["examples"]["notes"]["too_long"]), [8]);
    assert_eq!(reward["examples"]["samples"][0]["parts"][1]["learnt"], false);
}

#[test]
fn judgements_are_weighed_against_each_other() {
    let place = preferences::place();
    let found = inspected(&place, "--config kto.toml --set kto.batch_size=2 --set kto.micro_batch_size=2");
    let judgements = &found["examples"]["judgements"];
    // A pair is two judgements, and both of one that prefers a completion to itself contradict each other.
    assert_eq!((&judgements["desirable"], &judgements["undesirable"]), (&7.into(), &7.into()));
    assert_eq!(judgements["batches"], 12);
    let one_sided = judgements["one_sided"].as_u64().unwrap();
    assert!(one_sided > 0 && one_sided < 12, "{found}");
    assert_eq!(found["examples"]["contradictions"][0][0]["line"], 7);
    let row = |label: bool| {
        format!("{{\"prompt\": \"what is a cat\", \"completion\": \" it is\", \"label\": {label}}}\n")
    };
    place.write("judged.jsonl", &(row(true) + &row(true) + &row(false)));
    let found = inspected(&place, "--method kto --data judged.jsonl --model model");
    assert_eq!(found["layouts"]["judged"], 3);
    assert_eq!(lines(&found["examples"]["contradictions"][0]), [1, 3]);
    assert_eq!(found["examples"]["samples"][0]["label"], "desirable");
    place.write("reversed.jsonl", "{\"prompt\": \"a\", \"chosen\": \" cat\", \"rejected\": \" dog\"}\n{\"prompt\": \"a\", \"chosen\": \" dog\", \"rejected\": \" cat\"}\n");
    let found = inspected(&place, "--config dpo.toml --data reversed.jsonl");
    assert_eq!(lines(&found["examples"]["contradictions"][0]), [1, 2]);
    place.align("data inspect --config dpo.toml --data reversed.jsonl --strict").failed("1 contradictions");
}

#[test]
fn prompts_are_read_as_their_method_reads_them() {
    let place = rewards::place();
    for method in ["grpo", "ppo", "online", "raft"] {
        let found = inspected(&place, &format!("--config {method}.toml"));
        assert_eq!((&found["method"], &found["layouts"]["prompt"]), (&method.into(), &4.into()));
        assert_eq!(found["unused_columns"]["answer"], 4);
        let examples = &found["examples"];
        assert_eq!((&examples["count"], &examples["learnt"]), (&3.into(), &Value::Null));
        assert_eq!(lines(&examples["notes"]["fills_context"]), [4]);
        assert_eq!(examples["samples"][0]["parts"][0]["text"], "what is a cat");
        assert_eq!(kinds(&found), [("left_out", 1)]);
    }
}

#[test]
fn the_report_on_other_methods_is_for_people() {
    let place = preferences::place();
    let said = place.align("data inspect --config dpo.toml --samples 1").succeeded();
    for expected in [
        "8 × chosen and rejected, texts\n",
        "examples            6 pairs\n",
        "  prompt            24 in all; 4 to 4 a record",
        "  rejected          30 in all; 5 to 5 a record",
        "learnt              66 tokens, 73.3 %\n",
        "limit               dpo.max_length = 32; 0 tokens are cut off\n",
        "noted               1 pairs prefer a completion to itself and are left out\n",
        "                      pairs.jsonl:7\n",
        "sample              pairs.jsonl:1: what is learnt between ⟦ and ⟧\n",
        "  │ prompt, 4 tokens\n  │   what is a cat\n  │ chosen, 6 tokens\n  │   ⟦ a cat is an animal <end>⟧\n",
        "1 pairs of equal completions, 1 records left out for their lengths",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    let said = place.align("data inspect --method dpo --data pairs.jsonl").succeeded();
    assert!(
        said.contains("without a model only texts were looked at") && said.contains("8 × chosen"),
        "{said}"
    );
    let said = place.align("data inspect --data pairs.jsonl --set reward.max_length=9").succeeded();
    assert!(said.contains("8 × chosen"), "{said}");
    place.align("data inspect --config dpo.toml --set kto.beta=1").failed("unknown field `kto`");
    place
        .align("data inspect --config dpo.toml --set dpo.micro_batch_size=99")
        .failed("[dpo] contradicts itself");
    assert_eq!(place.align("data inspect --config dpo.toml --method dpo").code, 2);
}
