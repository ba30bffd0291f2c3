//! The steps, and the model that they make.

use align_model::{
    checkpoint::RunIdentity,
    data::Fingerprint,
    sft::{SftTrainer, evaluate},
    train::{Averaged, HookError, SamplesConfig, fingerprint_of},
};
use anyhow::{Context as _, Result};

use super::{
    batches::{SftBatch, SftBatches},
    data,
    learner::Learner,
    portrait,
    prepare::Prepared,
    publish,
    stream::SharedPosition,
};
use crate::training::{
    samples::SamplePrompts,
    session::{Evaluate, Looks, Session, Write},
};

/// Trains the model and writes it.
pub(super) fn train(prepared: &Prepared, warnings: &[String]) -> Result<()> {
    let Prepared { run, directory, base, stream, steps, .. } = prepared;
    let model = prepared.load()?;
    println!("{}", portrait::summary(prepared));
    println!("training    {steps} steps, {}, on {}", portrait::parameters(&model), run.device);
    for warning in warnings {
        println!("warning     {warning}");
    }
    let portrait = portrait::portrait(prepared, &model, warnings)?;
    let files = stream.as_ref().map(|stream| Fingerprint::of(&stream.files)).transpose()?;
    let samples = data::fingerprint(&prepared.train, prepared.evaluation.as_ref(), files);
    let identity = RunIdentity::new(run.deciding(*steps)?, samples, fingerprint_of(&model)?);
    let trainer = Averaged::new(SftTrainer::new(model, &run.sft, *steps)?, run.ema.clone());
    let reached = SharedPosition::default();
    let mut batches = prepared.batches(reached.clone())?;
    let mut trainer = Learner::new(trainer, stream.is_some().then_some(reached));
    let prompts = base.prompts(run)?;
    let session = Session {
        directory,
        identity,
        checkpoints: &run.checkpoints,
        early_stopping: run.early_stopping.as_ref(),
        portrait,
    };
    let looks = looks(prepared, prompts.as_ref());
    session.train::<_, SftBatch, _>(&mut trainer, &mut batches, SftBatch::described, looks)?;
    if let SftBatches::Streamed(stream) = &batches {
        println!("streamed    {}", stream.summary());
    }

    let out = run.out.display();
    let written = publish::publish(prepared, trainer.result());
    written.with_context(|| format!("cannot write the result into {out}; give --resume to try again"))?;
    println!("report      {}", directory.report().display());
    Ok(())
}

/// Evaluation and samples, as the run file wants them.
fn looks<'a>(prepared: &'a Prepared, prompts: Option<&'a SamplePrompts<'a>>) -> Looks<'a, Learner> {
    let run = &prepared.run;
    let evaluation = prepared.evaluation.as_ref().map(|data| {
        let evaluated: Evaluate<'a, Learner> = Box::new(|trainer: &Learner| {
            let report = evaluate(&trainer.result(), &data.examples, run.sft.loss, run.sft.micro_batch_size);
            let report =
                report.map_err(|error| HookError { hook: "evaluation", reason: error.to_string() })?;
            Ok(report.metrics().into())
        });
        (run.evaluation.clone().unwrap_or_default(), evaluated)
    });
    let samples = run.samples.as_ref().zip(prompts).map(|(table, prompts)| {
        let write: Write<'a, Learner> = Box::new(|trainer: &Learner| prompts.answered_by(&trainer.result()));
        (SamplesConfig { every: table.every }, write)
    });
    Looks { evaluation, samples }
}
