//! Learning from a teacher: whose completions it is on, and what is kept of it.

use std::fs;

use serde_json::{Value, json};

use crate::workplace::{CONTEXT, Workplace};

const RUN: &str = "distill --config distill.toml";

/// A teacher, prompts with completions and without, and a run file.
pub(crate) fn place() -> Workplace {
    let place = Workplace::new();
    place.write_model("teacher", 64);
    let animals = ["cat", "dog", "cow"];
    let prompt = |animal: &str| format!("{}\n", json!({ "prompt": format!("what is a {animal}"), "id": 7 }));
    place.write("prompts.jsonl", &animals.map(prompt).concat());
    let answered = |animal: &str| {
        format!(
            "{}\n",
            json!({ "prompt": format!("what is a {animal}"), "completion": " it says moo who says moo" })
        )
    };
    place.write("answered.jsonl", &animals.map(answered).concat());
    let held_out =
        |prompt: &str| format!("{}\n", json!({ "prompt": prompt, "completion": " it is an animal" }));
    place.write("held_out.jsonl", &["who says moo", "is it a cow"].map(held_out).concat());
    place.write(
        "distill.toml",
        "model = \"model\"\nout = \"out\"\n\n[data]\ntrain = \"answered.jsonl\"\nevaluation = \"held_out.jsonl\"\n\n\
         [teacher]\npath = \"teacher\"\n\n[distill]\nrollout = { samples = 4, max_new_tokens = 6 }\nbatch_size = 3\n\
         micro_batch_size = 6\nduration = { steps = 24 }\nupdate.learning_rate = 1e-2\n\n[evaluation]\nevery = 8\n\
         at_start = true\n\n[checkpoints]\nevery = 8\nkeep_last = 9\n",
    );
    place
}

fn metrics(place: &Workplace) -> Vec<Value> {
    let text = place.read("out/metrics.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"))
}

const MODES: [&str; 4] = [
    "--set distill.on_policy=1 --data prompts.jsonl",
    "--set distill.on_policy=0.5",
    "--set distill.on_policy=0 --set distill.objective={kind='divergence',divergence={kind='forward_kl'}}",
    "--set distill.on_policy=0.5 --set distill.off_policy=teacher --data prompts.jsonl",
];

const LONGER: &str = "--set distill.duration={steps=48} --set distill.update.learning_rate=2e-2";

#[test]
fn a_student_comes_closer_to_its_teacher_whoever_writes() {
    let place = place();
    for (mode, rows) in MODES.into_iter().zip([48 * 12, 0, 0, 48 * 12]) {
        let said = place.align(&format!("{RUN} {mode} {LONGER} --overwrite")).succeeded();
        assert!(said.contains("wrote the model to out"), "{said}");
        let metrics = metrics(&place);
        let (first, last) = (&metrics[0], &metrics[48]);
        let (before, after) = (number(first, "eval_loss"), number(last, "eval_loss"));
        assert!(after < before, "{mode}: {before} {after}");
        let mean =
            |lines: &[Value]| lines.iter().map(|line| number(line, "loss")).sum::<f64>() / lines.len() as f64;
        let (before, after) = (mean(&metrics[1..5]), mean(&metrics[45..]));
        assert!(after < 0.8 * before, "{mode}: {before} {after}");
        assert!(number(first, "eval_loss_margin") > 0.0 && last["on_policy"].is_number(), "{last}");
        let written = place.read("out/rollouts.jsonl").lines().count();
        assert!(if rows > 0 { written == rows } else { written.is_multiple_of(12) }, "{mode}: {written}");
        assert!(place.read("out/report.html").contains("evaluation loss"), "{mode}");
    }
}

#[test]
fn sampled_tokens_are_enough() {
    let place = place();
    let gradient =
        "--set distill.objective.kind=policy_gradient --set distill.on_policy=1 --data prompts.jsonl";
    place.align(&format!("{RUN} {gradient} --set distill.duration={{steps=60}}")).succeeded();
    let metrics = metrics(&place);
    assert!(number(&metrics[60], "eval_loss") < 0.9 * number(&metrics[0], "eval_loss"), "{}", metrics[60]);
    assert!(metrics[1]["divergence"].is_number(), "{}", metrics[1]);
    let said = place.align("rollouts show out --sort lowest --limit 1").succeeded();
    assert!(said.contains("divergence: ") && said.contains("reward -"), "{said}");
}

#[test]
fn runs_go_on_bit_for_bit() {
    let place = place();
    for mode in MODES {
        let result = || {
            let text = |file: &str| place.read(&format!("out/{file}.jsonl"));
            (fs::read(place.path("out/model.safetensors")).unwrap(), text("metrics"), text("rollouts"))
        };
        place.align(&format!("{RUN} {mode} --overwrite")).succeeded();
        let straight = result();
        for step in [16, 24] {
            fs::remove_dir_all(place.path(&format!("out/checkpoint-{step:06}"))).unwrap();
        }
        let again = place.align(&format!("{RUN} {mode} --resume")).succeeded();
        assert!(again.contains("resuming    after step 8 of 24"), "{again}");
        assert!(result() == straight, "{mode}");
    }
    place
        .align(&format!("{RUN} {} --resume --set teacher.path=model", MODES[3]))
        .failed("teacher.path was \"teacher\" and is \"model\"");
}

#[test]
fn a_dry_run_shows_what_is_learnt_from() {
    let place = place();
    for (mode, expected) in [
        (
            MODES[0],
            &["prompts.jsonl:1: 4 tokens", "of the student as it is, of at most 6 tokens", "[completion]"][..],
        ),
        (MODES[1], &["answered.jsonl:1: 10 tokens, 6 of them learnt", "⟦it says moo who says moo⟧"]),
    ] {
        let said = place.align(&format!("{RUN} {mode} --dry-run")).succeeded();
        for expected in expected.iter().chain(&["teacher ", "completions of at most 6", "problems    none"]) {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert!(!place.path("out").exists());
    }
    let said =
        place.align(&format!("{RUN} --dry-run=fast --set distill.rollout.max_new_tokens=3")).succeeded();
    assert!(said.contains("3 completions are longer than distill.rollout.max_new_tokens"), "{said}");
    assert!(said.contains("⟦it says moo⟧"), "{said}");
    let said = place.align(&format!("{RUN} --dry-run=fast --set distill.on_policy=1")).succeeded();
    assert!(said.contains("3 completions are not read"), "{said}");
    let said = place.align(&format!("{RUN} --dry-run=fast {}", MODES[0])).succeeded();
    assert!(said.contains("columns that are not used: id (3)"), "{said}");
}

#[test]
fn conversations_are_prompts_and_completions() {
    let place = place();
    let said = place.align(&format!("{RUN} --data data.jsonl --dry-run=fast")).succeeded();
    assert!(said.contains("⟦a cat is an animal"), "{said}");
    let turns =
        [("user", "what is it"), ("assistant", "it is a cat"), ("user", "who"), ("assistant", "a cow")];
    let messages = turns.map(|(role, content)| json!({ "role": role, "content": content }));
    place.write("messages.jsonl", &format!("{}\n", json!({ "messages": messages })));
    let said = place.align(&format!("{RUN} --data messages.jsonl --dry-run=fast")).succeeded();
    assert!(said.contains("what is it it is a cat") && said.contains("⟦a cow"), "{said}");
}

#[test]
fn adapters_learn_and_teach() {
    let place = place();
    let few = "--set distill.duration={steps=3} --set distill.on_policy=1";
    let adapter = "--set adapter.rank=4 --set adapter.targets=all-linear";
    place.align(&format!("{RUN} {few} {adapter} --out lora")).succeeded();
    assert!(place.path("lora/adapter_model.safetensors").exists());
    // A student that is what its teacher was has the teacher's adapter to learn.
    place.align(&format!("{RUN} {few} --set teacher.path=model --set teacher.adapter=lora")).succeeded();
    let start = number(&metrics(&place)[0], "eval_loss");
    assert!(start > 1e-5, "{start}");
    place.align(&format!("{RUN} {few} --set teacher.path=model --overwrite")).succeeded();
    let start = number(&metrics(&place)[0], "eval_loss");
    assert!(start.abs() < 1e-6, "{start}");
}

#[test]
fn what_cannot_work_is_refused() {
    let place = place();
    let run = place.read("distill.toml");
    place.write("alone.toml", &run.replace("[teacher]\npath = \"teacher\"\n", ""));
    place.align("distill --config alone.toml").failed("there is nobody to learn from: add [teacher]");
    place.align("sft --config run.toml --set teacher.path=teacher").failed("unknown field `teacher`");
    for (set, expected) in [
        ("rewards=[{kind='finished'}]", "unknown field `rewards`"),
        ("teacher.path=nowhere", "teacher.path"),
        ("teacher.name=nowhere", "unknown field `name`"),
        ("teacher.adapter=nowhere", "teacher.adapter"),
        ("data.train=prompts.jsonl", "prompts.jsonl:1 has no completion, and with distill.on_policy = 0.5"),
        ("distill.on_policy=2", "distill.on_policy"),
        ("distill.objective.kind=policy_gradient", "`on_policy` = 0.5 does not do for `policy_gradient`"),
        ("distill.micro_batch_size=13", "`micro_batch_size` = 13 is larger than the 12"),
        (
            "distill.rollout.max_new_tokens=100",
            "distill.rollout.max_new_tokens = 100 is more than the model can read",
        ),
    ] {
        place.align(&format!("{RUN} --set {set}")).failed(expected);
        assert!(!place.path("out").exists(), "{set}");
    }
    let config = place.read("teacher/config.json");
    let mut short: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(short["max_position_embeddings"], CONTEXT);
    short["max_position_embeddings"] = 9.into();
    place.write("teacher/config.json", &short.to_string());
    place.align(RUN).failed("the teacher's context has 9: set distill.rollout.prompt_limit");
    short["vocab_size"] = 10.into();
    place.write("teacher/config.json", &short.to_string());
    place.align(RUN).failed("the teacher knows 10 tokens and the student 16");
    place.write("teacher/config.json", &config);
    let tokenizer = place.read("teacher/tokenizer.json");
    place.write("teacher/tokenizer.json", &tokenizer.replace("\"moo\"", "\"mew\""));
    place.align(RUN).failed("is `moo` to the student and `mew` to the teacher: they need the same tokenizer");
}

#[test]
fn data_are_inspected_as_they_are_learnt_from() {
    let place = place();
    let inspect = |further: &str| {
        let said = place.align(&format!("data inspect --config distill.toml --json{further}")).succeeded();
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let found = inspect("");
    assert_eq!((&found["method"], &found["examples"]["count"]), (&json!("distill"), &json!(3)));
    assert_eq!(found["examples"]["parts"][1]["name"], "completion");
    assert!(found["examples"]["learnt"].as_u64().unwrap() > 0, "{found}");
    let prompts = inspect(" --set distill.on_policy=1 --data prompts.jsonl");
    assert_eq!(prompts["examples"]["learnt"], Value::Null, "completions are written later");
}
