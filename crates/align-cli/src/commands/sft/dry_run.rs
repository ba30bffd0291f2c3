//! What a run would do, without doing it.

use std::io::IsTerminal as _;

use align_model::{
    decoder::{BaseWeights, Decoder},
    device::DeviceName,
    memory::{LargestPass, MemoryEstimate, Trained, TrainingSetup},
    pretrained::SavedDtype,
    sft::{SftExample, SftRow, SftTrainer},
    tokenizer::SpecialTokenText,
    train::{Averaged, Trains as _},
};
use anyhow::{Result, bail};

use super::{
    data::{Extent, SftData},
    portrait,
    prepare::Prepared,
};
use crate::{
    run_file::SavedForm,
    training::{
        dry_run::{Depth, Forecast, Parameters, seconds_of_steps},
        findings::{Findings, numbered},
        machine, memory,
    },
};

/// Samples that are shown.
const SHOWN: usize = 3;

/// Prints what a run would do and fails if it could not.
pub(super) fn dry_run(prepared: Option<&Prepared>, mut findings: Findings, depth: Depth) -> Result<()> {
    if let Some(prepared) = prepared {
        println!("{}", portrait::summary(prepared));
        if prepared.train.extent == Extent::FirstWindow {
            let inspected = prepared.train.lengths.len();
            println!(
                "inspected   only the first {inspected} records; what follows is read while the run lasts"
            );
        }
        println!("samples     {SHOWN} of them as the model reads them, {}", marked_how());
        for (place, example) in prepared.train.places.iter().zip(&prepared.train.examples).take(SHOWN) {
            let (tokens, targets) = (example.tokens.len(), example.targets());
            println!("\n  {place}: {tokens} tokens, {targets} of them learnt");
            println!("{}", indented(&marked(prepared, example)?));
        }
        println!("\nlengths     {}", lengths(&prepared.train, prepared.run.sft.max_length.get()));
        forecast(prepared, depth, &mut findings);
    }
    for warning in findings.warnings() {
        println!("warning     {warning}");
    }
    let problems = findings.problems();
    if problems.is_empty() {
        println!("problems    none: the run can begin");
        return Ok(());
    }
    println!("problems\n{}", numbered(&problems));
    bail!("the run cannot begin: {} of the things above stand in its way", problems.len())
}

/// Foretells time and room.
fn forecast(prepared: &Prepared, depth: Depth, findings: &mut Findings) {
    let Prepared { run, steps, rows, .. } = prepared;
    let passes = run.sft.batch_size.get().div_ceil(run.sft.micro_batch_size.get());
    let seen = match prepared.train.extent {
        Extent::FirstWindow => "how often the data is seen is not known beforehand".into(),
        Extent::Whole | Extent::WholeStream => {
            let epochs = *steps as f64 * run.sft.batch_size.get() as f64 / rows.rows.len() as f64;
            format!("{epochs:.1} times through the data")
        }
    };
    println!("steps       {steps}, each of {} in {passes} passes: {seen}", run.sft.batch_size);
    let process = machine::resident_memory().unwrap_or(0);
    let Some(model) = findings.keep(prepared.load()) else { return };
    let estimate = estimate(prepared, &model);
    println!("memory      {}", memory::described(&estimate, process));
    let fits = if run.device == DeviceName::FLEX { memory::check(&estimate, process) } else { Ok(()) };
    let fits = findings.keep(fits).is_some();
    let saved_bytes = saved_bytes(prepared, &model);
    let trainer = SftTrainer::new(model, &run.sft, *steps).map_err(Into::into);
    let Some(trainer) = findings.keep(trainer) else { return };
    let mut trainer = Averaged::new(trainer, run.ema.clone());
    let forecast = Forecast {
        parameters: Parameters::of(trainer.model()),
        saved_bytes,
        checkpoints: run.checkpoints.clone(),
        averaged: run.ema.is_some(),
        out: run.out.clone(),
    };
    forecast.print_and_check(findings);
    if depth == Depth::Fast || !fits {
        return;
    }
    let micro_batch = &rows.rows[..run.sft.micro_batch_size.get().min(rows.rows.len())];
    let pass = findings.keep(seconds_of_steps::<_, [SftRow]>(&mut trainer, micro_batch));
    if let Some(pass) = pass {
        Forecast::print_time(pass * passes as f64, *steps);
    }
}

/// The memory of the largest pass.
fn estimate(prepared: &Prepared, model: &Decoder) -> MemoryEstimate {
    let run = &prepared.run;
    let trained = match model.adapter_config() {
        None => Trained::Everything,
        Some(_) => Trained::Adapters { parameters: model.adapter_parameters().trained_count },
    };
    let setup = TrainingSetup {
        trained,
        recompute: run.sft.recompute,
        compute: run.memory.compute,
        base: model.adapter_config().map_or_else(BaseWeights::default, |adapter| adapter.base),
        passes: run.sft.batch_size.get().div_ceil(run.sft.micro_batch_size.get()),
        copies: usize::from(run.ema.is_some()),
    };
    let mut rows: Vec<&SftRow> = prepared.rows.rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.tokens()));
    let largest = &rows[..run.sft.micro_batch_size.get().min(rows.len())];
    let sequences = largest.iter().flat_map(|row| &row.sequences);
    let lengths: Vec<usize> = sequences.map(|sequence| sequence.tokens.len()).collect();
    let targets = largest.iter().map(|row| row.targets()).sum();
    MemoryEstimate::new(model.config(), &setup, &LargestPass { lengths: &lengths, targets })
}

/// The size of the result on the disk.
fn saved_bytes(prepared: &Prepared, model: &Decoder) -> u64 {
    let adapter = 4 * model.adapter_parameters().trained_count as u64;
    let dtype = if prepared.run.save.dtype == SavedDtype::Float32 { 4 } else { 2 };
    let whole = dtype * model.adapter_parameters().frozen_count as u64;
    match prepared.run.saved_form() {
        None | Some(SavedForm::Merged) => whole,
        Some(SavedForm::Adapter) => adapter,
        Some(SavedForm::Both) => whole + adapter,
    }
}

fn marked_how() -> &'static str {
    if std::io::stdout().is_terminal() {
        "what is learnt in green"
    } else {
        "what is learnt in ⟦brackets⟧"
    }
}

/// A sample's text with what is learnt marked.
fn marked(prepared: &Prepared, example: &SftExample) -> Result<String> {
    let (begin, end) =
        if std::io::stdout().is_terminal() { ("\u{1b}[32m", "\u{1b}[0m") } else { ("⟦", "⟧") };
    let mut text = String::new();
    let pairs: Vec<(u32, bool)> =
        example.tokens.iter().copied().zip(example.is_target.iter().copied()).collect();
    for run in pairs.chunk_by(|(_, a), (_, b)| a == b) {
        let tokens: Vec<u32> = run.iter().map(|(token, _)| *token).collect();
        let part = prepared.base.tokenizer.decode(&tokens, SpecialTokenText::Keep)?;
        if run[0].1 {
            text.extend([begin, &part, end]);
        } else {
            text.push_str(&part);
        }
    }
    Ok(text)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// How long samples are before they are cut, and what is lost.
fn lengths(data: &SftData, limit: usize) -> String {
    let mut sorted = data.lengths.clone();
    sorted.sort_unstable();
    let Some((shortest, longest)) = sorted.first().zip(sorted.last()) else { return "none".into() };
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    let total: usize = sorted.iter().sum();
    let over: Vec<usize> = sorted.iter().copied().filter(|length| *length > limit).collect();
    let lost: usize = over.iter().map(|length| length - limit).sum();
    let cut = match over.len() {
        0 => "none is longer than sft.max_length".to_owned(),
        count => format!(
            "{count} of {} are longer than sft.max_length = {limit}, by {lost} tokens ({:.1} %)",
            sorted.len(),
            100.0 * lost as f64 / total as f64
        ),
    };
    format!(
        "shortest {shortest}, mean {:.0}, median {}, 95 % up to {}, longest {longest} tokens; {cut}",
        total as f64 / sorted.len() as f64,
        at(50),
        at(95)
    )
}
