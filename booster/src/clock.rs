//! The clock of this machine, held against the origin's now and then.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use member::{ClockStatus, Identity, Skew, State, skew};
use service::{CancellationToken, Clock};
use tokio::time::sleep;
use transport::{Refusals, Source};

use crate::cache::off_runtime;
use crate::metrics::Metrics;

/// Compares the two. Cloning shares what came of it.
#[derive(Clone, Debug)]
pub(crate) struct ClockWatch {
    pub(crate) clock: Clock,
    /// The folder of the state.
    pub(crate) folder: PathBuf,
    pub(crate) identity: Arc<Identity>,
    pub(crate) last: Arc<Mutex<Option<Skew>>>,
    pub(crate) metrics: Metrics,
    /// The enrolment listener, for its addresses.
    pub(crate) public: Arc<Source>,
    pub(crate) refusals: Refusals,
}

impl ClockWatch {
    /// Compares at once, and then every ten minutes, until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.look() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = sleep(LOOK_PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn last(&self) -> Option<Skew> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the clock.
    pub(crate) fn status(&self) -> ClockStatus {
        let now = self.clock.now();
        let roots = self.identity.trust.roots();
        let has_root = roots.iter().any(|root| root.is_in_date(now));
        ClockStatus::new(&self.clock, self.last(), has_root)
    }

    fn replace(&self, skew: Skew) -> Option<Skew> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.replace(skew)
    }

    async fn look(&self) {
        let state = State::new(self.folder.clone());
        let marks = off_runtime(move || state.marks()).await;
        let Some(Ok(marks)) = marks else {
            return;
        };
        let begins = self
            .identity
            .cell
            .validity()
            .map_or(0, |(begins, _)| begins);
        let (addresses, proven_at) = (self.public.addresses(), marks.issued().max(begins));
        let compared = skew::compare(&self.identity, &addresses, &self.clock, proven_at);
        let Some(skew) = compared.await else {
            return;
        };
        self.metrics.clock_skew.set(skew.seconds);
        let was_large = self.replace(skew).is_some_and(Skew::is_large);
        if skew.is_large() && !was_large {
            skew.tell(&self.refusals);
        }
        if skew.is_large() || was_large {
            let folder = self.folder.clone();
            let _kept = off_runtime(move || skew.keep(&folder)).await;
        }
    }
}

/// Half of what is allowed for: clocks that drift are found out before anybody is refused.
const LOOK_PAUSE: Duration = Duration::from_secs(600);
