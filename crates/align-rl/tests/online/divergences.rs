//! Divergences of a pass against those of all logits at once, with burn's own gradients.

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    logprob::{Divergence, LogProbPass, ScoringDistribution, Targets},
    number::{Positive, UnitInterval},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor, activation::log_softmax},
};

use crate::world::{load, policy};

fn flat<M: Module>(model: &M, gradients: &GradientsParams) -> Vec<f32> {
    struct Collect<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.extend(gradient.into_data().iter::<f32>());
            }
        }
    }
    let mut collect = Collect(gradients, Vec::new());
    model.visit(&mut collect);
    collect.1
}

/// The definition, on `[targets, vocab]` at once.
fn naive(divergence: Divergence, log_p: &Tensor<2>, log_q: &Tensor<2>) -> Tensor<1> {
    let kl = |a: &Tensor<2>, b: &Tensor<2>| {
        (a.clone().exp() * (a.clone() - b.clone())).sum_dim(1).squeeze_dim::<1>(1)
    };
    match divergence {
        Divergence::ReverseKl {} => kl(log_p, log_q),
        Divergence::ForwardKl {} => kl(log_q, log_p),
        Divergence::JensenShannon { beta } => {
            let beta = beta.get();
            let mixture = (log_p.clone().exp() * (1.0 - beta) + log_q.clone().exp() * beta).log();
            kl(log_q, &mixture) * beta + kl(log_p, &mixture) * (1.0 - beta)
        }
    }
}

#[test]
fn a_pass_in_chunks_has_the_values_and_gradients_of_all_logits() {
    let (model, teacher) = (policy(), load("arch_qwen3").valid());
    let sequences = [vec![3, 14, 15, 92, 65, 35], vec![8, 97, 93], vec![23, 84, 62, 64, 33, 83, 27]];
    let batch = TokenBatch::from_sequences(&sequences);
    let targets = Targets::all(&batch);
    let positions: Vec<i32> = targets.positions().iter().map(|&p| p as i32).collect();
    let divergences = [
        Divergence::ReverseKl {},
        Divergence::ForwardKl {},
        Divergence::JensenShannon { beta: UnitInterval::new(0.5) },
        Divergence::JensenShannon { beta: UnitInterval::new(0.1) },
    ];
    for (divergence, temperature) in divergences.into_iter().zip([1.0, 0.7, 1.0, 2.0]) {
        let temperature = Positive::new(temperature);
        let pass = LogProbPass::forward(&model, &batch, &targets)
            .with_reference(&teacher, &batch)
            .measuring(divergence)
            .under(ScoringDistribution::tempered(temperature))
            .in_chunks_of(4);
        // A weight for each token, so that no two could be exchanged.
        let weight = |x: Tensor<1>| {
            let weights: Vec<f32> = (0..x.dims()[0]).map(|i| 0.3 + i as f32 * 0.1).collect();
            (x * Tensor::<1>::from_data(&weights[..], &Device::flex().autodiff())).sum()
        };
        let scores = pass.scores();
        let loss = weight(scores.divergences.clone().unwrap());
        let value: f32 = loss.clone().inner().into_scalar();
        let chunked = flat(&model, &pass.backward(loss, &scores));

        let positions = |device: &Device| Tensor::<1, burn::tensor::Int>::from_data(&positions[..], device);
        let tempered = |logits: Tensor<2>| log_softmax(logits / temperature.get(), 1);
        let device = Device::flex();
        let log_p = tempered(model.logits(model.hidden(&batch)).select(0, positions(&device)));
        let log_q = tempered(teacher.logits(teacher.hidden(&batch)).select(0, positions(&device)));
        let loss = weight(naive(divergence, &log_p, &Tensor::from_inner(log_q)));
        let expected: f32 = loss.clone().inner().into_scalar();
        assert!(
            (value - expected).abs() < 1e-4 * expected.abs() + 1e-6,
            "{divergence:?}: {value} {expected}"
        );
        let whole = flat(&model, &GradientsParams::from_grads(loss.backward(), &model));
        assert_eq!(chunked.len(), whole.len());
        let largest = whole.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (got, expected) in chunked.iter().zip(&whole) {
            assert!((got - expected).abs() < 1e-4 * largest, "{divergence:?}: {got} {expected} of {largest}");
        }
    }
}

#[test]
fn one_pass_has_the_same_gradients_as_two() {
    let (model, teacher) = (policy(), load("arch_qwen3").valid());
    let batch = TokenBatch::from_sequences(&[vec![3, 14, 15, 92, 65, 35], vec![8, 97, 93]]);
    let targets = Targets::all(&batch);
    for divergence in [Divergence::ForwardKl {}, Divergence::JensenShannon { beta: UnitInterval::new(0.3) }] {
        let pass = || {
            let pass = LogProbPass::forward(&model, &batch, &targets).with_reference(&teacher, &batch);
            pass.measuring(divergence).in_chunks_of(3)
        };
        let (gradients, scores, terms) =
            pass().backward_per_token(|scores| scores.divergences.clone().unwrap());
        scores.divergences.unwrap().into_data().assert_eq(&terms.into_data(), true);
        let open = pass();
        let scores = open.scores();
        let loss = scores.divergences.clone().unwrap().sum();
        let (one, two) = (flat(&model, &gradients), flat(&model, &open.backward(loss, &scores)));
        for (a, b) in one.iter().zip(&two) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
