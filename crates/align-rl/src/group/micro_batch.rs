//! How an update is cut into forward passes, and what each of them is divided by.

use align_model::causal_lm::CausalLm;

use super::GroupTrainer;
use crate::{
    experience::{Experience, Part},
    loss::{Accumulation, StepTotals},
};

/// Completions that several updates are made with: what [`Accumulation::RolloutMean`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutTotals {
    /// Their action tokens that are learnt from.
    pub tokens: usize,
    /// Updates that each see a part of them.
    pub updates: usize,
}

impl RolloutTotals {
    /// Completions that are learnt from in so many updates.
    pub(super) fn of(experience: &[Experience], updates: usize) -> Self {
        Self { tokens: tokens(experience), updates }
    }
}

/// A forward pass of an update.
#[derive(Debug)]
pub(super) struct MicroBatch<'a> {
    pub(super) part: Part<'a>,
    /// What its share is divided by, as long as all of its tokens are kept.
    totals: StepTotals,
}

/// The forward passes of an update.
#[derive(Debug)]
pub(super) struct MicroBatches<'a> {
    pub(super) all: Vec<MicroBatch<'a>>,
    /// Passes of the update, with those that have no token to learn from.
    pub(super) number: usize,
    pub(super) accumulation: Accumulation,
}

impl MicroBatches<'_> {
    /// What each pass's share is divided by, given how many of its tokens are kept.
    pub(super) fn totals(&self, kept: Option<&[usize]>) -> Vec<StepTotals> {
        let Some(kept) = kept else { return self.all.iter().map(|pass| pass.totals).collect() };
        let of_update: usize = kept.iter().sum();
        let of_pass = |(pass, &kept): (&MicroBatch<'_>, &usize)| {
            let kept_tokens = match self.accumulation {
                Accumulation::Exact => of_update,
                Accumulation::MicroBatchMean | Accumulation::RolloutMean => kept * self.number,
            };
            StepTotals { kept_tokens, ..pass.totals }
        };
        self.all.iter().zip(kept).map(of_pass).collect()
    }

    /// Passes whose statistics are taken together.
    pub(super) fn scope(&self) -> usize {
        match self.accumulation {
            Accumulation::Exact => self.all.len().max(1),
            Accumulation::MicroBatchMean | Accumulation::RolloutMean => 1,
        }
    }
}

impl<M: CausalLm> GroupTrainer<M> {
    /// Cuts an update. Passes with nothing to learn from are left out.
    pub(super) fn cut<'a>(
        &self,
        experience: &'a [Experience],
        rollouts: Option<RolloutTotals>,
    ) -> MicroBatches<'a> {
        let (size, accumulation) = (self.config.micro_batch_size.get(), self.config.algorithm.accumulation);
        let parts =
            |some: &'a [Experience]| Part::all(some, size, self.config.rollout.temperature(), self.model());
        let number = experience.len().div_ceil(size);
        let totals = |some: &[Experience]| {
            let own = StepTotals::new(some.len() * number, tokens(some) * number);
            let rollouts = rollouts.unwrap_or_else(|| RolloutTotals::of(experience, 1));
            match accumulation {
                Accumulation::Exact => StepTotals::new(experience.len(), tokens(experience)),
                Accumulation::MicroBatchMean => own,
                Accumulation::RolloutMean => {
                    StepTotals { tokens: rollouts.tokens as f64 / rollouts.updates as f64, ..own }
                }
            }
        };
        let chunk = if accumulation == Accumulation::Exact { experience.len().max(1) } else { size };
        let of_chunk = |some: &'a [Experience]| {
            let totals = totals(some);
            parts(some).into_iter().map(move |part| MicroBatch { part, totals })
        };
        MicroBatches { all: experience.chunks(chunk).flat_map(of_chunk).collect(), number, accumulation }
    }
}

fn tokens(experience: &[Experience]) -> usize {
    experience.iter().map(Experience::targets).sum()
}
