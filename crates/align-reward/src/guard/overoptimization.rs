//! When a policy has begun to please the reward rather than the people whom the reward stands for.

use std::num::NonZeroU32;

use align_model::number::{NonNegative, Positive};
use serde::{Deserialize, Serialize};

/// When to warn and when to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OveroptimizationConfig {
    /// For how many evaluations in a row the gold reward must lie below its best before the run is stopped; fewer are
    /// a warning. With one evaluation, bad luck stops a run.
    pub patience: NonZeroU32,
    /// How far below its best the gold reward must lie to count as fallen, in standard errors of the difference. With
    /// 2, an evaluation without any real difference counts as fallen one time in forty.
    pub standard_errors: NonNegative,
    /// The Kullback–Leibler divergence, in nats, beyond which a run is stopped whatever the rewards say.
    pub kl_budget: Option<Positive>,
}

impl Default for OveroptimizationConfig {
    fn default() -> Self {
        Self {
            patience: NonZeroU32::MIN.saturating_add(2),
            standard_errors: NonNegative::new(2.0),
            kl_budget: None,
        }
    }
}

/// One evaluation of the policy on held-out prompts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizationPoint {
    /// The training step.
    pub step: u64,
    /// The divergence of the policy from the reference, in nats per sequence.
    pub kl: f64,
    /// The mean of the reward that is trained on.
    pub proxy: f64,
    /// The mean of a better measure that is not trained on: another reward model, a judge's win rate, people.
    pub gold: f64,
    /// The standard error of `gold`; 0 if it is exact.
    pub gold_standard_error: f64,
}

/// What to do after an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nothing is wrong.
    Continue,
    /// Look at samples.
    Warn(Alarm),
    /// End the run; the best checkpoint is that of [`OveroptimizationMonitor::best`].
    Stop(Alarm),
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// A number of the evaluation is not finite, or the divergence or the error is negative; the evaluation was not
    /// counted.
    NotANumber,
    /// The policy is further from the reference than allowed.
    KlBudgetSpent,
    /// The gold reward fell from its best while the proxy did not fall.
    GoldFell {
        /// By how much.
        drop: f64,
        /// For how many evaluations in a row.
        evaluations: u32,
    },
    /// The policy is beyond the peak of the curve that fits the gold rewards so far.
    PeakPassed {
        /// The divergence at the peak, in nats.
        peak_kl: f64,
    },
    /// The proxy has risen over the last evaluations, as many as the patience, and the gold reward has not.
    GoldFlat,
}

/// The gold reward over the distance `d = √KL` from the reference: `R(d) = R₀ + d (α − β ln d)`.
///
/// # Source
/// Gao et al. 2022, *Scaling Laws for Reward Model Overoptimization*, for reinforcement learning,
/// [arXiv:2210.10760](https://arxiv.org/abs/2210.10760); there `R₀` is 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GoldCurve {
    /// The reward of the reference.
    pub start: f64,
    /// How fast it rises at first.
    pub alpha: f64,
    /// How it bends.
    pub beta: f64,
}

/// Follows the evaluations of one run and says when to stop; it is its own state for a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OveroptimizationMonitor {
    config: OveroptimizationConfig,
    points: Vec<OptimizationPoint>,
    fallen: u32,
}

impl OveroptimizationMonitor {
    /// Before the first evaluation.
    #[must_use]
    pub fn new(config: OveroptimizationConfig) -> Self {
        Self { config, points: Vec::new(), fallen: 0 }
    }

    /// Takes an evaluation in and says what to do; of several things that are wrong, the worst.
    pub fn observe(&mut self, point: OptimizationPoint) -> Decision {
        if !point.is_sound() {
            return Decision::Warn(Alarm::NotANumber);
        }
        self.points.push(point);
        let drop = self.drop_from_best(&point);
        self.fallen = if drop.is_some() { self.fallen + 1 } else { 0 };
        if self.config.kl_budget.is_some_and(|budget| point.kl > budget.get()) {
            return Decision::Stop(Alarm::KlBudgetSpent);
        }
        if let Some(drop) = drop {
            let alarm = Alarm::GoldFell { drop, evaluations: self.fallen };
            let enough = self.fallen >= self.config.patience.get();
            return if enough { Decision::Stop(alarm) } else { Decision::Warn(alarm) };
        }
        match self.curve().and_then(|curve| curve.peak_kl()) {
            Some(peak_kl) if point.kl > peak_kl => Decision::Warn(Alarm::PeakPassed { peak_kl }),
            _ if self.is_flat() => Decision::Warn(Alarm::GoldFlat),
            _ => Decision::Continue,
        }
    }

    /// Every evaluation so far, for a plot of both rewards over `√KL`.
    #[must_use]
    pub fn points(&self) -> &[OptimizationPoint] {
        &self.points
    }

    /// The evaluation with the highest gold reward, the first of equals.
    #[must_use]
    pub fn best(&self) -> Option<&OptimizationPoint> {
        self.points.iter().reduce(|best, next| if next.gold > best.gold { next } else { best })
    }

    /// The curve that fits the gold rewards best; `None` with fewer than four distances.
    #[must_use]
    pub fn curve(&self) -> Option<GoldCurve> {
        GoldCurve::fit(self.points.iter().map(|point| (point.kl, point.gold)))
    }

    /// How far gold lies below its best, if that is more than chance would do and the proxy has not fallen with it.
    fn drop_from_best(&self, point: &OptimizationPoint) -> Option<f64> {
        let best = self.best()?;
        let drop = best.gold - point.gold;
        let error = best.gold_standard_error.hypot(point.gold_standard_error);
        (drop > self.config.standard_errors.get() * error && point.proxy >= best.proxy).then_some(drop)
    }

    /// Whether the proxy has risen since before the last evaluations, and gold has not.
    fn is_flat(&self) -> bool {
        let window = self.config.patience.get() as usize;
        let Some(before) = self.points.len().checked_sub(window + 1).map(|index| self.points[index]) else {
            return false;
        };
        let last = &self.points[self.points.len() - window..];
        last.iter().all(|point| point.proxy > before.proxy && point.gold <= before.gold)
    }
}

impl OptimizationPoint {
    fn is_sound(&self) -> bool {
        let numbers = [self.kl, self.proxy, self.gold, self.gold_standard_error];
        numbers.iter().all(|number| number.is_finite()) && self.kl >= 0.0 && self.gold_standard_error >= 0.0
    }
}

impl GoldCurve {
    /// The least-squares fit to pairs of divergence and gold reward; `None` with fewer than four different divergences.
    pub fn fit(points: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let rows: Vec<[f64; 3]> = points
            .into_iter()
            .map(|(kl, gold)| (kl.max(0.0).sqrt(), gold))
            .map(|(d, gold)| [d, bend(d), gold])
            .collect();
        let mut distances: Vec<f64> = rows.iter().map(|row| row[0]).collect();
        distances.sort_by(f64::total_cmp);
        distances.dedup();
        if distances.len() < 4 {
            return None;
        }
        let mean = |column: usize| rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64;
        let means = [mean(0), mean(1), mean(2)];
        let product = |left: usize, right: usize| {
            rows.iter().map(|row| (row[left] - means[left]) * (row[right] - means[right])).sum::<f64>()
        };
        let (aa, ab, bb) = (product(0, 0), product(0, 1), product(1, 1));
        let determinant = aa * bb - ab * ab;
        // Distances so close together that the curve and a line are one say nothing of a peak.
        if determinant <= 1e-10 * aa * bb {
            return None;
        }
        let (ay, by) = (product(0, 2), product(1, 2));
        let alpha = (ay * bb - by * ab) / determinant;
        let beta = (by * aa - ay * ab) / determinant;
        Some(Self { start: means[2] - alpha * means[0] - beta * means[1], alpha, beta })
    }

    /// The gold reward at a divergence.
    #[must_use]
    pub fn at(&self, kl: f64) -> f64 {
        let d = kl.sqrt();
        self.start + self.alpha * d + self.beta * bend(d)
    }

    /// The divergence at which the gold reward is highest, `exp(α/β − 1)²`; `None` for a curve that only rises.
    #[must_use]
    pub fn peak_kl(&self) -> Option<f64> {
        let peak = (self.alpha / self.beta - 1.0).exp().powi(2);
        (self.beta > 0.0 && peak.is_finite()).then_some(peak)
    }
}

/// `−d ln d`, continued to 0.
fn bend(d: f64) -> f64 {
    if d > 0.0 { -d * d.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(step: u64, kl: f64, proxy: f64, gold: f64) -> OptimizationPoint {
        OptimizationPoint { step, kl, proxy, gold, gold_standard_error: 0.01 }
    }

    fn monitor() -> OveroptimizationMonitor {
        OveroptimizationMonitor::new(OveroptimizationConfig::default())
    }

    #[test]
    fn a_run_that_overoptimises_is_stopped_after_its_peak() {
        let curve = GoldCurve { start: 0.2, alpha: 1.0, beta: 0.6 };
        let peak = curve.peak_kl().unwrap();
        let mut monitor = monitor();
        let mut stopped = None;
        for step in 0..60 {
            let kl = 0.5 * step as f64;
            match monitor.observe(point(step, kl, 0.3 * kl.sqrt(), curve.at(kl))) {
                Decision::Stop(Alarm::GoldFell { evaluations, .. }) => {
                    assert_eq!(evaluations, 3);
                    stopped = Some(kl);
                    break;
                }
                Decision::Stop(other) => panic!("{other:?}"),
                Decision::Warn(alarm) => assert!(kl > peak, "{alarm:?} at {kl}, before the peak at {peak}"),
                Decision::Continue => {}
            }
        }
        let stopped = stopped.expect("it was never stopped");
        assert!(stopped > peak && stopped < 4.0 * peak, "{stopped} {peak}");
        assert!((monitor.best().unwrap().kl - peak).abs() < 0.5);
        let fitted = monitor.curve().unwrap();
        assert!((fitted.peak_kl().unwrap() - peak).abs() < 1e-6, "{fitted:?}");
    }

    #[test]
    fn a_run_that_goes_well_is_left_alone() {
        let mut monitor = monitor();
        for step in 0..40 {
            let x = step as f64;
            let wobble = if step % 2 == 0 { 0.01 } else { 0.0 };
            let decision = monitor.observe(point(step, 0.1 * x, x, 0.05 * x + wobble));
            assert_eq!(decision, Decision::Continue, "{step}");
        }
    }

    #[test]
    fn chance_and_common_falls_are_no_alarm() {
        let mut monitor = monitor();
        monitor.observe(point(0, 0.0, 0.0, 0.5));
        assert_eq!(monitor.observe(point(1, 0.1, 0.1, 0.48)), Decision::Continue, "within two errors");
        assert_eq!(monitor.observe(point(2, 0.2, -0.1, 0.1)), Decision::Continue, "the proxy fell as well");
        let fell = monitor.observe(point(3, 0.3, 0.2, 0.4));
        assert!(matches!(fell, Decision::Warn(Alarm::GoldFell { evaluations: 1, .. })), "{fell:?}");
    }

    #[test]
    fn a_flat_gold_reward_under_a_rising_proxy_is_a_warning() {
        let mut monitor = monitor();
        let decisions: Vec<Decision> =
            (0..4).map(|step| monitor.observe(point(step, 1.0, step as f64, 0.5))).collect();
        assert_eq!(decisions[2], Decision::Continue);
        assert_eq!(decisions[3], Decision::Warn(Alarm::GoldFlat));
    }

    #[test]
    fn the_budget_and_broken_numbers_are_seen() {
        let kl_budget = Some(Positive::new(5.0));
        let mut monitor = OveroptimizationMonitor::new(OveroptimizationConfig {
            kl_budget,
            ..OveroptimizationConfig::default()
        });
        assert_eq!(monitor.observe(point(0, f64::NAN, 0.0, 0.0)), Decision::Warn(Alarm::NotANumber));
        assert!(monitor.points().is_empty());
        assert_eq!(monitor.observe(point(1, 5.1, 0.0, 0.0)), Decision::Stop(Alarm::KlBudgetSpent));
    }

    #[test]
    fn a_monitor_goes_on_where_it_was_saved() {
        let mut monitor = monitor();
        monitor.observe(point(0, 0.0, 0.0, 0.5));
        monitor.observe(point(1, 0.3, 0.2, 0.4));
        let text = serde_json::to_string(&monitor).unwrap();
        let mut restored: OveroptimizationMonitor = serde_json::from_str(&text).unwrap();
        assert_eq!(restored, monitor);
        let next = point(2, 0.4, 0.3, 0.3);
        assert_eq!(restored.observe(next), monitor.observe(next));
    }

    proptest! {
        #[test]
        fn the_fit_finds_the_curve(start in -1f64..1.0, alpha in 0.2f64..2.0, beta in 0.1f64..1.0) {
            let curve = GoldCurve { start, alpha, beta };
            let found = GoldCurve::fit((0..12).map(|n| 0.4 * f64::from(n)).map(|kl| (kl, curve.at(kl)))).unwrap();
            prop_assert!((found.alpha - alpha).abs() < 1e-6 && (found.beta - beta).abs() < 1e-6);
        }
    }
}
