//! The whole quickstart, as a user runs it.

#![allow(clippy::unwrap_used, reason = "tests stop at what they did not expect")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use align_model::{
    chat::{ChatTemplates, Message, RenderOptions},
    generate::{Completer as _, Decoding, Finish, GenerationConfig, LocalCompleter, SamplingConfig, StopAt},
    pretrained::Checkpoint,
};
use burn::tensor::Device;
use serde_json::Value;

#[test]
fn the_quickstart_makes_an_assistant() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let output = Command::new(env!("CARGO_BIN_EXE_align"))
        .args(["quickstart", "--seed", "0", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("report.html"), "{said}");
    let results: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    check_results(&results);
    check_files(&out);
    check_page(&std::fs::read_to_string(out.join("report.html")).unwrap());
    check_model(&out.join("sft"), &results);
}

fn check_results(results: &Value) {
    let stage = |index: usize| &results["stages"][index]["evaluation"];
    let (base, sft) = (stage(0), stage(1));
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(results["held_out"].as_array().unwrap().len() >= 240);
    assert_eq!(sft["accuracy"]["total"], base["accuracy"]["total"]);
    let (before, after) = (number(&base["accuracy"]["share"]), number(&sft["accuracy"]["share"]));
    assert!(after > 0.8, "{after} of the held-out requests are answered right");
    assert!(after - before > 0.5, "{before} before, {after} after");
    assert!(number(&sft["accuracy"]["low"]) > number(&base["accuracy"]["high"]));
    assert!(number(&sft["answer_nll"]) < number(&base["answer_nll"]));
    assert!(number(&sft["ended"]["share"]) > 0.95);
    check_preferences(results);
    check_scores(results);
    let seconds = number(&results["timing"]["total_seconds"]);
    // Under three minutes on two free cores; the machine of a test is seldom free.
    assert!(seconds < 600.0, "{seconds} s");
}

/// The reward model tells better answers from worse, and preference learning makes answers better.
fn check_preferences(results: &Value) {
    let (sft, dpo) = (&results["stages"][1]["evaluation"], &results["stages"][2]["evaluation"]);
    let number = |value: &Value| value.as_f64().unwrap();
    let reward = &results["reward"]["accuracy"];
    assert!(number(&reward["share"]) > 0.9, "{reward}");
    let wins = &results["duel"]["wins"];
    assert!(number(&wins["low"]) > 0.8 && number(&wins["total"]) > 100.0, "{wins}");
    assert!(number(&dpo["preferred"]["low"]) > number(&sft["preferred"]["high"]), "{}", dpo["preferred"]);
    assert!(number(&dpo["kind"]["low"]) > number(&sft["kind"]["high"]), "{}", dpo["kind"]);
    assert!(number(&dpo["accuracy"]["share"]) > number(&sft["accuracy"]["share"]) - 0.05);
}

/// Learning from scores makes what is scored better on requests that nothing was trained on.
fn check_scores(results: &Value) {
    let number = |value: &Value| value.as_f64().unwrap();
    for (index, name, kept) in [(3, "ppo", 0.7), (4, "grpo", 0.9)] {
        let stage = &results["stages"][index];
        assert_eq!(stage["name"], name);
        let (before, after) = (&stage["gain"]["before"], &stage["gain"]["after"]);
        assert!(number(&after["low"]) > number(&before["high"]), "{name}: {before} {after}");
        let (accuracy, kind) = (&stage["evaluation"]["accuracy"], &stage["evaluation"]["kind"]);
        assert!(number(&accuracy["share"]) > kept, "{name}: {accuracy}");
        assert!(number(&kind["low"]) > 0.5, "{name}: {kind}");
    }
}

fn check_files(out: &Path) {
    for name in ["base", "sft", "dpo", "ppo", "grpo"] {
        for file in [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ] {
            assert!(out.join(name).join(file).is_file(), "{name}/{file}");
        }
    }
    for name in ["base", "sft", "reward", "dpo", "ppo", "grpo"] {
        let metrics = std::fs::read_to_string(out.join(format!("metrics-{name}.jsonl"))).unwrap();
        let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() >= 50 && lines.iter().all(|line| line["loss"].is_f64()));
    }
}

/// Nothing on the page comes from elsewhere, and nothing runs.
fn check_page(page: &str) {
    let page = page.to_lowercase();
    for forbidden in ["<script", "<link", "<iframe", "<img", "@import", "url(", " src=", "href=", "onload="] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let addresses = page.matches("http").count();
    assert_eq!(addresses, page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    assert!(page.contains("<polyline"));
}

/// The saved model, loaded as any other, says what the run said that it says.
fn check_model(directory: &Path, results: &Value) {
    let answers = results["stages"][1]["evaluation"]["answers"].as_array().unwrap();
    let index = answers.iter().position(|answer| answer["correct"] == true).unwrap();
    let request = results["held_out"][index]["request"].as_str().unwrap();
    let checkpoint = Checkpoint::open(directory).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let completer = LocalCompleter {
        model: &checkpoint.load(&Device::flex()).unwrap(),
        tokenizer: &tokenizer,
        templates: &ChatTemplates::from_tokenizer(&tokenizer).unwrap(),
        render: RenderOptions::prompt(),
        generation: GenerationConfig {
            max_new_tokens: NonZeroUsize::new(24).unwrap(),
            sampling: SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() },
            stop: StopAt { tokens: checkpoint.end_tokens(), strings: Vec::new() },
            ..GenerationConfig::default()
        },
    };
    let completions = completer.complete(&[vec![Message::user(request)]]).unwrap();
    assert_eq!(completions[0].text, answers[index]["text"].as_str().unwrap());
    assert!(matches!(completions[0].finish, Finish::StopToken(_)));
}
