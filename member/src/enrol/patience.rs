//! Waiting for an origin that has too much to do, within the time that there is.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{EnrolError, EnrolNote};

/// The time for all of an enrolment, and who is told of waits.
pub(super) struct Patience<N> {
    deadline: Instant,
    note: N,
}

impl<N: Fn(EnrolNote)> Patience<N> {
    pub(super) fn new(whole: Duration, note: N) -> Self {
        Self {
            deadline: Instant::now() + whole,
            note,
        }
    }

    pub(super) fn note(&self, note: EnrolNote) {
        (self.note)(note);
    }

    /// Takes `step`, and takes it again when the origin says that too many ask: as long as it says
    /// and up to a quarter longer, since those who were turned away together should not come back
    /// together. Every step is one that may be taken twice.
    pub(super) async fn with<T, F>(&self, step: impl Fn() -> F) -> Result<T, EnrolError>
    where
        F: Future<Output = Result<T, EnrolError>>,
    {
        loop {
            let failure = match step().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let Some(wait) = failure.when_less_busy() else {
                return Err(failure);
            };
            let retry_after = wait.mul_f64(1.0 + fastrand::f64() / 4.0);
            self.note(EnrolNote::Busy { retry_after });
            if !self.wait(retry_after).await {
                return Err(failure);
            }
        }
    }

    /// Waits, if there is time for that. Says whether there was.
    pub(super) async fn wait(&self, wait: Duration) -> bool {
        let in_time = Instant::now() + wait <= self.deadline;
        if in_time {
            sleep(wait).await;
        }
        in_time
    }
}
