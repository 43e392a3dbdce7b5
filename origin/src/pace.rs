//! How fast one party may come: what it brings is a transaction, and the ledger has one writer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use certs::{DeviceId, Identity, Role};
use tokio::time::Instant;

/// A bucket for each party, by role and id. Parties have certificates: there are no more of them
/// than have been issued, and who rests is forgotten.
#[derive(Debug)]
pub(crate) struct Pace {
    burst: u32,
    state: Mutex<State>,
    step: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// When each party will have been silent for long enough to be forgotten.
    rested_at: HashMap<(Role, DeviceId), Instant>,
    /// With how many parties those who rest are forgotten: so each is looked at twice at most for
    /// each time that one comes, however many there are.
    tidy_at: usize,
}

/// So few need no tidying.
const TIDY_MIN: usize = 64;

impl Pace {
    /// Lets each party come once in `step` in the long run, and `burst` times at once.
    pub(crate) fn new(step: Duration, burst: u32) -> Self {
        Self {
            burst,
            state: Mutex::default(),
            step,
        }
    }

    /// Lets `party` come once more at `now`.
    ///
    /// # Errors
    ///
    /// Says how long it has to wait. Then nothing is counted.
    pub(crate) fn take(&self, party: &Identity, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rested_at.len() >= state.tidy_at {
            state.rested_at.retain(|_, at| *at > now);
            state.tidy_at = TIDY_MIN.max(state.rested_at.len() * 2);
        }
        let party = (party.role, party.id.clone());
        let known = state.rested_at.get(&party).copied();
        let then = known.filter(|at| *at > now).unwrap_or(now) + self.step;
        let wait = then.saturating_duration_since(now + self.step * self.burst);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        state.rested_at.insert(party, then);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let take = |id: &str, seconds: u64| pace.take(&party(id), at(seconds));
        let let_in = |seconds| (0..40).filter(|_| take("a", seconds).is_ok()).count();
        assert_eq!(let_in(0), 16);
        assert_eq!(take("a", 0), Err(Duration::from_secs(1)));
        assert_eq!(take("b", 0), Ok(()), "nobody else pays for it");
        assert_eq!(let_in(3), 3);
        assert_eq!(let_in(100), 16);
        let count = || pace.state.lock().unwrap().rested_at.len();
        for at in 0..10 * TIDY_MIN {
            take(&format!("c{at}"), 1000 + at as u64).unwrap();
        }
        assert!(count() <= TIDY_MIN, "who rests is forgotten: {}", count());
    }
}
