//! How fast one party may come: what it brings is a transaction, and the ledger has one writer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use certs::Identity;
use tokio::time::Instant;

/// A bucket for each party, by role and id. Parties have certificates: there are no more of them
/// than have been issued, and who rests is forgotten.
#[derive(Debug)]
pub(crate) struct Pace {
    burst: u32,
    /// When each party will have been silent for long enough to be forgotten.
    rested_at: Mutex<HashMap<String, Instant>>,
    step: Duration,
}

impl Pace {
    /// Lets each party come once in `step` in the long run, and `burst` times at once.
    pub(crate) fn new(step: Duration, burst: u32) -> Self {
        Self {
            burst,
            rested_at: Mutex::default(),
            step,
        }
    }

    /// Lets `party` come once more at `now`.
    ///
    /// # Errors
    ///
    /// Says how long it has to wait. Then nothing is counted.
    pub(crate) fn take(&self, party: &Identity, now: Instant) -> Result<(), Duration> {
        let mut rested_at = self
            .rested_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        rested_at.retain(|_, at| *at > now);
        let party = format!("{}/{}", party.role, party.id);
        let then = rested_at.get(&party).copied().unwrap_or(now) + self.step;
        let wait = then.saturating_duration_since(now + self.step * self.burst);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        rested_at.insert(party, then);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use certs::Role;

    #[test]
    fn a_burst_is_let_in_and_then_one_a_second() {
        let pace = Pace::new(Duration::from_secs(1), 16);
        let begun = Instant::now();
        let party = |id: &str| Identity {
            deployment: "acme".parse().unwrap(),
            role: Role::Client,
            id: id.parse().unwrap(),
        };
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let take = |id, seconds| pace.take(&party(id), at(seconds));
        let let_in = |seconds| (0..40).filter(|_| take("a", seconds).is_ok()).count();
        assert_eq!(let_in(0), 16);
        assert_eq!(take("a", 0), Err(Duration::from_secs(1)));
        assert_eq!(take("b", 0), Ok(()), "nobody else pays for it");
        assert_eq!(let_in(3), 3);
        assert_eq!(let_in(100), 16);
        assert_eq!(
            pace.rested_at.lock().unwrap().len(),
            1,
            "who rests is forgotten"
        );
    }
}
