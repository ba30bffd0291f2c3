//! Learning from pairs, step by step.

mod evaluate;
mod measure;

use align_model::{
    causal_lm::{CausalLm, DropoutSeed, PassOptions, Recompute},
    checkpoint::{Resumable, State, StateError},
    logprob::{CompletionLayout, LogProbPass, Prompted, Prompts, TokenLogProbs, TokenScores, like, vector},
    preference::PreferenceExample,
    train::{Learner, Step, Trains},
};
use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};

use crate::{
    config::{DpoConfig, PairWeighting, PreferenceConfigError},
    error::PreferenceError,
    loss::{Desensitized, LengthDesensitization, Likelihoods, PairLogProbs, StepTotals, policy_weights},
    objective::{Objective, PairScores},
    reference::{Anchor, Reference},
    report::PreferenceReport,
};
use measure::Measured;

/// Makes the chosen completions of pairs more likely than the rejected ones: DPO and its relatives, ORPO, CPO, `SimPO`.
///
/// A step's loss is that of its whole batch, however many forward passes it is cut into. Both completions of a pair are
/// computed in one pass, and their prompt once if the model can share it.
#[derive(Debug)]
pub struct DpoTrainer<M> {
    learner: Learner<M>,
    anchor: Anchor<M>,
    settings: Settings,
    tokens_seen: u64,
}

/// What a step needs to know of the configuration.
#[derive(Debug)]
struct Settings {
    objective: Objective,
    length_desensitization: Option<LengthDesensitization>,
    weighting: PairWeighting,
    micro_batch_size: usize,
    group_size: Option<usize>,
    recompute: Recompute,
    seed: u64,
}

/// One forward pass of a step.
struct Part<'a> {
    pairs: &'a [PreferenceExample],
    layout: CompletionLayout,
    /// The reference's log-probabilities. `[targets]`
    reference: Option<Tensor<1>>,
    options: PassOptions,
}

/// Gradients of a group's loss with respect to each pair's sums, found before the way back. `[pairs]` each
struct GivenGradients {
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    unweighted_chosen: Option<Tensor<1>>,
}

impl<M: CausalLm> DpoTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the model's own device.
    ///
    /// # Errors
    /// If settings contradict each other, or the reference is not what they ask for.
    pub fn new(
        model: M,
        reference: Reference<M>,
        config: &DpoConfig,
        total_steps: u64,
    ) -> Result<Self, PreferenceConfigError> {
        config.check()?;
        let policy = config.reference_policy();
        reference.check(policy)?;
        let learner = Learner::new(model, config.update.clone(), total_steps)?;
        Ok(Self {
            anchor: Anchor::new(reference, policy, learner.model()),
            learner,
            settings: Settings {
                objective: config.objective.clone(),
                length_desensitization: config.length_desensitization,
                weighting: config.weighting,
                micro_batch_size: config.micro_batch_size.get(),
                group_size: config.loss_batch_size.map(std::num::NonZeroUsize::get),
                recompute: config.recompute,
                seed: config.seed,
            },
            tokens_seen: 0,
        })
    }

    /// The model as it is now.
    #[must_use]
    pub fn model(&self) -> &M {
        self.learner.model()
    }

    /// Gives the model back, without gradients.
    #[must_use]
    pub fn into_model(self) -> M {
        self.model().valid()
    }

    /// The gradients of a step, before any clipping, and its report without what an update says.
    ///
    /// # Errors
    /// If the batch cannot be trained on.
    pub fn gradients(
        &self,
        batch: &[PreferenceExample],
    ) -> Result<(GradientsParams, PreferenceReport), PreferenceError> {
        let (gradients, measured) = self.accumulate(batch)?;
        Ok((gradients, measured.read().report(&self.settings.objective, batch, self.tokens_seen, None)))
    }

    fn accumulate(
        &self,
        batch: &[PreferenceExample],
    ) -> Result<(GradientsParams, Measured), PreferenceError> {
        self.check(batch)?;
        let groups: Vec<_> = batch.chunks(self.settings.group_size.unwrap_or(batch.len())).collect();
        let (mut gradients, mut measured) = (GradientsAccumulator::new(), Measured::default());
        let mut passes = 0;
        for group in &groups {
            let totals = self.settings.totals(group);
            let parts = group.chunks(self.settings.micro_batch_size).map(|pairs| {
                passes += 1;
                self.part(pairs, passes - 1)
            });
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let share = 1.0 / groups.len() as f64;
            let given = if self.settings.objective.couples_pairs() && parts.len() > 1 {
                let (loss, given) = self.couple(&parts, totals, share);
                measured.losses.push(loss);
                given.into_iter().map(Some).collect()
            } else {
                parts.iter().map(|_| None).collect::<Vec<_>>()
            };
            for (part, given) in parts.iter().zip(given) {
                let pass = self.pass(part);
                let scores = pass.scores();
                let pairs = self.pair_scores(part, &scores);
                let loss = if let Some(given) = given {
                    given.toward(&pairs.log_probs)
                } else {
                    let loss = self.settings.objective.share(&pairs, totals) * share;
                    measured.losses.push(loss.clone().detach());
                    loss
                };
                measured.add(&part.layout, &scores, &pairs);
                gradients.accumulate(self.model(), pass.backward(loss, &scores));
            }
        }
        Ok((gradients.grads(), measured))
    }

    /// Refuses what cannot be trained on.
    fn check(&self, batch: &[PreferenceExample]) -> Result<(), PreferenceError> {
        if batch.is_empty() {
            return Err(PreferenceError::EmptyBatch);
        }
        let limit = self.model().max_positions();
        for (index, example) in batch.iter().enumerate() {
            let unpredicted = usize::from(example.prompt.is_empty());
            if example.chosen.len().min(example.rejected.len()) <= unpredicted {
                return Err(PreferenceError::EmptyResponse { index });
            }
            if example.longest() > limit {
                return Err(PreferenceError::TooLong { index, tokens: example.longest(), limit });
            }
        }
        Ok(())
    }

    /// Lays some pairs out and asks the reference about them.
    fn part<'a>(&self, pairs: &'a [PreferenceExample], index: u64) -> Result<Part<'a>, PreferenceError> {
        let items: Vec<Prompted<'_>> = pairs
            .iter()
            .map(|pair| Prompted {
                prompt: &pair.prompt,
                completions: vec![(&pair.chosen).into(), (&pair.rejected).into()],
            })
            .collect();
        let model = self.model();
        let are_read = self.settings.objective.reads_prompts();
        let layout = CompletionLayout::new(&items, Prompts { are_shared: model.shares_prompts(), are_read });
        let reference = self.anchor.log_probs(&layout, &items, model)?;
        let dropout = Some(DropoutSeed::of(&[self.settings.seed, self.learner.made(), index]));
        let options = PassOptions { recompute: self.settings.recompute, dropout };
        Ok(Part { pairs, layout, reference, options })
    }

    fn pass<'a>(&'a self, part: &'a Part<'_>) -> LogProbPass<'a, M> {
        let CompletionLayout { batch, targets, .. } = &part.layout;
        let pass = LogProbPass::forward_with(self.model(), batch, targets, part.options);
        match self.settings.weighting {
            PairWeighting::Policy => pass.with_collisions(),
            PairWeighting::Equal => pass,
        }
    }

    /// The loss of a group that is computed in several passes although its pairs are coupled, and its gradients with
    /// respect to what each pass scores.
    fn couple(&self, parts: &[Part<'_>], totals: StepTotals, share: f64) -> (Tensor<1>, Vec<GivenGradients>) {
        let scored: Vec<PairLogProbs> =
            parts.iter().map(|part| self.pair_scores(part, &self.pass(part).scores()).log_probs).collect();
        let all = |field: &dyn Fn(&PairLogProbs) -> Tensor<1>| {
            Tensor::cat(scored.iter().map(|part| field(part).detach()).collect(), 0)
        };
        let leaf = |field: &dyn Fn(&PairLogProbs) -> Tensor<1>| all(field).require_grad();
        let has_weights = self.settings.length_desensitization.is_some();
        let log_probs = PairLogProbs {
            policy_chosen: leaf(&|part| part.policy_chosen.clone()),
            policy_rejected: leaf(&|part| part.policy_rejected.clone()),
            reference_chosen: all(&|part| part.reference_chosen.clone()),
            reference_rejected: all(&|part| part.reference_rejected.clone()),
            chosen_tokens: all(&|part| part.chosen_tokens.clone()),
            rejected_tokens: all(&|part| part.rejected_tokens.clone()),
            unweighted_chosen: has_weights.then(|| leaf(&|part| part.chosen_log_likelihood())),
        };
        let likelihoods = Likelihoods {
            log_probs: log_probs.chosen_log_likelihood(),
            tokens: log_probs.chosen_tokens.clone(),
        };
        let leaves = PairScores { log_probs, likelihoods, weights: None };
        let loss = self.settings.objective.share(&leaves, totals) * share;
        let mut gradients = loss.clone().backward();
        let mut take = |leaf: &Tensor<1>| {
            let found = leaf.grad_remove(&mut gradients);
            found.unwrap_or_else(|| leaf.clone().inner().zeros_like())
        };
        let PairLogProbs { policy_chosen, policy_rejected, unweighted_chosen, .. } = &leaves.log_probs;
        let (chosen, rejected) = (take(policy_chosen), take(policy_rejected));
        let unweighted = unweighted_chosen.as_ref().map(take);
        let mut start = 0;
        let given = parts.iter().map(|part| {
            let length = part.pairs.len();
            start += length;
            let cut = |all: &Tensor<1>| Tensor::from_inner(all.clone().narrow(0, start - length, length));
            GivenGradients {
                chosen: cut(&chosen),
                rejected: cut(&rejected),
                unweighted_chosen: unweighted.as_ref().map(cut),
            }
        });
        (loss.detach(), given.collect())
    }

    /// What a pass says of its pairs.
    fn pair_scores(&self, part: &Part<'_>, scores: &TokenScores) -> PairScores {
        let settings = &self.settings;
        let layout = &part.layout;
        let values = &scores.log_probs.values;
        let device = values.device();
        let lengths = layout.lengths();
        let desensitized = |row: usize, token: usize| match settings.length_desensitization {
            // The completions of a pair stand next to each other.
            Some(LengthDesensitization { alpha, .. }) if token >= lengths[row ^ 1] => alpha.get() as f32,
            _ => 1.0,
        };
        let of_reference = |row: usize, token: usize| match settings.length_desensitization {
            Some(LengthDesensitization { of: Desensitized::PolicyAndReference, .. }) => {
                desensitized(row, token)
            }
            _ => 1.0,
        };
        let [policy_chosen, policy_rejected] = sides(layout.sums(values, desensitized));
        let [reference_chosen, reference_rejected] = match &part.reference {
            Some(reference) => sides(layout.sums(&like(reference.clone(), values), of_reference)),
            None => [policy_chosen.zeros_like(), policy_chosen.zeros_like()],
        };
        let tokens =
            |side: usize| vector(lengths.iter().skip(side).step_by(2).map(|&length| length as f32), &device);
        let unweighted = || {
            let [chosen, _] = sides(layout.sums(values, |_, _| 1.0));
            chosen
        };
        let unweighted_chosen = settings.length_desensitization.map(|_| unweighted());
        let likelihoods = if settings.objective.reads_prompts() {
            let lengths = layout.lengths_of_whole().into_iter().map(|length| length as f32);
            Likelihoods { log_probs: layout.sums_of_whole(values), tokens: vector(lengths, &device) }
        } else {
            let log_probs = unweighted_chosen.clone().unwrap_or_else(|| policy_chosen.clone());
            Likelihoods { log_probs, tokens: tokens(0) }
        };
        let weights = scores.collisions.as_ref().map(|collisions| {
            let log_probs = TokenLogProbs { values: values.clone(), counts: lengths.clone() };
            let [chosen, rejected] = sides(policy_weights(&log_probs, like(collisions.clone(), values)));
            chosen * rejected
        });
        let log_probs = PairLogProbs {
            policy_chosen,
            policy_rejected,
            reference_chosen,
            reference_rejected,
            chosen_tokens: tokens(0),
            rejected_tokens: tokens(1),
            unweighted_chosen,
        };
        PairScores { log_probs, likelihoods, weights }
    }
}

impl Settings {
    /// What a group is averaged over.
    fn totals(&self, group: &[PreferenceExample]) -> StepTotals {
        let tokens = |pair: &PreferenceExample| {
            let prompt = if self.objective.reads_prompts() { pair.prompt.len() } else { 0 };
            // A first token is never predicted.
            prompt + pair.chosen.len() - usize::from(prompt > 0 || pair.prompt.is_empty())
        };
        StepTotals { pairs: group.len(), likelihood_tokens: group.iter().map(tokens).sum() }
    }
}

impl GivenGradients {
    /// A number whose gradient with respect to a pass's scores is the given one.
    fn toward(self, log_probs: &PairLogProbs) -> Tensor<1> {
        let mut sum = (log_probs.policy_chosen.clone() * self.chosen).sum()
            + (log_probs.policy_rejected.clone() * self.rejected).sum();
        if let Some(gradient) = self.unweighted_chosen {
            sum = sum + (log_probs.chosen_log_likelihood() * gradient).sum();
        }
        sum
    }
}

/// What stands alternately for chosen and rejected completions, `[2·pairs]`, as two. `[pairs]` each
fn sides(both: Tensor<1>) -> [Tensor<1>; 2] {
    let pairs = both.dims()[0] / 2;
    let both = both.reshape([pairs, 2]);
    [0, 1].map(|side| both.clone().narrow(1, side, 1).squeeze_dim(1))
}

impl<M: CausalLm> Step<[PreferenceExample]> for DpoTrainer<M> {
    type Report = PreferenceReport;
    type Error = PreferenceError;

    fn step(&mut self, batch: &[PreferenceExample]) -> Result<PreferenceReport, PreferenceError> {
        let (gradients, measured) = self.accumulate(batch)?;
        let measured = measured.read();
        if !measured.loss.is_finite() {
            return Err(PreferenceError::NotFinite { loss: measured.loss });
        }
        let update = self.learner.update(gradients)?;
        self.anchor.follow(self.learner.model(), self.learner.made());
        let tokens =
            |pair: &PreferenceExample| 2 * pair.prompt.len() + pair.chosen.len() + pair.rejected.len();
        self.tokens_seen += batch.iter().map(|pair| tokens(pair) as u64).sum::<u64>();
        Ok(measured.report(&self.settings.objective, batch, self.tokens_seen, Some(update)))
    }
}

impl<M: CausalLm> Trains for DpoTrainer<M> {
    type Model = M;

    fn model(&self) -> &M {
        Self::model(self)
    }
}

impl<M: CausalLm> Resumable for DpoTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.learner.save(state)?;
        self.anchor.save(state)?;
        state.insert("tokens_seen", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)?;
        self.anchor.restore(state, self.learner.model(), self.learner.made())?;
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}
