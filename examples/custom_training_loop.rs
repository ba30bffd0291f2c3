//! A training loop of one's own: no trainer, no hooks. What a step is — which tokens count, what is minimised, when the
//! weights change — stands in the loop; the library gives log-probabilities, their gradient and the update.
//!
//! ```text
//! cargo run --release --example custom_training_loop [MODEL]
//! ```
//!
//! The objective is one that no trainer here has: the likelihood of the data, less a bonus for staying undecided.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::{error::Error, path::Path};

use align_kit::model::{
    causal_lm::TokenBatch,
    logprob::{LogProbPass, Targets, TokenScores},
    number::Positive,
    pretrained::Checkpoint,
    train::{UpdateConfig, Updates},
};
use burn::tensor::{Device, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tests/golden/tiny/model".into());
    for (step, loss) in train(Path::new(&model), 20)?.iter().enumerate() {
        println!("step {:2}  loss {loss:.4}", step + 1);
    }
    Ok(())
}

/// The loss of each of so many steps.
fn train(model: &Path, steps: u64) -> Result<Vec<f32>, Box<dyn Error>> {
    // Parameters on an autodiff device have gradients.
    let mut model = Checkpoint::open(model)?.load(&Device::flex().autodiff())?;
    let settings = UpdateConfig { learning_rate: Positive::new(1e-3), ..UpdateConfig::default() };
    let mut updates = Updates::new(settings, steps)?;
    let batch = TokenBatch::from_sequences(&sequences());
    let targets = Targets::all(&batch);
    let mut losses = Vec::new();
    for _ in 0..steps {
        let pass = LogProbPass::forward(&model, &batch, &targets);
        let scores = pass.scores();
        let loss = objective(&scores);
        losses.extend(loss.clone().into_data().iter::<f32>());
        let gradients = pass.backward(loss, &scores);
        // Clipping, the schedule's rate, AdamW. A model whose gradients are not finite comes back unchanged.
        (model, _) = updates.apply(model, gradients).map_err(|(_, error)| error)?;
    }
    Ok(losses)
}

/// Any differentiable function of the scores is a loss; its gradient reaches the weights through them.
fn objective(scores: &TokenScores) -> Tensor<1> {
    -scores.log_probs.values.clone().mean() - scores.entropies.clone().mean() * 0.01
}

/// Eight sequences that count in steps of their own.
fn sequences() -> Vec<Vec<u32>> {
    (0..8).map(|i| (0..24).map(|t| (t * (i + 2)) % 200 + 3).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_falls() {
        let losses = train(Path::new("tests/golden/tiny/model"), 20).unwrap();
        assert_eq!(losses.len(), 20);
        assert!(losses[19] < losses[0] - 0.5, "{losses:?}");
    }
}
