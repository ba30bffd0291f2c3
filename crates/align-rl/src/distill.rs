//! Distillation: a student learns to say what its teacher would, on completions of its own or of others.
//!
//! # Example
//! On the student's own completions alone, which needs no data but prompts:
//! ```no_run
//! use align_model::{decoder::Decoder, number::UnitInterval, tokenizer::Tokenizer, train::Step};
//! use align_rl::{DistillationConfig, DistillationTrainer, distill::DistillationExample};
//!
//! # fn f(
//! #     student: Decoder, teacher: Decoder, tokenizer: Tokenizer, batches: Vec<Vec<DistillationExample>>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let config = DistillationConfig { on_policy: UnitInterval::new(1.0), ..DistillationConfig::default() };
//! let steps = batches.len() as u64;
//! let mut trainer = DistillationTrainer::new(student, &teacher, Some(tokenizer), &config, steps)?;
//! for prompts in &batches {
//!     println!("divergence {:.4}", trainer.step(prompts.as_slice())?.loss());
//! }
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod evaluate;
mod loss;
mod measure;

use align_model::{
    causal_lm::{DropoutSeed, IncrementalLm, PassOptions},
    checkpoint::{Resumable, State, StateError},
    logprob::{
        CompletionLayout, LogProbPass, Prompted, Prompts, ScoringDistribution, TokenScores, like, plain,
        token_log_probs, vector,
    },
    tokenizer::Tokenizer,
    train::{Learner, Step, Trains},
};
use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use config::{DistillationConfig, DistillationObjective, OffPolicyCompletions};
pub use error::DistillationError;
pub use loss::{minillm_loss, teacher_advantages};
use measure::{Measured, Sums};

use crate::{
    error::RlConfigError,
    report::RlReport,
    rollout::{PromptExample, RolloutConfig, RolloutRow, Rollouts, Sampled, sample_rollouts},
};

/// A prompt, and what somebody made of it, where steps are to learn from data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillationExample {
    /// The prompt.
    pub prompt: PromptExample,
    /// A completion, its end token included.
    pub completion: Option<Vec<u32>>,
}

impl From<PromptExample> for DistillationExample {
    fn from(prompt: PromptExample) -> Self {
        Self { prompt, completion: None }
    }
}

/// Brings a student closer to a teacher: generalised knowledge distillation, and policy gradient on sampled tokens.
///
/// A step's completions are written by the student or by others, as a draw decides that depends on the seed and the step
/// alone. Its loss is the mean over all tokens of the completions, however many forward passes it is cut into; logits of
/// both models exist for one chunk of positions at a time. The divergence of a completion that was written for the step is
/// among its scores, and less of it is the reward.
///
/// Agarwal et al. 2023, *On-Policy Distillation of Language Models*, [arXiv:2306.13649](https://arxiv.org/abs/2306.13649).
#[derive(Debug)]
pub struct DistillationTrainer<M> {
    learner: Learner<M>,
    teacher: M,
    tokenizer: Option<Tokenizer>,
    settings: DistillationConfig,
    tokens_seen: u64,
}

/// A prompt and a completion; those of one group have the same prompt.
struct Sequence {
    group: u64,
    prompt: Vec<u32>,
    completion: Vec<u32>,
}

/// What a step learns from.
struct Material {
    sequences: Vec<Sequence>,
    rows: Vec<RolloutRow>,
    is_on_policy: bool,
    left_out_prompts: usize,
}

impl From<Sampled> for Sequence {
    fn from(Sampled { trajectory, .. }: Sampled) -> Self {
        Self { group: trajectory.group, prompt: trajectory.prompt, completion: trajectory.tokens }
    }
}

impl<M: IncrementalLm> DistillationTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the student's own device.
    ///
    /// The teacher's width, depth and context are its own affair, but its tokens are those of the student;
    /// [`Decoder::with_vocabulary`](align_model::decoder::Decoder::with_vocabulary) leaves out what only the teacher has.
    ///
    /// # Errors
    /// If settings contradict each other, or the teacher has another vocabulary.
    pub fn new(
        student: M,
        teacher: &M,
        tokenizer: Option<Tokenizer>,
        config: &DistillationConfig,
        total_steps: u64,
    ) -> Result<Self, RlConfigError> {
        config.check()?;
        let (own, found) = (student.vocab_size(), teacher.vocab_size());
        if own != found {
            let problem =
                format!("knows {found} tokens and the student {own}: they need the same vocabulary");
            return Err(RlConfigError::Setting { key: "teacher", problem });
        }
        Ok(Self {
            learner: Learner::new(student, config.update.clone(), total_steps)?,
            teacher: teacher.valid(),
            tokenizer,
            settings: config.clone(),
            tokens_seen: 0,
        })
    }

    /// The student as it is now.
    #[must_use]
    pub fn model(&self) -> &M {
        self.learner.model()
    }

    /// Gives the student back, without gradients.
    #[must_use]
    pub fn into_model(self) -> M {
        self.model().valid()
    }

    /// What the next step learns from.
    fn material(&self, batch: &[DistillationExample]) -> Result<Material, DistillationError> {
        let seed = |what| DropoutSeed::of(&[self.settings.seed, self.learner.made(), what]).0;
        let draw: f64 = ChaCha8Rng::seed_from_u64(seed(0)).random();
        let is_on_policy = draw < self.settings.on_policy.get();
        if !is_on_policy && self.settings.off_policy == OffPolicyCompletions::Data {
            let sequences = of_data(batch)?;
            return Ok(Material { sequences, rows: Vec::new(), is_on_policy, left_out_prompts: 0 });
        }
        let author = if is_on_policy { self.model() } else { &self.teacher };
        let prompts: Vec<PromptExample> = batch.iter().map(|example| example.prompt.clone()).collect();
        let Rollouts { samples, left_out, .. } =
            written(author, &prompts, &self.settings.rollout, seed(1), self.tokenizer.as_ref())?;
        let step = self.learner.made() + 1;
        let rows = samples.iter().map(|sampled| RolloutRow::new(step, &sampled.rollout)).collect();
        let sequences = samples.into_iter().map(Sequence::from).collect();
        Ok(Material { sequences, rows, is_on_policy, left_out_prompts: left_out.len() })
    }

    /// Refuses what one of the models cannot read.
    fn check(&self, sequences: &[Sequence]) -> Result<(), DistillationError> {
        let limits =
            [("student's", self.model().max_positions()), ("teacher's", self.teacher.max_positions())];
        for sequence in sequences {
            let tokens = sequence.prompt.len() + sequence.completion.len();
            if let Some(&(whose, limit)) = limits.iter().find(|(_, limit)| tokens > *limit) {
                return Err(DistillationError::TooLong { tokens, whose, limit });
            }
        }
        Ok(())
    }

    /// Gradients of a step's loss, and what it measured.
    fn accumulate(&self, sequences: &[Sequence]) -> (GradientsParams, Sums) {
        let (mut gradients, mut measured) = (GradientsAccumulator::new(), Measured::default());
        let total = targets(sequences);
        for (index, here) in sequences.chunks(self.settings.micro_batch_size.get()).enumerate() {
            let layout = layout(here, self.model().shares_prompts() && self.teacher.shares_prompts());
            let dropout = Some(DropoutSeed::of(&[self.settings.seed, self.learner.made(), 2, index as u64]));
            let options = PassOptions { recompute: self.settings.recompute, dropout };
            let pass = LogProbPass::forward_with(self.model(), &layout.batch, &layout.targets, options);
            let (of_pass, loss, divergences, scores) = match self.settings.objective {
                DistillationObjective::Divergence { .. } => {
                    let pass = self.beside_teacher(pass, &layout);
                    let divergence = |scores: &TokenScores| {
                        let Some(divergences) = &scores.divergences else {
                            unreachable!("a teacher was given")
                        };
                        divergences.clone() / total as f64
                    };
                    let (of_pass, scores, losses) = pass.backward_per_token(divergence);
                    let divergences = divergence(&scores) * total as f64;
                    (of_pass, losses.sum(), divergences, scores)
                }
                DistillationObjective::PolicyGradient { discount } => {
                    let scores = pass.scores();
                    let values = &scores.log_probs.values;
                    let teacher = token_log_probs(&self.teacher, &layout.batch, &layout.targets).values;
                    let on_host =
                        |x: &Tensor<1>| plain(x.clone()).into_data().iter::<f64>().collect::<Vec<_>>();
                    let (own, other) = (on_host(values), on_host(&teacher));
                    let advantages = teacher_advantages(&own, &other, &layout.lengths(), discount);
                    let advantages = vector(advantages.iter().map(|&a| a as f32), &teacher.device());
                    let losses = minillm_loss(values.clone(), like(advantages, values)) / total as f64;
                    let loss = losses.sum();
                    // What was sampled tells of the reverse KL divergence, without a look at the whole vocabulary.
                    let divergences = plain(values.clone()) - plain(teacher);
                    (pass.backward(loss.clone(), &scores), loss, divergences, scores)
                }
            };
            measured.add(&layout, loss, divergences, &scores);
            gradients.accumulate(self.model(), of_pass);
        }
        (gradients.grads(), measured.read())
    }

    /// A pass that measures how far it is from the teacher.
    fn beside_teacher<'a>(
        &'a self,
        pass: LogProbPass<'a, M>,
        layout: &CompletionLayout,
    ) -> LogProbPass<'a, M> {
        let pass = pass.with_reference(&self.teacher, &layout.batch);
        match self.settings.objective {
            DistillationObjective::Divergence { divergence, temperature } => {
                pass.measuring(divergence).under(ScoringDistribution::tempered(temperature))
            }
            DistillationObjective::PolicyGradient { .. } => pass,
        }
    }
}

impl<M: IncrementalLm> Step<[DistillationExample]> for DistillationTrainer<M> {
    type Report = RlReport;
    type Error = DistillationError;

    fn step(&mut self, batch: &[DistillationExample]) -> Result<RlReport, DistillationError> {
        if batch.is_empty() {
            return Err(DistillationError::EmptyBatch);
        }
        let Material { sequences, rows, is_on_policy, left_out_prompts } = self.material(batch)?;
        self.check(&sequences)?;
        let (gradients, sums) = self.accumulate(&sequences);
        if !sums.loss.is_finite() {
            return Err(DistillationError::NotFinite { loss: sums.loss });
        }
        let update = self.learner.update(gradients)?;
        let tokens = |sequence: &Sequence| sequence.prompt.len() + sequence.completion.len();
        self.tokens_seen += sequences.iter().map(tokens).sum::<usize>() as u64;
        let mut metrics = sums.metrics(Some(update), self.tokens_seen);
        if let DistillationObjective::PolicyGradient { .. } = self.settings.objective {
            metrics.push(("divergence", sums.divergence()));
        }
        metrics.extend([
            ("on_policy", f64::from(u8::from(is_on_policy))),
            ("completions/mean_length", targets(&sequences) as f64 / sequences.len() as f64),
            ("prompts/left_out", left_out_prompts as f64),
        ]);
        Ok(RlReport { metrics, rollouts: sums.score(rows), ..RlReport::default() })
    }
}

impl<M: IncrementalLm> Trains for DistillationTrainer<M> {
    type Model = M;

    fn model(&self) -> &M {
        Self::model(self)
    }
}

impl<M: IncrementalLm> Resumable for DistillationTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.learner.save(state)?;
        state.insert("tokens_seen", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)?;
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}

/// Completions of prompts, of which there is at least one.
fn written<M: IncrementalLm>(
    author: &M,
    prompts: &[PromptExample],
    config: &RolloutConfig,
    seed: u64,
    tokenizer: Option<&Tokenizer>,
) -> Result<Rollouts, DistillationError> {
    let rollouts = sample_rollouts(author, prompts, config, seed, tokenizer)?;
    match rollouts.left_out.first() {
        Some(first) if rollouts.samples.is_empty() => {
            Err(DistillationError::NothingWritten { prompts: prompts.len(), why: first.why })
        }
        _ => Ok(rollouts),
    }
}

/// The data's own completions.
fn of_data(examples: &[DistillationExample]) -> Result<Vec<Sequence>, DistillationError> {
    if examples.is_empty() {
        return Err(DistillationError::EmptyBatch);
    }
    let sequence = |(index, example): (usize, &DistillationExample)| {
        let prompt = example.prompt.tokens.clone();
        if prompt.is_empty() {
            return Err(DistillationError::EmptyPrompt { index });
        }
        match &example.completion {
            Some(completion) if !completion.is_empty() => {
                Ok(Sequence { group: index as u64, prompt, completion: completion.clone() })
            }
            _ => Err(DistillationError::MissingCompletion { index }),
        }
    };
    examples.iter().enumerate().map(sequence).collect()
}

fn targets(sequences: &[Sequence]) -> usize {
    sequences.iter().map(|sequence| sequence.completion.len()).sum()
}

/// Lays sequences out, those of one prompt together.
fn layout(sequences: &[Sequence], are_shared: bool) -> CompletionLayout {
    let items: Vec<Prompted<'_>> = sequences
        .chunk_by(|a, b| a.group == b.group)
        .map(|group| Prompted {
            prompt: &group[0].prompt,
            completions: group.iter().map(|sequence| (&sequence.completion).into()).collect(),
        })
        .collect();
    CompletionLayout::new(&items, Prompts { are_shared, are_read: false })
}
