//! What a run is, in words.

use align_model::{decoder::Decoder, sft::LossOn};
use anyhow::Result;

use super::{
    data::{Extent, SftData},
    prepare::Prepared,
};
use crate::{
    page::grouped,
    run_file::{SavedForm, SftRun},
    training::{
        directory::settings_text,
        report::{Fact, Portrait},
    },
};

/// What is printed before a run begins.
pub(super) fn summary(prepared: &Prepared) -> String {
    let Prepared { run, train, evaluation, rows, .. } = prepared;
    let mut lines =
        vec![format!("model       {}", run.model.display()), format!("data        {}", train.described())];
    lines.extend(train.remarks().iter().map(|remark| format!("            {remark}")));
    if run.sft.packing.is_some() {
        let (count, length) = (rows.rows.len(), run.sft.max_length);
        lines.push(format!("            packed into {count} rows of at most {length} tokens"));
    }
    if let Some(evaluation) = evaluation {
        lines.push(format!("evaluation  {}", evaluation.described()));
        lines.extend(evaluation.remarks().iter().map(|remark| format!("            {remark}")));
    }
    lines.join("\n")
}

/// What the report tells of a run.
pub(super) fn portrait(prepared: &Prepared, model: &Decoder, warnings: &[String]) -> Result<Portrait> {
    let Prepared { run, train, evaluation, rows, base, steps, .. } = prepared;
    let sft = &run.sft;
    let (tokens, targets) = train.tokens();
    let family = base.checkpoint.architecture().json()["model_type"].as_str().unwrap_or("unknown");
    let mut facts = vec![
        Fact::new("architecture", family),
        Fact::new("trained", parameters(model)),
        Fact::new("data", &train.source),
        Fact::new("samples", grouped(train.examples.len() as u64)),
        Fact::new(
            "tokens",
            format!("{}, {} of them learnt", grouped(tokens as u64), grouped(targets as u64)),
        ),
        Fact::new("loss on", loss_on(sft.loss_on)),
    ];
    if train.extent == Extent::FirstWindow {
        let inspected = grouped(train.lengths.len() as u64);
        facts.push(Fact::new(
            "streamed",
            format!("samples and tokens are those of the first {inspected} records"),
        ));
    }
    facts.extend(sft.packing.map(|_| Fact::new("packed rows", grouped(rows.rows.len() as u64))));
    facts.extend(evaluation.as_ref().map(|data| {
        Fact::new("evaluation", format!("{}: {} samples", data.source, grouped(data.examples.len() as u64)))
    }));
    facts.extend([
        Fact::new("steps", grouped(*steps)),
        Fact::new("batch", format!("{} in passes of {}", sft.batch_size, sft.micro_batch_size)),
        Fact::new("learning rate", sft.update.learning_rate.get()),
    ]);
    let out = run.out.display().to_string();
    let remarks = evaluation.iter().flat_map(SftData::remarks);
    Ok(Portrait {
        method: "Supervised fine-tuning".into(),
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
fn next(run: &SftRun, out: &str) -> Vec<String> {
    let model = match run.saved_form() {
        Some(SavedForm::Adapter) => format!("--model {} --adapter {out}", run.model.display()),
        None | Some(SavedForm::Merged | SavedForm::Both) => format!("--model {out}"),
    };
    vec![
        format!("align chat {model}"),
        format!("align generate {model} --prompt '…'"),
        format!("tensorboard --logdir {out}/tensorboard"),
    ]
}

fn loss_on(which: LossOn) -> &'static str {
    match which {
        LossOn::Completion => "completions",
        LossOn::Everything => "everything",
        LossOn::Assistant => "what the assistant says",
    }
}
