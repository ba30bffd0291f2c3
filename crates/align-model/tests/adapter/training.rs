//! What training an adapter changes, and what it leaves alone.

use std::collections::BTreeMap;

use align_model::{
    adapter::{AdapterKind, LoraConfig, Targets},
    causal_lm::TokenBatch,
    decoder::{BaseWeights, Decoder},
    logprob::{LogProbPass, Targets as TargetTokens},
    number::{NonNegative, ProperFraction},
    sft::{SftConfig, SftExample, SftTrainer},
    train::{AdamW, AdamWConfig, Step},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};

use crate::models::{FAMILIES, family, logits, lora, model, rng};

/// Every parameter by its path, or its gradient.
fn values(model: &Decoder, gradients: Option<&GradientsParams>) -> BTreeMap<String, Vec<f32>> {
    let mut reader = Reader { path: Vec::new(), gradients, found: BTreeMap::new() };
    model.visit(&mut reader);
    reader.found
}

struct Reader<'a> {
    path: Vec<String>,
    gradients: Option<&'a GradientsParams>,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = match self.gradients {
            Some(gradients) => gradients.get::<D>(param.id),
            None => Some(param.val()),
        };
        if let Some(value) = value {
            self.found.insert(self.path.join("."), value.into_data().try_into_vec().unwrap());
        }
    }
}

fn examples() -> Vec<SftExample> {
    [vec![1, 5, 12, 0, 3], vec![7, 7, 2], vec![4, 9, 1, 1]]
        .into_iter()
        .map(|tokens| SftExample { is_target: vec![true; tokens.len()], tokens })
        .collect()
}

fn trained(model: Decoder, steps: usize) -> Decoder {
    let mut trainer = SftTrainer::new(model, &SftConfig::default(), steps as u64).unwrap();
    let losses: Vec<f64> = (0..steps).map(|_| trainer.step(&examples()[..]).unwrap().loss).collect();
    assert!(losses[steps - 1] <= losses[0], "{losses:?}");
    trainer.into_model()
}

fn gradients(model: &Decoder) -> GradientsParams {
    let batch = TokenBatch::from_sequences(&[vec![1, 5, 12, 0, 3], vec![7, 7, 2]]);
    let targets = TargetTokens::selected(&batch, &[true; 8]);
    LogProbPass::forward(model, &batch, &targets)
        .backward_per_token(|scores| -scores.log_probs.values.clone())
        .0
}

#[test]
fn only_adapters_have_gradients_and_move() {
    for model_type in FAMILIES {
        for kind in [AdapterKind::Lora, AdapterKind::Dora] {
            let fresh = model(model_type).with_adapter(family(model_type), &lora(kind), &mut rng(1)).unwrap();
            let before = values(&fresh, None);
            let tracked = fresh.clone().train();
            let with_gradients = values(&tracked, Some(&gradients(&tracked)));
            let adapters = before.keys().filter(|path| path.contains(".adapter."));
            assert!(with_gradients.keys().eq(adapters), "{model_type}: {:?}", with_gradients.keys());
            let after = values(&trained(fresh, 3), None);
            for (path, old) in &before {
                assert_eq!(after[path] != *old, path.contains(".adapter."), "{model_type} {path}");
            }
        }
    }
}

#[test]
fn it_does_not_matter_when_a_model_starts_to_have_gradients() {
    let with =
        |model: Decoder| model.with_adapter(family("gpt2"), &lora(AdapterKind::Dora), &mut rng(1)).unwrap();
    let before = trained(with(model("gpt2")), 2);
    let after = trained(with(model("gpt2").train()), 2);
    let back = trained(with(model("gpt2").train()).valid(), 2);
    assert_eq!(values(&before, None), values(&after, None));
    assert_eq!(values(&before, None), values(&back, None));
    assert!(!with(model("gpt2").train()).valid().train().embedding.is_require_grad());
}

#[test]
fn a_merged_model_can_be_trained_whole() {
    let fresh = model("llama").with_adapter(family("llama"), &lora(AdapterKind::Lora), &mut rng(1)).unwrap();
    let merged = trained(fresh, 1).merge_adapter().unwrap();
    let before = values(&merged, None);
    let after = values(&trained(merged, 2), None);
    assert!(before.iter().all(|(path, old)| after[path] != *old));
}

#[test]
fn the_head_alone_can_be_trained() {
    let targets = Targets::Modules(["lm_head".into()].into());
    let config = LoraConfig { targets, ..lora(AdapterKind::Lora) };
    let fresh = model("llama").with_adapter(family("llama"), &config, &mut rng(1)).unwrap();
    let before = values(&fresh, None);
    let after = values(&trained(fresh, 2), None);
    let moved: Vec<_> =
        before.iter().filter(|(path, old)| after[*path] != **old).map(|(path, _)| path).collect();
    assert_eq!(moved, ["head.adapter.a", "head.adapter.b"]);
}

#[test]
fn magnitudes_decay_and_norm_weights_and_biases_do_not() {
    let fresh =
        model("gpt2").with_adapter(family("gpt2"), &lora(AdapterKind::Dora), &mut rng(1)).unwrap().train();
    let step = |weight_decay: f64| {
        let config = AdamWConfig { weight_decay: NonNegative::new(weight_decay), ..AdamWConfig::default() };
        let model = fresh.clone();
        let gradients = gradients(&model);
        values(&AdamW::new(config).step(0.1, model, gradients), None)
    };
    let (plain, decayed, old) = (step(0.0), step(0.5), values(&fresh, None));
    for (path, plain) in &plain {
        let expected: Vec<f32> = if path.contains(".adapter.") {
            plain.iter().zip(&old[path]).map(|(value, old)| value - 0.1 * 0.5 * old).collect()
        } else {
            plain.clone()
        };
        let far = expected.iter().zip(&decayed[path]).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(far < 1e-5, "{path}: {far}");
    }
}

#[test]
fn an_adapter_on_a_quantized_base_trains_alone() {
    for base in [BaseWeights::Int8, BaseWeights::NormalFloat4] {
        let config = LoraConfig { base, dropout: ProperFraction::new(0.0), ..lora(AdapterKind::Dora) };
        let fresh = model("llama").with_adapter(family("llama"), &config, &mut rng(1)).unwrap();
        let reference = logits(&fresh.without_adapter());
        assert_eq!(logits(&fresh), reference, "a fresh adapter changes nothing");
        let after = trained(fresh, 3);
        assert_ne!(logits(&after), reference);
        assert_eq!(logits(&after.without_adapter()), reference);
    }
}
