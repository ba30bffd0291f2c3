//! Runs on data that are read while they last.

use std::fs;

use crate::workplace::Workplace;

const STREAM: &str = "sft --config stream.toml";

/// A sample whose response is cut away, a row that is no record, and six samples.
fn place() -> Workplace {
    let place = Workplace::new();
    let long = "cat ".repeat(40);
    let rows = format!(
        "{{\"prompt\": \"{long}\", \"completion\": \"dog\"}}\nnothing\n{}",
        place.read("data.jsonl").repeat(2)
    );
    place.write("rows.jsonl", &rows);
    place.write("evaluation.jsonl", &place.read("data.jsonl"));
    place.write(
        "stream.toml",
        "model = \"model\"\nout = \"out\"\n\n[data]\ntrain = { path = \"rows.jsonl\", on_bad_row = \"skip\" }\n\
         evaluation = \"evaluation.jsonl\"\nstreaming = { window = 3 }\n\n\
         [sft]\nmax_length = 32\nbatch_size = 4\nmicro_batch_size = 2\nduration = { steps = 9 }\n\
         update.learning_rate = 1e-2\n\n[checkpoints]\nevery = 1\nkeep_last = 20\n\n[ema]\ndecay = 0.5\n",
    );
    place
}

#[test]
fn a_streamed_run_goes_on_bit_for_bit() {
    let place = place();
    let said = place.align(STREAM).succeeded();
    for expected in [
        "rows.jsonl, streamed; of its first 3 records: 2 samples, ",
        "whole passes and a part of one; ",
        "samples were longer than sft.max_length and cut; ",
        "have no token to learn and are left out; 1 rows of each pass could not be read",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let result = || (fs::read(place.path("out/model.safetensors")).unwrap(), place.read("out/metrics.jsonl"));
    let straight = result();
    let summary =
        |said: &str| said.lines().find(|line| line.starts_with("streamed ")).map(str::to_owned).unwrap();
    for kept in [1, 5, 8] {
        for step in kept + 1..=9 {
            fs::remove_dir_all(place.path(&format!("out/checkpoint-{step:06}"))).unwrap();
        }
        fs::remove_file(place.path("out/model.safetensors")).unwrap();
        let again = place.align(&format!("{STREAM} --resume")).succeeded();
        assert!(again.contains(&format!("resuming    after step {kept} of 9")), "{again}");
        assert_eq!(result(), straight, "{kept}");
        assert_eq!(summary(&again), summary(&said));
    }
    place
        .align(&format!("{STREAM} --resume --set data.streaming.window=4"))
        .failed("streaming.window was 3 and is 4");
    place.write("rows.jsonl", &(place.read("rows.jsonl") + "{\"text\": \"cat\"}\n"));
    place.align(&format!("{STREAM} --resume")).failed("the data was ");
}

#[test]
fn a_row_that_breaks_a_stream_is_named_and_checkpoints_stand() {
    let place = place();
    place.write("rows.jsonl", &(place.read("data.jsonl").repeat(3) + "nothing\n"));
    let run = format!("{STREAM} --set data.train.on_bad_row=stop");
    let said = place.align(&run);
    said.failed("training stopped; the model was not written; --resume goes on from checkpoint-000001");
    said.failed("because: the batch of step 2 cannot be read; the checkpoint of step 1 stands");
    said.failed("because: cannot read on in the data\n  because: rows.jsonl:10:2: not a JSON object");
    assert!(!place.path("out/model.safetensors").exists());
    place.align(&format!("{run} --resume")).failed("because: rows.jsonl:10:2");
    assert!(place.path("out/checkpoint-000001/state.safetensors").exists());
}

#[test]
fn a_dry_run_looks_at_the_first_window() {
    let place = place();
    let said = place.align(&format!("{STREAM} --dry-run")).succeeded();
    for expected in [
        "inspected   only the first 3 records; what follows is read while the run lasts",
        "rows.jsonl:3: 11 tokens, 6 of them learnt",
        "how often the data is seen is not known beforehand",
        "problems    none: the run can begin",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("rows.jsonl:5"), "{said}");
    let said = place.align(&format!("{STREAM} --dry-run=fast --set data.streaming.window=100")).succeeded();
    assert!(
        said.contains("rows.jsonl, streamed: 6 samples") && said.contains("times through the data"),
        "{said}"
    );
}

#[test]
fn what_needs_all_records_is_refused() {
    let place = place();
    for (set, expected) in [
        ("sft.duration={epochs=1}", "data.streaming needs sft.duration = { steps = N }"),
        ("sft.packing=bfd", "sft.packing needs all samples at once, and data.streaming"),
        ("data.evaluation_share=0.1", "data.evaluation_share needs all records at once, and data.streaming"),
        ("data.streaming.window=0", "data: invalid value: integer `0`"),
        ("data.streaming={windw=3}", "unknown field `windw`"),
    ] {
        place.align(&format!("{STREAM} --set {set}")).failed(expected);
        assert!(!place.path("out").exists(), "{set}");
    }
}
