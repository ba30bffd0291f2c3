//! The plain loop: from the first batch to the last, with nothing saved.

use super::{FitError, Hook, Step, TrainingLoop};

/// Makes a step for each batch and shows it to the hooks. Returns the number of steps made.
///
/// # Errors
/// If a step or a hook fails.
pub fn fit<S, B: ?Sized, I: std::borrow::Borrow<B>>(
    trainer: &mut S,
    batches: impl IntoIterator<Item = I>,
    total_steps: u64,
    hooks: &mut [&mut dyn Hook<S, S::Report>],
) -> Result<u64, FitError<S::Error>>
where
    S: Step<B>,
{
    Ok(TrainingLoop::new(total_steps).run(trainer, batches, hooks)?.step)
}
#[cfg(test)]
mod tests {
    use super::super::{Flow, HookError, Report, StepEvent};
    use super::*;

    struct Counter(u64);
    struct Count(u64);

    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refused;

    impl Report for Count {
        fn metrics(&self) -> Vec<(&'static str, f64)> {
            vec![("count", self.0 as f64)]
        }
    }

    impl Step<u64> for Counter {
        type Report = Count;
        type Error = Refused;

        fn step(&mut self, batch: &u64) -> Result<Count, Refused> {
            self.0 += batch;
            if *batch == 13 { Err(Refused) } else { Ok(Count(self.0)) }
        }
    }

    struct StopAt(u64);

    impl Hook<Counter, Count> for StopAt {
        fn after_step(&mut self, event: &mut StepEvent<'_, Count>, _: &Counter) -> Result<Flow, HookError> {
            Ok(if event.progress.step == self.0 { Flow::Stop } else { Flow::Continue })
        }
    }

    #[test]
    fn a_hook_ends_the_run() {
        let mut counter = Counter(0);
        assert_eq!(fit::<_, u64, _>(&mut counter, [1u64, 1, 1, 1], 4, &mut [&mut StopAt(2)]).unwrap(), 2);
        assert_eq!(counter.0, 2);
    }

    #[test]
    fn a_failed_step_is_named() {
        let error = fit::<_, u64, _>(&mut Counter(0), [1u64, 13, 1], 3, &mut []).unwrap_err();
        assert!(matches!(error, FitError::Step { step: 2, .. }));
    }
}
