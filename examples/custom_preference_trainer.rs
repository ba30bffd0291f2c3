//! Preference learning in a loop of one's own: the losses are functions of log-probabilities, and no trainer is needed.
//!
//! ```text
//! cargo run --release --example custom_preference_trainer [MODEL]
//! ```
//!
//! The objective is one that no trainer here has: DPO with a β that follows the batch (β-DPO).

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::{error::Error, path::Path};

use align_kit::{
    dpo::loss::{Divergence, DynamicBeta, PairLogProbs, PairLoss},
    model::{
        causal_lm::TokenBatch,
        logprob::{LogProbPass, Targets, TokenLogProbs, token_log_probs},
        number::{NonNegative, Positive, PositiveUnit},
        pretrained::Checkpoint,
        train::{UpdateConfig, Updates},
    },
};
use burn::tensor::{Device, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tests/golden/tiny/model".into());
    for (step, (loss, margin)) in train(Path::new(&model), 20)?.iter().enumerate() {
        println!("step {:2}  loss {loss:.4}  margin {margin:.3}", step + 1);
    }
    Ok(())
}

/// Loss and mean margin of each of so many steps.
fn train(model: &Path, steps: u64) -> Result<Vec<(f64, f64)>, Box<dyn Error>> {
    let mut model = Checkpoint::open(model)?.load(&Device::flex().autodiff())?;
    let settings = UpdateConfig { learning_rate: Positive::new(3e-4), ..UpdateConfig::default() };
    let mut updates = Updates::new(settings, steps)?;
    // Eight tokens of prompt and eight of completion, of which only these are scored.
    let batch = TokenBatch::from_sequences(&sequences());
    let selected: Vec<bool> = (0..batch.tokens().len()).map(|token| token % 16 >= 8).collect();
    let targets = Targets::selected(&batch, &selected);
    // The reference is the model as it is now: scored once.
    let reference = token_log_probs(&model, &batch, &targets);
    let mut beta = DynamicBeta::new(Positive::new(0.1), NonNegative::new(0.6), PositiveUnit::new(0.9));
    let mut history = Vec::new();
    for _ in 0..steps {
        let pass = LogProbPass::forward(&model, &batch, &targets);
        let scores = pass.scores();
        let pairs = pairs(&scores.log_probs, &reference);
        let (chosen, rejected) = pairs.log_ratios();
        let margin = (chosen - rejected).mean().into_data().iter::<f64>().sum();
        let loss = PairLoss::default().per_pair(&pairs, beta.next(margin), Divergence::default()).mean();
        history.push((loss.clone().into_data().iter::<f64>().sum(), margin));
        let gradients = pass.backward(loss, &scores);
        (model, _) = updates.apply(model, gradients).map_err(|(_, error)| error)?;
    }
    Ok(history)
}

/// Sums over completions: the first half of the sequences was chosen, the second rejected.
fn pairs(policy: &TokenLogProbs, reference: &TokenLogProbs) -> PairLogProbs {
    let count = policy.counts.len() / 2;
    let halves = |sums: Tensor<1>| (sums.clone().narrow(0, 0, count), sums.narrow(0, count, count));
    let (policy_chosen, policy_rejected) = halves(policy.summed());
    let (reference_chosen, reference_rejected) = halves(reference.summed());
    let tokens = reference_chosen.ones_like() * 8.0;
    PairLogProbs {
        policy_chosen,
        policy_rejected,
        reference_chosen,
        reference_rejected,
        chosen_tokens: tokens.clone(),
        rejected_tokens: tokens,
        unweighted_chosen: None,
    }
}

/// Four prompts that count in steps of their own, going on as they began; then the same prompts, going back.
fn sequences() -> Vec<Vec<u32>> {
    let value = |t: u32, step, goes_on| 100 + step * if t < 8 || goes_on { t } else { 16 - t };
    let sequence = |step, goes_on| (0..16).map(|t| value(t, step, goes_on)).collect();
    [true, false].into_iter().flat_map(|goes_on| (2..6).map(move |step| sequence(step, goes_on))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_gets_ahead() {
        let history = train(Path::new("tests/golden/tiny/model"), 20).unwrap();
        let ((first, at_first), (last, at_last)) = (history[0], history[19]);
        assert!(at_first.abs() < 1e-3 && at_last > 1.0 && last < first, "{history:?}");
    }
}
