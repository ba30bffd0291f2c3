//! What steps and evaluations of distillation measured, read from the device at once.

use align_model::{
    logprob::{CompletionLayout, TokenScores, plain},
    train::Update,
};
use align_reward::score::Score;
use burn::tensor::Tensor;

use crate::{group::half_width, rollout::RolloutRow};

/// Measurements on the device.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Of each pass: loss, entropy and correct tokens, summed, and then the divergence of each completion, summed over its
    /// tokens. `[3 + completions]`
    passes: Vec<Tensor<1>>,
    /// Tokens of each completion.
    lengths: Vec<usize>,
}

/// Measurements on the host: sums over tokens.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) loss: f64,
    entropy: f64,
    correct: f64,
    /// The divergence of each completion.
    divergences: Vec<f64>,
    /// Tokens of each completion.
    lengths: Vec<usize>,
}

impl Measured {
    /// Keeps what a pass says. `loss`: `[1]`; `divergences`: `[targets]`
    pub(super) fn add(
        &mut self,
        layout: &CompletionLayout,
        loss: Tensor<1>,
        divergences: Tensor<1>,
        scores: &TokenScores,
    ) {
        let sums = [loss, scores.entropies.clone().sum(), scores.correct.clone().sum()].map(plain);
        let of_completions = layout.sums(&plain(divergences), |_, _| 1.0);
        self.passes.push(Tensor::cat(sums.into_iter().chain([of_completions]).collect(), 0));
        self.lengths.extend(layout.lengths());
    }

    /// Reads everything from the device.
    pub(super) fn read(self) -> Sums {
        let sizes: Vec<usize> = self.passes.iter().map(|pass| pass.dims()[0]).collect();
        let values: Vec<f64> = Tensor::cat(self.passes, 0).into_data().iter::<f64>().collect();
        let mut sums =
            Sums { loss: 0.0, entropy: 0.0, correct: 0.0, divergences: Vec::new(), lengths: self.lengths };
        let mut rest = &values[..];
        for size in sizes {
            let (pass, others) = rest.split_at(size);
            sums.loss += pass[0];
            sums.entropy += pass[1];
            sums.correct += pass[2];
            sums.divergences.extend(&pass[3..]);
            rest = others;
        }
        sums
    }
}

impl Sums {
    /// Says it under TRL's names.
    pub(super) fn metrics(&self, update: Option<Update>, num_tokens: u64) -> Vec<(&'static str, f64)> {
        let mut metrics = vec![("loss", self.loss)];
        if let Some(Update { learning_rate, grad_norm }) = update {
            metrics.extend([("grad_norm", grad_norm), ("learning_rate", learning_rate)]);
        }
        metrics.extend([
            ("entropy", self.entropy / self.tokens()),
            ("mean_token_accuracy", self.correct / self.tokens()),
            ("num_tokens", num_tokens as f64),
        ]);
        metrics
    }

    /// The mean divergence of a token.
    pub(super) fn divergence(&self) -> f64 {
        self.divergences.iter().sum::<f64>() / self.tokens()
    }

    /// Half the width of the 95 % interval of [`divergence`](Self::divergence), from how far completions differ.
    pub(super) fn margin(&self) -> f64 {
        let (mean, count) = (self.divergence(), self.lengths.len());
        // A ratio of two sums: by its linear part, as of a survey whose clusters differ in size.
        let residual = |(sum, &length): (&f64, &usize)| (sum - mean * length as f64).powi(2);
        let squares: f64 = self.divergences.iter().zip(&self.lengths).map(residual).sum();
        let correction = count as f64 / (count as f64 - 1.0).max(1.0);
        half_width((correction * squares).sqrt() / self.tokens(), count)
    }

    /// Rows with how far each completion is from what the teacher would say: the less, the better.
    pub(super) fn score(&self, rows: Vec<RolloutRow>) -> Vec<RolloutRow> {
        let scored = |(row, (sum, &length)): (RolloutRow, (&f64, &usize))| {
            let divergence = sum / length.max(1) as f64;
            let row = row.with_score("divergence", &Score::Value(divergence));
            RolloutRow { reward: Some(-divergence), ..row }
        };
        rows.into_iter().zip(self.divergences.iter().zip(&self.lengths)).map(scored).collect()
    }

    fn tokens(&self) -> f64 {
        self.lengths.iter().sum::<usize>() as f64
    }
}
