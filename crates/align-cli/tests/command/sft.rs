//! Fine-tuning from a run file to a model that answers.

use serde_json::Value;

use crate::workplace::Workplace;

fn losses(metrics: &str) -> Vec<f64> {
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_run_teaches_the_model() {
    let place = Workplace::new();
    let said = place.align("sft --config run.toml");
    assert!(said.err.contains("step 1/60  loss "), "{}", said.err);
    assert!(said.err.contains("step 60/60  loss "), "{}", said.err);
    let summary = said.succeeded();
    assert!(summary.contains("3 samples, 33 tokens, 18 of them learnt"), "{summary}");
    assert!(summary.contains("columns that are not used: source (3)"), "{summary}");
    assert!(summary.contains("60 steps, ") && summary.contains("wrote the model to out"), "{summary}");

    let losses = losses(&place.read("out/metrics.jsonl"));
    assert_eq!(losses.len(), 60);
    assert!(losses[59] < 0.05 * losses[0], "{losses:?}");

    assert_eq!(
        place.names("out"),
        [
            "chat_template.jinja",
            "checkpoint-000060",
            "config.json",
            "metrics.jsonl",
            "model.safetensors",
            "report.html",
            "run.toml",
            "tensorboard",
            "timing.jsonl",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    let question =
        ["generate", "--model", "out", "--greedy", "--max-new-tokens", "8", "--prompt", "what is a cow"];
    let answer = place.run(&question, "").succeeded();
    assert_eq!(answer, "a cow is an animal\n");
}

#[test]
fn the_settings_are_written_out_and_repeat_the_run() {
    let place = Workplace::new();
    place
        .align("sft --config run.toml --set sft.duration={steps=3} --set sft.update.learning_rate=5e-3 --set save.dtype=bfloat16")
        .succeeded();
    let settings = place.read("out/run.toml");
    assert!(settings.contains("learning_rate = 0.005") && settings.contains("beta1 = 0.9"), "{settings}");
    assert!(settings.contains("date = \""), "{settings}");
    assert!(place.read("out/config.json").contains("\"bfloat16\""));
    place
        .align("sft --config out/run.toml --out again --device flex --model model --data data.jsonl")
        .succeeded();
    assert_eq!(place.read("out/metrics.jsonl"), place.read("again/metrics.jsonl"));
    let weights =
        |directory: &str| std::fs::read(place.path(&format!("{directory}/model.safetensors"))).unwrap();
    assert_eq!(weights("out"), weights("again"));
}

#[test]
fn samples_that_are_cut_or_empty_are_counted() {
    let place = Workplace::new();
    place.write(
        "data.jsonl",
        "{\"text\": \"it is a cat\"}\n{\"text\": \"it is a cat it is a dog it is a cow\"}\n\
         {\"prompt\": \"what is a dog what is a dog\", \"completion\": \" it is\"}\n",
    );
    let said =
        place.align("sft --config run.toml --set sft.max_length=8 --set sft.duration={steps=1}").succeeded();
    assert!(said.contains("2 samples, 13 tokens, 11 of them learnt"), "{said}");
    assert!(said.contains("2 samples were longer than sft.max_length and cut"), "{said}");
    assert!(said.contains("1 samples have no token to learn and are left out"), "{said}");
}

#[test]
fn samples_may_be_packed() {
    let place = Workplace::new();
    let run = "sft --config run.toml --set sft.duration={epochs=2.0}";
    let said = place.align(&format!("{run} --set sft.packing=bfd --set sft.batch_size=8")).succeeded();
    assert!(said.contains("packed into 2 rows of at most 32 tokens"), "{said}");
    assert_eq!(losses(&place.read("out/metrics.jsonl")).len(), 2);
    assert!(place.read("out/run.toml").contains("packing = \"bfd\""));
    place
        .align(&format!("{run} --set sft.packing=wrapped --set sft.truncation=keep_end"))
        .failed("`truncation` = \"keep_end\" has no meaning with `packing` = \"wrapped\"");
}

#[test]
fn a_directory_may_be_overwritten() {
    let place = Workplace::new();
    place.align("sft --config run.toml --set sft.duration={steps=2}").succeeded();
    place.write("out/notes.txt", "mine");
    place.write("out/model-00001-of-00002.safetensors", "stale");
    place.write("out/model.safetensors.index.json", "stale");
    place.align("sft --config run.toml --set sft.duration={steps=1} --overwrite").succeeded();
    let names = place.names("out");
    assert!(
        names.contains(&"notes.txt".to_owned()) && names.contains(&"model.safetensors".to_owned()),
        "{names:?}"
    );
    assert!(!names.iter().any(|name| name.contains("00001-of") || name.contains("index")), "{names:?}");
    assert_eq!(losses(&place.read("out/metrics.jsonl")).len(), 1);
}

#[test]
fn a_run_that_fails_leaves_its_metrics_and_no_model() {
    let place = Workplace::new();
    let said = place.align("sft --config run.toml --set sft.update.learning_rate=1e30");
    said.failed("because: step 2 on data.jsonl:");
    let because = said.err.lines().last().unwrap();
    assert!(
        because.starts_with("  because: the ") && because.contains("NaN: lower `learning_rate`"),
        "{because}"
    );
    assert_eq!(
        place.names("out"),
        ["metrics.jsonl", "report.html", "run.toml", "tensorboard", "timing.jsonl"]
    );
    assert!(place.read("out/report.html").contains("lower `learning_rate`"));
    assert_eq!(losses(&place.read("out/metrics.jsonl")).len(), 1);
}
