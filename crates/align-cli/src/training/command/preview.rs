//! What a run would do, without doing it.

use std::io::IsTerminal as _;

use align_model::{
    data::ShuffledBatches,
    decoder::{BaseWeights, Decoder},
    device::DeviceName,
    memory::{MemoryEstimate, Trained, TrainingSetup},
    pretrained::SavedDtype,
    tokenizer::{SpecialTokenText, Tokenizer},
    train::{Averaged, Trains as _},
};
use anyhow::{Result, bail};

use super::{
    data::{Extent, TrainingData},
    portrait,
    prepare::Prepared,
};
use crate::{
    method::{Example as _, Lesson, Method, Part, Settings, TrainedModel as _},
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
pub(super) fn preview<M: Method>(
    prepared: Option<&Prepared<M>>,
    mut findings: Findings,
    depth: Depth,
) -> Result<()> {
    if let Some(prepared) = prepared {
        println!("{}", portrait::summary(prepared));
        if prepared.train.extent == Extent::FirstWindow {
            let inspected = prepared.train.records;
            println!(
                "inspected   only the first {inspected} records; what follows is read while the run lasts"
            );
        }
        let plural = format!("{:<12}", M::Example::PLURAL);
        println!("{plural}{SHOWN} of them as the model reads them{}", marked_how::<M::Config>());
        for (place, example) in prepared.train.places.iter().zip(&prepared.train.examples).take(SHOWN) {
            println!("\n  {place}: {}", shown(prepared, example)?);
        }
        println!("\nlengths     {}", lengths(&prepared.train, &prepared.run.method));
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
fn forecast<M: Method>(prepared: &Prepared<M>, depth: Depth, findings: &mut Findings) {
    let Prepared { run, steps, rows, .. } = prepared;
    let plan = run.method.plan();
    let seen = match prepared.train.extent {
        Extent::FirstWindow => "how often the data is seen is not known beforehand".into(),
        Extent::Whole | Extent::WholeStream => {
            let epochs = *steps as f64 * plan.batch_size.get() as f64 / rows.rows.len() as f64;
            format!("{epochs:.1} times through the data")
        }
    };
    println!("steps       {steps}, each of {} in {} passes: {seen}", plan.batch_size, plan.passes());
    let process = machine::resident_memory().unwrap_or(0);
    let Some(model) = findings.keep(prepared.load()) else { return };
    let kit = prepared.kit();
    let Some(beside) = findings.keep(M::beside(&run.method, &prepared.train.examples, model.decoder(), &kit))
    else {
        return;
    };
    let estimate = estimate(prepared, model.decoder());
    println!("memory      {}", memory::described(&estimate, &beside, process));
    let fits = if run.device == DeviceName::FLEX {
        memory::check::<M::Config>(&estimate, &beside, process)
    } else {
        Ok(())
    };
    let fits = findings.keep(fits).is_some();
    let tried = M::rows_tried(&run.method);
    let seen = tried.min(prepared.train.examples.len());
    let examples = &prepared.train.examples[..seen];
    let lesson = Lesson { steps: *steps, examples: &[examples], order: None, cache: None, kit };
    let saved_bytes = saved_bytes(prepared, model.decoder());
    let Some(trainer) = findings.keep(M::trainer(&run.method, model, lesson)) else { return };
    if depth == Depth::Full && fits {
        for line in findings.keep(M::tried(&run.method, trainer.model(), examples, &kit)).unwrap_or_default()
        {
            println!("{line}");
        }
    }
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
    let few = &rows.rows[..tried.min(rows.rows.len())];
    let seconds = findings.keep(seconds_of_steps::<_, [M::Row]>(&mut trainer, few));
    if let Some(seconds) = seconds {
        let parts = plan.batch_size.get() as f64 / tried as f64;
        Forecast::print_time(seconds * parts.ceil(), *steps);
    }
}

/// Passes whose memory is estimated one by one; for a longer run, the longest rows are taken to meet in one.
const PASSES_LOOKED_AT: usize = 20_000;

/// The memory of the largest pass.
fn estimate<M: Method>(prepared: &Prepared<M>, model: &Decoder) -> MemoryEstimate {
    let (run, plan) = (&prepared.run, prepared.run.method.plan());
    let trained = match model.adapter_config() {
        None => Trained::Everything,
        Some(_) => Trained::Adapters { parameters: model.adapter_parameters().trained_count },
    };
    let setup = TrainingSetup {
        trained,
        recompute: plan.recompute,
        compute: run.memory.compute,
        base: model.adapter_config().map_or_else(BaseWeights::default, |adapter| adapter.base),
        passes: plan.passes(),
        copies: usize::from(run.ema.is_some()) + M::copies(&run.method),
    };
    let of_pass = |rows: &[&M::Row]| {
        let (batch, targets) = M::pass(&run.method, rows);
        MemoryEstimate::of_batch(model.config(), &setup, &batch, targets)
    };
    let rows = &prepared.rows.rows;
    let mut longest: Vec<&M::Row> = rows.iter().collect();
    longest.sort_by_key(|row| std::cmp::Reverse(M::tokens(row)));
    longest.truncate(plan.rows_per_pass());
    let worst = of_pass(&longest);
    if prepared.stream.is_some() || steps_of(prepared).saturating_mul(plan.passes()) > PASSES_LOOKED_AT {
        return worst;
    }
    // The order of rows in memory is known: the longest of them hardly ever meet in one pass.
    let order = ShuffledBatches::new(rows.len(), plan.batch_size.get(), plan.seed);
    let batches = order.take(steps_of(prepared));
    let of_batch = |batch: Vec<usize>| {
        let rows: Vec<&M::Row> = batch.into_iter().map(|index| &rows[index]).collect();
        rows.chunks(plan.rows_per_pass()).map(of_pass).max_by_key(|pass| pass.total(0))
    };
    batches.filter_map(of_batch).max_by_key(|pass| pass.total(0)).unwrap_or(worst)
}

fn steps_of<M: Method>(prepared: &Prepared<M>) -> usize {
    usize::try_from(prepared.steps).unwrap_or(usize::MAX)
}

/// The size of the result on the disk.
fn saved_bytes<M: Method>(prepared: &Prepared<M>, model: &Decoder) -> u64 {
    let adapter = 4 * model.adapter_parameters().trained_count as u64;
    let dtype = if prepared.run.save.dtype == SavedDtype::Float32 { 4 } else { 2 };
    let whole = dtype * model.adapter_parameters().frozen_count as u64;
    match prepared.run.saved_form() {
        None | Some(SavedForm::Merged) => whole,
        Some(SavedForm::Adapter) => adapter,
        Some(SavedForm::Both) => whole + adapter,
    }
}

fn marked_how<C: Settings>() -> &'static str {
    match (C::LEARNS_FROM.has_rewards(), std::io::stdout().is_terminal()) {
        (true, _) => "",
        (false, true) => ", what is learnt in green",
        (false, false) => ", what is learnt in ⟦brackets⟧",
    }
}

/// An example's size, and its text with what is learnt marked.
fn shown<M: Method>(prepared: &Prepared<M>, example: &M::Example) -> Result<String> {
    let parts = example.parts();
    let tokens: usize = parts.iter().map(|part| part.tokens.len()).sum();
    let learnt: usize = parts.iter().map(Part::learnt).sum();
    let label = example.label().map_or_else(String::new, |label| format!(", {label}"));
    let learnt = if learnt > 0 { format!(", {learnt} of them learnt") } else { String::new() };
    let mut text = format!("{tokens} tokens{learnt}{label}");
    for part in &parts {
        if !part.name.is_empty() {
            text.extend(["\n   ", part.name, ", ", &part.tokens.len().to_string(), " tokens"]);
        }
        text.extend(["\n", &indented(&marked(&prepared.base.tokenizer, part)?)]);
    }
    Ok(text)
}

/// A part's text with what is learnt marked.
fn marked(tokenizer: &Tokenizer, part: &Part<'_>) -> Result<String> {
    let (begin, end) =
        if std::io::stdout().is_terminal() { ("\u{1b}[32m", "\u{1b}[0m") } else { ("⟦", "⟧") };
    let mut text = String::new();
    let pairs: Vec<(u32, bool)> = part.tokens.iter().copied().zip(part.marks()).collect();
    for run in pairs.chunk_by(|(_, a), (_, b)| a == b) {
        let tokens: Vec<u32> = run.iter().map(|(token, _)| *token).collect();
        let piece = tokenizer.decode(&tokens, SpecialTokenText::Keep)?;
        if run[0].1 {
            text.extend([begin, &piece, end]);
        } else {
            text.push_str(&piece);
        }
    }
    Ok(text)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// How long samples are before they are cut, and what is lost.
fn lengths<E, C: Settings>(data: &TrainingData<E>, settings: &C) -> String {
    let limit = settings.plan().max_length.get();
    let mut sorted = data.lengths.clone();
    sorted.sort_unstable();
    let Some((shortest, longest)) = sorted.first().zip(sorted.last()) else { return "none".into() };
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    let total: usize = sorted.iter().sum();
    let over: Vec<usize> = sorted.iter().copied().filter(|length| *length > limit).collect();
    let lost: usize = over.iter().map(|length| length - limit).sum();
    let cut = match over.len() {
        _ if C::LEARNS_FROM.writes() => format!("completions of at most {limit} follow"),
        0 => format!("none is longer than {}.max_length", C::NAME),
        count => format!(
            "{count} of {} are longer than {}.max_length = {limit}, by {lost} tokens ({:.1} %)",
            sorted.len(),
            C::NAME,
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
