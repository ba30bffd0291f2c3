//! Alarms: what is wrong with a run, seen in its metrics while it can still be helped.
//!
//! | alarm | metric | what it means |
//! | --- | --- | --- |
//! | `kl_budget` | `kl` | the policy has left the reference further than was allowed |
//! | `length_drift` | `completions/mean_length` | lengths change by themselves, the commonest way to please a reward |
//! | `entropy_collapse` | `entropy` | the policy is sure of everything, and explores no more |
//! | `repetition` | `completions/repetition` | completions say the same again and again |
//! | `no_signal` | `frac_reward_zero_std` | groups whose rewards are all equal, which teach nothing |
//! | `clip_fraction` | `clip_ratio/region_mean` | updates are too large for their rollouts |
//! | `sampler_gap` | `sampling/sampling_logp_difference/mean` | the sampler's distribution is not the trainer's |
//! | `unscored` | `rewards/unscored` | rollouts that no reward could be given |
//!
//! A better measure than the reward, that nothing is trained on, is watched by [`GoldWatch`].

mod gold;
mod hook;

use std::num::NonZeroU32;

use align_model::number::{Positive, PositiveUnit, ProperFraction, UnitInterval};
use serde::{Deserialize, Serialize};

pub use gold::{GoldEvaluation, GoldWatch};
pub use hook::StopOnAlarm;

/// Steps whose mean is what later ones are compared with.
const BASELINE_STEPS: u32 = 4;

/// What to look out for, and what to do then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlarmConfig {
    /// What is wrong.
    pub when: Danger,
    /// For how many steps in a row it has to be. 3 unless given: a single step is often bad luck.
    #[serde(default = "patience")]
    pub patience: NonZeroU32,
    /// What to do.
    #[serde(default)]
    pub action: AlarmAction,
}

/// What can be wrong with a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Danger {
    /// The divergence from the reference is above a budget. Policies that were tuned with care end at 0.02 to 0.2 nats a
    /// token; where nothing is left of the reference it is above 1.
    KlBudget {
        /// Nats a token.
        nats: Positive,
    },
    /// Completions are longer, or shorter, than those of the first 4 steps by this factor. 1.5 is a change that nobody
    /// overlooks when reading; learning to reason may deserve 3 and more.
    LengthDrift {
        /// Above 1.
        factor: Positive,
    },
    /// The entropy fell to a share of that of the first 4 steps. Below a fifth, samples of a prompt are nearly the same.
    EntropyCollapse {
        /// What is left.
        share: PositiveUnit,
    },
    /// So large a share of trigrams of tokens occurred before in the same completion. Prose is below 0.1.
    Repetition {
        /// Of a completion's trigrams, on average.
        share: UnitInterval,
    },
    /// So large a share of groups has rewards without any difference: the task is too easy, too hard, or the reward
    /// broken.
    NoSignal {
        /// Of all groups.
        share: UnitInterval,
    },
    /// So large a share of tokens, or of sequences, is clipped. PPO-like updates clip 0.05 to 0.2.
    ClipFraction {
        /// Of all tokens or sequences.
        share: UnitInterval,
    },
    /// Log-probabilities of sampled tokens differ between sampler and trainer by more than rounding explains: 1e-3 in
    /// f32, 0.05 in half precision.
    SamplerGap {
        /// Nats a token, on average.
        nats: Positive,
    },
    /// So large a share of rollouts has no score.
    Unscored {
        /// Of all rollouts.
        share: UnitInterval,
    },
}

/// What to do about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AlarmAction {
    /// Say so.
    #[default]
    Warn,
    /// Multiply the learning rate, from here on.
    LowerRate {
        /// By this; again each time.
        factor: ProperFraction,
    },
    /// End the run, as if it had been this long.
    Stop,
}

/// Something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The step that it was noticed at; the first is 1.
    pub step: u64,
    /// What.
    pub danger: Danger,
    /// What was measured.
    pub value: f64,
    /// What it should not have passed.
    pub limit: f64,
    /// What is done.
    pub action: AlarmAction,
}

/// Looks out for what is wrong, step by step. It is its own state for a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    alarms: Vec<Watched>,
}

/// One alarm and what it has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Watched {
    config: AlarmConfig,
    /// Steps in a row that were wrong.
    wrong: u32,
    /// Steps of the baseline and their sum.
    baseline: (u32, f64),
}

impl Watch {
    /// Before the first step.
    #[must_use]
    pub fn new(alarms: &[AlarmConfig]) -> Self {
        let watched = |config: &AlarmConfig| Watched { config: config.clone(), wrong: 0, baseline: (0, 0.0) };
        Self { alarms: alarms.iter().map(watched).collect() }
    }

    /// Takes a step's metrics in, by their names, and says what is wrong. A metric that there is none of is no danger.
    pub fn observe(&mut self, step: u64, metric: impl Fn(&str) -> Option<f64>) -> Vec<Alarm> {
        let look = |alarm: &mut Watched| alarm.observe(step, metric(alarm.config.when.metric())?);
        self.alarms.iter_mut().filter_map(look).collect()
    }

    /// Whether this is the watch of these alarms.
    pub(crate) fn is_of(&self, alarms: &[AlarmConfig]) -> bool {
        self.alarms.iter().map(|watched| &watched.config).eq(alarms)
    }
}

impl Watched {
    fn observe(&mut self, step: u64, value: f64) -> Option<Alarm> {
        let danger = self.config.when;
        let (steps, sum) = &mut self.baseline;
        if danger.is_relative() && *steps < BASELINE_STEPS {
            *steps += 1;
            *sum += value;
            return None;
        }
        let (limit, is_within) = match danger.border(*sum / f64::from((*steps).max(1)), value) {
            Border::AtLeast(limit) => (limit, value >= limit),
            // A number that is none is never within its limits.
            Border::AtMost(limit) => (limit, value <= limit),
        };
        self.wrong = if is_within { 0 } else { self.wrong + 1 };
        if self.wrong < self.config.patience.get() {
            return None;
        }
        self.wrong = 0;
        Some(Alarm { step, danger, value, limit, action: self.config.action })
    }
}

/// What a metric should not pass.
enum Border {
    AtMost(f64),
    AtLeast(f64),
}

impl Danger {
    /// The metric that shows it.
    #[must_use]
    pub fn metric(self) -> &'static str {
        match self {
            Self::KlBudget { .. } => "kl",
            Self::LengthDrift { .. } => "completions/mean_length",
            Self::EntropyCollapse { .. } => "entropy",
            Self::Repetition { .. } => "completions/repetition",
            Self::NoSignal { .. } => "frac_reward_zero_std",
            Self::ClipFraction { .. } => "clip_ratio/region_mean",
            Self::SamplerGap { .. } => "sampling/sampling_logp_difference/mean",
            Self::Unscored { .. } => "rewards/unscored",
        }
    }

    /// Whether it is measured against the first steps.
    fn is_relative(self) -> bool {
        matches!(self, Self::LengthDrift { .. } | Self::EntropyCollapse { .. })
    }

    /// The border on the side of `value`, given the mean of the first steps.
    fn border(self, baseline: f64, value: f64) -> Border {
        match self {
            Self::KlBudget { nats } | Self::SamplerGap { nats } => Border::AtMost(nats.get()),
            Self::LengthDrift { factor } if value < baseline => Border::AtLeast(baseline / factor.get()),
            Self::LengthDrift { factor } => Border::AtMost(baseline * factor.get()),
            Self::EntropyCollapse { share } => Border::AtLeast(baseline * share.get()),
            Self::Repetition { share }
            | Self::NoSignal { share }
            | Self::ClipFraction { share }
            | Self::Unscored { share } => Border::AtMost(share.get()),
        }
    }
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { step, danger, value, limit, action } = self;
        let done = match action {
            AlarmAction::Warn => String::new(),
            AlarmAction::LowerRate { factor } => format!("; the learning rate is multiplied by {factor}"),
            AlarmAction::Stop => "; the run ends here".into(),
        };
        write!(f, "step {step}: `{}` is {value:.4}, its limit {limit:.4}{done}", danger.metric())
    }
}

/// What nearly every run should be warned of.
#[must_use]
pub fn default_alarms() -> Vec<AlarmConfig> {
    let warn = |when| AlarmConfig { when, patience: patience(), action: AlarmAction::Warn };
    vec![
        warn(Danger::LengthDrift { factor: Positive::new(1.5) }),
        warn(Danger::EntropyCollapse { share: PositiveUnit::new(0.2) }),
        warn(Danger::Repetition { share: UnitInterval::new(0.5) }),
        warn(Danger::NoSignal { share: UnitInterval::new(0.8) }),
        warn(Danger::ClipFraction { share: UnitInterval::new(0.5) }),
        warn(Danger::SamplerGap { nats: Positive::new(0.05) }),
        warn(Danger::Unscored { share: UnitInterval::new(0.5) }),
    ]
}

fn patience() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(when: Danger, patience: u32) -> Watch {
        let patience = patience.try_into().unwrap();
        Watch::new(&[AlarmConfig { when, patience, action: AlarmAction::Stop }])
    }

    /// The steps at which an alarm is raised.
    fn steps(watch: &mut Watch, values: &[f64]) -> Vec<u64> {
        let seen = values.iter().zip(1..).flat_map(|(&value, step)| watch.observe(step, |_| Some(value)));
        seen.map(|alarm| alarm.step).collect()
    }

    #[test]
    fn an_alarm_needs_patience_and_can_come_again() {
        let mut clipped = watch(Danger::ClipFraction { share: UnitInterval::new(0.2) }, 2);
        assert_eq!(steps(&mut clipped, &[0.3, 0.1, 0.3, 0.3, 0.3, 0.2, 0.3, f64::NAN]), [4, 8]);
    }

    #[test]
    fn lengths_may_drift_neither_up_nor_down() {
        let drift = Danger::LengthDrift { factor: Positive::new(2.0) };
        assert_eq!(steps(&mut watch(drift, 1), &[9.0, 11.0, 10.0, 10.0, 19.0, 20.5, 6.0, 4.9]), [6, 8]);
    }

    #[test]
    fn entropy_may_rise_but_not_collapse() {
        let collapse = Danger::EntropyCollapse { share: PositiveUnit::new(0.5) };
        assert_eq!(steps(&mut watch(collapse, 1), &[2.0, 2.0, 2.0, 2.0, 9.0, 1.1, 0.9]), [7]);
    }

    #[test]
    fn a_watch_goes_on_where_it_was_saved() {
        let mut watch = watch(Danger::NoSignal { share: UnitInterval::new(0.5) }, 3);
        assert_eq!(steps(&mut watch, &[1.0, 1.0]), [0u64; 0]);
        let text = serde_json::to_string(&watch).unwrap();
        let mut restored: Watch = serde_json::from_str(&text).unwrap();
        assert_eq!(restored, watch);
        assert_eq!(steps(&mut restored, &[1.0]), [1]);
    }

    #[test]
    fn alarms_are_read_from_a_run_file() {
        let text = r#"
            when = { kind = "kl_budget", nats = 0.5 }
            action = { kind = "lower_rate", factor = 0.5 }
        "#;
        let config: AlarmConfig = toml::from_str(text).unwrap();
        assert_eq!(config.patience.get(), 3);
        let mut watch = Watch::new(&[config]);
        let alarms: Vec<Alarm> = (1..=3).flat_map(|step| watch.observe(step, |_| Some(0.75))).collect();
        let expected = "step 3: `kl` is 0.7500, its limit 0.5000; the learning rate is multiplied by 0.5";
        assert_eq!(alarms[0].to_string(), expected);
        assert!(watch.observe(4, |_| None).is_empty());
    }
}
