//! A language model of one's own: what the library trains, samples and scores is whatever implements `CausalLm`.
//!
//! ```text
//! cargo run --release --example custom_causal_lm
//! ```
//!
//! The model is Bengio's of 2003 in small: a token is predicted from the two before it, through one hidden layer. It is
//! trained by the same trainer as a transformer, with the same losses, schedules and hooks.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;

use align_kit::model::{
    causal_lm::{CausalLm, TokenBatch},
    logprob::{Targets, token_log_probs},
    number::Positive,
    sft::{SftConfig, SftExample, SftTrainer},
    train::{Schedule, Span, Step as _, UpdateConfig},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

const TEXT: &str = "peter piper picked a peck of pickled peppers";

/// `tanh(E[xₜ]·A + E[xₜ₋₁]·B)`, read out by `C`.
#[derive(Module, Debug)]
struct TwoWordModel {
    /// `[vocab, hidden]`
    embedding: Param<Tensor<2>>,
    /// `[hidden, hidden]`
    last: Param<Tensor<2>>,
    /// `[hidden, hidden]`
    before_last: Param<Tensor<2>>,
    /// `[hidden, vocab]`
    head: Param<Tensor<2>>,
}

impl TwoWordModel {
    fn random(vocab: usize, hidden: usize, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let spread = (3.0 / hidden as f32).sqrt();
        let mut matrix = |rows, columns| {
            let uniform = |_| (rng.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0) * spread;
            let values: Vec<f32> = (0..rows * columns).map(uniform).collect();
            Param::from_tensor(Tensor::from_data(TensorData::new(values, [rows, columns]), device))
        };
        Self {
            embedding: matrix(vocab, hidden),
            last: matrix(hidden, hidden),
            before_last: matrix(hidden, hidden),
            head: matrix(hidden, vocab),
        }
    }
}

impl CausalLm for TwoWordModel {
    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        // Sequences lie end to end: what precedes a first token belongs to another one, so that it stands in for itself.
        let (tokens, positions) = (batch.tokens(), batch.positions());
        assert!(tokens.iter().all(|&token| (token as usize) < self.vocab_size()), "an unknown token");
        let before =
            (0..tokens.len()).map(|index| tokens[if positions[index] == 0 { index } else { index - 1 }]);
        let before = indices(before.collect(), &self.device());
        let embedding = self.embedding.val();
        let last = embedding.clone().select(0, batch.token_tensor(&self.device()));
        (last.matmul(self.last.val()) + embedding.select(0, before).matmul(self.before_last.val())).tanh()
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.head.val())
    }

    fn vocab_size(&self) -> usize {
        self.embedding.dims()[0]
    }

    fn max_positions(&self) -> usize {
        usize::MAX
    }

    fn device(&self) -> Device {
        self.embedding.lazy_device()
    }
}

fn indices(tokens: Vec<u32>, device: &Device) -> Tensor<1, Int> {
    let (count, tokens) = (tokens.len(), tokens.into_iter().map(|token| token as i32).collect::<Vec<_>>());
    Tensor::from_data(TensorData::new(tokens, [count]), device)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (model, loss) = train(200)?;
    println!("mean loss at the end: {loss:.3} nats a letter");
    let tokens = tokens();
    let batch = TokenBatch::from_sequences(&[&tokens]);
    let scores = token_log_probs(&model, &batch, &Targets::all(&batch)).values.into_data();
    for (letter, log_prob) in TEXT.chars().skip(1).zip(scores.iter::<f32>()) {
        println!("{letter:?}  {:.3}", log_prob.exp());
    }
    Ok(())
}

/// A trained model and its last loss.
fn train(steps: u64) -> Result<(TwoWordModel, f64), Box<dyn Error>> {
    let device = Device::flex();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let config = SftConfig {
        update: UpdateConfig {
            learning_rate: Positive::new(1e-2),
            schedule: Schedule::Constant { warmup: Span::Steps(0) },
            ..UpdateConfig::default()
        },
        ..SftConfig::default()
    };
    let mut trainer = SftTrainer::new(TwoWordModel::random(128, 32, &mut rng, &device), &config, steps)?;
    let tokens = tokens();
    let batch = [SftExample { is_target: vec![true; tokens.len()], tokens }];
    let mut loss = f64::NAN;
    for _ in 0..steps {
        loss = trainer.step(&batch[..])?.loss;
    }
    Ok((trainer.into_model(), loss))
}

/// A letter is a token.
fn tokens() -> Vec<u32> {
    TEXT.bytes().map(u32::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_letters_are_nearly_enough() {
        let (model, loss) = train(150).unwrap();
        // "pe" goes on in four ways, "pi" in two; most of the rest is certain.
        assert!(loss < 0.6, "{loss}");
        let batch = TokenBatch::from_sequences(&[tokens()]);
        let scores = token_log_probs(&model, &batch, &Targets::all(&batch)).values.into_data();
        let mean = -scores.iter::<f32>().sum::<f32>() / (TEXT.len() - 1) as f32;
        assert!((f64::from(mean) - loss).abs() < 0.05, "{mean} {loss}");
    }

    #[test]
    fn sequences_do_not_see_each_other() {
        let model = TwoWordModel::random(128, 8, &mut ChaCha8Rng::seed_from_u64(1), &Device::flex());
        let (one, two) = (vec![5, 6, 7], vec![8, 9]);
        let together = model.hidden(&TokenBatch::from_sequences(&[&one, &two]));
        let alone = model.hidden(&TokenBatch::from_sequences(&[&two]));
        let read = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
        assert_eq!(read(together.narrow(0, 3, 2)), read(alone));
    }
}
