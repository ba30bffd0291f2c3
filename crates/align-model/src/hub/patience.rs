//! When to try again, and when to give up.

use std::{thread, time::Duration};

use super::{DownloadEvent, DownloadListener, HubError, Retries};

/// Counts what failed in a row.
#[derive(Debug)]
pub(super) struct Patience {
    retries: Retries,
    failures: u32,
}

impl Patience {
    pub(super) fn new(retries: Retries) -> Self {
        Self { retries, failures: 0 }
    }

    /// Something got further: what failed before counts no more.
    pub(super) fn restore(&mut self) {
        self.failures = 0;
    }

    /// Pauses before the next attempt, or returns the error if there is to be none.
    pub(super) fn after(
        &mut self,
        error: HubError,
        listener: &mut DownloadListener<'_>,
    ) -> Result<(), HubError> {
        self.failures += 1;
        let pause = self.pause(&error);
        if !error.is_transient()
            || self.failures >= self.retries.attempts
            || pause > self.retries.longest_pause
        {
            return Err(error);
        }
        listener(DownloadEvent::Waiting { reason: &error, pause });
        thread::sleep(pause);
        Ok(())
    }

    /// What the server asks for, or ever longer ones.
    fn pause(&self, error: &HubError) -> Duration {
        if let HubError::RateLimited { pause: Some(pause), .. } = error {
            return *pause;
        }
        let doublings = 1u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        self.retries.first_pause.saturating_mul(doublings).min(self.retries.longest_pause)
    }
}

/// Repeats `attempt` until it succeeds or there is no point in repeating it.
pub(super) fn retrying<T>(
    retries: Retries,
    listener: &mut DownloadListener<'_>,
    mut attempt: impl FnMut() -> Result<T, HubError>,
) -> Result<T, HubError> {
    let mut patience = Patience::new(retries);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => patience.after(error, listener)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIES: Retries = Retries {
        attempts: 4,
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(5),
    };

    fn pauses(mut error: impl FnMut() -> HubError) -> Vec<u128> {
        let mut pauses = Vec::new();
        let mut listener = |event: DownloadEvent<'_>| {
            if let DownloadEvent::Waiting { pause, .. } = event {
                pauses.push(pause.as_millis());
            }
        };
        retrying(RETRIES, &mut listener, || Err::<(), _>(error())).unwrap_err();
        pauses
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        assert_eq!(pauses(|| HubError::Server { url: String::new(), status: 503 }), [2, 4, 5]);
    }

    #[test]
    fn the_server_may_ask_for_a_pause_within_the_bound() {
        let limited = |milliseconds| HubError::RateLimited {
            endpoint: String::new(),
            what: String::new(),
            pause: Some(Duration::from_millis(milliseconds)),
        };
        assert_eq!(pauses(|| limited(1)), [1, 1, 1]);
        assert_eq!(pauses(|| limited(6)), [0u128; 0]);
    }

    #[test]
    fn what_cannot_mend_itself_is_not_repeated() {
        assert_eq!(pauses(|| HubError::NoWeights { repository: String::new() }), [0u128; 0]);
    }
}
