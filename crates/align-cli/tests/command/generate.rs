//! Prompts from every place, and answers in every form.

use serde_json::Value;

use crate::workplace::Workplace;

fn objects(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_answer_is_an_object() {
    let place = Workplace::new();
    let said =
        place.align("generate --model model --prompt cat --json --samples 2 --max-new-tokens 5 --seed 3");
    let found = objects(&said.succeeded());
    assert_eq!(found.len(), 2);
    for (sample, answer) in found.iter().enumerate() {
        assert_eq!(answer["prompt"], "cat");
        assert_eq!(answer["sample"], sample);
        let tokens = answer["tokens"].as_array().unwrap();
        assert_eq!(answer["log_probs"].as_array().unwrap().len(), tokens.len());
        let reason = answer["finish"].as_str().unwrap();
        assert!(reason == "stop_token" || (reason == "length" && tokens.len() == 5), "{answer}");
        assert!(!answer["text"].as_str().unwrap().contains('<'), "{answer}");
    }
    let again =
        place.align("generate --model model --prompt cat --json --samples 2 --max-new-tokens 5 --seed 3");
    assert_eq!(objects(&again.succeeded()), found);
}

#[test]
fn prompts_come_from_a_file_or_the_standard_input() {
    let place = Workplace::new();
    let lines = "what is a cat\n{\"prompt\": \"what is a dog\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"cow\"}]}\n";
    place.write("prompts.jsonl", lines);
    let flags = "generate --model model --json --greedy --max-new-tokens 3";
    let from_file = place.align(&format!("{flags} --prompts prompts.jsonl")).succeeded();
    assert_eq!(place.align_with(flags, lines).succeeded(), from_file);
    let found = objects(&from_file);
    assert_eq!(found[1]["prompt"], "what is a dog");
    assert_eq!(found[2]["prompt"][0]["content"], "cow");
}

#[test]
fn several_answers_are_told_apart() {
    let place = Workplace::new();
    let said = place
        .align("generate --model model --prompt cat --prompt dog --top-k 3 --max-new-tokens 2")
        .succeeded();
    assert!(said.contains("--- prompt 0, sample 0\n") && said.contains("--- prompt 1, sample 0\n"), "{said}");
}

#[test]
fn tokens_are_listed_with_their_log_probabilities() {
    let place = Workplace::new();
    let said = place
        .align("generate --model model --prompt cat --log-probs --greedy --max-new-tokens 2")
        .succeeded();
    let first: Vec<&str> = said.lines().next().unwrap().split_whitespace().collect();
    assert!(first[0].parse::<f64>().unwrap() <= 0.0 && first[2].starts_with('"'), "{said}");
}

#[test]
fn the_template_is_used_unless_the_text_is_raw() {
    let place = Workplace::new();
    let flags = "generate --model model --prompt cat --json --max-new-tokens 4 --greedy";
    let framed = objects(&place.align(flags).succeeded());
    let raw = objects(&place.align(&format!("{flags} --raw")).succeeded());
    assert_ne!(framed[0]["log_probs"], raw[0]["log_probs"]);
    let told = objects(&place.align(&format!("{flags} --system cow")).succeeded());
    assert_ne!(framed[0]["log_probs"], told[0]["log_probs"]);

    std::fs::remove_file(place.path("model/chat_template.jinja")).unwrap();
    let said = place.align(flags);
    assert!(said.err.contains("note: the model has no chat template"), "{}", said.err);
    assert_eq!(objects(&said.succeeded()), raw);
    place.align(&format!("{flags} --system cow")).failed("--system needs a chat template");
}

#[test]
fn a_stop_string_ends_an_answer() {
    let place = Workplace::new();
    let flags = "generate --model model --raw --prompt cat --json --greedy --max-new-tokens 6";
    let free = objects(&place.align(flags).succeeded())[0]["text"].as_str().unwrap().to_owned();
    let last = free.split(' ').next_back().unwrap();
    let stopped = objects(&place.align(&format!("{flags} --stop {last}")).succeeded());
    assert_eq!(stopped[0]["finish"], "stop_string");
    assert_eq!(stopped[0]["text"], free[..free.find(last).unwrap()]);
}
