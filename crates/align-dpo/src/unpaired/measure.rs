//! What a step over judged completions measured, read from the device at once.

use std::ops::Range;

use align_model::{
    logprob::{CompletionLayout, TokenScores, plain},
    number::Positive,
    preference::UnpairedExample,
    train::Update,
};
use burn::tensor::Tensor;

use crate::{
    loss::UnpairedLogProbs,
    report::{PreferenceReport, by_slice, mean},
};

/// Measurements on the device.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// The divergence of each group. `[1]` each
    pub(super) divergences: Vec<Tensor<1>>,
    /// Of each pass: its share of the loss, what its examples have, what its tokens have.
    /// `[1 + 2·examples + 2·targets]`
    passes: Vec<Tensor<1>>,
    layouts: Vec<Vec<Range<usize>>>,
}

/// Measurements on the host.
pub(super) struct Read {
    pub(super) loss: f64,
    divergence: Option<f64>,
    examples: Vec<Example>,
}

/// What one example measured.
struct Example {
    policy: f64,
    reference: f64,
    tokens: f64,
    /// Sum over its tokens.
    entropy: f64,
    /// Sum over its tokens.
    logits: f64,
}

impl Measured {
    /// Keeps what a pass says.
    pub(super) fn add(
        &mut self,
        layout: &CompletionLayout,
        scores: &TokenScores,
        log_probs: &UnpairedLogProbs,
        loss: &Tensor<1>,
    ) {
        let parts = [loss, &log_probs.policy, &log_probs.reference, &scores.entropies, &scores.mean_logits];
        self.passes.push(Tensor::cat(parts.map(|part| plain(part.clone().detach())).to_vec(), 0));
        self.layouts.push(layout.completions.clone());
    }

    /// Reads everything from the device.
    pub(super) fn read(self) -> Read {
        let groups = self.divergences.len();
        let all = self.divergences.into_iter().chain(self.passes).collect();
        let values: Vec<f64> = Tensor::cat(all, 0).into_data().iter::<f64>().collect();
        let (divergences, mut rest) = values.split_at(groups);
        let divergence = mean(divergences.iter().copied());
        let mut read = Read { loss: 0.0, divergence, examples: Vec::new() };
        for completions in self.layouts {
            let (count, targets) = (completions.len(), completions.last().map_or(0, |last| last.end));
            read.loss += rest[0];
            let (of_examples, of_tokens) = rest[1..].split_at(2 * count);
            read.examples.extend(completions.iter().enumerate().map(|(index, range)| Example {
                policy: of_examples[index],
                reference: of_examples[count + index],
                tokens: range.len() as f64,
                entropy: of_tokens[range.clone()].iter().sum(),
                logits: of_tokens[targets..][range.clone()].iter().sum(),
            }));
            rest = &of_tokens[2 * targets..];
        }
        read
    }
}

impl Read {
    /// What a class has no example of is left out.
    pub(super) fn report(
        &self,
        beta: Positive,
        batch: &[UnpairedExample],
        num_tokens: u64,
        update: Option<Update>,
    ) -> PreferenceReport {
        let reward = |example: &Example| beta.get() * (example.policy - example.reference);
        let of = |desirable: bool| {
            let class = batch.iter().zip(&self.examples).filter(move |(it, _)| it.desirable == desirable);
            class.map(|(_, example)| example)
        };
        let per_token = |desirable: bool| {
            let tokens: f64 = of(desirable).map(|example| example.tokens).sum();
            (tokens > 0.0).then(|| of(desirable).map(|example| example.logits).sum::<f64>() / tokens)
        };
        let tokens: f64 = self.examples.iter().map(|example| example.tokens).sum();
        let entropy: f64 = self.examples.iter().map(|example| example.entropy).sum();
        let (chosen, rejected) = (mean(of(true).map(reward)), mean(of(false).map(reward)));
        let desirable = batch.iter().filter(|example| example.desirable).count();
        let optional = [
            ("kl", self.divergence),
            ("rewards/chosen", chosen),
            ("rewards/rejected", rejected),
            ("rewards/margins", chosen.zip(rejected).map(|(chosen, rejected)| chosen - rejected)),
            ("logps/chosen", mean(of(true).map(|example| example.policy))),
            ("logps/rejected", mean(of(false).map(|example| example.policy))),
            ("logits/chosen", per_token(true)),
            ("logits/rejected", per_token(false)),
        ];
        let mut metrics = vec![("loss", self.loss)];
        if let Some(Update { learning_rate, grad_norm }) = update {
            metrics.extend([("grad_norm", grad_norm), ("learning_rate", learning_rate)]);
        }
        metrics.extend([
            ("entropy", entropy / tokens),
            ("num_tokens", num_tokens as f64),
            ("desirable", desirable as f64 / batch.len() as f64),
        ]);
        metrics.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let of_slices = |name, desirable: bool| {
            let class = batch.iter().zip(&self.examples).filter(|(it, _)| it.desirable == desirable);
            by_slice(name, class.map(|(it, example)| (&it.slice, reward(example))))
        };
        let mut named = of_slices("rewards/chosen", true);
        named.extend(of_slices("rewards/rejected", false));
        PreferenceReport::new(metrics, named)
    }
}
