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
