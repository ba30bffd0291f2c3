//! The steps, and the model that they make.

use align_model::{
    checkpoint::RunIdentity,
    data::Fingerprint,
    decoder::Decoder,
    train::{Averaged, HookError, SamplesConfig, fingerprint_of},
};
use anyhow::{Context as _, Result};

use super::{
    batches::{Batch, Batches},
    data, portrait,
    prepare::Prepared,
    publish,
    stream::SharedPosition,
};
use crate::{
    method::{Lesson, Method, ReportOf, Settings, TrainedModel as _},
    run_file::rewards::GoldTable,
    training::{
        rollouts::ReadNews,
        samples::SamplePrompts,
        session::{Evaluate, Looks, MeasureGold, Session, Write},
    },
};

/// Trains the model and writes it.
pub(super) fn train<M: Method>(prepared: &Prepared<M>, warnings: &[String]) -> Result<()> {
    let Prepared { run, directory, base, stream, steps, .. } = prepared;
    let model = prepared.load()?;
    println!("{}", portrait::summary(prepared));
    println!("training    {steps} steps, {}, on {}", portrait::parameters(model.decoder()), run.device);
    for warning in warnings {
        println!("warning     {warning}");
    }
    let portrait = portrait::portrait(prepared, model.decoder(), warnings)?;
    let files = stream.as_ref().map(|stream| Fingerprint::of(&stream.files)).transpose()?;
    let samples = data::fingerprint(&prepared.train, prepared.evaluation.as_ref(), files);
    let identity = RunIdentity::new(run.deciding(*steps)?, samples, fingerprint_of(&model)?);
    directory.begin()?;
    let (train, evaluation) = (&prepared.train.examples[..], prepared.evaluation.as_ref());
    let plan = run.method.plan();
    let lesson = Lesson {
        steps: *steps,
        examples: &[train, evaluation.map_or(&[], |data| &data.examples)],
        order: stream.is_none().then(|| prepared.rows.order(plan.batch_size.get(), plan.seed)),
        cache: Some(directory.path()),
        kit: prepared.kit(),
    };
    let start = run.gold.as_ref().map(|_| model.decoder().clone());
    let mut trainer = Averaged::new(M::trainer(&run.method, model, lesson)?, run.ema.clone());
    let mut reached = SharedPosition::default();
    let mut batches = prepared.batches(reached.clone())?;
    let prompts = base.prompts(run)?;
    let session = Session {
        directory,
        identity,
        checkpoints: &run.checkpoints,
        early_stopping: run.early_stopping.as_ref(),
        portrait,
    };
    let mut looks = looks(prepared, prompts.as_ref());
    looks.gold = start.as_ref().and_then(|start| gold(prepared, start));
    looks.position = stream.is_some().then_some(&mut reached as _);
    session.train::<_, [M::Row], _, _>(&mut trainer, &mut batches, Batch::described, looks)?;
    if let Batches::Streamed(stream) = &batches {
        println!("streamed    {}", stream.summary());
    }

    let out = run.out.display();
    let written = publish::publish(prepared, trainer.result());
    written.with_context(|| format!("cannot write the result into {out}; give --resume to try again"))?;
    println!("report      {}", directory.report().display());
    Ok(())
}

/// Evaluation and samples, as the run file wants them.
fn looks<'a, M: Method>(
    prepared: &'a Prepared<M>,
    prompts: Option<&'a SamplePrompts<'a>>,
) -> Looks<'a, Averaged<M::Trainer>, ReportOf<M>> {
    let run = &prepared.run;
    let evaluation = prepared.evaluation.as_ref().map(|data| {
        let evaluated: Evaluate<'a, Averaged<M::Trainer>> = Box::new(|trainer| {
            let measured = M::evaluate(&run.method, trainer, &data.examples, &prepared.kit());
            measured.map_err(|error| HookError { hook: "evaluation", reason: format!("{error:#}") })
        });
        (run.evaluation.clone().unwrap_or_default(), evaluated)
    });
    let samples = run.samples.as_ref().zip(prompts).map(|(table, prompts)| {
        let write: Write<'a, Averaged<M::Trainer>> =
            Box::new(|trainer| prompts.answered_by(trainer.result().decoder()));
        (SamplesConfig { every: table.every }, write)
    });
    let news = M::Config::LEARNS_FROM.writes().then_some(M::news as ReadNews<ReportOf<M>>);
    Looks { evaluation, samples, news, gold: None, position: None }
}

/// The better measure of the run file, if there is one; `start` is the model that training begins with.
fn gold<'a, M: Method>(
    prepared: &'a Prepared<M>,
    start: &'a Decoder,
) -> Option<(GoldTable, MeasureGold<'a, Averaged<M::Trainer>>)> {
    let (run, examples) = (&prepared.run, &prepared.evaluation.as_ref()?.examples);
    let table = run.gold.as_ref()?;
    let measure: MeasureGold<'a, Averaged<M::Trainer>> = Box::new(move |trainer| {
        let result = trainer.result();
        let models = [result.decoder(), start];
        let measured = M::gold(&run.method, models, examples, &table.rewards, &prepared.kit());
        measured.map_err(|error| HookError { hook: "gold", reason: format!("{error:#}") })
    });
    Some((table.clone(), measure))
}
