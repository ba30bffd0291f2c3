//! `align generate`: continues prompts or answers requests.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    ops::ControlFlow,
};

use align_model::{
    generate::{Finish, Generation, GenerationConfig, TextStream, generate, generate_streaming},
    tokenizer::SpecialTokenText,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    args::GenerateArguments,
    model::LoadedModel,
    prompts::{self, Framing, Prompt},
};

/// Generates and prints.
pub(crate) fn run(args: &GenerateArguments) -> Result<()> {
    let prompts = prompts(args)?;
    let model = LoadedModel::load(&args.model)?;
    let framing = framing(args, &model)?;
    let tokens = prompts.iter().enumerate();
    let tokens = tokens
        .map(|(index, prompt)| prompt.tokens(&model, &framing).with_context(|| format!("prompt {index}")))
        .collect::<Result<Vec<_>>>()?;
    let config = args.generation.config(model.end_tokens.clone(), args.samples);
    let single = prompts.len() == 1 && args.samples.get() == 1;
    if single && !args.json && !args.log_probs && std::io::stdout().is_terminal() {
        stream(&model, &tokens, &config, || false)?;
        return Ok(());
    }
    let generated = generate(&model.decoder, &tokens, &config, Some(&model.tokenizer))?;
    for (index, (prompt, samples)) in prompts.iter().zip(&generated).enumerate() {
        for (sample, generation) in samples.iter().enumerate() {
            let text = generation.text(&model.tokenizer, &config.stop)?;
            if args.json {
                println!("{}", as_json(prompt, sample, &text, generation));
                continue;
            }
            if !single {
                println!("--- prompt {index}, sample {sample}");
            }
            println!("{}", if args.log_probs { log_probs(&model, generation)? } else { text });
        }
    }
    Ok(())
}

/// Continues one prompt, showing its text while it grows, until `interrupted` says so. Returns the whole text.
pub(crate) fn stream(
    model: &LoadedModel,
    prompt: &[Vec<u32>],
    config: &GenerationConfig,
    interrupted: impl Fn() -> bool,
) -> Result<String> {
    let mut stream = TextStream::new(&model.tokenizer, &config.stop);
    let (mut text, mut failure) = (String::new(), None);
    let mut show = |piece: &str| {
        text.push_str(piece);
        print!("{piece}");
        std::io::stdout().flush()
    };
    generate_streaming(&model.decoder, prompt, config, Some(&model.tokenizer), &mut |sampled| {
        let shown = stream.push(&sampled).map_err(anyhow::Error::from).and_then(|piece| Ok(show(&piece)?));
        failure = shown.err();
        if failure.is_some() || interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    show(&stream.finish()?)?;
    println!();
    Ok(text)
}

fn prompts(args: &GenerateArguments) -> Result<Vec<Prompt>> {
    if !args.prompt.is_empty() {
        return Ok(args.prompt.iter().cloned().map(Prompt::Text).collect());
    }
    if let Some(path) = &args.prompts {
        return prompts::read_file(path);
    }
    ensure!(!std::io::stdin().is_terminal(), "no prompt: give --prompt TEXT or --prompts FILE");
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read prompts from the standard input")?;
    prompts::read_lines(&text, "standard input")
}

fn framing(args: &GenerateArguments, model: &LoadedModel) -> Result<Framing> {
    if !args.raw && model.templates.is_some() {
        return Ok(Framing::Chat { system: args.system.clone() });
    }
    ensure!(args.system.is_none(), "--system needs a chat template, and the model has none");
    if !args.raw {
        eprintln!("note: the model has no chat template, so it continues the prompt as plain text");
    }
    Ok(Framing::Raw)
}

fn as_json(prompt: &Prompt, sample: usize, text: &str, generation: &Generation) -> serde_json::Value {
    let finish = match generation.finish {
        Finish::StopToken(_) => "stop_token",
        Finish::StopString(_) => "stop_string",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Cancelled => "cancelled",
    };
    json!({
        "prompt": prompt, "sample": sample, "text": text, "tokens": generation.tokens,
        "log_probs": generation.log_probs, "finish": finish,
    })
}

/// A line for every token: its log-probability, its number and its text.
fn log_probs(model: &LoadedModel, generation: &Generation) -> Result<String> {
    let line = |(&token, log_prob): (&u32, &f32)| {
        let text = model.tokenizer.decode(&[token], SpecialTokenText::Keep)?;
        Ok(format!("{log_prob:>9.4}  {token:>6}  {text:?}"))
    };
    let lines = generation.tokens.iter().zip(&generation.log_probs).map(line);
    Ok(lines.collect::<Result<Vec<_>>>()?.join("\n"))
}
