//! GRPO with a closure as the reward.
//!
//! ```text
//! cargo run --release --example grpo_closure [MODEL]
//! ```
//!
//! The model learns to write even tokens, which needs no tokenizer; a closure over text looks at `rollout.completion`.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::{error::Error, path::Path};

use align_kit::{
    model::{number::Positive, pretrained::Checkpoint, train::Step},
    reward::{function::each_fn, rollout::Rollout},
    rl::{
        GroupConfig, GroupTrainer, Preset, Rewards,
        group::Algorithm,
        rollout::{PromptExample, RolloutConfig},
    },
};
use burn::tensor::Device;

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tests/golden/tiny/model".into());
    for (step, reward) in train(Path::new(&model), 30)?.iter().enumerate() {
        println!("step {:2}  reward {reward:.3}", step + 1);
    }
    Ok(())
}

/// The mean reward of each of so many steps.
fn train(model: &Path, steps: u64) -> Result<Vec<f64>, Box<dyn Error>> {
    let model = Checkpoint::open(model)?.load(&Device::flex().autodiff())?;
    let even = each_fn("even", |rollout: &Rollout| {
        let tokens = rollout.tokens.as_deref().unwrap_or_default();
        tokens.iter().filter(|&token| token % 2 == 0).count() as f64 / tokens.len() as f64
    });
    let mut config = GroupConfig::of(Algorithm::preset(Preset::Grpo));
    config.rollout = RolloutConfig { max_new_tokens: 8.try_into()?, ..RolloutConfig::default() };
    config.update.learning_rate = Positive::new(3e-3);
    let mut trainer = GroupTrainer::new(model, None, Rewards::one(even), None, &config, steps)?;
    let prompt =
        |token| PromptExample { prompt: "".into(), tokens: vec![token], columns: serde_json::Map::new() };
    let prompts: Vec<PromptExample> = (100..104).map(prompt).collect();
    let mut step = || Ok(trainer.step(&prompts)?.get("reward").unwrap_or_default());
    (0..steps).map(|_| step()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reward_rises() {
        let rewards = train(Path::new("tests/golden/tiny/model"), 30).unwrap();
        assert!(rewards[29] > rewards[0] + 0.1, "{rewards:?}");
    }
}
