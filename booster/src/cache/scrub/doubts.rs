//! Packs that somebody doubts: which may be checked at once, and which have to wait.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use content::{Digest, PackId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is doubted. A doubt costs whoever has it a header, and us a pack to read and hash: so many
/// a second are granted, and the others wait for the scrub.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    come: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What was granted of late, the oldest first.
    recent: VecDeque<(Instant, Digest)>,
    waiting: BTreeSet<Digest>,
}

impl Doubts {
    /// Whether this pack may be checked at once. One that was within the last second is not worth
    /// it; another one waits if too many were.
    pub(crate) fn grant(&self, id: PackId) -> bool {
        let now = Instant::now();
        let mut inner = self.inner();
        let old = |(at, _): &(Instant, Digest)| now.duration_since(*at) >= WINDOW;
        while inner.recent.front().is_some_and(old) {
            inner.recent.pop_front();
        }
        if inner.recent.iter().any(|(_, digest)| *digest == id.0) {
            return false;
        }
        if inner.recent.len() < GRANTED_MAX {
            inner.recent.push_back((now, id.0));
            return true;
        }
        if inner.waiting.len() < WAITING_MAX {
            inner.waiting.insert(id.0);
            self.come.notify_one();
        }
        false
    }

    /// The next pack that waits to be checked. Loses nothing if it is dropped before it is done.
    pub(crate) async fn next(&self) -> PackId {
        loop {
            if let Some(digest) = self.inner().waiting.pop_first() {
                return PackId(digest);
            }
            self.come.notified().await;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Sets of names are never half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const WINDOW: Duration = Duration::from_secs(1);
/// So many checks a second, of 8 MiB at most, take a tenth of a core.
const GRANTED_MAX: usize = 16;
/// More than that, and it is not the packs that are wrong.
const WAITING_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::testing::soon;

    fn id(number: u32) -> PackId {
        PackId(Digest::of(&number.to_be_bytes()))
    }

    #[tokio::test(start_paused = true)]
    async fn doubts_are_granted_up_to_a_bound_and_the_others_wait() {
        let doubts = Doubts::default();
        let many = GRANTED_MAX as u32;
        assert!((0..many).all(|number| doubts.grant(id(number))));
        assert!(!doubts.grant(id(0)), "it has just been checked");
        assert!(!doubts.grant(id(many)));
        assert!(!doubts.grant(id(many)));
        assert_eq!(soon(doubts.next()).await, id(many));
        let none = tokio::time::timeout(WINDOW, doubts.next()).await;
        assert!(none.is_err(), "what waits, waits once");
        assert!(doubts.grant(id(0)));
        for number in 0..2 * (WAITING_MAX as u32) {
            doubts.grant(id(number));
        }
        assert_eq!(doubts.inner().waiting.len(), WAITING_MAX);
        advance(WINDOW).await;
        assert!(doubts.grant(id(7)));
    }
}
