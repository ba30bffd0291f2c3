//! What a user sees of a training run.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use align_model::train::{Flow, Hook, HookError, Metrics, Progress, StepEvent};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// A bar on a terminal; elsewhere a line now and then.
#[derive(Debug)]
pub(crate) struct ProgressDisplay {
    bar: Option<ProgressBar>,
    started: Instant,
    /// Steps made and tokens seen before the clock was started.
    before: (u64, f64),
    /// What the latest evaluation found.
    evaluated: Option<f64>,
}

/// What the mean reward of a step is called: by trainers without a critic, and with one.
pub(crate) const REWARDS: [&str; 2] = ["reward", "objective/scores"];

/// Lines of a run that is not watched on a terminal, about.
const LINES: u64 = 20;

impl ProgressDisplay {
    /// Starts the clock of a run.
    pub(crate) fn start(total_steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} step {pos}/{len}  {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total_steps).with_style(style)
        });
        Self { bar, started: Instant::now(), before: (0, 0.0), evaluated: None }
    }

    /// Starts the clock anew for a run that goes on after this step, in which so many tokens were seen before: neither
    /// counts for the speed.
    pub(crate) fn resume(&mut self, step: u64, tokens: f64) {
        self.before = (step, tokens);
        self.started = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    /// Shows a step. `in_steps`: time of all steps since the clock was started, without what happened between them.
    pub(crate) fn show(&mut self, progress: Progress, metrics: &Metrics, in_steps: Duration) {
        let evaluated_now = metrics.get("eval_loss").or_else(|| metrics.get("eval_reward"));
        self.evaluated = evaluated_now.or(self.evaluated);
        let message = self.message(progress, metrics, [self.started.elapsed(), in_steps]);
        let Progress { step, total_steps } = progress;
        let is_first = step == self.before.0 + 1;
        let is_turn = step.is_multiple_of(total_steps.div_ceil(LINES).max(1)) || step == total_steps;
        match &self.bar {
            Some(bar) => {
                bar.set_message(message);
                bar.set_position(step);
                if step == total_steps {
                    bar.finish();
                }
            }
            None if is_first || is_turn || evaluated_now.is_some() => {
                eprintln!("step {step}/{total_steps}  {message}");
            }
            None => {}
        }
    }

    /// Says something that stays, above the bar if there is one.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn message(&self, progress: Progress, metrics: &Metrics, [elapsed, in_steps]: [Duration; 2]) -> String {
        let (steps_before, tokens_before) = self.before;
        let mut parts = Vec::new();
        parts.extend(metrics.get("loss").map(|loss| format!("loss {loss:.4}")));
        let reward = REWARDS.into_iter().find_map(|name| metrics.get(name));
        parts.extend(reward.map(|reward| format!("reward {reward:.4}")));
        parts.extend(self.evaluated.map(|found| format!("evaluation {found:.4}")));
        if let Some(tokens) = metrics.get("num_tokens") {
            parts.push(format!("{:.0} tokens/s", (tokens - tokens_before) / in_steps.as_secs_f64()));
        }
        let (left, made) = (progress.total_steps - progress.step, progress.step - steps_before);
        if left > 0 && made > 0 {
            let remaining = elapsed.mul_f64(left as f64 / made as f64);
            parts.push(format!("{} left", HumanDuration(remaining)));
        }
        parts.join("  ")
    }
}

impl<S, R> Hook<S, R> for ProgressDisplay {
    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        self.show(event.progress, event.metrics, self.started.elapsed());
        Ok(Flow::Continue)
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        // A run that failed leaves its bar standing, for the error to follow.
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(tokens: f64) -> Metrics {
        [("loss", 1.25), ("num_tokens", tokens)].into_iter().collect()
    }

    #[test]
    fn a_message_has_what_the_metrics_have() {
        let progress = Progress { step: 5, total_steps: 20 };
        let display = ProgressDisplay::start(20);
        let two_seconds = [Duration::from_secs(2); 2];
        assert_eq!(
            display.message(progress, &metrics(1000.0), two_seconds),
            "loss 1.2500  500 tokens/s  6 seconds left"
        );
        assert_eq!(display.message(Progress { step: 20, ..progress }, &Metrics::new(), two_seconds), "");
    }

    #[test]
    fn a_resumed_run_is_as_fast_as_it_is_now() {
        let mut display = ProgressDisplay::start(20);
        display.resume(10, 10_000.0);
        display.evaluated = Some(0.5);
        let message = display.message(
            Progress { step: 12, total_steps: 20 },
            &metrics(10_400.0),
            [Duration::from_secs(4), Duration::from_secs(2)],
        );
        assert_eq!(message, "loss 1.2500  evaluation 0.5000  200 tokens/s  16 seconds left");
    }
}
