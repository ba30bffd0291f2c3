//! Learning from single completions that are desirable or not, step by step.

mod evaluate;
mod exchange;
mod measure;

use align_model::{
    causal_lm::{CausalLm, DropoutSeed, PassOptions, Recompute},
    checkpoint::{Resumable, State, StateError},
    logprob::{CompletionLayout, LogProbPass, Prompted, Prompts, like, plain, token_log_probs, vector},
    number::Positive,
    preference::UnpairedExample,
    train::{Learner, Step, Trains},
};
use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};

use crate::{
    config::{KtoConfig, PreferenceConfigError},
    error::PreferenceError,
    loss::{Baseline, RunningMean, UnpairedLogProbs, UnpairedLoss, kto_baseline},
    reference::{Anchor, Reference},
    report::PreferenceReport,
};
pub(crate) use exchange::Exchange;
use measure::Measured;

/// Makes desirable completions more likely and undesirable ones less: KTO, APO-zero on single completions, BCO.
///
/// A step's loss is that of its whole batch, however many forward passes it is cut into.
#[derive(Debug)]
pub struct KtoTrainer<M> {
    learner: Learner<M>,
    anchor: Anchor<M>,
    settings: Settings,
    /// Mean of all rewards so far, which BCO measures against.
    rewards: RunningMean,
    tokens_seen: u64,
}

/// What a step needs to know of the configuration.
#[derive(Debug)]
struct Settings {
    loss: UnpairedLoss,
    beta: Positive,
    micro_batch_size: usize,
    exchange: Exchange,
    recompute: Recompute,
    seed: u64,
}

/// One forward pass of a step.
struct Part<'a> {
    examples: &'a [UnpairedExample],
    layout: CompletionLayout,
    /// The reference's sums. `[examples]`, without a graph
    reference: Tensor<1>,
}

impl<M: CausalLm> KtoTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the model's own device.
    ///
    /// # Errors
    /// If settings contradict each other, or the reference is not what they ask for.
    pub fn new(
        model: M,
        reference: Reference<M>,
        config: &KtoConfig,
        total_steps: u64,
    ) -> Result<Self, PreferenceConfigError> {
        config.check()?;
        reference.check(Some(config.reference))?;
        let learner = Learner::new(model, config.update.clone(), total_steps)?;
        Ok(Self {
            anchor: Anchor::new(reference, Some(config.reference), learner.model()),
            settings: Settings {
                loss: config.loss,
                beta: config.beta,
                micro_batch_size: config.micro_batch_size.get(),
                exchange: Exchange::new(config, learner.model().max_positions()),
                recompute: config.recompute,
                seed: config.seed,
            },
            learner,
            rewards: RunningMean::default(),
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
        batch: &[UnpairedExample],
    ) -> Result<(GradientsParams, PreferenceReport), PreferenceError> {
        let (gradients, measured, _) = self.accumulate(batch)?;
        Ok((gradients, measured.read().report(self.settings.beta, batch, self.tokens_seen, None)))
    }

    fn accumulate(
        &self,
        batch: &[UnpairedExample],
    ) -> Result<(GradientsParams, Measured, RunningMean), PreferenceError> {
        self.check(batch)?;
        let groups = self.settings.exchange.groups(batch);
        let (mut gradients, mut measured) = (GradientsAccumulator::new(), Measured::default());
        let (mut rewards, mut passes) = (self.rewards, 0);
        for group in groups.clone() {
            let parts = group.chunks(self.settings.micro_batch_size).map(|examples| self.part(examples));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let baseline = self.baseline(group, &parts, &mut rewards)?;
            if let Some(Baseline::Divergence) = self.settings.loss.baseline() {
                measured.divergences.push(baseline.clone());
            }
            for part in &parts {
                let dropout = Some(DropoutSeed::of(&[self.settings.seed, self.learner.made(), passes]));
                passes += 1;
                let options = PassOptions { recompute: self.settings.recompute, dropout };
                let CompletionLayout { batch: tokens, targets, .. } = &part.layout;
                let pass = LogProbPass::forward_with(self.model(), tokens, targets, options);
                let scores = pass.scores();
                let values = &scores.log_probs.values;
                let log_probs = UnpairedLogProbs {
                    policy: part.layout.sums(values, |_, _| 1.0),
                    reference: like(part.reference.clone(), values),
                    desirable: vector(
                        part.examples.iter().map(|example| f32::from(u8::from(example.desirable))),
                        &values.device(),
                    ),
                };
                let baseline = like(baseline.clone(), values);
                let terms = self.settings.loss.per_example(&log_probs, self.settings.beta, baseline);
                let loss = terms.sum() / (group.len() * groups.len()) as f64;
                measured.add(&part.layout, &scores, &log_probs, &loss);
                gradients.accumulate(self.model(), pass.backward(loss, &scores));
            }
        }
        Ok((gradients.grads(), measured, rewards))
    }

    /// Refuses what cannot be trained on.
    fn check(&self, batch: &[UnpairedExample]) -> Result<(), PreferenceError> {
        self.check_each(batch)?;
        let is_alone = |group: &[UnpairedExample]| group.len() == 1;
        if self.settings.exchange.groups(batch).any(is_alone)
            && self.settings.loss.baseline() == Some(Baseline::Divergence)
        {
            return Err(PreferenceError::LonelyExample);
        }
        Ok(())
    }

    /// Refuses examples of which none could be scored.
    fn check_each(&self, batch: &[UnpairedExample]) -> Result<(), PreferenceError> {
        if batch.is_empty() {
            return Err(PreferenceError::EmptyBatch);
        }
        let limit = self.model().max_positions();
        for (index, UnpairedExample { prompt, completion, .. }) in batch.iter().enumerate() {
            if completion.len() <= usize::from(prompt.is_empty()) {
                return Err(PreferenceError::EmptyResponse { index });
            }
            let tokens = prompt.len() + completion.len();
            if tokens > limit {
                return Err(PreferenceError::TooLong { index, tokens, limit });
            }
        }
        Ok(())
    }

    /// Lays some examples out and asks the reference about them.
    fn part<'a>(&self, examples: &'a [UnpairedExample]) -> Result<Part<'a>, PreferenceError> {
        let items: Vec<Prompted<'_>> = examples
            .iter()
            .map(|example| Prompted {
                prompt: &example.prompt,
                completions: vec![(&example.completion).into()],
            })
            .collect();
        let (layout, reference) = self.ask_reference(&items)?;
        Ok(Part { examples, layout, reference })
    }

    /// Items laid out, and the reference's sums of their completions, without a graph. `[completions]`
    fn ask_reference(
        &self,
        items: &[Prompted<'_>],
    ) -> Result<(CompletionLayout, Tensor<1>), PreferenceError> {
        let layout = CompletionLayout::new(
            items,
            Prompts { are_shared: self.model().shares_prompts(), are_read: false },
        );
        let values = self.anchor.log_probs(&layout, items, self.model())?;
        let values = values.unwrap_or_else(|| unreachable!("the trainer was made with a reference"));
        let sums = layout.sums(&values, |_, _| 1.0);
        Ok((layout, sums))
    }

    /// A policy's sums of the layout's completions, without a graph. `[completions]`
    fn ask_policy(model: &M, layout: &CompletionLayout) -> Tensor<1> {
        let values = token_log_probs(model, &layout.batch, &layout.targets).values;
        layout.sums(&values, |_, _| 1.0)
    }

    /// What the completions of a group are measured against. `[1]`, without a graph
    fn baseline(
        &self,
        group: &[UnpairedExample],
        parts: &[Part<'_>],
        rewards: &mut RunningMean,
    ) -> Result<Tensor<1>, PreferenceError> {
        let constant = |value: f64| vector([value as f32], &self.model().valid().device());
        match self.settings.loss.baseline() {
            None => Ok(constant(0.0)),
            Some(Baseline::Divergence) => self.divergence_of_mismatched(self.model(), group),
            Some(Baseline::MeanReward) => {
                let ratios = parts
                    .iter()
                    .map(|part| Self::ask_policy(self.model(), &part.layout) - part.reference.clone())
                    .collect();
                let ratios = Tensor::cat(ratios, 0).into_data();
                let beta = self.settings.beta.get();
                let values: Vec<f64> = ratios.iter::<f64>().map(|ratio| beta * ratio).collect();
                rewards.update(&values);
                Ok(constant(rewards.mean()))
            }
        }
    }

    /// The divergence from the reference on exchanged completions.
    fn divergence_of_mismatched(
        &self,
        model: &M,
        group: &[UnpairedExample],
    ) -> Result<Tensor<1>, PreferenceError> {
        let mismatched = self.settings.exchange.within(group);
        let (mut policy, mut reference) = (Vec::new(), Vec::new());
        for items in mismatched.chunks(self.settings.micro_batch_size) {
            let (layout, of_reference) = self.ask_reference(items).map_err(|error| match error {
                PreferenceError::Missing(_) => PreferenceError::MissingExchanged,
                other => other,
            })?;
            policy.push(Self::ask_policy(model, &layout));
            reference.push(of_reference);
        }
        Ok(plain(kto_baseline(Tensor::cat(policy, 0), Tensor::cat(reference, 0))))
    }
}

impl<M: CausalLm> Step<[UnpairedExample]> for KtoTrainer<M> {
    type Report = PreferenceReport;
    type Error = PreferenceError;

    fn step(&mut self, batch: &[UnpairedExample]) -> Result<PreferenceReport, PreferenceError> {
        let (gradients, measured, rewards) = self.accumulate(batch)?;
        let measured = measured.read();
        if !measured.loss.is_finite() {
            return Err(PreferenceError::NotFinite { loss: measured.loss });
        }
        let update = self.learner.update(gradients)?;
        self.rewards = rewards;
        self.anchor.follow(self.learner.model(), self.learner.made());
        let tokens = |example: &UnpairedExample| example.prompt.len() + example.completion.len();
        self.tokens_seen += batch.iter().map(|example| tokens(example) as u64).sum::<u64>();
        Ok(measured.report(self.settings.beta, batch, self.tokens_seen, Some(update)))
    }
}

impl<M: CausalLm> Trains for KtoTrainer<M> {
    type Model = M;

    fn model(&self) -> &M {
        Self::model(self)
    }
}

impl<M: CausalLm> Resumable for KtoTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.learner.save(state)?;
        self.anchor.save(state)?;
        state.insert("rewards", &self.rewards)?;
        state.insert("tokens_seen", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)?;
        self.anchor.restore(state, self.learner.model(), self.learner.made())?;
        self.rewards = state.take("rewards")?;
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}
