//! What a run is, in words.

use align_model::decoder::Decoder;
use anyhow::Result;

use super::{
    data::{Extent, TrainingData},
    prepare::Prepared,
};
use crate::{
    method::{Example as _, Method, ModelKind, Settings},
    page::grouped,
    run_file::{Run, SavedForm},
    training::{
        directory::settings_text,
        report::{Fact, Portrait},
    },
};

/// What is printed before a run begins.
pub(super) fn summary<M: Method>(prepared: &Prepared<M>) -> String {
    let Prepared { run, train, evaluation, rows, .. } = prepared;
    let mut lines =
        vec![format!("model       {}", run.model.display()), format!("data        {}", train.described())];
    lines.extend(train.remarks().iter().map(|remark| format!("            {remark}")));
    let plan = run.method.plan();
    if plan.packing.is_some() {
        let (count, length) = (rows.rows.len(), plan.max_length);
        lines.push(format!("            packed into {count} rows of at most {length} tokens"));
    }
    if let Some(evaluation) = evaluation {
        lines.push(format!("evaluation  {}", evaluation.described()));
        lines.extend(evaluation.remarks().iter().map(|remark| format!("            {remark}")));
    }
    lines.join("\n")
}

/// What the report tells of a run.
pub(super) fn portrait<M: Method>(
    prepared: &Prepared<M>,
    model: &Decoder,
    warnings: &[String],
) -> Result<Portrait> {
    let Prepared { run, train, evaluation, rows, base, steps, .. } = prepared;
    let plan = run.method.plan();
    let (tokens, targets) = train.tokens();
    let family = base.checkpoint.architecture().json()["model_type"].as_str().unwrap_or("unknown");
    let mut facts = vec![
        Fact::new("architecture", family),
        Fact::new("trained", parameters(model)),
        Fact::new("data", &train.source),
        Fact::new(M::Example::PLURAL, grouped(train.examples.len() as u64)),
    ];
    facts.push(if M::Config::LEARNS_FROM.has_rewards() {
        Fact::new("rewards", run.rewards.described())
    } else {
        let (tokens, targets) = (grouped(tokens as u64), grouped(targets as u64));
        Fact::new("tokens", format!("{tokens}, {targets} of them learnt"))
    });
    facts.extend(run.teacher.as_ref().map(|teacher| Fact::new("teacher", teacher.path.display())));
    facts.extend(M::facts(&run.method));
    if train.extent == Extent::FirstWindow {
        let inspected = grouped(train.records as u64);
        facts.push(Fact::new(
            "streamed",
            format!("{} and tokens are those of the first {inspected} records", M::Example::PLURAL),
        ));
    }
    facts.extend(plan.packing.map(|_| Fact::new("packed rows", grouped(rows.rows.len() as u64))));
    facts.extend(evaluation.as_ref().map(|data| {
        let count = grouped(data.examples.len() as u64);
        Fact::new("evaluation", format!("{}: {count} {}", data.source, M::Example::PLURAL))
    }));
    facts.extend([
        Fact::new("steps", grouped(*steps)),
        Fact::new("batch", format!("{} in passes of {}", plan.batch_size, plan.micro_batch_size)),
        Fact::new("learning rate", plan.learning_rate),
    ]);
    let out = run.out.display().to_string();
    let remarks = evaluation.iter().flat_map(TrainingData::remarks);
    Ok(Portrait {
        method: M::TITLE.into(),
        model: run.model.display().to_string(),
        device: run.device.to_string(),
        total_steps: *steps,
        facts,
        warnings: warnings.iter().cloned().chain(train.remarks()).chain(remarks).collect(),
        settings: settings_text(run)?,
        next: next(run, &out),
        out,
    })
}

/// How many parameters a model has, and which of them are trained.
pub(super) fn parameters(model: &Decoder) -> String {
    if model.adapter_config().is_none() {
        return format!("{} parameters", model.parameter_count());
    }
    let counts = model.adapter_parameters();
    format!("{} parameters and {} frozen ones", counts.trained_count, counts.frozen_count)
}

/// What can be done with the result.
fn next<C: Settings>(run: &Run<C>, out: &str) -> Vec<String> {
    let model = match run.saved_form() {
        Some(SavedForm::Adapter) => format!("--model {} --adapter {out}", run.model.display()),
        None | Some(SavedForm::Merged | SavedForm::Both) => format!("--model {out}"),
    };
    let uses = match C::MODEL {
        ModelKind::Language => {
            vec![format!("align chat {model}"), format!("align generate {model} --prompt '…'")]
        }
        ModelKind::Reward => Vec::new(),
    };
    let rollouts = C::LEARNS_FROM.writes().then(|| format!("align rollouts show {out}"));
    uses.into_iter().chain(rollouts).chain([format!("tensorboard --logdir {out}/tensorboard")]).collect()
}
