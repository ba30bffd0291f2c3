//! Runs that are evaluated, interrupted, killed, resumed, reported and tried out beforehand.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use serde_json::Value;

use crate::{distill, rewards, workplace::Workplace};

const RUN: &str = "sft --config run.toml";

/// What a run has at its end and a repetition has bit for bit.
fn result(place: &Workplace, out: &str) -> (Vec<u8>, String) {
    let weights = fs::read(place.path(&format!("{out}/model.safetensors"))).unwrap();
    (weights, place.read(&format!("{out}/metrics.jsonl")))
}

fn steps(metrics: &str) -> Vec<u64> {
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap();
    metrics.lines().map(line).collect()
}

fn started(place: &Workplace, arguments: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_align"))
        .args(arguments.split(' '))
        .current_dir(place.path("."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Everything that a run can have.
fn whole(place: &Workplace) -> String {
    place.write(
        "whole.toml",
        "model = \"model\"\nout = \"out\"\n\n[data]\ntrain = \"data.jsonl\"\nevaluation = \"data.jsonl\"\n\n\
         [sft]\nmax_length = 32\nbatch_size = 2\nmicro_batch_size = 1\nduration = { steps = 24 }\n\
         update.learning_rate = 1e-2\n\n[evaluation]\nevery = 4\nat_start = true\n\n[checkpoints]\nevery = 4\n\n\
         [ema]\ndecay = 0.5\n\n[samples]\nprompts = [\"what is a cow\"]\nevery = 12\nmax_new_tokens = 6\n",
    );
    "sft --config whole.toml".into()
}

#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let place = Workplace::new();
    let run = whole(&place) + " --set checkpoints.every=1";
    killed_and_resumed(&place, &run);
    assert_eq!(place.read("out/samples.jsonl"), place.read("straight/samples.jsonl"));
}

#[test]
fn a_killed_run_that_learns_from_rewards_goes_on_bit_for_bit() {
    let place = rewards::place();
    for method in ["grpo", "ppo", "online", "raft"] {
        let run =
            format!("{method} --config {method}.toml --set out=out --set {method}.duration={{steps=60}}");
        let run = run + " --set checkpoints.every=1 --set checkpoints.keep_last=2";
        killed_and_resumed(&place, &run);
        assert_eq!(place.read("out/rollouts.jsonl"), place.read("straight/rollouts.jsonl"), "{method}");
        for out in ["out", "straight"] {
            fs::remove_dir_all(place.path(out)).unwrap();
        }
    }
}

#[test]
fn a_killed_run_that_learns_from_a_teacher_goes_on_bit_for_bit() {
    let place = distill::place();
    let run = "distill --config distill.toml --set distill.duration={steps=60} --set checkpoints.every=1";
    killed_and_resumed(&place, &format!("{run} --set checkpoints.keep_last=2"));
    assert_eq!(place.read("out/rollouts.jsonl"), place.read("straight/rollouts.jsonl"));
}

/// Makes a run once straight on and once killed at random points: both have the same result.
#[track_caller]
fn killed_and_resumed(place: &Workplace, run: &str) {
    place.align(&format!("{run} --out straight")).succeeded();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for _ in 0..8 {
        let mut child = started(place, &format!("{run} --resume"));
        std::thread::sleep(Duration::from_millis(100 + rng.next_u64() % 900));
        // SIGKILL, or nothing if it was faster.
        let _ = child.kill();
        child.wait().unwrap();
    }
    place.align(&format!("{run} --resume")).succeeded();
    assert!(result(place, "out") == result(place, "straight"), "{run}");
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_a_run_with_a_checkpoint() {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    let place = Workplace::new();
    let run = whole(&place) + " --set checkpoints.every=1000 --set sft.duration={steps=400}";
    let child = started(&place, &run);
    while fs::read_to_string(place.path("out/metrics.jsonl")).unwrap_or_default().lines().count() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("the run ends after this step") && err.contains("stopped after step"), "{err}");
    assert!(!place.path("out/model.safetensors").exists());
    assert!(place.read("out/report.html").contains("it was asked to"));

    place.align(&run).failed("holds a run with checkpoint-");
    let said = place.align(&format!("{run} --resume")).succeeded();
    assert!(said.contains("resuming    after step"), "{said}");
    place.align(&format!("{run} --out straight")).succeeded();
    assert_eq!(result(&place, "out"), result(&place, "straight"));
}

#[test]
fn a_run_is_recorded_in_every_way() {
    let place = Workplace::new();
    let said = place.align(&whole(&place)).succeeded();
    assert!(said.contains("warning     3 of 3 samples for evaluation are trained on as well"), "{said}");
    let metrics = place.read("out/metrics.jsonl");
    assert_eq!(steps(&metrics), (0..=24).collect::<Vec<_>>());
    assert_eq!(metrics.matches("\"eval_loss\"").count(), 7);
    assert_eq!(place.read("out/timing.jsonl").lines().count(), 24);
    assert_eq!(place.read("out/samples.jsonl").lines().count(), 3);
    assert_eq!(place.names("out/tensorboard").len(), 1);
    let names = place.names("out");
    let kept: Vec<&String> = names.iter().filter(|name| name.starts_with("checkpoint-")).collect();
    assert_eq!(kept, ["checkpoint-000020", "checkpoint-000024"]);
    let page = place.read("out/report.html");
    for expected in [
        "finished",
        "24 steps",
        "evaluation",
        "what is a cow",
        "checkpoint-000024",
        "trained on as well",
        "<polyline",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    for forbidden in ["<script", "<link", "<img", "@import", "url(", " src=", "href="] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let answer = place.run(
        &["generate", "--model", "out", "--greedy", "--max-new-tokens", "6", "--prompt", "what is a cow"],
        "",
    );
    let last: Value = serde_json::from_str(place.read("out/samples.jsonl").lines().last().unwrap()).unwrap();
    assert_eq!(answer.succeeded().trim_end(), last["completion"].as_str().unwrap());
}

#[test]
fn a_run_that_no_longer_gets_better_ends() {
    let place = Workplace::new();
    let run = whole(&place) + " --set early_stopping.minimum_improvement=100 --set early_stopping.patience=2";
    let said = place.align(&run).succeeded();
    assert!(said.contains("stopped     after step 12: it no longer got better"), "{said}");
    assert!(place.path("out/model.safetensors").exists());
    let again = place.align(&format!("{run} --resume")).succeeded();
    assert!(again.contains("was finished after step 12"), "{again}");
}

#[test]
fn a_share_of_the_data_can_be_set_apart() {
    let place = Workplace::new();
    place.write(
        "share.toml",
        &place.read("run.toml").replace(
            "data = \"data.jsonl\"\n",
            "data = { train = \"data.jsonl\", evaluation_share = 0.3 }\n",
        ),
    );
    let said = place.align("sft --config share.toml --set sft.duration={steps=2}").succeeded();
    assert!(
        said.contains("data.jsonl: 2 samples") && said.contains("evaluation  data.jsonl: 1 samples"),
        "{said}"
    );
    assert!(place.read("out/metrics.jsonl").contains("eval_loss"));
}

#[test]
fn adapters_are_trained_saved_and_trained_on() {
    let place = Workplace::new();
    let run = format!("{RUN} --set adapter.rank=4 --set adapter.targets=all-linear");
    let said = place.align(&run).succeeded();
    assert!(said.contains("frozen ones") && said.contains("wrote the adapter to out"), "{said}");
    let names = place.names("out");
    assert!(names.iter().any(|name| name == "adapter_model.safetensors"), "{names:?}");
    assert!(!names.iter().any(|name| name == "model.safetensors"), "{names:?}");
    let ask = |model: &[&str]| {
        let question = ["--greedy", "--max-new-tokens", "8", "--prompt", "what is a cow"];
        place.run(&[&["generate"], model, &question].concat(), "").succeeded()
    };
    assert_eq!(ask(&["--model", "model", "--adapter", "out"]), "a cow is an animal\n");

    place.align(&format!("{run} --out merged --set save.form=both")).succeeded();
    assert_eq!(ask(&["--model", "merged"]), "a cow is an animal\n");
    assert_eq!(
        fs::read(place.path("merged/adapter/adapter_model.safetensors")).unwrap(),
        fs::read(place.path("out/adapter_model.safetensors")).unwrap()
    );
    let on = place.align(&format!("{RUN} --out on --set adapter.from=out --set sft.duration={{steps=1}}"));
    on.succeeded();
    let first: Value = serde_json::from_str(place.read("on/metrics.jsonl").lines().next().unwrap()).unwrap();
    assert!(first["loss"].as_f64().unwrap() < 0.5, "{first}");
}

#[test]
fn a_dry_run_says_everything_and_writes_nothing() {
    let place = Workplace::new();
    for run in [whole(&place) + " --dry-run", format!("{RUN} --dry-run=fast")] {
        let said = place.align(&run).succeeded();
        for expected in [
            "3 samples, 33 tokens, 18 of them learnt",
            "data.jsonl:1: 11 tokens, 6 of them learnt",
            "what is a cat⟦a cat is an animal <end>⟧",
            "none is longer than sft.max_length",
            "trained, 0 frozen",
            "memory      about ",
            "disk ",
            "problems    none: the run can begin",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert_eq!(said.contains("time        about"), !run.ends_with("fast"), "{said}");
        assert!(!place.path("out").exists());
    }
}

#[test]
fn a_dry_run_names_all_problems() {
    let place = Workplace::new();
    fs::create_dir(place.path("out")).unwrap();
    place.write("out/notes.txt", "mine");
    let said = place.align(&format!(
        "{RUN} --dry-run --set sft.max_length=4000 --set adapter.targets=['nothing'] --set evaluation.every=3 \
         --set sft.batch_size=4"
    ));
    assert_eq!(said.code, 1, "{}", said.out);
    for expected in [
        "the output directory out is not empty",
        "sft.max_length = 4000 is more than the model can read",
        "[evaluation] needs data to evaluate on",
        "`micro_batch_size` = 8 is larger than `batch_size` = 4",
    ] {
        assert!(said.out.contains(expected), "{expected}: {}{}", said.out, said.err);
    }
    said.failed("the run cannot begin: ");
    let said = place.align(&format!("{RUN} --out new --dry-run --set adapter.targets=['nothing']"));
    assert!(said.out.contains("`nothing` means no layer"), "{}{}", said.out, said.err);
    said.failed("the run cannot begin: 1 of the things above stand");
}
