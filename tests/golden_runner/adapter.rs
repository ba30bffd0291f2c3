//! `kind: "adapter"`: adapters that PEFT wrote, on small random models.

use std::collections::HashMap;

use align_model::{
    adapter::SavedAdapter,
    causal_lm::{CausalLm, PassOptions, TokenBatch},
    decoder::Decoder,
    logprob::{LogProbPass, Targets},
    pretrained::{Checkpoint, ClassifierKind, Family, SafetensorsWeights, WeightSource, tensor_name},
};
use align_reward::model::{RewardModel, ScorePass, load_reward_adapter};
use burn::{module::Module, optim::GradientsParams, tensor::Device};

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{ids, text},
    trace::Values,
};

const LOGITS: Tolerance = Tolerance::Absolute(1e-4);
/// What PEFT puts before the names of transformers.
const PREFIX: &str = "base_model.model.";

const GRADIENT: Tolerance = Tolerance::OfLargest(1e-5);

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let path = file.directory.join(text(&file.json, "model_dir"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let adapter = SavedAdapter::open(&file.directory.join(text(&file.json, "adapter_dir"))).unwrap();
    let arrays =
        SafetensorsWeights::open_file(&file.directory.join(text(&file.json, "arrays_file"))).unwrap();
    let ids = ids(&file.json["input_ids"]);
    let batch = TokenBatch::from_sequences(&[&ids]);
    match adapter.classifier(checkpoint.architecture()).unwrap() {
        None => language_model(&checkpoint, &adapter, (&ids, &batch), &arrays, check),
        Some(head) => {
            let expected = if head.kind == ClassifierKind::Token { "TOKEN_CLS" } else { "SEQ_CLS" };
            assert_eq!(text(&file.json, "classifier"), expected);
            let positions = match head.kind {
                ClassifierKind::Sequence => vec![ids.len() - 1],
                ClassifierKind::Token => (0..ids.len()).collect(),
            };
            let model = load_reward_adapter(&path, &checkpoint, &adapter, &Device::flex()).unwrap();
            let family = checkpoint.architecture().family();
            classifier(family, model, (&positions, &batch), &arrays, check);
        }
    }
    Ok(())
}

fn language_model(
    checkpoint: &Checkpoint,
    adapter: &SavedAdapter,
    (ids, batch): (&[u32], &TokenBatch),
    arrays: &SafetensorsWeights,
    check: &mut Check,
) {
    let family = checkpoint.architecture().family();
    let model = adapter.apply(checkpoint.load(&Device::flex()).unwrap(), family).unwrap();
    for (what, model) in [("logits", model.clone()), ("merged", model.clone().merge_adapter().unwrap())] {
        check.case();
        let logits = model.logits(model.hidden(batch)).into_data();
        check.close(what, &logits.iter::<f64>().collect::<Vec<_>>(), &read(arrays, "logits"), LOGITS);
    }

    check.case();
    let tracked = model.train();
    let targets = Targets::selected(batch, &vec![true; ids.len()]);
    let pass = LogProbPass::forward(&tracked, batch, &targets);
    let mean = |scores: &align_model::logprob::TokenScores| {
        scores.log_probs.values.clone() / -((ids.len() - 1) as f64)
    };
    let (gradients, ..) = pass.backward_per_token(mean);
    let on_disk = |path: &str| match tensor_name(family, path) {
        adapter if adapter.starts_with(PREFIX) => adapter,
        // In memory, transformers 5 gives GPT-NeoX the name that other heads have.
        whole => format!("{PREFIX}{}", whole.replace("embed_out.", "lm_head.")),
    };
    compare_gradients(&tracked, &gradients, on_disk, arrays, check);
}

/// A reward model or another classifier: the mean square of its scores is what gradients are of.
fn classifier(
    family: Family,
    model: RewardModel<Decoder>,
    (positions, batch): (&[usize], &TokenBatch),
    arrays: &SafetensorsWeights,
    check: &mut Check,
) {
    let merged = RewardModel { backbone: model.backbone.clone().merge_adapter().unwrap(), ..model.clone() };
    for (what, model) in [("scores", &model), ("merged", &merged)] {
        check.case();
        let scores = model.scores(batch, positions).into_data();
        check.close(what, &scores.iter::<f64>().collect::<Vec<_>>(), &read(arrays, "logits"), LOGITS);
    }

    check.case();
    let tracked = model.train();
    let pass = ScorePass::forward(&tracked, batch, positions, PassOptions::default());
    let loss = pass.scores().powi_scalar(2).mean();
    let gradients = pass.backward(loss);
    let module = arrays.names().into_iter().find_map(|name| {
        let module =
            name.strip_prefix("gradient.")?.strip_prefix(PREFIX)?.strip_suffix(".weight")?.to_owned();
        ["score", "classifier"].contains(&module.as_str()).then_some(module)
    });
    let module = module.expect("the head is trained");
    let on_disk = |path: &str| match path.strip_prefix("backbone.") {
        Some(path) => tensor_name(family, path),
        None => path.replace("head.", &format!("{PREFIX}{module}.")),
    };
    compare_gradients(&tracked, &gradients, on_disk, arrays, check);
}

/// Compares the gradients of everything that is trained with the stored ones.
fn compare_gradients<M: Module>(
    model: &M,
    gradients: &GradientsParams,
    on_disk: impl Fn(&str) -> String,
    arrays: &SafetensorsWeights,
    check: &mut Check,
) {
    let mut found = HashMap::new();
    model.visit(&mut Values { path: Vec::new(), gradients: Some(gradients), found: &mut found });
    let found: HashMap<String, Vec<f64>> =
        found.into_iter().map(|(path, values)| (on_disk(&path), values)).collect();
    let stored =
        arrays.names().into_iter().filter_map(|name| Some(name.strip_prefix("gradient.")?.to_owned()));
    let stored: Vec<String> = stored.collect();
    assert_eq!(stored.len(), found.len(), "all that is trained and nothing else has gradients");
    for name in stored {
        match found.get(&name) {
            Some(actual) => check.close(&name, actual, &read(arrays, &format!("gradient.{name}")), GRADIENT),
            None => check.fail(format!("gradient {name}: we have none")),
        }
    }
}

fn read(arrays: &SafetensorsWeights, name: &str) -> Vec<f64> {
    arrays.read(name).unwrap().values.into_iter().map(f64::from).collect()
}
