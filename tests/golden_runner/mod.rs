//! One runner a kind of golden file.

mod adamw;
mod adapter;
mod arch;
mod chat_template;
mod check;
mod clipping;
mod file;
mod loss_policy;
mod loss_preference;
mod loss_reward;
mod loss_sft;
mod packing;
mod reference;
mod sampling;
mod schedules;
mod smollm2;
mod tokenizer;
mod trace;
mod trace_reward;

use std::{collections::BTreeMap, path::PathBuf};

use align_model::{
    decoder::Decoder,
    device::DeviceName,
    generate::{Decoding, GenerationConfig, SamplingConfig, generate},
};

use burn::tensor::Device;
pub use check::{Check, Tolerance};
pub use file::GoldenFile;

/// What a runner says of a file: compared, or not covered and why.
pub type Covered = Result<(), String>;

/// The runner of a kind.
fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    match file.kind() {
        "arch" => arch::run(file, check),
        "adapter" => adapter::run(file, check),
        "adamw" => adamw::run(file, check),
        "clipping" => clipping::run(file, check),
        "sampling" => sampling::run(file, check),
        "packing" => packing::run(file, check),
        "schedules" => schedules::run(file, check),
        "chat_template" => chat_template::run(file, check),
        "tokenizer" => tokenizer::run(file, check),
        "reference" => reference::run(file, check),
        "trace" if trace_reward::covers(file) => trace_reward::run(file, check),
        "trace" => trace::run(file, check),
        "loss" if file.name.starts_with("loss_sft") => loss_sft::run(file, check),
        "loss" if file.name.starts_with("loss_reward") => loss_reward::run(file, check),
        "loss" if loss_policy::covers(file) => loss_policy::run(file, check),
        "loss" => loss_preference::run(file, check),
        "" => Err("the file names no kind".into()),
        other => Err(format!("no runner for kind {other}")),
    }
}

/// The device that `ALIGN_TEST_DEVICE` names (the cargo feature of its backend must be on), or the CPU.
fn device() -> Device {
    let name = std::env::var("ALIGN_TEST_DEVICE").unwrap_or_else(|_| "flex".into());
    name.parse::<DeviceName>().unwrap().open().unwrap()
}

/// Greedy continuations of so many tokens.
fn greedy(model: &Decoder, prompts: &[Vec<u32>], count: usize) -> Vec<Vec<u32>> {
    let config = GenerationConfig {
        max_new_tokens: count.try_into().unwrap(),
        sampling: SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() },
        ..GenerationConfig::default()
    };
    generate(model, prompts, &config, None)
        .unwrap()
        .into_iter()
        .flatten()
        .map(|generation| generation.tokens)
        .collect()
}

/// Every JSON file of every golden directory, each name once; a directory named by the environment wins.
fn files() -> BTreeMap<String, PathBuf> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let more = std::env::var_os("ALIGN_GOLDEN_DIR").map(PathBuf::from);
    let mut found = BTreeMap::new();
    for directory in std::iter::once(own).chain(more) {
        let entries =
            std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "json") {
                found.insert(path.file_name().unwrap().to_string_lossy().into_owned(), path);
            }
        }
    }
    found
}

/// Runs every file, prints a line for each, and fails if any number is off.
pub fn run_all() {
    let only = std::env::var("ALIGN_GOLDEN_ONLY").unwrap_or_default();
    let (mut count, mut cases, mut uncovered, mut failures) = (0, 0, 0, Vec::new());
    for path in files().into_values() {
        let file = GoldenFile::read(&path);
        if !file.name.contains(&only) {
            continue;
        }
        count += 1;
        let mut check = Check::default();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&file, &mut check)));
        let outcome = outcome.unwrap_or_else(|_| {
            check.fail("the runner stopped at what it did not expect; see above");
            Ok(())
        });
        if let Err(reason) = outcome {
            uncovered += 1;
            println!("{} · not covered: {reason}", file.name);
            continue;
        }
        cases += check.cases;
        let worst =
            check.worst.map_or("exact".into(), |(_, error, tolerance)| format!("{error:.1e} · {tolerance}"));
        let verdict = if check.failures.is_empty() { "" } else { " · FAILED" };
        println!("{} · {} cases · {worst}{verdict}", file.name, check.cases);
        failures.extend(check.failures.into_iter().map(|f| format!("{}: {f}", file.name)));
    }
    println!("golden: {count} files, {cases} cases, {uncovered} not covered");
    for failure in failures.iter().take(50) {
        println!("  {failure}");
    }
    assert!(failures.is_empty(), "{} golden comparisons failed", failures.len());
}
