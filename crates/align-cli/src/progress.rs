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
}

/// Lines of a run that is not watched on a terminal, about.
const LINES: u64 = 20;

impl ProgressDisplay {
    /// Starts the clock of a run.
    pub(crate) fn start(total_steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} step {pos}/{len}  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total_steps).with_style(style)
        });
        Self { bar, started: Instant::now() }
    }
}

impl<S, R> Hook<S, R> for ProgressDisplay {
    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        let message = message(event.progress, event.metrics, self.started.elapsed());
        let Progress { step, total_steps } = event.progress;
        match &self.bar {
            Some(bar) => {
                bar.set_message(message);
                bar.set_position(step);
                if step == total_steps {
                    bar.finish();
                }
            }
            None if step == 1 || step == total_steps || step.is_multiple_of(total_steps.div_ceil(LINES)) => {
                eprintln!("step {step}/{total_steps}  {message}");
            }
            None => {}
        }
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

fn message(progress: Progress, metrics: &Metrics, elapsed: Duration) -> String {
    let mut parts = Vec::new();
    if let Some(loss) = metrics.get("loss") {
        parts.push(format!("loss {loss:.4}"));
    }
    if let Some(tokens) = metrics.get("num_tokens") {
        parts.push(format!("{:.0} tokens/s", tokens / elapsed.as_secs_f64()));
    }
    let left = progress.total_steps - progress.step;
    if left > 0 {
        let remaining = elapsed.mul_f64(left as f64 / progress.step as f64);
        parts.push(format!("{} left", HumanDuration(remaining)));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_what_the_report_has() {
        let progress = Progress { step: 5, total_steps: 20 };
        let metrics: Metrics = [("loss", 1.25), ("num_tokens", 1000.0)].into_iter().collect();
        assert_eq!(
            message(progress, &metrics, Duration::from_secs(2)),
            "loss 1.2500  500 tokens/s  6 seconds left"
        );
        assert_eq!(message(Progress { step: 20, ..progress }, &Metrics::new(), Duration::from_secs(2)), "");
    }
}
