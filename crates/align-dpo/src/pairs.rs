//! Learning from pairs, step by step.

mod couple;
mod evaluate;
mod measure;
mod scores;

use std::{borrow::Cow, slice};

use align_model::{
    causal_lm::{CausalLm, DropoutSeed, PassOptions, Recompute},
    checkpoint::{Resumable, State, StateError},
    logprob::{CompletionLayout, Continuation, LogProbPass, Prompted, Prompts},
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
    loss::{DynamicBeta, LengthDesensitization, StepTotals},
    objective::Objective,
    reference::{Anchor, Reference},
    report::PreferenceReport,
};
use couple::{couple, follow_margins};
use measure::Measured;

/// Makes the chosen completions of pairs more likely than the rejected ones: DPO and its relatives, ORPO, CPO, `SimPO`, TPO.
///
/// A step's loss is that of its whole batch, however many forward passes it is cut into. The completions of a pair are
/// computed in one pass, and their prompt once if the model can share it.
#[derive(Debug)]
pub struct DpoTrainer<M> {
    learner: Learner<M>,
    anchor: Anchor<M>,
    settings: Settings,
    /// How β follows the margins, if it does.
    beta: Option<DynamicBeta>,
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
            beta: config.dynamic_beta.map(|dynamic| dynamic.around(config.objective.beta())),
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
        let (gradients, measured, _) = self.accumulate(batch)?;
        Ok((gradients, measured.read().report(&self.settings.objective, batch, self.tokens_seen, None)))
    }

    fn accumulate(
        &self,
        batch: &[PreferenceExample],
    ) -> Result<(GradientsParams, Measured, Option<DynamicBeta>), PreferenceError> {
        self.check(batch)?;
        let groups: Vec<_> = batch.chunks(self.settings.group_size.unwrap_or(batch.len())).collect();
        let (mut gradients, mut measured) = (GradientsAccumulator::new(), Measured::default());
        let (mut beta, mut passes) = (self.beta, 0);
        for group in &groups {
            let totals = self.settings.totals(group);
            let parts = group.chunks(self.settings.micro_batch_size).map(|pairs| {
                passes += 1;
                self.part(pairs, passes - 1)
            });
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let share = 1.0 / groups.len() as f64;
            let mut objective = Cow::Borrowed(&self.settings.objective);
            let knows_all = parts.len() > 1 && (objective.couples_pairs() || beta.is_some());
            let beforehand = if knows_all { self.score(&parts) } else { Vec::new() };
            follow_margins(&mut objective, &mut beta, &beforehand, &mut measured);
            let mut given = Vec::new();
            if knows_all && objective.couples_pairs() {
                let (loss, of_parts) = couple(&objective, &beforehand, totals, share);
                measured.losses.push(loss);
                given = of_parts;
            }
            let mut given = given.into_iter();
            for part in &parts {
                let pass = self.pass(part);
                let scores = pass.scores();
                let pairs = self.pair_scores(part, &scores);
                if !knows_all {
                    follow_margins(
                        &mut objective,
                        &mut beta,
                        slice::from_ref(&pairs.log_probs),
                        &mut measured,
                    );
                }
                let loss = if let Some(given) = given.next() {
                    given.toward(&pairs.log_probs)
                } else {
                    let loss = objective.share(&pairs, totals) * share;
                    measured.losses.push(loss.clone().detach());
                    loss
                };
                measured.add(&part.layout, &scores, &pairs);
                gradients.accumulate(self.model(), pass.backward(loss, &scores));
            }
        }
        Ok((gradients.grads(), measured, beta))
    }

    /// Refuses what cannot be trained on.
    fn check(&self, batch: &[PreferenceExample]) -> Result<(), PreferenceError> {
        if batch.is_empty() {
            return Err(PreferenceError::EmptyBatch);
        }
        let limit = self.model().max_positions();
        for (index, example) in batch.iter().enumerate() {
            if self.settings.objective.reads_gold() && example.gold.is_none() {
                return Err(PreferenceError::NoGold { index });
            }
            let completions = self.settings.completions(example);
            let lengths = || completions.iter().map(|completion| completion.len());
            if lengths().any(|length| length <= usize::from(example.prompt.is_empty())) {
                return Err(PreferenceError::EmptyResponse { index });
            }
            let tokens = example.prompt.len() + lengths().max().unwrap_or(0);
            if tokens > limit {
                return Err(PreferenceError::TooLong { index, tokens, limit });
            }
        }
        Ok(())
    }

    /// Lays some pairs out and asks the reference about them.
    fn part<'a>(&self, pairs: &'a [PreferenceExample], index: u64) -> Result<Part<'a>, PreferenceError> {
        let items: Vec<Prompted<'_>> = pairs
            .iter()
            .map(|pair| {
                let completions = self.settings.completions(pair).into_iter().map(Continuation::from);
                Prompted { prompt: &pair.prompt, completions: completions.collect() }
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
}

impl Settings {
    /// What is computed of a pair: the chosen completion, the rejected one, and the gold one if it is learnt.
    fn completions<'a>(&self, pair: &'a PreferenceExample) -> Vec<&'a [u32]> {
        let gold = pair.gold.as_deref().filter(|_| self.objective.reads_gold());
        [&pair.chosen[..], &pair.rejected[..]].into_iter().chain(gold).collect()
    }

    /// What a group is averaged over.
    fn totals(&self, group: &[PreferenceExample]) -> StepTotals {
        let tokens = |pair: &PreferenceExample| {
            let prompt = if self.objective.reads_prompts() { pair.prompt.len() } else { 0 };
            let gold = pair.gold.as_ref().filter(|_| self.objective.reads_gold());
            let completion = gold.unwrap_or(&pair.chosen).len();
            // A first token is never predicted.
            prompt + completion - usize::from(prompt > 0 || pair.prompt.is_empty())
        };
        StepTotals { pairs: group.len(), likelihood_tokens: group.iter().map(tokens).sum() }
    }
}

impl<M: CausalLm> Step<[PreferenceExample]> for DpoTrainer<M> {
    type Report = PreferenceReport;
    type Error = PreferenceError;

    fn step(&mut self, batch: &[PreferenceExample]) -> Result<PreferenceReport, PreferenceError> {
        let (gradients, measured, beta) = self.accumulate(batch)?;
        let measured = measured.read();
        if !measured.loss.is_finite() {
            return Err(PreferenceError::NotFinite { loss: measured.loss });
        }
        let update = self.learner.update(gradients)?;
        self.anchor.follow(self.learner.model(), self.learner.made());
        self.beta = beta;
        let tokens = |pair: &PreferenceExample| {
            let completions = self.settings.completions(pair);
            completions.iter().map(|completion| pair.prompt.len() + completion.len()).sum::<usize>()
        };
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
        if let Some(beta) = &self.beta {
            state.insert("usual_margin", &beta.usual_margin)?;
        }
        state.insert("tokens_seen", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)?;
        self.anchor.restore(state, self.learner.model(), self.learner.made())?;
        if let Some(beta) = &mut self.beta {
            beta.usual_margin = state.take("usual_margin")?;
        }
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}
