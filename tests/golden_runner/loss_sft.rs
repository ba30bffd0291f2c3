//! `loss_sft`: losses of supervised fine-tuning on given logits.
//!
//! The logits are given as they are, so the model here is one whose head is the identity.

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    logprob::{LogProbPass, Targets},
    number::UnitInterval,
    sft::SftLoss,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{flat, number, rows},
};

const LOSS: Tolerance = Tolerance::Mixed { relative: 1e-5, absolute: 1e-6 };
const GRADIENT: Tolerance = Tolerance::OfLargest(1e-5);

/// A model whose hidden states, and logits, are its parameters.
#[derive(Module, Debug)]
struct Given {
    logits: Param<Tensor<2>>,
}

impl CausalLm for Given {
    fn hidden(&self, _: &TokenBatch) -> Tensor<2> {
        self.logits.val()
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden
    }

    fn vocab_size(&self) -> usize {
        self.logits.val().dims()[1]
    }

    fn max_positions(&self) -> usize {
        usize::MAX
    }

    fn device(&self) -> Device {
        self.logits.lazy_device()
    }
}

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let device = super::device().autodiff();
    let inputs = &file.json["inputs"];
    let labels = rows(&inputs["labels"]);
    let vocab = inputs["logits"][0][0].as_array().unwrap().len();
    let values: Vec<f32> = flat(&inputs["logits"]).into_iter().map(|v| v as f32).collect();
    let positions = values.len() / vocab;
    // Labels that carry no loss still need some token to stand there.
    let sequences: Vec<Vec<u32>> =
        labels.iter().map(|row| row.iter().map(|&label| label.max(0) as u32).collect()).collect();
    let selected: Vec<bool> = labels.iter().flatten().map(|&label| label != -100).collect();
    let batch = TokenBatch::from_sequences(&sequences);
    let targets = Targets::selected(&batch, &selected);
    for result in file.json["results"].as_array().unwrap() {
        check.case();
        let options = &result["options"];
        let model =
            Given { logits: Param::from_data(TensorData::new(values.clone(), [positions, vocab]), &device) };
        let divisor = options.get("num_items_in_batch").map_or(targets.len() as f64, number);
        let loss = loss(options);
        let pass = LogProbPass::forward(&model, &batch, &targets);
        let (gradients, _, terms) = pass.backward_per_token(|scores| loss.per_token(scores) / divisor);
        let value = terms.into_data().iter::<f64>().sum();
        check.close_scalar(&format!("{options} loss"), value, number(&result["loss_f64"]), LOSS);
        let gradient = gradients.get::<2>(model.logits.id).unwrap();
        let gradient: Vec<f64> = gradient.into_data().iter::<f64>().collect();
        check.close(&format!("{options} gradient"), &gradient, &flat(&result["grad_logits_f64"]), GRADIENT);
    }
    Ok(())
}

fn loss(options: &Value) -> SftLoss {
    match options["loss_type"].as_str() {
        Some("nll") => SftLoss::Nll {
            label_smoothing: UnitInterval::new(options.get("label_smoothing_factor").map_or(0.0, number)),
        },
        Some("dft") => SftLoss::Dft {},
        other => panic!("no loss {other:?}"),
    }
}
