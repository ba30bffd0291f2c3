//! Learning from scores with a critic: PPO.

mod appraise;
mod config;
mod experience;
mod measure;
mod rewards;
mod update;

use align_model::{
    causal_lm::{CausalLm, DropoutSeed, IncrementalLm},
    checkpoint::{Resumable, State, StateError},
    number::Positive,
    tokenizer::Tokenizer,
    train::{Learner, Step, Trains},
};
use align_reward::model::RewardModel;
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    critic::{Critic, CriticLearner},
    error::{RlConfigError, RlError},
    kl::KlController,
    reference::Anchor,
    report::RlReport,
    rollout::PromptExample,
    scoring::{Rewards, ScoredRollouts},
    watch::{AlarmAction, Watch},
};
pub use config::{
    AdvantageWhitening, EpochOrder, PpoConfig, RewardKl, RewardShaping, RewardWhitening, ValueClipping,
    ValueObjective,
};
pub use experience::ValuedExperience;
use measure::UpdateMetrics;
pub use update::PpoGradients;

/// Makes what a policy does more likely where it leads to more reward than a critic expected.
///
/// A step samples completions of its prompts, scores them, turns scores and the divergence from the reference into a reward
/// for every token, asks the critic what each state was worth, and updates policy and critic in several passes over the
/// completions. An update's losses are those of its whole mini-batch, however many forward passes it is cut into.
///
/// Schulman et al. 2017, [arXiv:1707.06347](https://arxiv.org/abs/1707.06347); on language models: Ziegler et al. 2019,
/// [arXiv:1909.08593](https://arxiv.org/abs/1909.08593).
#[derive(Debug)]
pub struct PpoTrainer<M: CausalLm> {
    policy: Learner<M>,
    critic: CriticLearner<M>,
    anchor: Anchor<M>,
    rewards: Rewards,
    tokenizer: Option<Tokenizer>,
    config: PpoConfig,
    kl: KlController,
    watch: Watch,
    steps: u64,
    episodes: u64,
    tokens_seen: u64,
}

/// The models of a run.
#[derive(Debug)]
pub struct PpoModels<M: CausalLm> {
    /// What is trained to act.
    pub policy: M,
    /// What the policy is held to, if the settings [ask for it](PpoConfig::reference_policy).
    pub reference: Option<M>,
    /// What says how much reward is still to come: a model of its own, or a head on the policy.
    pub critic: Critic<M>,
}

/// The updates of a step.
#[derive(Debug, Default)]
struct Made {
    updates: Vec<UpdateMetrics>,
    /// Whether the policy had gone far enough.
    is_stopped: bool,
    /// Whether one came to nothing.
    has_failed: bool,
}

impl Made {
    /// An update that came to nothing is an error of the step only if none was made before it.
    fn ended_by(mut self, error: RlError) -> Result<Self, RlError> {
        if self.updates.is_empty() {
            return Err(error);
        }
        self.has_failed = true;
        Ok(self)
    }
}

/// What random numbers are drawn for.
#[derive(Clone, Copy)]
enum Purpose {
    Sampling,
    Order,
    PolicyDropout,
    CriticDropout,
}

impl<M: CausalLm> PpoTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. Each model trains on its own device. Without a tokenizer, rewards see
    /// the numbers of tokens as a completion's text.
    ///
    /// # Errors
    /// If settings contradict each other, the reference is not what they ask for, or the critic says more than one number.
    pub fn new(
        models: PpoModels<M>,
        rewards: Rewards,
        tokenizer: Option<Tokenizer>,
        config: &PpoConfig,
        total_steps: u64,
    ) -> Result<Self, RlConfigError> {
        config.check()?;
        let PpoModels { policy, reference, critic } = models;
        if critic.labels() != 1 {
            return Err(RlConfigError::CriticLabels { labels: critic.labels() });
        }
        let updates = total_steps * config.updates_per_step();
        let policy = Learner::new(policy, config.update.clone(), updates)?;
        Ok(Self {
            anchor: Anchor::new(reference, config.reference_policy(), policy.model())?,
            policy,
            critic: CriticLearner::new(critic, config.critic_update.clone(), updates)?,
            rewards,
            tokenizer,
            config: config.clone(),
            kl: config.kl_controller(),
            watch: Watch::new(&config.alarms),
            steps: 0,
            episodes: 0,
            tokens_seen: 0,
        })
    }

    /// The policy as it is now.
    #[must_use]
    pub fn model(&self) -> &M {
        self.policy.model()
    }

    /// The critic as it is now, as a model of its own: one that has no parameters but its head's has the policy as backbone.
    #[must_use]
    pub fn critic(&self) -> RewardModel<M> {
        self.critic.model(self.model())
    }

    /// Gives the policy back, without gradients.
    #[must_use]
    pub fn into_model(self) -> M {
        self.model().valid()
    }

    /// Makes one update of both models with given experience, all at once, and says what it measured.
    ///
    /// # Errors
    /// If the experience cannot be learnt from, or losses or gradients are not finite. The models are then as they were
    /// before.
    pub fn learn(&mut self, experience: &[ValuedExperience]) -> Result<RlReport, RlError> {
        let all: Vec<&ValuedExperience> = experience.iter().collect();
        let (gradients, metrics) = self.measure(&all)?;
        let metrics = self.apply(gradients, metrics)?;
        Ok(RlReport { metrics: metrics.named(), ..RlReport::default() })
    }

    /// Makes the updates of a step, until all are made, the policy is too far from the one that sampled, or one after the
    /// first comes to nothing.
    fn updates(&mut self, experience: &[ValuedExperience]) -> Result<Made, RlError> {
        let (epochs, mini_batches) = (self.config.epochs.get(), self.config.mini_batches.get());
        let limit = self.config.epoch_kl_limit.map_or(f64::INFINITY, Positive::get);
        let mut made = Made::default();
        for epoch in 0..epochs {
            let order = self.order(experience.len(), epoch as u64);
            for part in 0..mini_batches {
                let border = |part: usize| part * order.len() / mini_batches;
                let mut places = order[border(part)..border(part + 1)].to_vec();
                // Completions of a prompt that are neighbours share its computation.
                places.sort_unstable();
                let mini_batch: Vec<&ValuedExperience> = places.iter().map(|&at| &experience[at]).collect();
                if mini_batch.is_empty() {
                    continue;
                }
                let (gradients, metrics) = match self.measure(&mini_batch) {
                    Ok(measured) => measured,
                    Err(error) => return made.ended_by(error),
                };
                if metrics.approximate_kl() > limit {
                    made.is_stopped = true;
                    return Ok(made);
                }
                match self.apply(gradients, metrics) {
                    Ok(metrics) => made.updates.push(metrics),
                    Err(error) => return made.ended_by(error),
                }
            }
        }
        Ok(made)
    }

    /// In which order an epoch takes completions.
    fn order(&self, count: usize, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        if self.config.order == EpochOrder::Shuffled {
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed(Purpose::Order, epoch)));
        }
        order
    }

    /// A number that is drawn from by a function of the run's place alone, so that a resumed run needs no memory of it.
    fn seed(&self, purpose: Purpose, number: u64) -> u64 {
        DropoutSeed::of(&[self.config.seed, self.steps, purpose as u64, number]).0
    }
}

impl<M: IncrementalLm> Step<[PromptExample]> for PpoTrainer<M> {
    type Report = RlReport;
    type Error = RlError;

    fn step(&mut self, prompts: &[PromptExample]) -> Result<RlReport, RlError> {
        let rollouts = self.sample(prompts)?;
        self.step_with(rollouts)
    }
}

impl<M: CausalLm> PpoTrainer<M> {
    /// Makes a step with completions, or episodes, that were sampled and scored elsewhere, or that have [rewards of single
    /// actions](ScoredRollouts::action_rewards).
    ///
    /// # Errors
    /// As a step's; if there are rewards of single actions, but not one for each.
    pub fn step_with(&mut self, rollouts: ScoredRollouts) -> Result<RlReport, RlError> {
        let appraisal = self.appraise(&rollouts)?;
        let made = self.updates(&appraisal.experience)?;
        if let Some((of_completions, _)) = appraisal.divergences() {
            self.kl.update(of_completions, appraisal.experience.len());
        }
        self.steps += 1;
        self.rewards.follow(&rollouts.scores);
        self.episodes += rollouts.samples.len() as u64;
        self.tokens_seen += rollouts.tokens();
        let mut report = RlReport {
            named: rollouts.scores.named_metrics(),
            rollouts: rollouts.rows(self.steps, &appraisal.mean_advantages(&rollouts)),
            ..RlReport::default()
        };
        report.metrics = self.metrics(&rollouts, &appraisal, &made);
        report.alarms = self.watch.observe(self.steps, |name| report.get(name));
        for alarm in &report.alarms {
            if let AlarmAction::LowerRate { factor } = alarm.action {
                self.policy.scale_rate(factor.get());
                self.critic.scale_rate(factor.get());
            }
        }
        Ok(report)
    }
}

impl<M: CausalLm> Trains for PpoTrainer<M> {
    type Model = M;

    fn model(&self) -> &M {
        Self::model(self)
    }
}

impl<M: CausalLm> Resumable for PpoTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        let (mut policy, mut critic) = (State::new(), State::new());
        self.policy.save(&mut policy)?;
        self.critic.save(&mut critic)?;
        state.insert_state("policy", policy);
        state.insert_state("critic", critic);
        self.anchor.save(state)?;
        self.rewards.save(state)?;
        state.insert("kl", &self.kl)?;
        state.insert("watch", &self.watch)?;
        state.insert("steps", &self.steps)?;
        state.insert("episodes", &self.episodes)?;
        state.insert("tokens_seen", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        let (mut policy, mut critic) = (state.take_state("policy"), state.take_state("critic"));
        self.policy.restore(&mut policy)?;
        policy.finish()?;
        self.critic.restore(&mut critic)?;
        critic.finish()?;
        self.anchor.restore(state, self.policy.model(), self.policy.made())?;
        self.rewards.restore(state)?;
        self.kl = state.take("kl")?;
        self.watch = state.take("watch")?;
        self.steps = state.take("steps")?;
        self.episodes = state.take("episodes")?;
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}
