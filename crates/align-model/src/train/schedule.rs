//! How the learning rate moves over a run: the schedules of `transformers.get_scheduler`, by its names.

use std::{f64::consts::PI, num::NonZeroU64};

use serde::{Deserialize, Serialize};

use crate::number::{NonNegative, Positive, UnitInterval};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// So many optimiser steps.
    Steps(u64),
    /// This share of all steps, rounded up.
    Ratio(UnitInterval),
}

impl Default for Span {
    fn default() -> Self {
        Self::Steps(0)
    }
}

impl Span {
    /// The span in steps of a run of `total_steps`.
    #[must_use]
    pub fn steps(self, total_steps: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Ratio(ratio) => (total_steps as f64 * ratio.get()).ceil() as u64,
        }
    }
}

/// Where a decay ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// At this learning rate.
    LearningRate(NonNegative),
    /// At this share of the learning rate that the run is given.
    Ratio(UnitInterval),
}

impl Floor {
    fn ratio(self, base: f64) -> f64 {
        match self {
            Self::LearningRate(rate) => rate.get() / base,
            Self::Ratio(ratio) => ratio.get(),
        }
    }
}

/// The curve of a way from one rate to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Curve {
    /// A straight line.
    #[serde(rename = "linear")]
    Linear,
    /// Half a cosine wave.
    #[serde(rename = "cosine")]
    Cosine,
    /// One minus a square root.
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

/// A learning-rate schedule. Every variant begins with its warm-up: from 0 at the first step, in a straight line,
/// to the full rate, unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The full rate throughout.
    #[serde(alias = "constant_with_warmup")]
    Constant {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
    },
    /// Down to 0 in a straight line.
    Linear {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
    },
    /// Down to 0 along a cosine.
    Cosine {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
        /// Cosine waves until the end; 0.5 is one way down.
        #[serde(default = "half_a_cycle")]
        num_cycles: Positive,
    },
    /// Down to 0 along half a cosine, so many times.
    CosineWithRestarts {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
        /// How many times.
        #[serde(default = "one")]
        num_cycles: Positive,
    },
    /// Down to a floor along a cosine.
    CosineWithMinLr {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
        /// Where the decay ends.
        floor: Floor,
        /// Cosine waves until the end; 0.5 is one way down.
        #[serde(default = "half_a_cycle")]
        num_cycles: Positive,
    },
    /// As `cosine_with_min_lr`, but one step ahead: the warm-up does not begin at 0 and the last step is at the floor.
    CosineWarmupWithMinLr {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
        /// Where the decay ends.
        floor: Floor,
        /// Cosine waves until the end; 0.5 is one way down.
        #[serde(default = "half_a_cycle")]
        num_cycles: Positive,
        /// Share of the full rate at which the warm-up begins; one step's share of it unless given.
        #[serde(default)]
        warmup_lr_rate: Option<UnitInterval>,
    },
    /// Down to an end rate along a power of the share of steps that remain.
    Polynomial {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
        /// The learning rate at the end, below the full one.
        #[serde(default = "tiny_rate")]
        lr_end: NonNegative,
        /// The exponent; 1 is a straight line.
        #[serde(default = "one")]
        power: Positive,
    },
    /// Down with the inverse square root of the step, without an end.
    InverseSqrt {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
        /// Steps in which the rate falls to √½; those of the warm-up, or 10 000 without one, unless given.
        #[serde(default)]
        timescale: Option<NonZeroU64>,
    },
    /// Up from the floor, level, and down to the floor.
    WarmupStableDecay {
        /// The rise at the beginning; none unless given.
        #[serde(default)]
        warmup: Span,
        /// The level part; what the other two leave unless given.
        #[serde(default)]
        stable: Option<Span>,
        /// The decay; the rate stays at the floor after it.
        decay: Span,
        /// How the rate rises.
        #[serde(default = "linear_curve")]
        warmup_type: Curve,
        /// How the rate falls.
        #[serde(default = "cosine_curve")]
        decay_type: Curve,
        /// The floor, as a share of the full rate.
        #[serde(default = "zero")]
        min_lr_ratio: UnitInterval,
        /// Cosine waves of a cosine decay; 0.5 is one way down.
        #[serde(default = "half_a_cycle")]
        num_cycles: Positive,
    },
}

impl Default for Schedule {
    /// Linear without warm-up, as `transformers.TrainingArguments`.
    fn default() -> Self {
        Self::Linear { warmup: Span::default() }
    }
}

/// A schedule does not fit the learning rate that it is to shape.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The rate at the end is no decay.
    #[error(
        "the schedule ends at a learning rate of {end}, which is not below the run's own of {base}: lower it"
    )]
    EndNotBelowBase {
        /// Where the schedule ends.
        end: f64,
        /// The learning rate of the run.
        base: f64,
    },
}

impl Schedule {
    /// The learning rate that step `step`, counted from 0, of a run of `total_steps` uses.
    ///
    /// `base` is the full learning rate.
    #[must_use]
    pub fn learning_rate(&self, step: u64, total_steps: u64, base: f64) -> f64 {
        base * self.factor(step, total_steps, base)
    }

    /// Checks the schedule against the learning rate of the run.
    ///
    /// # Errors
    /// If a rate at which the schedule ends is not below `base`.
    pub fn check(&self, base: f64) -> Result<(), ScheduleError> {
        let end = match self {
            Self::Polynomial { lr_end, .. } => lr_end.get(),
            Self::CosineWithMinLr { floor: Floor::LearningRate(rate), .. }
            | Self::CosineWarmupWithMinLr { floor: Floor::LearningRate(rate), .. } => rate.get(),
            _ => return Ok(()),
        };
        if end < base { Ok(()) } else { Err(ScheduleError::EndNotBelowBase { end, base }) }
    }

    /// The share of the full rate at a step.
    fn factor(&self, step: u64, total_steps: u64, base: f64) -> f64 {
        let place = Place::new(self.warmup(), step, total_steps);
        match *self {
            Self::Constant { .. } => place.rise().unwrap_or(1.0),
            Self::Linear { .. } => place.rise().unwrap_or_else(|| (1.0 - place.progress()).max(0.0)),
            Self::Cosine { num_cycles, .. } => {
                place.rise().unwrap_or_else(|| wave(num_cycles, place.progress()).max(0.0))
            }
            Self::CosineWithRestarts { num_cycles, .. } => place.rise().unwrap_or_else(|| {
                let progress = place.progress();
                if progress >= 1.0 { 0.0 } else { half_wave((num_cycles.get() * progress) % 1.0) }
            }),
            Self::CosineWithMinLr { floor, num_cycles, .. } => place
                .rise()
                .unwrap_or_else(|| above(floor.ratio(base), wave(num_cycles, place.progress())).max(0.0)),
            Self::CosineWarmupWithMinLr { floor, num_cycles, warmup_lr_rate, .. } => {
                place.rise_from(warmup_lr_rate).unwrap_or_else(|| {
                    above(floor.ratio(base), wave(num_cycles, place.progress_after_step())).max(0.0)
                })
            }
            Self::Polynomial { lr_end, power, .. } => place.rise().unwrap_or_else(|| {
                let remaining = (1.0 - place.progress()).max(0.0);
                ((base - lr_end.get()) * remaining.powf(power.get()) + lr_end.get()) / base
            }),
            Self::InverseSqrt { timescale, .. } => {
                place.rise().unwrap_or_else(|| place.inverse_sqrt(timescale))
            }
            Self::WarmupStableDecay {
                stable,
                decay,
                warmup_type,
                decay_type,
                min_lr_ratio,
                num_cycles,
                ..
            } => {
                let decay = decay.steps(total_steps) as f64;
                let stable =
                    stable.map_or(place.total - place.warmup - decay, |span| span.steps(total_steps) as f64);
                let decay_begin = place.warmup + stable;
                let floor = min_lr_ratio.get();
                if let Some(progress) = place.rise() {
                    above(floor, risen(warmup_type, progress))
                } else if place.step < decay_begin {
                    1.0
                } else if place.step < decay_begin + decay {
                    let progress = (place.step - decay_begin) / decay.max(1.0);
                    above(floor, fallen(decay_type, progress, num_cycles)).max(0.0)
                } else {
                    floor
                }
            }
        }
    }

    fn warmup(&self) -> Span {
        match *self {
            Self::Constant { warmup }
            | Self::Linear { warmup }
            | Self::Cosine { warmup, .. }
            | Self::CosineWithRestarts { warmup, .. }
            | Self::CosineWithMinLr { warmup, .. }
            | Self::CosineWarmupWithMinLr { warmup, .. }
            | Self::Polynomial { warmup, .. }
            | Self::InverseSqrt { warmup, .. }
            | Self::WarmupStableDecay { warmup, .. } => warmup,
        }
    }
}

/// Where in a run a step lies. Counts are `f64`, so that a difference may be negative.
struct Place {
    step: f64,
    warmup: f64,
    total: f64,
}

impl Place {
    fn new(warmup: Span, step: u64, total_steps: u64) -> Self {
        Self { step: step as f64, warmup: warmup.steps(total_steps) as f64, total: total_steps as f64 }
    }

    /// The share of the warm-up that lies behind, while it lasts.
    fn rise(&self) -> Option<f64> {
        (self.step < self.warmup).then(|| self.step / self.warmup)
    }

    /// The rise that has its first step behind it at step 0, or that begins at a given share.
    fn rise_from(&self, first: Option<UnitInterval>) -> Option<f64> {
        (self.step < self.warmup).then(|| match first {
            None => (self.step + 1.0) / self.warmup,
            Some(first) => first.get() + (1.0 - first.get()) * self.step / (self.warmup - 1.0).max(1.0),
        })
    }

    /// The share of the steps after the warm-up that lies behind.
    fn progress(&self) -> f64 {
        (self.step - self.warmup) / (self.total - self.warmup).max(1.0)
    }

    /// The same, this step included.
    fn progress_after_step(&self) -> f64 {
        (self.step - self.warmup + 1.0) / (self.total - self.warmup).max(1.0)
    }

    fn inverse_sqrt(&self, timescale: Option<NonZeroU64>) -> f64 {
        let without = if self.warmup > 0.0 { self.warmup } else { 10_000.0 };
        let timescale = timescale.map_or(without, |steps| steps.get() as f64);
        1.0 / ((self.step + timescale - self.warmup) / timescale).sqrt()
    }
}

/// A cosine that is 1 at the beginning and has run `num_cycles` waves at the end, between 0 and 1.
fn wave(num_cycles: Positive, progress: f64) -> f64 {
    0.5 * (1.0 + (PI * num_cycles.get() * 2.0 * progress).cos())
}

fn half_wave(progress: f64) -> f64 {
    0.5 * (1.0 + (PI * progress).cos())
}

/// A share of the way from the floor to 1.
fn above(floor: f64, share: f64) -> f64 {
    share * (1.0 - floor) + floor
}

fn risen(curve: Curve, progress: f64) -> f64 {
    match curve {
        Curve::Linear => progress,
        Curve::Cosine => 1.0 - half_wave(progress),
        Curve::OneMinusSqrt => 1.0 - (1.0 - progress).sqrt(),
    }
}

fn fallen(curve: Curve, progress: f64, num_cycles: Positive) -> f64 {
    match curve {
        Curve::Linear => 1.0 - progress,
        Curve::Cosine => wave(num_cycles, progress),
        Curve::OneMinusSqrt => 1.0 - progress.sqrt(),
    }
}

fn half_a_cycle() -> Positive {
    Positive::new(0.5)
}

fn one() -> Positive {
    Positive::new(1.0)
}

fn zero() -> UnitInterval {
    UnitInterval::new(0.0)
}

fn tiny_rate() -> NonNegative {
    NonNegative::new(1e-7)
}

fn linear_curve() -> Curve {
    Curve::Linear
}

fn cosine_curve() -> Curve {
    Curve::Cosine
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // the numbers are exact in binary
mod tests {
    use super::*;

    fn parsed(json: &str) -> Schedule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_warm_up_begins_at_zero_and_a_decay_ends_there() {
        let linear = Schedule::Linear { warmup: Span::Steps(10) };
        assert_eq!(linear.learning_rate(0, 100, 2.0), 0.0);
        assert_eq!(linear.learning_rate(5, 100, 2.0), 1.0);
        assert_eq!(linear.learning_rate(10, 100, 2.0), 2.0);
        assert_eq!(linear.learning_rate(55, 100, 2.0), 1.0);
        assert_eq!(linear.learning_rate(100, 100, 2.0), 0.0);
        assert_eq!(linear.learning_rate(150, 100, 2.0), 0.0);
    }

    #[test]
    fn a_share_of_the_run_is_rounded_up() {
        assert_eq!(Span::Ratio(UnitInterval::new(0.03)).steps(101), 4);
        assert_eq!(Span::Ratio(UnitInterval::new(0.0)).steps(101), 0);
    }

    #[test]
    fn names_and_defaults_are_those_of_transformers() {
        assert_eq!(parsed(r#"{"kind": "linear"}"#), Schedule::default());
        assert_eq!(
            parsed(r#"{"kind": "constant_with_warmup", "warmup": {"steps": 3}}"#),
            Schedule::Constant { warmup: Span::Steps(3) }
        );
        assert_eq!(
            parsed(r#"{"kind": "cosine_with_min_lr", "floor": {"ratio": 0.1}, "warmup": {"ratio": 0.1}}"#),
            Schedule::CosineWithMinLr {
                warmup: Span::Ratio(UnitInterval::new(0.1)),
                floor: Floor::Ratio(UnitInterval::new(0.1)),
                num_cycles: Positive::new(0.5)
            }
        );
    }

    #[test]
    fn a_parameter_of_another_schedule_is_refused() {
        let refused = serde_json::from_str::<Schedule>(r#"{"kind": "linear", "num_cycles": 2.0}"#);
        assert!(refused.unwrap_err().to_string().contains("num_cycles"));
        assert!(serde_json::from_str::<Schedule>(r#"{"kind": "sawtooth"}"#).is_err());
    }

    #[test]
    fn warm_up_ahead_reaches_the_floor_at_the_last_step() {
        let schedule = parsed(
            r#"{"kind": "cosine_warmup_with_min_lr", "floor": {"ratio": 0.1}, "warmup": {"steps": 4}}"#,
        );
        let rates: Vec<f64> = (0..10).map(|step| schedule.learning_rate(step, 10, 1.0)).collect();
        assert_eq!(rates[..4], [0.25, 0.5, 0.75, 1.0]);
        assert!((rates[9] - 0.1).abs() < 1e-15);
    }

    #[test]
    fn an_end_above_the_beginning_is_refused() {
        let schedule = parsed(r#"{"kind": "polynomial", "lr_end": 0.01}"#);
        assert_eq!(schedule.check(0.001), Err(ScheduleError::EndNotBelowBase { end: 0.01, base: 0.001 }));
        assert_eq!(schedule.check(0.1), Ok(()));
    }

    #[test]
    fn no_schedule_leaves_the_range_or_fails_at_a_border() {
        for kind in [
            r#"{"kind": "constant", "warmup": {"steps": 7}}"#,
            r#"{"kind": "linear", "warmup": {"steps": 7}}"#,
            r#"{"kind": "cosine", "warmup": {"steps": 7}}"#,
            r#"{"kind": "cosine_with_restarts", "warmup": {"steps": 7}, "num_cycles": 3}"#,
            r#"{"kind": "cosine_with_min_lr", "warmup": {"steps": 7}, "floor": {"learning_rate": 1e-4}}"#,
            r#"{"kind": "polynomial", "warmup": {"steps": 7}, "power": 2}"#,
            r#"{"kind": "inverse_sqrt", "warmup": {"steps": 7}}"#,
            r#"{"kind": "warmup_stable_decay", "warmup": {"steps": 7}, "decay": {"steps": 5}}"#,
        ] {
            let schedule = parsed(kind);
            for total in [0, 1, 7, 8, 50] {
                for step in 0..=total + 3 {
                    let rate = schedule.learning_rate(step, total, 1e-3);
                    assert!((0.0..=1e-3).contains(&rate), "{kind} at {step} of {total}: {rate}");
                }
            }
        }
    }
}
