//! How fast one party may report: each body of reports is a transaction, and the ledger has one
//! writer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When each reporter will have been silent for long enough to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<String, Instant>>);

impl Pace {
    /// Whether `reporter` may bring one more body at `now`.
    pub(super) fn take(&self, reporter: &str, now: Instant) -> bool {
        let mut rested_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Reporters have certificates: there are no more of them than have been issued.
        rested_at.retain(|_, at| *at > now);
        let from = rested_at.get(reporter).copied().unwrap_or(now);
        let then = from + STEP;
        let is_in_time = then <= now + STEP * BURST;
        if is_in_time {
            rested_at.insert(reporter.to_owned(), then);
        }
        is_in_time
    }
}

/// Ours wait as long between two bodies.
const STEP: Duration = Duration::from_secs(1);
/// Enough for all that one party gathers, certificates of a usual length included.
const BURST: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_in_and_then_one_a_second() {
        let (pace, begun) = (Pace::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let let_in = |seconds| (0..40).filter(|_| pace.take("a", at(seconds))).count();
        assert_eq!(let_in(0), 16);
        assert!(pace.take("b", at(0)), "nobody else pays for it");
        assert_eq!(let_in(3), 3);
        assert_eq!(let_in(100), 16);
        assert_eq!(pace.0.lock().unwrap().len(), 1, "who rests is forgotten");
    }
}
