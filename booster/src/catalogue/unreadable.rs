//! Which locators could not be read, and when to try again. Decided here, without I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use content::Digest;
use tokio::time::Instant;

use super::CatalogueError;
use crate::upstream::UpstreamError;

/// Locators that could not be read, by their digests. There are never more than are named.
#[derive(Debug, Default)]
pub(super) struct Unreadable(HashMap<Digest, Failed>);

#[derive(Debug)]
struct Failed {
    failure: Arc<CatalogueError>,
    /// How long it is left alone after the last try.
    pause: Duration,
    tried: Instant,
}

impl Unreadable {
    /// Why a locator could not be read, if it is too early to try again.
    pub(super) fn resting(&self, locator: &Digest, now: Instant) -> Option<Arc<CatalogueError>> {
        let failed = self.0.get(locator)?;
        let is_early = now.duration_since(failed.tried) < failed.pause;
        is_early.then(|| Arc::clone(&failed.failure))
    }

    /// Takes note that a locator could not be read, and forgets those that are not `named` any
    /// more. Says whether that is news.
    pub(super) fn note(
        &mut self,
        locator: Digest,
        failure: Arc<CatalogueError>,
        now: Instant,
        named: impl Fn(&Digest) -> bool,
    ) -> bool {
        self.0.retain(|digest, _| named(digest));
        let before = self.0.get(&locator).map(|failed| failed.pause);
        let pause = match before {
            Some(pause) if !is_out_of_reach(&failure) => (pause * 2).min(PAUSE_MAX),
            Some(_) | None => PAUSE_MIN,
        };
        if named(&locator) {
            let failed = Failed {
                failure,
                pause,
                tried: now,
            };
            self.0.insert(locator, failed);
        }
        before.is_none()
    }

    /// Takes note that a locator has been read.
    pub(super) fn forget(&mut self, locator: &Digest) {
        self.0.remove(locator);
    }
}

/// Whether it is not the locator that is at fault: others would fail too, after the same wait.
pub(super) fn is_out_of_reach(failure: &CatalogueError) -> bool {
    matches!(
        failure,
        CatalogueError::Stopping
            | CatalogueError::Upstream {
                source: UpstreamError::Broken { .. }
                    | UpstreamError::Busy { .. }
                    | UpstreamError::Stalled { .. }
            }
    )
}

/// What failed for once is soon tried again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// What stays broken, and may have 64 MiB, is asked for about once a minute.
const PAUSE_MAX: Duration = Duration::from_secs(64);

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Arc<CatalogueError> {
        Arc::new(CatalogueError::NotNamed)
    }

    fn digest(name: u8) -> Digest {
        Digest::from_raw([name; 32])
    }

    #[test]
    fn what_stays_unreadable_is_left_alone_for_longer_each_time_and_told_once() {
        let (mut unreadable, mut now) = (Unreadable::default(), Instant::now());
        let mut pauses = Vec::new();
        for at in 0..9 {
            assert!(unreadable.resting(&digest(1), now).is_none());
            let is_news = unreadable.note(digest(1), failure(), now, |_| true);
            assert_eq!(is_news, at == 0);
            let start = now;
            while unreadable.resting(&digest(1), now).is_some() {
                now += Duration::from_millis(500);
            }
            pauses.push((now - start).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        // Who could not be reached may be back at any moment.
        let name = "origin".to_owned();
        let stalled = UpstreamError::Stalled { name };
        let failure_of_the_line = Arc::new(stalled.into());
        unreadable.note(digest(1), failure_of_the_line, now, |_| true);
        let soon = now + Duration::from_secs(1);
        assert!(unreadable.resting(&digest(1), soon).is_none());
        unreadable.forget(&digest(1));
        assert!(unreadable.note(digest(1), failure(), now, |_| true));
    }

    #[test]
    fn what_is_not_named_any_more_is_forgotten() {
        let (mut unreadable, now) = (Unreadable::default(), Instant::now());
        for name in 0..=255 {
            unreadable.note(digest(name), failure(), now, |it| *it == digest(name));
        }
        assert_eq!(unreadable.0.len(), 1);
        unreadable.note(digest(7), failure(), now, |_| false);
        assert!(unreadable.0.is_empty());
    }
}
