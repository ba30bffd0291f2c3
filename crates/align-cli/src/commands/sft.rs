//! `align sft`: supervised fine-tuning.

use align_model::{
    data::{Located, SftRecord, ShuffledBatches, extra_columns, read_jsonl},
    pretrained::{Architecture, SaveOptions},
    sft::{SftExample, SftSamples, SftTokenizer, SftTrainer},
    train::{JsonlRecorder, fit},
};
use anyhow::{Context as _, Result, ensure};
use chrono::Local;

use crate::{
    args::SftArguments,
    hub, model,
    output::RunDirectory,
    progress::ProgressDisplay,
    run_file::{self, SftRun},
};

/// Trains a model and writes it.
pub(crate) fn run(args: &SftArguments) -> Result<()> {
    let run: SftRun = run_file::read(&args.config, &args.overrides())?;
    run.sft.check().with_context(|| format!("{}: [sft] contradicts itself", args.config.display()))?;
    let device = run.device.open()?;
    let directory = RunDirectory::check(&run.out, args.overwrite, &run.model)?;
    let checkpoint = model::open(&run.model)?;
    check_length(&run, checkpoint.architecture())?;
    let tokenizer = checkpoint.tokenizer().context("cannot load the model's tokenizer")?;
    let templates = model::chat_templates(&tokenizer)?;
    let mut records = Vec::new();
    for file in hub::data_files(&run.data)? {
        records.extend(read_jsonl::<SftRecord>(&file)?);
    }
    let now = Some(Local::now().naive_local());
    let samples = SftTokenizer { now, ..SftTokenizer::new(&run.sft, &tokenizer, templates.as_ref()) }
        .samples(&records)
        .context("cannot prepare the data")?;
    ensure!(!samples.examples.is_empty(), "{}: no sample has a token to learn", run.data.display());
    let decoder = checkpoint.load(&device).context("cannot load the model")?;

    let steps = run.sft.duration.steps(samples.examples.len(), run.sft.batch_size);
    println!("{}", summary(&run, &records, &samples));
    println!("training    {steps} steps, {} parameters, on {}", decoder.parameter_count(), run.device);
    directory.begin(&run)?;
    let mut recorder = JsonlRecorder::create(&directory.metrics())?;
    let mut display = ProgressDisplay::start(steps);
    let mut trainer = SftTrainer::new(decoder, &run.sft, steps)?;
    let order = ShuffledBatches::new(samples.examples.len(), run.sft.batch_size.get(), run.sft.seed);
    let batches =
        order.map(|batch| batch.into_iter().map(|index| samples.examples[index].clone()).collect::<Vec<_>>());
    fit::<_, [SftExample], _>(&mut trainer, batches, steps, &mut [&mut recorder, &mut display])
        .context("training stopped; the model was not written")?;

    let options = SaveOptions { dtype: run.save.dtype, ..SaveOptions::default() };
    let finished = trainer.into_model();
    directory
        .publish(|directory| Ok(checkpoint.save(&finished, directory, options)?))
        .with_context(|| format!("cannot write the model into {}", run.out.display()))?;
    println!("wrote the model to {}", run.out.display());
    Ok(())
}

fn check_length(run: &SftRun, architecture: &Architecture) -> Result<()> {
    let (length, context) = (run.sft.max_length.get(), architecture.config().max_positions);
    ensure!(
        length <= context,
        "sft.max_length = {length} is more than the model can read: its context has {context} tokens"
    );
    Ok(())
}

fn summary(run: &SftRun, records: &[Located<SftRecord>], samples: &SftSamples) -> String {
    let tokens: usize = samples.examples.iter().map(|example| example.tokens.len()).sum();
    let targets: usize = samples.examples.iter().map(SftExample::targets).sum();
    let mut lines = vec![
        format!("model       {}", run.model.display()),
        format!(
            "data        {}: {} samples, {tokens} tokens, {targets} of them learnt",
            run.data.display(),
            samples.examples.len()
        ),
    ];
    let counts = [
        (samples.truncated, "samples were longer than sft.max_length and cut"),
        (samples.without_loss, "samples have no token to learn and are left out"),
        (samples.uneven_boundaries, "prompts end inside a token of the whole sample"),
    ];
    lines.extend(
        counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("            {count} {what}")),
    );
    let extra = extra_columns(records).into_iter().map(|(column, rows)| format!("{column} ({rows})"));
    let extra: Vec<String> = extra.collect();
    if !extra.is_empty() {
        lines.push(format!("            columns that are not used: {}", extra.join(", ")));
    }
    lines.join("\n")
}
