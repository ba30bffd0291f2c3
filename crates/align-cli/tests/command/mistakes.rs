//! What a user can get wrong, and what the command says to it.

use crate::workplace::{CONTEXT, Workplace};

const RUN: &str = "sft --config run.toml";

#[test]
fn run_files() {
    let place = Workplace::new();
    place.align("sft --config none.toml").failed("error: cannot read none.toml\n  because: No such file");
    let run = place.read("run.toml");
    place.write("run.toml", &run.replace("max_length", "max_len"));
    place.align(RUN).failed("run.toml:6: sft.max_len: unknown field `max_len`, expected one of");
    place.write("run.toml", &run.replace("= 32", "= \"long\""));
    place.align(RUN).failed("run.toml:6: sft.max_length: invalid type: string \"long\"");
    place.write("run.toml", &run.replace("data = \"data.jsonl\"", ""));
    place.align(RUN).failed("run.toml: missing field `data`");
    place.write("run.toml", &run);
    place
        .align(&format!("{RUN} --set sft.batch_size=4"))
        .failed("`micro_batch_size` = 8 is larger than `batch_size` = 4");
    place.align(&format!("{RUN} --set sft.max_length=0")).failed("--set sft.max_length=0: invalid value");
    place
        .align(&format!("{RUN} --set sft.max_length={}", CONTEXT + 1))
        .failed("sft.max_length = 49 is more than the model can read: its context has 48 tokens");
    assert!(!place.path("out").exists(), "nothing is written before everything is checked");
}

#[test]
fn arguments() {
    let place = Workplace::new();
    for (arguments, expected) in [
        ("sft", "--config <FILE>"),
        ("sft --config run.toml --set nothing", "expected KEY=VALUE"),
        ("sft --config run.toml --device tpu", "unknown device `tpu`: expected flex, vulkan"),
        ("generate --model model --prompt cat --temperature 0", "0 is not a finite number greater than 0"),
        ("generate --model model --prompt cat --greedy --top-k 3", "cannot be used with"),
    ] {
        let said = place.align(arguments);
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains(expected), "{}", said.err);
    }
}

#[test]
fn devices() {
    let place = Workplace::new();
    place.align(&format!("{RUN} --set device=tpu")).failed("--set device=\"tpu\": unknown device `tpu`");
    if !cfg!(feature = "cuda") {
        let expected = "device `cuda` is not compiled in: build with `--features cuda`";
        place.align(&format!("{RUN} --device cuda")).failed(expected);
        place.align("generate --model model --prompt cat --device cuda").failed(expected);
    }
}

#[test]
fn models() {
    let place = Workplace::new();
    place
        .align(&format!("{RUN} --model none"))
        .failed("cannot open the model none\n  because: cannot read none");
    place.write("not.gguf", "something else");
    place.align(&format!("{RUN} --model not.gguf")).failed("not.gguf: not a valid GGUF file");
    std::fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    place.align(RUN).failed("cannot load the model's tokenizer\n  because: ");
    place.align("generate --model model --prompt cat").failed("tokenizer.json");
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    place.align(RUN).failed("no model.safetensors");
}

#[test]
fn data() {
    let place = Workplace::new();
    place.align(&format!("{RUN} --data none.jsonl")).failed("cannot read none.jsonl");
    for (text, expected) in [
        ("", "data.jsonl: no records"),
        ("{\"text\": \"cat\"}\n{\"text\": \n", "data.jsonl:2:8: not a JSON object"),
        ("{\"instruction\": \"cat\", \"output\": \"dog\"}\n", "data.jsonl:1: found "),
        ("{\"prompt\": \"cat\", \"completion\": \"\"}\n", "data.jsonl: no sample has a token to learn"),
    ] {
        place.write("data.jsonl", text);
        place.align(&format!("{RUN} --set sft.max_length=1")).failed(expected);
    }
    place.write("data.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"cat\"}, {\"role\": \"assistant\", \"content\": \"dog\"}]}\n");
    place.align(&format!("{RUN} --set sft.loss_on=assistant")).failed("has no generation block");
    std::fs::remove_file(place.path("model/chat_template.jinja")).unwrap();
    place
        .align(RUN)
        .failed("cannot prepare the data\n  because: data.jsonl:1\n  because: the record is a conversation");
}

#[test]
fn output_directories() {
    let place = Workplace::new();
    place.align(&format!("{RUN} --out model")).failed("the output directory model is not empty");
    place.align(&format!("{RUN} --out model --overwrite")).failed("holds the model to start from");
    place.align(&format!("{RUN} --out data.jsonl")).failed("cannot use data.jsonl as output directory");
    assert!(place.path("model/model.safetensors").exists());
}

#[test]
fn nothing_is_left_to_learn() {
    let place = Workplace::new();
    place.align(&format!("{RUN} --set sft.max_length=4")).failed(
        "no sample has a token to learn: 3 of 3 were cut before their response; raise sft.max_length",
    );
}

#[test]
fn combinations_of_tables() {
    let place = Workplace::new();
    for (set, expected) in [
        ("--set evaluation.every=5", "[evaluation] needs data to evaluate on: set data.evaluation or"),
        (
            "--set early_stopping.patience=5",
            "early_stopping.metric = \"eval_loss\" needs data to evaluate on",
        ),
        ("--set checkpoints.keep_best.metric=eval_loss", "needs an evaluation, and the run has none"),
        ("--set samples.every=5", "[samples] has no prompts"),
        ("--set save.form=merged", "save.form is for models with an adapter"),
        (
            "--set adapter.rank=2 --set save.dtype=bfloat16",
            "save.dtype is for models, and save.form = \"adapter\" writes none",
        ),
        ("--set adapter.from=none", "cannot open the adapter none\n  because: none: no adapter_config.json"),
        (
            "--set adapter.targets=[\"w\"]",
            "[adapter] does not fit the model\n  because: targets: `w` means no layer",
        ),
        (
            "--set data.train=data.jsonl --set data.evaluation_share=0.5 --set data.evaluation=data.jsonl",
            "contradict each other",
        ),
        ("--set date=tomorrow", "`tomorrow` is no date: write it as"),
        ("--set checkpoint.every=5", "unknown field `checkpoint`"),
    ] {
        place.align(&format!("{RUN} {set}")).failed(expected);
        assert!(!place.path("out").exists(), "{set}");
    }
}

#[test]
fn adapters_for_another_model() {
    let place = Workplace::new();
    place.write_model("wide", 64);
    place.align(&format!("{RUN} --set adapter.rank=2 --set sft.duration={{steps=1}}")).succeeded();
    let said = place.align(&format!("{RUN} --out other --model wide --set adapter.from=out"));
    said.failed("the adapter out does not fit the model\n  because: ");
    said.failed("the adapter was made for another model");
    place.align("generate --model wide --adapter out --prompt cat").failed("was made for another model");
}

#[test]
fn checkpoints_of_another_run() {
    let place = Workplace::new();
    let run = format!("{RUN} --set checkpoints.every=2 --set sft.duration={{steps=4}}");
    place.align(&run).succeeded();
    let settings = place.read("out/run.toml");
    place
        .align(&run)
        .failed("holds a run with checkpoint-000004: give --resume to go on with it, or --overwrite");
    place
        .align(&format!("{run} --resume --set sft.update.learning_rate=0.5"))
        .failed("belongs to another run: sft.update.learning_rate was 0.01 and is 0.5");
    place
        .align(&format!("{run} --resume --set sft.duration={{steps=6}}"))
        .failed("total_steps was 4 and is 6");
    place.write("data.jsonl", "{\"text\": \"it is a cat\"}\n");
    place.align(&format!("{run} --resume")).failed("the data was ");
    assert_eq!(place.read("out/run.toml"), settings, "what is refused changes nothing");
}

#[test]
fn damaged_checkpoints() {
    let place = Workplace::new();
    let run = format!("{RUN} --set checkpoints.every=2 --set sft.duration={{steps=6}}");
    place.align(&run).succeeded();
    let weights = || std::fs::read(place.path("out/model.safetensors")).unwrap();
    let finished = weights();
    let cut = |step: u64| {
        let path = place.path(&format!("out/checkpoint-{step:06}/state.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    };
    cut(6);
    let said = place.align(&format!("{run} --resume")).succeeded();
    assert!(said.contains("passed over out/checkpoint-000006/state.safetensors has "), "{said}");
    assert!(said.contains("resuming    after step 4 of 6, from out/checkpoint-000004"), "{said}");
    assert_eq!(weights(), finished);
    cut(4);
    cut(6);
    place.align(&format!("{run} --resume")).failed("no checkpoint in out is intact: ");
}

#[test]
fn a_step_that_cannot_be_made() {
    let place = Workplace::new();
    let said = place.align(&format!("{RUN} --set sft.update.learning_rate=1e30 --set checkpoints.every=1"));
    said.failed("training stopped; the model was not written; --resume goes on from checkpoint-000001");
    said.failed("because: step 2 on data.jsonl:");
    said.failed("failed; the checkpoint of step 1 stands");
    assert!(place.path("out/checkpoint-000001/manifest.json").exists());
}

#[test]
#[cfg(unix)]
fn a_disk_that_is_full() {
    let place = Workplace::new();
    let run = format!("{RUN} --set sft.duration={{steps=4}} --set checkpoints.every=2");
    // No file may grow beyond some hundred kilobytes, and the refused write is an error, not a signal.
    let limited = format!("trap '' XFSZ; ulimit -f 200; exec {} {run}", env!("CARGO_BIN_EXE_align"));
    let output = std::process::Command::new("sh")
        .args(["-c", &limited])
        .current_dir(place.path("."))
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("no checkpoint was made after step 2"), "{err}");
    assert!(err.contains("cannot write out/.checkpoint-000002.partial/state.safetensors"), "{err}");
    assert!(!place.names("out").iter().any(|name| name.contains("checkpoint")), "{:?}", place.names("out"));
    place.align(&format!("{run} --resume")).succeeded();
}

#[test]
fn prompts() {
    let place = Workplace::new();
    let generate = "generate --model model";
    place.align(generate).failed("standard input: no prompts");
    place.align(&format!("{generate} --prompts none.txt")).failed("cannot read none.txt");
    place.write("prompts.jsonl", "cat\n{\"question\": \"dog\"}\n");
    place
        .align(&format!("{generate} --prompts prompts.jsonl"))
        .failed("prompts.jsonl:2\n  because: expected `prompt` or `messages`, found question");
    let long = format!("cat\n{}\n", "cat ".repeat(CONTEXT));
    place
        .align_with(&format!("{generate} --raw"), &long)
        .failed("prompt 1 has 48 tokens, which leaves no room in the model's context of 48");
}
