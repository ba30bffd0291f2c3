//! Online preference learning: a policy writes completions, somebody says which of two is better, and the policy learns
//! from that.
//!
//! [`OnlinePreferenceTrainer`] has online DPO, Nash-MD and XPO. [`RejectionSamplingTrainer`] imitates the best of its own
//! completions, and [`demonstrations`] chooses them for an iteration of one's own.
//!
//! # Example
//! ```no_run
//! use align_model::{decoder::Decoder, tokenizer::Tokenizer, train::Step};
//! use align_reward::{function::each_fn, rollout::Rollout};
//! use align_rl::{OnlineConfig, OnlinePreferenceTrainer, Rewards, online::Feedback, rollout::PromptExample};
//!
//! # fn f(
//! #     model: Decoder, tokenizer: Tokenizer, batches: Vec<Vec<PromptExample>>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let brief = each_fn("brief", |rollout: &Rollout| -(rollout.completion.len() as f64));
//! let feedback = Feedback::Rewards(Rewards::one(brief));
//! let (config, steps) = (OnlineConfig::default(), batches.len() as u64);
//! let reference = model.clone();
//! let mut trainer =
//!     OnlinePreferenceTrainer::new(model, reference, feedback, Some(tokenizer), &config, steps)?;
//! for prompts in &batches {
//!     let report = trainer.step(prompts.as_slice())?;
//!     println!("loss {:.4}, mean score {:?}", report.loss(), report.get("objective/scores"));
//! }
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod evaluate;
mod feedback;
mod loss;
mod measure;
mod mixture;
mod rejection;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    num::NonZeroUsize,
};

use align_model::{
    causal_lm::{DropoutSeed, IncrementalLm, PassOptions},
    checkpoint::{Resumable, State, StateError},
    logprob::{
        CompletionLayout, LogProbPass, Prompted, Prompts, ScoringDistribution, TokenLogProbs, like,
        token_log_probs_under, vector,
    },
    tokenizer::Tokenizer,
    train::{Learner, Step, Trains},
};
use align_reward::judge::Verdict;
use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};

pub use config::{OnlineConfig, OnlineObjective, OnlinePairLoss, Ties};
pub use error::OnlineError;
pub use feedback::Feedback;
use feedback::{Duel, Judged, Judgement};
pub use loss::{nash_md_loss, online_dpo_loss, online_ipo_loss, xpo_loss};
use measure::{Measured, Tally};
pub use mixture::{GeometricMixture, MixtureCache};
pub use rejection::{
    Demonstrations, RejectionSamplingConfig, RejectionSamplingTrainer, TruncatedDemonstrations,
    demonstrations,
};

use crate::{
    error::RlConfigError,
    reference::Anchor,
    report::RlReport,
    rollout::{LeftOutPrompt, PromptExample, RolloutConfig, Rollouts, Sampled, sample_rollouts},
    sampling_distribution,
};

/// Learns from preferences between completions that it writes itself.
///
/// A step writes pairs of completions for its prompts, has them judged, and makes one update. Its loss is the mean over the
/// pairs that it learns from, however many forward passes it is cut into. Pairs without a winner are counted; a step that
/// has nothing else leaves the weights alone.
///
/// Metrics have TRL's names and meanings, over the pairs that are learnt from: `objective/kl`, `objective/entropy`,
/// `objective/scores`, `rewards/chosen`, `rewards/margins`, `logps/chosen`, `val/contain_eos_token` and so on; where TRL's
/// sums run over padding, these do not, and XPO's `logps/…` are the policy's alone. Nash-MD's are under the distribution that
/// completions were drawn from, temperature and filters included, for so is its loss; TRL's are under the model's own.
#[derive(Debug)]
pub struct OnlinePreferenceTrainer<M> {
    learner: Learner<M>,
    reference: Anchor<M>,
    feedback: Feedback,
    tokenizer: Option<Tokenizer>,
    settings: OnlineConfig,
    /// Steps made, whether they changed the weights or not.
    rounds: u64,
    tokens_seen: u64,
}

/// A duel to be learnt from.
struct Pair<'a> {
    duel: &'a Duel,
    /// P(a ≻ b)
    preference: f64,
    /// Whether `a` won.
    is_first_better: bool,
}

/// One forward pass of a step.
struct Part {
    layout: CompletionLayout,
    /// What the policy and the reference are scored under.
    distribution: ScoringDistribution,
    /// The reference's log-probabilities. `[targets]`
    reference: Tensor<1>,
    options: PassOptions,
}

impl<M: IncrementalLm> OnlinePreferenceTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the model's own device.
    ///
    /// Without a tokenizer, rewards and judges see the numbers of tokens instead of text.
    ///
    /// # Errors
    /// If settings contradict each other, or the models do not know the same tokens.
    pub fn new(
        model: M,
        reference: M,
        feedback: Feedback,
        tokenizer: Option<Tokenizer>,
        config: &OnlineConfig,
        total_steps: u64,
    ) -> Result<Self, RlConfigError> {
        config.check()?;
        if config.missing_end_penalty.is_some() && matches!(feedback, Feedback::Judge(_)) {
            let problem = "lowers rewards, and a judge gives none: leave it out".to_owned();
            return Err(RlConfigError::Setting { key: "missing_end_penalty", problem });
        }
        let (expected, found) = (model.vocab_size(), reference.vocab_size());
        if expected != found {
            let problem =
                format!("knows {found} tokens and the policy {expected}: they need the same vocabulary");
            return Err(RlConfigError::Setting { key: "reference", problem });
        }
        let learner = Learner::new(model, config.update.clone(), total_steps)?;
        Ok(Self {
            reference: Anchor::new(Some(reference), Some(config.reference), learner.model())?,
            learner,
            feedback,
            tokenizer,
            settings: config.clone(),
            rounds: 0,
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

    fn reference(&self) -> &M {
        let Some(reference) = self.reference.model() else { unreachable!("it was given one") };
        reference
    }

    /// Writes two completions to be compared, or more, for each prompt.
    fn duels(&self, prompts: &[PromptExample]) -> Result<Vec<Duel>, OnlineError> {
        let settings = &self.settings;
        let seed = |author| DropoutSeed::of(&[settings.seed, self.rounds, author]).0;
        let half = RolloutConfig { samples: half(settings.rollout.samples), ..settings.rollout.clone() };
        let tokenizer = self.tokenizer.as_ref();
        let own = |config| sample_rollouts(self.model(), prompts, config, seed(0), tokenizer);
        let (duels, left_out) = match settings.objective {
            OnlineObjective::OnlineDpo { .. } => {
                let rollouts = own(&settings.rollout)?;
                (neighbours(rollouts.samples), rollouts.left_out)
            }
            OnlineObjective::NashMd { mixture_coefficient, .. } => {
                let mixture = GeometricMixture::new(self.model(), self.reference(), mixture_coefficient)?;
                let others = sample_rollouts(&mixture, prompts, &half, seed(1), tokenizer)?;
                meet(own(&half)?, others)
            }
            OnlineObjective::Xpo { .. } => {
                let others = sample_rollouts(self.reference(), prompts, &half, seed(1), tokenizer)?;
                meet(own(&half)?, others)
            }
        };
        match left_out.first() {
            Some(first) if duels.is_empty() => {
                Err(OnlineError::NothingWritten { prompts: prompts.len(), why: first.why })
            }
            _ => Ok(duels),
        }
    }

    /// Which duels are learnt from.
    fn pairs<'a>(&self, duels: &'a [Duel], judgements: &[Judgement]) -> Vec<Pair<'a>> {
        let is_nash = matches!(self.settings.objective, OnlineObjective::NashMd { .. });
        let takes_ties = is_nash || self.settings.ties == Ties::FirstWins;
        let pair = |(duel, judgement): (&'a Duel, &Judgement)| {
            let (preference, lead) = (judgement.preference()?, judgement.lead()?);
            let is_learnt = takes_ties || (lead.abs() > 0.0 && !duel.is_identical());
            is_learnt.then_some(Pair { duel, preference, is_first_better: lead >= 0.0 })
        };
        duels.iter().zip(judgements).filter_map(pair).collect()
    }

    /// Gradients of a step's loss, and what it measured.
    fn accumulate(&self, pairs: &[Pair<'_>]) -> (GradientsParams, Measured) {
        let (mut gradients, mut measured) = (GradientsAccumulator::new(), Measured::default());
        for (index, here) in pairs.chunks(self.settings.micro_batch_size.get()).enumerate() {
            let part = self.part(here, index as u64);
            let CompletionLayout { batch, targets, .. } = &part.layout;
            let pass = LogProbPass::forward_with(self.model(), batch, targets, part.options);
            let pass = pass.under(part.distribution.clone());
            let scores = pass.scores();
            let loss = self.per_pair(here, &part, &scores.log_probs.values).sum() / pairs.len() as f64;
            measured.add(&part.layout, &loss, &scores.log_probs.values, &part.reference);
            gradients.accumulate(self.model(), pass.backward(loss, &scores));
        }
        (gradients.grads(), measured)
    }

    /// Lays some pairs out and asks the reference about them.
    fn part(&self, pairs: &[Pair<'_>], index: u64) -> Part {
        let (learnt, distribution) = match self.settings.objective {
            // A policy gradient, which is one only under the distribution that the policy's own completion was drawn from.
            OnlineObjective::NashMd { .. } => {
                let own = pairs.iter().map(|pair| &pair.duel.a.trajectory);
                (1, sampling_distribution(own, self.settings.rollout.temperature()))
            }
            OnlineObjective::OnlineDpo { .. } | OnlineObjective::Xpo { .. } => {
                (2, ScoringDistribution::default())
            }
        };
        let items: Vec<Prompted<'_>> = pairs
            .iter()
            .map(|Pair { duel, .. }| Prompted {
                prompt: &duel.a.trajectory.prompt,
                completions: [&duel.a, &duel.b][..learnt]
                    .iter()
                    .map(|sampled| (&sampled.trajectory.tokens).into())
                    .collect(),
            })
            .collect();
        let are_shared = self.model().shares_prompts() && self.reference().shares_prompts();
        let layout = CompletionLayout::new(&items, Prompts { are_shared, are_read: false });
        let CompletionLayout { batch, targets, .. } = &layout;
        let reference = token_log_probs_under(self.reference(), batch, targets, distribution.clone()).values;
        let dropout = Some(DropoutSeed::of(&[self.settings.seed, self.rounds, 2, index]));
        Part {
            layout,
            distribution,
            reference,
            options: PassOptions { recompute: self.settings.recompute, dropout },
        }
    }

    /// The loss of each pair. `log_probs`: `[targets]`; result: `[pairs]`.
    fn per_pair(&self, pairs: &[Pair<'_>], part: &Part, log_probs: &Tensor<1>) -> Tensor<1> {
        let reference = like(part.reference.clone(), log_probs);
        let constant = |value: &dyn Fn(&Pair<'_>) -> f32| {
            like(vector(pairs.iter().map(value), &log_probs.device()), log_probs)
        };
        let sums = |values: &Tensor<1>| sides(part.layout.sums(values, |_, _| 1.0));
        let margins = |of_policy: &[Tensor<1>; 2]| {
            let [of_a, of_b] = sums(&reference);
            let [a, b] = of_policy.clone();
            ((a - of_a) - (b - of_b)) * constant(&|pair| if pair.is_first_better { 1.0 } else { -1.0 })
        };
        match self.settings.objective {
            OnlineObjective::OnlineDpo { loss, beta } => loss.per_pair(margins(&sums(log_probs)), beta),
            OnlineObjective::Xpo { loss, beta, alpha } => {
                let of_policy = sums(log_probs);
                let losses = loss.per_pair(margins(&of_policy), beta);
                let [_, of_reference_completions] = of_policy;
                xpo_loss(losses, of_reference_completions, alpha)
            }
            OnlineObjective::NashMd { beta, .. } => {
                let tokens = TokenLogProbs { values: log_probs.clone(), counts: part.layout.lengths() };
                nash_md_loss(&tokens, reference, constant(&|pair| pair.preference as f32), beta)
            }
        }
    }
}

/// What stands alternately for the first and the second completion of pairs, `[2·pairs]`, as two. `[pairs]` each
fn sides(both: Tensor<1>) -> [Tensor<1>; 2] {
    let pairs = both.dims()[0] / 2;
    let both = both.reshape([pairs, 2]);
    [0, 1].map(|side| both.clone().narrow(1, side, 1).squeeze_dim(1))
}

impl<M: IncrementalLm> Step<[PromptExample]> for OnlinePreferenceTrainer<M> {
    type Report = RlReport;
    type Error = OnlineError;

    fn step(&mut self, prompts: &[PromptExample]) -> Result<RlReport, OnlineError> {
        if prompts.is_empty() {
            return Err(OnlineError::EmptyBatch);
        }
        let duels = self.duels(prompts)?;
        let penalty = self.settings.missing_end_penalty.map(Into::into);
        let Judged { judgements, scores } = self.feedback.of(&duels, penalty)?;
        if let Some(reason) = nothing_judged(&judgements) {
            return Err(OnlineError::NothingJudged { pairs: duels.len(), reason });
        }
        let pairs = self.pairs(&duels, &judgements);
        let (mut read, mut update) = (None, None);
        if !pairs.is_empty() {
            let (gradients, measured) = self.accumulate(&pairs);
            let measured = measured.read();
            if !measured.loss.is_finite() {
                return Err(OnlineError::NotFinite { loss: measured.loss });
            }
            read = Some(measured);
            update = Some(self.learner.update(gradients)?);
            self.reference.follow(self.learner.model(), self.learner.made());
        }
        self.rounds += 1;
        self.tokens_seen += duels.iter().map(Duel::tokens).sum::<u64>();
        let groups: BTreeSet<u64> = duels.iter().map(|duel| duel.a.trajectory.group).collect();
        let tally = Tally {
            duels: &duels,
            judgements: &judgements,
            scores: scores.as_ref(),
            pairs: &pairs,
            left_out_prompts: prompts.len() - groups.len(),
            num_tokens: self.tokens_seen,
            step: self.rounds,
        };
        Ok(tally.report(&self.settings.objective, read.as_ref(), update))
    }
}

impl<M: IncrementalLm> Trains for OnlinePreferenceTrainer<M> {
    type Model = M;

    fn model(&self) -> &M {
        Self::model(self)
    }
}

impl<M: IncrementalLm> Resumable for OnlinePreferenceTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.learner.save(state)?;
        self.reference.save(state)?;
        self.feedback.save(state)?;
        state.insert("rounds", &self.rounds)?;
        state.insert("tokens_seen", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)?;
        self.reference.restore(state, self.learner.model(), self.learner.made())?;
        self.feedback.restore(state)?;
        self.rounds = state.take("rounds")?;
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}

fn half(samples: NonZeroUsize) -> NonZeroUsize {
    NonZeroUsize::new(samples.get() / 2).unwrap_or(NonZeroUsize::MIN)
}

/// Why the first of some judgements is none, if none of them is one.
fn nothing_judged(judgements: &[Judgement]) -> Option<String> {
    let reason = |judgement: &Judgement| match &judgement.verdict {
        Verdict::Unjudged { reason } => Some(reason.clone()),
        Verdict::Preference(_) => None,
    };
    let reasons: Option<Vec<String>> = judgements.iter().map(reason).collect();
    reasons?.into_iter().next()
}

/// The first completion of a prompt meets the second, the third the fourth.
fn neighbours(samples: Vec<Sampled>) -> Vec<Duel> {
    let mut samples = samples.into_iter();
    std::iter::from_fn(|| Some(Duel { a: samples.next()?, b: samples.next()? })).collect()
}

/// Completions of the policy meet those that somebody else made of the same prompt.
fn meet(own: Rollouts, others: Rollouts) -> (Vec<Duel>, Vec<LeftOutPrompt>) {
    let mut waiting: HashMap<u64, VecDeque<Sampled>> = HashMap::new();
    for other in others.samples {
        waiting.entry(other.trajectory.group).or_default().push_back(other);
    }
    let duel = |a: Sampled| {
        let b = waiting.get_mut(&a.trajectory.group)?.pop_front()?;
        Some(Duel { a, b })
    };
    let duels = own.samples.into_iter().filter_map(duel).collect();
    (duels, [own.left_out, others.left_out].concat())
}
