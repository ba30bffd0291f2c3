//! What a person sees while training runs: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};

use align_model::{
    sft::SftReport,
    train::{Flow, Hook, HookError, Progress as Place},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows progress on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    /// Absent where standard error is no terminal; hidden until a stage begins.
    bar: Option<ProgressBar>,
    stage: &'static str,
}

/// Lines a stage, where there is no terminal.
const LINES_PER_STAGE: u64 = 5;

const BAR: &str = "{prefix:>6} {bar:32} {pos:>4}/{len} steps  {msg}  {elapsed_precise}";

impl Progress {
    /// A bar if standard error is a terminal, else plain lines.
    pub(super) fn on_stderr() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { bar: terminal.then(ProgressBar::hidden), stage: "" }
    }

    /// A stage begins.
    pub(super) fn start(&mut self, stage: &'static str, steps: u64) -> anyhow::Result<()> {
        self.stage = stage;
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_style(ProgressStyle::with_template(BAR)?);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.set_length(steps);
            bar.set_prefix(stage);
        }
        Ok(())
    }

    /// Something is finished; the line stays.
    pub(super) fn note(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        // Progress that cannot be shown is no reason to stop training.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

impl<S> Hook<S, SftReport> for Progress {
    fn after_step(&mut self, place: Place, report: &SftReport, _: &S) -> Result<Flow, HookError> {
        let Place { step, total_steps } = place;
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(format!("loss {:.3}", report.loss));
        } else if step.is_multiple_of(total_steps.div_ceil(LINES_PER_STAGE)) || step == total_steps {
            self.note(&format!("{}: step {step} of {total_steps}, loss {:.3}", self.stage, report.loss));
        }
        Ok(Flow::Continue)
    }
}
