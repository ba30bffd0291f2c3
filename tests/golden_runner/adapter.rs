//! `kind: "adapter"`: adapters that PEFT wrote, on small random models.

use std::collections::HashMap;

use align_model::{
    adapter::SavedAdapter,
    causal_lm::{CausalLm, TokenBatch},
    logprob::{LogProbPass, Targets},
    pretrained::{Checkpoint, SafetensorsWeights, WeightSource, tensor_name},
};
use burn::{module::Module, tensor::Device};

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{ids, text},
    trace::Values,
};

const LOGITS: Tolerance = Tolerance::Absolute(1e-4);
const GRADIENT: Tolerance = Tolerance::OfLargest(1e-5);

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let checkpoint = Checkpoint::open(&file.directory.join(text(&file.json, "model_dir"))).unwrap();
    let family = checkpoint.architecture().family();
    let base = checkpoint.load(&Device::flex()).unwrap();
    let adapter = SavedAdapter::open(&file.directory.join(text(&file.json, "adapter_dir"))).unwrap();
    let model = adapter.apply(base, family).unwrap();
    let arrays =
        SafetensorsWeights::open_file(&file.directory.join(text(&file.json, "arrays_file"))).unwrap();
    let read =
        |name: &str| -> Vec<f64> { arrays.read(name).unwrap().values.into_iter().map(f64::from).collect() };

    let ids = ids(&file.json["input_ids"]);
    let batch = TokenBatch::from_sequences(&[&ids]);
    for (what, model) in [("logits", model.clone()), ("merged", model.clone().merge_adapter().unwrap())] {
        check.case();
        let logits = model.logits(model.hidden(&batch)).into_data();
        check.close(what, &logits.iter::<f64>().collect::<Vec<_>>(), &read("logits"), LOGITS);
    }

    check.case();
    let tracked = model.train();
    let targets = Targets::selected(&batch, &vec![true; ids.len()]);
    let pass = LogProbPass::forward(&tracked, &batch, &targets);
    let mean = |scores: &align_model::logprob::TokenScores| {
        scores.log_probs.values.clone() / -((ids.len() - 1) as f64)
    };
    let (gradients, ..) = pass.backward_per_token(mean);
    let mut found = HashMap::new();
    tracked.visit(&mut Values { path: Vec::new(), gradients: Some(&gradients), found: &mut found });
    let found: HashMap<String, Vec<f64>> =
        found.into_iter().map(|(path, values)| (tensor_name(family, &path), values)).collect();
    let stored =
        arrays.names().into_iter().filter_map(|name| Some(name.strip_prefix("gradient.")?.to_owned()));
    let stored: Vec<String> = stored.collect();
    assert_eq!(stored.len(), found.len(), "all adapters and nothing else have gradients");
    for name in stored {
        match found.get(&name) {
            Some(actual) => check.close(&name, actual, &read(&format!("gradient.{name}")), GRADIENT),
            None => check.fail(format!("gradient {name}: we have none")),
        }
    }
    Ok(())
}
