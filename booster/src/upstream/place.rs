//! One source, and what is known of it: whether it can be believed, whether it answers, and how much
//! it bears at a time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::Route;
use service::metrics::IntGauge;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::aimd::Aimd;
use super::health::{Health, Standing as Answers};
use super::{Fetched, Upstream, UpstreamError};

/// Who a source is to us.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rank {
    /// Another booster, nearer than the origin.
    Parent,
    /// The origin.
    Origin,
}

/// A source and what is known of it.
pub struct Place {
    freed: Notify,
    known: Mutex<Known>,
    limit: Option<IntGauge>,
    rank: Rank,
    source: Arc<dyn Upstream>,
}

struct Known {
    aimd: Aimd,
    bad_until: Option<Instant>,
    /// How many of those under way have little left to come.
    ebbing: usize,
    health: Health,
    under_way: usize,
}

/// How willingly a source is asked: the first the most.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Standing {
    /// It answers, as far as we know; or it is time to see whether it does again.
    Good,
    /// It has not answered for a while.
    Down,
    /// What it sent was not what it should be.
    Bad,
}

/// The right to fetch a pack from a source, until it is dropped.
pub(crate) struct Slot {
    ebbs: bool,
    place: Arc<Place>,
}

impl Place {
    /// A source of which nothing is known yet.
    #[must_use]
    pub fn new(source: Arc<dyn Upstream>, rank: Rank) -> Self {
        let known = Known {
            aimd: Aimd::new(Instant::now()),
            bad_until: None,
            ebbing: 0,
            health: Health::default(),
            under_way: 0,
        };
        Self {
            freed: Notify::new(),
            known: Mutex::new(known),
            limit: None,
            rank,
            source,
        }
    }

    /// The same, showing in `limit` how many packs are asked for at a time.
    #[must_use]
    pub fn shown_by(mut self, limit: IntGauge) -> Self {
        limit.set(self.limit() as i64);
        self.limit = Some(limit);
        self
    }

    /// A short name for the log.
    #[must_use]
    pub fn name(&self) -> String {
        self.source.name()
    }

    /// Who it is to us.
    #[must_use]
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// The source itself.
    pub(crate) fn source(&self) -> &Arc<dyn Upstream> {
        &self.source
    }

    /// Asks for something small, and takes note of whether it answers.
    ///
    /// # Errors
    ///
    /// Fails as the source does.
    pub async fn fetch(
        &self,
        route: &Route,
        etag: Option<&str>,
        bytes_max: usize,
    ) -> Result<Fetched, UpstreamError> {
        let fetched = self.source.fetch(route, etag, bytes_max).await;
        match &fetched {
            Ok(_) => self.answered(),
            Err(failure) => self.failed(failure),
        }
        fetched
    }

    /// Takes note that it sent bytes that are not what they should be.
    pub fn mark_bad(&self) {
        let source = self.name();
        warn!(source, "a source sent bytes that fail their check");
        self.known().bad_until = Some(Instant::now() + BAD_FOR);
    }

    /// Takes note that it answered.
    pub(crate) fn answered(&self) {
        let mut known = self.known();
        if known.health.standing(Instant::now()) != Answers::Up {
            info!(source = self.source.name(), "a source answers again");
        }
        known.health.answered();
    }

    /// Takes note that it did not give what was asked for.
    pub(crate) fn failed(&self, failure: &UpstreamError) {
        let now = Instant::now();
        let mut known = self.known();
        match failure {
            UpstreamError::Busy { .. } | UpstreamError::Stalled { .. } => {
                known.aimd.lost(now);
                self.show(&known);
            }
            // It is there, and says so.
            UpstreamError::NotFound { .. } => return known.health.answered(),
            UpstreamError::Broken { .. }
            | UpstreamError::Protocol { .. }
            | UpstreamError::Refused { .. } => {}
        }
        if known.health.failed(now, fastrand::f64()) {
            let source = self.source.name();
            warn!(source, error = %failure, "a source does not answer: asking it last");
        }
    }

    /// Takes note of bytes of a pack that came from it.
    pub(crate) fn received(&self, bytes: u64) {
        let mut known = self.known();
        let before = known.aimd.limit();
        known.aimd.received(Instant::now(), bytes);
        let after = known.aimd.limit();
        if after != before {
            self.show(&known);
        }
        drop(known);
        if after > before {
            self.freed.notify_one();
        }
    }

    /// How many packs may be fetched from it at a time.
    pub(crate) fn limit(&self) -> usize {
        self.known().aimd.limit()
    }

    /// Waits until another pack may be fetched from it. If that one `ebbs`, which is to say that it is
    /// asked for again and little is left to come, it is the one that may be over what there may be.
    pub(crate) async fn slot(self: &Arc<Self>, ebbs: bool) -> Slot {
        loop {
            let freed = self.freed.notified();
            if let Some(slot) = self.try_slot(ebbs) {
                return slot;
            }
            freed.await;
        }
    }

    /// The right to fetch another pack from it, if that may be done now: if fewer are under way than
    /// may be, or as many, and one of them has little left.
    pub(crate) fn try_slot(self: &Arc<Self>, ebbs: bool) -> Option<Slot> {
        let mut known = self.known();
        let spare = usize::from(ebbs || known.ebbing > 0);
        if known.under_way >= known.aimd.limit() + spare {
            return None;
        }
        known.under_way += 1;
        known.ebbing += usize::from(ebbs);
        let under_way = known.under_way;
        known.aimd.begun(Instant::now(), under_way);
        Some(Slot {
            ebbs,
            place: Arc::clone(self),
        })
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        let known = self.known();
        if known.bad_until.is_some_and(|until| until > now) {
            return Standing::Bad;
        }
        match known.health.standing(now) {
            Answers::Up | Answers::Due => Standing::Good,
            Answers::Down => Standing::Down,
        }
    }

    pub(super) fn chosen(&self, now: Instant) {
        self.known().health.asked(now);
    }

    fn show(&self, known: &Known) {
        if let Some(limit) = &self.limit {
            limit.set(known.aimd.limit() as i64);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Left consistent by each function here, which do not panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.name()).finish()
    }
}

impl Slot {
    /// Takes note that little is left to come. One more may be asked for then, so that its answer is
    /// there when this one ends: two that end together would leave the line idle for as long as the
    /// next two take to be asked and answered.
    pub(crate) fn ebbs(&mut self) {
        if !std::mem::replace(&mut self.ebbs, true) {
            self.place.known().ebbing += 1;
            self.place.freed.notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut known = self.place.known();
        known.under_way -= 1;
        known.ebbing -= usize::from(self.ebbs);
        drop(known);
        self.place.freed.notify_one();
    }
}

/// How long a bad source is asked last: long enough for a fill to get past it, short enough that a
/// repaired one is soon in use again.
const BAD_FOR: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{Fake, soon};
    use crate::upstream::Upstreams;

    fn place(name: &'static str, rank: Rank) -> Arc<Place> {
        Arc::new(Place::new(Arc::new(Fake::new(name)), rank))
    }

    fn order(upstreams: &Upstreams, route: Option<&Route>) -> Vec<String> {
        let mut tried = Vec::new();
        let mut next = || match route {
            Some(route) => upstreams.choose_for(route, &mut tried),
            None => upstreams.choose(&mut tried),
        };
        (0..upstreams.count())
            .map(|_| next().unwrap().name())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn parents_come_first_for_what_has_a_digest_and_last_for_what_changes() {
        let (near, origin) = (place("near", Rank::Parent), place("origin", Rank::Origin));
        let far = place("far", Rank::Parent);
        let all = Upstreams::of(vec![near.clone(), far, origin.clone()]);
        assert_eq!(order(&all, None), ["near", "far", "origin"]);
        let timestamp = Some(&Route::Timestamp);
        assert_eq!(order(&all, timestamp), ["origin", "near", "far"]);
        // Who does not answer comes later, and who lies last.
        let stalled = UpstreamError::Stalled {
            name: String::new(),
        };
        for _ in 0..3 {
            origin.failed(&stalled);
        }
        assert_eq!(order(&all, timestamp), ["near", "far", "origin"]);
        near.mark_bad();
        assert_eq!(order(&all, None), ["far", "origin", "near"]);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(order(&all, None), ["near", "far", "origin"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_says_no_is_not_taken_for_one_that_is_gone() {
        let origin = place("origin", Rank::Origin);
        for _ in 0..10 {
            origin.failed(&UpstreamError::NotFound {
                name: String::new(),
            });
        }
        assert_eq!(origin.standing(Instant::now()), Standing::Good);
    }

    #[tokio::test]
    async fn no_more_is_under_way_than_a_source_bears() {
        let origin = place("origin", Rank::Origin);
        let first = origin.slot(false).await;
        let _second = origin.slot(false).await;
        assert!(origin.try_slot(false).is_none());
        let mut third = Box::pin(origin.slot(false));
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        let _third = soon(third).await;
    }

    #[tokio::test]
    async fn one_more_is_asked_for_when_another_has_little_left() {
        let origin = place("origin", Rank::Origin);
        let mut first = origin.slot(false).await;
        let mut second = origin.slot(false).await;
        let mut third = Box::pin(origin.slot(false));
        assert!(futures_util::poll!(&mut third).is_pending());
        first.ebbs();
        let third = soon(third).await;
        // However many ebb, it is one more.
        second.ebbs();
        second.ebbs();
        assert!(origin.try_slot(false).is_none());
        drop(first);
        let fourth = origin.try_slot(false).unwrap();
        drop(second);
        // Nobody ebbs any more.
        assert!(origin.try_slot(false).is_none());
        drop(third);
        // One that is asked for again when little is left.
        let fifth = origin.slot(false).await;
        let again = soon(origin.slot(true)).await;
        assert!(origin.try_slot(true).is_none());
        drop((fourth, fifth, again));
        assert_eq!(origin.known().ebbing, 0);
        assert_eq!(origin.known().under_way, 0);
    }
}
