//! How fast one party may come.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A bucket for each party, by what it is called. Who rests is forgotten; beyond that, it is for
/// whoever asks to see that there are not too many.
#[derive(Debug)]
pub struct Pace<K> {
    burst: u32,
    state: Mutex<State<K>>,
    step: Duration,
}

#[derive(Debug)]
struct State<K> {
    /// When each party will have been silent for long enough to be forgotten.
    rested_at: HashMap<K, Instant>,
    /// With how many parties those who rest are forgotten: so each is looked at twice at most for
    /// each time that one comes, however many there are.
    tidy_at: usize,
}

/// So few need no tidying.
const TIDY_MIN: usize = 64;

impl<K: Eq + Hash> Pace<K> {
    /// Lets each party come once in `step` in the long run, and `burst` times at once.
    #[must_use]
    pub fn new(step: Duration, burst: u32) -> Self {
        let state = State {
            rested_at: HashMap::new(),
            tidy_at: 0,
        };
        Self {
            burst,
            state: Mutex::new(state),
            step,
        }
    }

    /// Lets `party` come once more at `now`.
    ///
    /// # Errors
    ///
    /// Says how long it has to wait. Then nothing is counted.
    pub fn take<Q>(&self, party: &Q, now: Instant) -> Result<(), Duration>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rested_at.len() >= state.tidy_at {
            state.rested_at.retain(|_, at| *at > now);
            state.tidy_at = TIDY_MIN.max(state.rested_at.len() * 2);
        }
        let known = state.rested_at.get(party).copied();
        let then = known.filter(|at| *at > now).unwrap_or(now) + self.step;
        let wait = then.saturating_duration_since(now + self.step * self.burst);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        state.rested_at.insert(party.to_owned(), then);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_in_and_then_one_a_second() {
        let pace = Pace::<String>::new(Duration::from_secs(1), 16);
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let take = |id: &str, seconds: u64| pace.take(id, at(seconds));
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
