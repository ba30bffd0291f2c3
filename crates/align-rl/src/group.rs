//! Learning from groups of completions: GRPO and its relatives, which need no critic.

mod algorithm;
mod coefficients;
mod collect;
mod config;
mod evaluate;
mod measure;
mod micro_batch;
mod selection;
mod update;

use align_model::{
    causal_lm::{CausalLm, IncrementalLm},
    checkpoint::{Resumable, State, StateError},
    tokenizer::Tokenizer,
    train::{Learner, Step, Trains},
};

use serde::de::Error as _;

pub use algorithm::Algorithm;
pub use collect::Round;
pub use config::{DynamicSampling, GroupConfig, TruncatedCompletions};
pub use evaluate::{HeldOut, MeanReward, PolicyEvaluation};
pub use micro_batch::RolloutTotals;
pub use selection::TokenSelection;

use crate::{
    error::{RlConfigError, RlError},
    experience::Experience,
    reference::Anchor,
    report::RlReport,
    rollout::PromptExample,
    scoring::{Rewards, ScoredRollouts},
    watch::{AlarmAction, Watch},
};
use coefficients::Coefficients;
use measure::UpdateMetrics;

/// Makes completions more likely that are better than others of the same prompt: GRPO, Dr. GRPO, DAPO, GSPO, CISPO, RLOO,
/// REINFORCE++ and whatever else has advantages from groups of completions, a ratio, a surrogate and an aggregation.
///
/// A step samples a group of completions of each prompt, scores them, and updates the policy as often as the settings say.
/// An update's loss is that of all of its completions, however many forward passes it is cut into, unless the algorithm's
/// [accumulation](crate::loss::Accumulation) says otherwise; completions of a prompt that share a pass share its computation, if
/// the model can.
///
/// Shao et al. 2024, *`DeepSeekMath`*, [arXiv:2402.03300](https://arxiv.org/abs/2402.03300).
#[derive(Debug)]
pub struct GroupTrainer<M> {
    learner: Learner<M>,
    anchor: Anchor<M>,
    rewards: Rewards,
    tokenizer: Option<Tokenizer>,
    config: GroupConfig,
    coefficients: Coefficients,
    watch: Watch,
    steps: u64,
    tokens_seen: u64,
}

impl<M: CausalLm> GroupTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the model's own device.
    ///
    /// `reference` is the model that the policy is held to, if the settings [ask for
    /// one](GroupConfig::reference_policy). Without a tokenizer, rewards see the numbers of tokens as a completion's text.
    ///
    /// # Errors
    /// If settings contradict each other, or the reference is not what they ask for.
    pub fn new(
        model: M,
        reference: Option<M>,
        rewards: Rewards,
        tokenizer: Option<Tokenizer>,
        config: &GroupConfig,
        total_steps: u64,
    ) -> Result<Self, RlConfigError> {
        config.check()?;
        let updates = total_steps * config.updates_per_step();
        let learner = Learner::new(model, config.update.clone(), updates)?;
        Ok(Self {
            anchor: Anchor::new(reference, config.reference_policy(), learner.model())?,
            learner,
            rewards,
            tokenizer,
            config: config.clone(),
            coefficients: Coefficients::new(&config.algorithm),
            watch: Watch::new(&config.alarms),
            steps: 0,
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

    /// Makes one update with given experience, all at once, and says what it measured.
    ///
    /// # Errors
    /// If the experience cannot be learnt from, or loss or gradients are not finite. The model is then as it was before.
    pub fn learn(&mut self, experience: &[Experience]) -> Result<RlReport, RlError> {
        self.learn_part(experience, None)
    }

    /// Makes one of several updates that are each given a part of some completions, which matters where tokens [are
    /// counted](crate::loss::Accumulation::RolloutMean) over all of them.
    ///
    /// # Errors
    /// As of [`learn`](Self::learn).
    pub fn learn_part(
        &mut self,
        experience: &[Experience],
        rollouts: Option<RolloutTotals>,
    ) -> Result<RlReport, RlError> {
        let metrics = self.update(experience, rollouts)?;
        Ok(RlReport { metrics: metrics.named(), ..RlReport::default() })
    }

    /// Makes a step with completions, or episodes, that were sampled and scored elsewhere, or that have [rewards of single
    /// actions](ScoredRollouts::action_rewards).
    ///
    /// # Errors
    /// As a step's; if there are rewards of single actions, but not one for each.
    ///
    /// # Panics
    /// If the estimator of advantages needs greedy completions, which are sampled by the trainer itself.
    pub fn step_with(&mut self, scored: ScoredRollouts) -> Result<RlReport, RlError> {
        check_action_rewards(&scored)?;
        let round = self.compare(scored, None);
        self.finish(round)
    }

    /// The part of a step that comes after sampling.
    fn finish(&mut self, mut round: Round) -> Result<RlReport, RlError> {
        let made = if round.has_signal() { self.updates(&mut round.experience)? } else { Made::default() };
        self.steps += 1;
        self.rewards.follow(&round.scored.scores);
        self.tokens_seen += round.scored.tokens();
        let mut report = round.report(self.steps, self.tokens_seen);
        report.metrics.extend(UpdateMetrics::over(&made.updates).iter().flat_map(UpdateMetrics::named));
        report.metrics.push(("updates", made.updates.len() as f64));
        if made.failed > 0 {
            report.metrics.push(("updates/failed", made.failed as f64));
        }
        report.alarms = self.watch.observe(self.steps, |name| report.get(name));
        for alarm in &report.alarms {
            if let AlarmAction::LowerRate { factor } = alarm.action {
                self.learner.scale_rate(factor.get());
            }
        }
        Ok(report)
    }

    /// Makes the updates of a step. One after the first that comes to nothing ends it, and what was made stands.
    fn updates(&mut self, experience: &mut [Experience]) -> Result<Made, RlError> {
        let config = &self.config;
        let (iterations, mini_batches) = (config.iterations.get(), config.mini_batches.get());
        let mut cuts = by_groups(experience, mini_batches);
        let rollouts = RolloutTotals::of(experience, cuts.len());
        cuts.retain(|cut| experience[cut.clone()].iter().any(|one| one.targets() > 0));
        if cuts.len() > 1 {
            // Later updates are measured against the policy as it is now; the first one sees to that by itself.
            self.remember_log_probs(experience);
        }
        let mut made = Made::default();
        for iteration in 0..iterations {
            for cut in &cuts {
                match self.update(&experience[cut.clone()], Some(rollouts)) {
                    Ok(metrics) => {
                        if iteration == 0 && iterations > 1 {
                            metrics.remember(&mut experience[cut.clone()]);
                        }
                        made.updates.push(metrics);
                    }
                    Err(error) if made.updates.is_empty() => return Err(error),
                    Err(_) => {
                        made.failed = 1;
                        return Ok(made);
                    }
                }
            }
        }
        Ok(made)
    }
}

/// The updates of a step.
#[derive(Debug, Default)]
struct Made {
    updates: Vec<UpdateMetrics>,
    /// Updates that came to nothing.
    failed: usize,
}

/// Refuses rewards of single actions that do not fit them.
pub(crate) fn check_action_rewards(scored: &ScoredRollouts) -> Result<(), RlError> {
    if scored.action_rewards.is_empty() {
        return Ok(());
    }
    for index in 0..scored.samples.len().max(scored.action_rewards.len()) {
        let actions = scored.samples.get(index).map_or(0, |sample| sample.trajectory.actions());
        let rewards = scored.action_rewards.get(index).map_or(&[][..], Vec::as_slice);
        if actions != rewards.len() {
            let found = rewards.len();
            return Err(RlError::Misaligned { index, what: "rewards of actions", actions, found });
        }
        if rewards.iter().any(|reward| !reward.is_finite()) {
            return Err(RlError::NotANumber { index, what: "rewards of actions" });
        }
    }
    Ok(())
}

/// Cuts experience into so many ranges of whole groups, as equal as can be; fewer where there are fewer groups.
fn by_groups(experience: &[Experience], parts: usize) -> Vec<std::ops::Range<usize>> {
    let mut starts: Vec<usize> = Vec::new();
    for (index, one) in experience.iter().enumerate() {
        if index == 0 || one.trajectory.group != experience[index - 1].trajectory.group {
            starts.push(index);
        }
    }
    let groups = starts.len();
    starts.push(experience.len());
    let border = |part: usize| starts[part * groups / parts];
    (0..parts).map(|part| border(part)..border(part + 1)).filter(|range| !range.is_empty()).collect()
}

impl<M: IncrementalLm> Step<[PromptExample]> for GroupTrainer<M> {
    type Report = RlReport;
    type Error = RlError;

    fn step(&mut self, prompts: &[PromptExample]) -> Result<RlReport, RlError> {
        let round = self.sample(prompts)?;
        self.finish(round)
    }
}

impl<M: CausalLm> Trains for GroupTrainer<M> {
    type Model = M;

    fn model(&self) -> &M {
        Self::model(self)
    }
}

impl<M: CausalLm> Resumable for GroupTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.learner.save(state)?;
        self.anchor.save(state)?;
        self.rewards.save(state)?;
        state.insert("coefficients", &self.coefficients)?;
        state.insert("watch", &self.watch)?;
        state.insert("steps", &self.steps)?;
        state.insert("tokens_seen", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)?;
        self.anchor.restore(state, self.learner.model(), self.learner.made())?;
        self.rewards.restore(state)?;
        self.coefficients = state.take("coefficients")?;
        let watch: Watch = state.take("watch")?;
        if !watch.is_of(&self.config.alarms) {
            let source = serde_json::Error::custom("it was saved with other `alarms`");
            return Err(StateError::Value { name: "watch".into(), source });
        }
        self.watch = watch;
        self.steps = state.take("steps")?;
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}
