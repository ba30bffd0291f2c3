use super::plan::Training;
use super::*;

fn short() -> Plan {
    let training = Training { steps: 3, batch_size: 6, learning_rate: 1e-3, beta2: 0.99, warmup_steps: 1 };
    let few = Training { batch_size: 2, ..training };
    Plan {
        base: training,
        sft: training,
        reward: training,
        dpo: training,
        grpo: few,
        ppo: few,
        held_out_per_kind: 3,
    }
}

fn run_short(seed: u64) -> (tempfile::TempDir, Results) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { out: directory.path().join("out"), seed, device: "flex".parse().unwrap() };
    let results = run_plan(&options, &short()).unwrap();
    (directory, results)
}

/// Everything but the time.
fn timeless(directory: &tempfile::TempDir) -> serde_json::Value {
    let text = std::fs::read_to_string(directory.path().join("out/results.json")).unwrap();
    let mut results: serde_json::Value = serde_json::from_str(&text).unwrap();
    results.as_object_mut().unwrap().remove("timing").unwrap();
    results
}

#[test]
fn a_seed_gives_the_same_bits_twice() {
    let ((first, _), (second, _), (other, _)) = (run_short(1), run_short(1), run_short(2));
    assert_eq!(timeless(&first), timeless(&second));
    assert_ne!(timeless(&first)["stages"], timeless(&other)["stages"]);
    let weights = |directory: &tempfile::TempDir| {
        std::fs::read(directory.path().join("out/sft/model.safetensors")).unwrap()
    };
    assert_eq!(weights(&first), weights(&second));
}

#[test]
fn an_earlier_run_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { out: directory.path().join("out"), seed: 3, device: "flex".parse().unwrap() };
    run_plan(&options, &short()).unwrap();
    let first = timeless(&directory);
    run_plan(&options, &short()).unwrap();
    assert_eq!(timeless(&directory), first);
    let left_over = std::fs::read_dir(&options.out).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "part")
    });
    assert_eq!(left_over.count(), 0);
}

#[test]
fn held_out_requests_differ_and_are_many() {
    let options =
        Options { out: tempfile::tempdir().unwrap().path().into(), seed: 0, device: "flex".parse().unwrap() };
    let workshop = Workshop::new(&options, &Plan::full()).unwrap();
    let mut requests: Vec<_> = workshop.held_out.iter().map(world::Task::request).collect();
    let asked = requests.len();
    requests.sort();
    requests.dedup();
    assert_eq!(requests.len(), asked);
    assert!(asked >= 240, "{asked}");
}
