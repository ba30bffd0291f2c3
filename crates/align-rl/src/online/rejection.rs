//! Imitating the best of one's own completions: rejection sampling, RAFT, expert iteration.

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::{DropoutSeed, IncrementalLm, Recompute},
    checkpoint::{Resumable, State, StateError},
    generate::Decoding,
    number::Positive,
    sft::{Duration, SftConfig, SftExample, SftLoss, SftTrainer},
    tokenizer::Tokenizer,
    train::{Report, Step, Trains, UpdateConfig},
};
use align_reward::{
    best_of_n::{Keep, select},
    rollout::Rollout,
    score::Score,
};
use serde::{Deserialize, Serialize};

use super::OnlineError;
use crate::{
    error::RlConfigError,
    report::RlReport,
    rollout::{PromptExample, RolloutConfig, RolloutRow, Rollouts, Sampled, sample_rollouts},
    scoring::{RewardScores, Rewards, mean_and_deviation},
};

const EIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// What becomes of completions that ended for want of room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncatedDemonstrations {
    /// They compete like others.
    #[default]
    Keep,
    /// They are never imitated, and are counted.
    LeaveOut,
}

/// Everything that rejection sampling needs to be repeated, but the model, the rewards and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RejectionSamplingConfig {
    /// Which completions are imitated; the best of each prompt unless given, which is RAFT.
    pub keep: Keep,
    /// What becomes of completions that ended for want of room.
    pub truncated: TruncatedDemonstrations,
    /// How completions are sampled, and how many of each prompt.
    pub rollout: RolloutConfig,
    /// How long the run is.
    pub duration: Duration,
    /// Prompts a step.
    pub batch_size: NonZeroUsize,
    /// What is minimised on the completions that are kept.
    pub loss: SftLoss,
    /// Completions a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Learning rate, schedule, optimiser, clipping.
    pub update: UpdateConfig,
    /// Seed of the order of prompts, of sampling and of dropout.
    pub seed: u64,
}

/// What became of completions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demonstrations {
    /// The completions that are imitated, in their order, with their sampled tokens as targets.
    pub examples: Vec<SftExample>,
    /// Their places among all.
    pub kept: Vec<usize>,
    /// Scored completions that were not good enough.
    pub rejected: usize,
    /// Completions that ended for want of room and were left out for it.
    pub truncated: usize,
    /// Completions without a score, of those that were not left out before.
    pub unscored: usize,
}

/// Imitates the best of its own completions, as the rewards have it.
///
/// A step samples completions, scores them, and makes one update of supervised fine-tuning on those that are kept. A step
/// that keeps none leaves the weights alone. For more updates a round, as expert iteration makes them, take
/// [`demonstrations`] and an [`SftTrainer`].
///
/// Dong et al. 2023, *RAFT*,
/// [arXiv:2304.06767](https://arxiv.org/abs/2304.06767).
#[derive(Debug)]
pub struct RejectionSamplingTrainer<M> {
    imitation: SftTrainer<M>,
    rewards: Rewards,
    tokenizer: Option<Tokenizer>,
    settings: RejectionSamplingConfig,
    /// Steps made, whether they changed the weights or not.
    rounds: u64,
    /// Of all completions, those that were not imitated as well.
    tokens_seen: u64,
}

impl Default for RejectionSamplingConfig {
    fn default() -> Self {
        Self {
            keep: Keep::BestOfGroup { count: NonZeroUsize::MIN },
            truncated: TruncatedDemonstrations::default(),
            rollout: RolloutConfig::default(),
            duration: Duration::Epochs(Positive::new(1.0)),
            batch_size: EIGHT,
            loss: SftLoss::default(),
            micro_batch_size: EIGHT,
            recompute: Recompute::default(),
            update: UpdateConfig::default(),
            seed: 42,
        }
    }
}

impl RejectionSamplingConfig {
    /// Checks the relations between settings; single values were checked when they were parsed.
    ///
    /// # Errors
    /// Names the settings and the values they have.
    pub fn check(&self) -> Result<(), RlConfigError> {
        let setting = |key, problem: String| Err(RlConfigError::Setting { key, problem });
        let samples = self.rollout.samples.get();
        let (micro, batch) = (self.micro_batch_size.get(), self.batch_size.get() * samples);
        if micro > batch {
            return Err(RlConfigError::MicroBatchTooLarge { micro, batch });
        }
        if self.rollout.decoding == Decoding::Greedy && samples > 1 {
            let problem = "= \"greedy\" writes the same completion again and again: sample";
            return setting("rollout.decoding", problem.into());
        }
        match self.keep {
            Keep::BestOfGroup { count } if count.get() >= samples => {
                let problem = format!(
                    "= {count} keeps all of {samples} completions: lower it, or raise `rollout.samples`"
                );
                return setting("keep.count", problem);
            }
            Keep::AtLeast { score } if !score.is_finite() => {
                return setting("keep.score", format!("= {score} is no finite number"));
            }
            Keep::BestFraction { fraction } if fraction.get() >= 1.0 => {
                return setting("keep.fraction", "= 1 keeps everything: lower it".into());
            }
            _ => {}
        }
        Ok(self.update.schedule.check(self.update.learning_rate.get())?)
    }
}

/// Chooses completions to imitate. Of equal scores the first are kept.
///
/// # Panics
/// If there are not as many scores as completions.
#[must_use]
pub fn demonstrations(
    samples: &[Sampled],
    scores: &[Score],
    keep: Keep,
    truncated: TruncatedDemonstrations,
) -> Demonstrations {
    let is_cut =
        |sample: &Sampled| truncated == TruncatedDemonstrations::LeaveOut && sample.trajectory.is_truncated();
    // What is left out must not take a place among the best.
    let (mut allowed, mut left_out) = (scores.to_vec(), 0);
    for (score, _) in allowed.iter_mut().zip(samples).filter(|(_, sample)| is_cut(sample)) {
        *score = Score::unscored("it ended for want of room");
        left_out += 1;
    }
    let rollouts: Vec<Rollout> = samples.iter().map(|sample| sample.rollout.clone()).collect();
    let kept = select(&rollouts, &allowed, keep);
    let without_score = allowed.iter().filter(|score| score.is_unscored()).count();
    Demonstrations {
        examples: kept.iter().map(|&place| demonstration(&samples[place])).collect(),
        rejected: samples.len() - without_score - kept.len(),
        truncated: left_out,
        unscored: without_score - left_out,
        kept,
    }
}

/// A completion after its prompt, whose sampled tokens are to be imitated.
fn demonstration(sample: &Sampled) -> SftExample {
    let trajectory = &sample.trajectory;
    SftExample {
        tokens: [&trajectory.prompt[..], &trajectory.tokens].concat(),
        is_target: [&vec![false; trajectory.prompt.len()][..], &trajectory.is_action].concat(),
    }
}

impl<M: IncrementalLm> RejectionSamplingTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the model's own device.
    ///
    /// Without a tokenizer, rewards see the numbers of tokens instead of text.
    ///
    /// # Errors
    /// If settings contradict each other.
    pub fn new(
        model: M,
        rewards: Rewards,
        tokenizer: Option<Tokenizer>,
        config: &RejectionSamplingConfig,
        total_steps: u64,
    ) -> Result<Self, RlConfigError> {
        config.check()?;
        let imitation = SftConfig {
            loss: config.loss,
            batch_size: config.batch_size.saturating_mul(config.rollout.samples),
            micro_batch_size: config.micro_batch_size,
            recompute: config.recompute,
            update: config.update.clone(),
            seed: config.seed,
            ..SftConfig::default()
        };
        let imitation = SftTrainer::new(model, &imitation, total_steps)?;
        Ok(Self { imitation, rewards, tokenizer, settings: config.clone(), rounds: 0, tokens_seen: 0 })
    }

    /// The model as it is now.
    #[must_use]
    pub fn model(&self) -> &M {
        self.imitation.model()
    }

    /// Gives the model back, without gradients.
    #[must_use]
    pub fn into_model(self) -> M {
        self.imitation.into_model()
    }
}

impl<M: IncrementalLm> Step<[PromptExample]> for RejectionSamplingTrainer<M> {
    type Report = RlReport;
    type Error = OnlineError;

    fn step(&mut self, prompts: &[PromptExample]) -> Result<RlReport, OnlineError> {
        if prompts.is_empty() {
            return Err(OnlineError::EmptyBatch);
        }
        let settings = &self.settings;
        let seed = DropoutSeed::of(&[settings.seed, self.rounds]).0;
        let tokenizer = self.tokenizer.as_ref();
        let Rollouts { samples, left_out, .. } =
            sample_rollouts(self.imitation.model(), prompts, &settings.rollout, seed, tokenizer)?;
        if let (Some(first), true) = (left_out.first(), samples.is_empty()) {
            return Err(OnlineError::NothingWritten { prompts: prompts.len(), why: first.why });
        }
        let rollouts: Vec<Rollout> = samples.iter().map(|sample| sample.rollout.clone()).collect();
        let scores = self.rewards.score(&rollouts)?;
        if let Some(reason) = nothing_scored(&scores.totals) {
            return Err(OnlineError::NothingScored { completions: samples.len(), reason });
        }
        let chosen = demonstrations(&samples, &scores.totals, settings.keep, settings.truncated);
        let learnt = match &chosen.examples[..] {
            [] => None,
            examples => Some(self.imitation.step(examples)?),
        };
        self.rounds += 1;
        self.rewards.follow(&scores);
        let tokens = |sample: &Sampled| sample.trajectory.prompt.len() + sample.trajectory.tokens.len();
        self.tokens_seen += samples.iter().map(tokens).sum::<usize>() as u64;
        let mut metrics = learnt.map_or_else(Vec::new, |report| report.metrics());
        metrics.retain(|(name, _)| *name != "num_tokens");
        metrics.push(("num_tokens", self.tokens_seen as f64));
        metrics.extend(measured(&samples, &scores, &chosen));
        metrics.push(("prompts/left_out", left_out.len() as f64));
        let row = |(place, sample): (usize, &Sampled)| {
            let row = RolloutRow::new(self.rounds, &sample.rollout);
            let row =
                scores.parts.iter().fold(row, |row, part| row.with_score(&part.name, &part.scores[place]));
            let is_kept = f64::from(u8::from(chosen.kept.contains(&place)));
            let row = row.with_score("kept", &Score::Value(is_kept));
            RolloutRow { reward: scores.totals[place].value(), ..row }
        };
        let rows = samples.iter().enumerate().map(row).collect();
        Ok(RlReport { metrics, named: scores.named_metrics(), rollouts: rows, ..RlReport::default() })
    }
}

impl<M: IncrementalLm> Trains for RejectionSamplingTrainer<M> {
    type Model = M;

    fn model(&self) -> &M {
        Self::model(self)
    }
}

impl<M: IncrementalLm> Resumable for RejectionSamplingTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.imitation.save(state)?;
        self.rewards.save(state)?;
        state.insert("rounds", &self.rounds)?;
        state.insert("tokens_sampled", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.imitation.restore(state)?;
        self.rewards.restore(state)?;
        self.rounds = state.take("rounds")?;
        self.tokens_seen = state.take("tokens_sampled")?;
        Ok(())
    }
}

/// Why the first of some scores is none, if none of them is one.
fn nothing_scored(scores: &[Score]) -> Option<String> {
    let reason = |score: &Score| match score {
        Score::Unscored { reason } => Some(reason.clone()),
        Score::Value(_) => None,
    };
    let reasons: Option<Vec<String>> = scores.iter().map(reason).collect();
    reasons?.into_iter().next()
}

fn measured(samples: &[Sampled], scores: &RewardScores, chosen: &Demonstrations) -> Vec<(&'static str, f64)> {
    let all: Vec<f64> = scores.values().into_iter().flatten().collect();
    let kept: Vec<f64> = chosen.kept.iter().filter_map(|&place| scores.totals[place].value()).collect();
    let lengths: Vec<f64> = samples.iter().map(|sample| sample.trajectory.tokens.len() as f64).collect();
    let cut = samples.iter().filter(|sample| sample.trajectory.is_truncated()).count();
    let mut metrics = Vec::new();
    metrics.extend(mean_and_deviation(&all).map(|(mean, _)| ("reward", mean)));
    metrics.extend(mean_and_deviation(&kept).map(|(mean, _)| ("demonstrations/reward", mean)));
    metrics.extend(mean_and_deviation(&lengths).map(|(mean, _)| ("completions/mean_length", mean)));
    metrics.extend([
        ("completions/clipped_ratio", cut as f64 / samples.len() as f64),
        ("demonstrations/kept", chosen.kept.len() as f64),
        ("demonstrations/rejected", chosen.rejected as f64),
        ("demonstrations/truncated", chosen.truncated as f64),
        ("demonstrations/unscored", chosen.unscored as f64),
    ]);
    metrics
}
