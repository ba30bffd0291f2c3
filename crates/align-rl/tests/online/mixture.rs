//! The mixture of a policy and its reference.

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    generate::{GenerationConfig, generate},
    logprob::{Targets, token_log_probs},
    number::UnitInterval,
};
use align_rl::online::{GeometricMixture, OnlineError};
use burn::{
    module::Module,
    tensor::{Tensor, activation::log_softmax},
};

use crate::world::{load, policy};

fn read(x: Tensor<2>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn its_logits_are_weighted_and_its_ends_are_the_models() {
    let (policy, reference) = (policy().valid(), load("arch_qwen3").valid());
    let batch = TokenBatch::from_sequences(&[vec![3, 4, 5, 6], vec![7, 8]]);
    let of = |model: &dyn Fn() -> Tensor<2>| log_softmax(model(), 1);
    let log_p = of(&|| policy.logits(policy.hidden(&batch)));
    let log_q = of(&|| reference.logits(reference.hidden(&batch)));
    for coefficient in [0.0, 0.3, 1.0] {
        let mixture = GeometricMixture::new(&policy, &reference, UnitInterval::new(coefficient)).unwrap();
        let got = read(mixture.logits(mixture.hidden(&batch)));
        let expected = log_softmax(log_q.clone() * coefficient + log_p.clone() * (1.0 - coefficient), 1);
        for (got, expected) in got.iter().zip(read(expected)) {
            assert!((got - expected).abs() < 2e-4, "{got} {expected}");
        }
    }
}

#[test]
fn what_it_writes_has_the_log_probabilities_that_it_says() {
    let (policy, reference) = (policy(), load("arch_qwen3"));
    let mixture = GeometricMixture::new(&policy, &reference, UnitInterval::new(0.4)).unwrap();
    let config = GenerationConfig {
        max_new_tokens: 6.try_into().unwrap(),
        samples: 3.try_into().unwrap(),
        ..GenerationConfig::default()
    };
    let prompts = [vec![3, 4, 5], vec![9, 8, 7, 6]];
    let written = generate(&mixture, &prompts, &config, None).unwrap();
    for (prompt, samples) in prompts.iter().zip(written) {
        for sample in samples {
            let whole = [&prompt[..], &sample.tokens].concat();
            let marks: Vec<bool> = (0..whole.len()).map(|at| at >= prompt.len()).collect();
            let batch = TokenBatch::from_sequences(&[whole]);
            let scored = token_log_probs(&mixture, &batch, &Targets::selected(&batch, &marks)).values;
            for (got, expected) in sample.log_probs.iter().zip(scored.into_data().iter::<f32>()) {
                assert!((got - expected).abs() < 1e-4, "{got} {expected}");
            }
        }
    }
}

#[test]
fn models_of_other_vocabularies_do_not_mix() {
    let error = GeometricMixture::new(&policy(), &load("tiny/model"), UnitInterval::new(0.5)).unwrap_err();
    assert!(matches!(error, OnlineError::OtherVocabulary { expected: 256, .. }), "{error}");
}
