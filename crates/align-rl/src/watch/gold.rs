//! A better measure than the reward, measured now and then on prompts that nothing is trained on.

use std::num::NonZeroU64;

use align_model::{
    checkpoint::{State, StateError},
    train::{Flow, Hook, HookError, Metrics, Progress, StepEvent},
};
use align_reward::guard::{Decision, OptimizationPoint, OveroptimizationConfig, OveroptimizationMonitor};

/// What an evaluation on held-out prompts found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoldEvaluation {
    /// The policy's divergence from where it began, in nats a sequence.
    pub kl: f64,
    /// The mean of the reward that is trained on.
    pub proxy: f64,
    /// The mean of the measure that is not.
    pub gold: f64,
    /// The standard error of `gold`.
    pub gold_standard_error: f64,
}

/// A hook that ends a run which pleases its reward and no longer what the reward stands for.
///
/// It evaluates before the first step, every so many steps, and after the last; `gold/proxy`, `gold/mean`, `gold/kl` are
/// added to the step's metrics, and `gold/warning`, 1 where the monitor warns.
#[derive(Debug)]
pub struct GoldWatch<F> {
    every: NonZeroU64,
    monitor: OveroptimizationMonitor,
    evaluate: F,
}

impl<F> GoldWatch<F> {
    /// Evaluates by a function of the trainer.
    #[must_use]
    pub fn new<S>(every: NonZeroU64, config: OveroptimizationConfig, evaluate: F) -> Self
    where
        F: FnMut(&S) -> Result<GoldEvaluation, HookError>,
    {
        Self { every, monitor: OveroptimizationMonitor::new(config), evaluate }
    }

    /// What was seen so far, and which step was best.
    #[must_use]
    pub fn monitor(&self) -> &OveroptimizationMonitor {
        &self.monitor
    }

    fn look<S>(&mut self, step: u64, metrics: &mut Metrics, trainer: &S) -> Result<Flow, HookError>
    where
        F: FnMut(&S) -> Result<GoldEvaluation, HookError>,
    {
        let GoldEvaluation { kl, proxy, gold, gold_standard_error } = (self.evaluate)(trainer)?;
        let decision = self.monitor.observe(OptimizationPoint { step, kl, proxy, gold, gold_standard_error });
        let warns = f64::from(u8::from(decision != Decision::Continue));
        metrics.extend([
            ("gold/proxy", proxy),
            ("gold/mean", gold),
            ("gold/kl", kl),
            ("gold/warning", warns),
        ]);
        Ok(if let Decision::Stop(_) = decision { Flow::Stop } else { Flow::Continue })
    }
}

impl<S, R, F> Hook<S, R> for GoldWatch<F>
where
    F: FnMut(&S) -> Result<GoldEvaluation, HookError>,
{
    fn name(&self) -> &'static str {
        "gold_watch"
    }

    fn begin(&mut self, progress: Progress, metrics: &mut Metrics, trainer: &S) -> Result<(), HookError> {
        if progress.step == 0 { self.look(0, metrics, trainer).map(|_| ()) } else { Ok(()) }
    }

    fn after_step(&mut self, event: &mut StepEvent<'_, R>, trainer: &S) -> Result<Flow, HookError> {
        let progress = event.progress;
        if progress.is_due(self.every) {
            self.look(progress.step, event.metrics, trainer)
        } else {
            Ok(Flow::Continue)
        }
    }

    fn save(&self, state: &mut State) -> Result<(), StateError> {
        state.insert("monitor", &self.monitor)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.monitor = state.take("monitor")?;
        Ok(())
    }
}
