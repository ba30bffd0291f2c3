//! Hooks of one's own: one that ends a run whose loss has ceased to fall, for every trainer there is, and one that lets
//! the model write while it learns.
//!
//! ```text
//! cargo run --release --example custom_hook [MODEL]
//! ```

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::{error::Error, path::Path};

use align_kit::model::{
    causal_lm::IncrementalLm,
    generate::{Decoding, GenerationConfig, SamplingConfig, generate},
    number::Positive,
    pretrained::Checkpoint,
    sft::{SftConfig, SftExample, SftReport, SftTrainer},
    train::{Flow, Hook, HookError, Schedule, Span, StepEvent, UpdateConfig, fit},
};
use burn::tensor::Device;

/// Ends the run when the loss was no lower than its lowest for so many steps in a row.
#[derive(Debug)]
struct StopWhenStale {
    patience: u64,
    lowest: f64,
    stale: u64,
}

/// A hook sees the trainer `S`, its report `R` and all metrics of the step; this one needs the metrics alone.
impl<S, R> Hook<S, R> for StopWhenStale {
    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        let loss = event.metrics.get("loss");
        let loss =
            loss.ok_or_else(|| HookError { hook: "StopWhenStale", reason: "no metric `loss`".into() })?;
        self.stale = if loss < self.lowest { 0 } else { self.stale + 1 };
        self.lowest = self.lowest.min(loss);
        Ok(if self.stale < self.patience { Flow::Continue } else { Flow::Stop })
    }
}

/// Continues a prompt every so many steps.
#[derive(Debug)]
struct Continuations {
    every: u64,
    prompt: Vec<u32>,
    written: Written,
}

/// The step and what the model wrote then.
type Written = Vec<(u64, Vec<u32>)>;

impl<M: IncrementalLm> Hook<SftTrainer<M>, SftReport> for Continuations {
    fn after_step(
        &mut self,
        event: &mut StepEvent<'_, SftReport>,
        trainer: &SftTrainer<M>,
    ) -> Result<Flow, HookError> {
        if event.progress.step.is_multiple_of(self.every) {
            let config = GenerationConfig {
                max_new_tokens: std::num::NonZeroUsize::MIN.saturating_add(7),
                sampling: SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() },
                ..GenerationConfig::default()
            };
            // What a hook cannot do ends the run: nothing is lost in silence.
            let generated = generate(trainer.model(), std::slice::from_ref(&self.prompt), &config, None)
                .map_err(|error| HookError { hook: "Continuations", reason: error.to_string() })?;
            self.written.push((event.progress.step, generated[0][0].tokens.clone()));
        }
        Ok(Flow::Continue)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tests/golden/tiny/model".into());
    let (steps, written) = run(Path::new(&model), 300)?;
    for (step, tokens) in written {
        println!("after step {step:3} the model goes on with {tokens:?}");
    }
    println!("stopped after {steps} steps");
    Ok(())
}

/// The steps that were made of `total`, and what was written on the way.
fn run(model: &Path, total: u64) -> Result<(u64, Written), Box<dyn Error>> {
    let schedule = Schedule::Constant { warmup: Span::Steps(0) };
    let update = UpdateConfig { learning_rate: Positive::new(3e-3), schedule, ..UpdateConfig::default() };
    let config = SftConfig { update, ..SftConfig::default() };
    let mut trainer = SftTrainer::new(Checkpoint::open(model)?.load(&Device::flex())?, &config, total)?;
    let tokens: Vec<u32> = (0..16).map(|t| t * 5 + 3).collect();
    let batch = vec![SftExample { is_target: vec![true; tokens.len()], tokens: tokens.clone() }];
    let mut stop = StopWhenStale { patience: 5, lowest: f64::INFINITY, stale: 0 };
    let mut continuations = Continuations { every: 10, prompt: tokens[..8].to_vec(), written: Vec::new() };
    let batches = std::iter::repeat(batch);
    let steps =
        fit::<_, [SftExample], _>(&mut trainer, batches, total, &mut [&mut stop, &mut continuations])?;
    Ok((steps, continuations.written))
}

#[cfg(test)]
mod tests {
    use align_kit::model::train::{Metrics, Progress};

    use super::*;

    #[test]
    fn a_stale_run_is_stopped() {
        let mut hook = StopWhenStale { patience: 2, lowest: f64::INFINITY, stale: 0 };
        let progress = Progress { step: 1, total_steps: 9 };
        let mut flow = |loss: f64| {
            let mut metrics = Metrics::from_iter([("loss", loss)]);
            let mut event = StepEvent { progress, report: &(), metrics: &mut metrics };
            hook.after_step(&mut event, &()).unwrap()
        };
        assert_eq!([3.0, 3.5, 2.0, 2.0].map(&mut flow), [Flow::Continue; 4]);
        assert_eq!(flow(2.5), Flow::Stop);
    }

    #[test]
    fn the_model_learns_to_go_on() {
        let (steps, written) = run(Path::new("tests/golden/tiny/model"), 60).unwrap();
        assert_eq!(written.len() as u64, steps / 10);
        let learnt: Vec<u32> = (8..16).map(|t| t * 5 + 3).collect();
        assert_eq!(written.last().unwrap().1, learnt, "{written:?}");
    }
}
