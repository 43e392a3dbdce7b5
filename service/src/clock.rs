//! The clock: the one place where a program asks what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Tells the time in whole seconds since 1970 (Unix time). Cloning shares it.
///
/// Whoever waits uses tokio's timers; whoever *judges* a time (certificates, tokens, statements)
/// asks this, so that a test can live through a month in a moment.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Below which it never is; none unless somebody has proved a time.
    floor: Option<Arc<Floor>>,
    /// Seconds to add to the system's time; none outside tests.
    offset: Option<Arc<AtomicI64>>,
}

/// The earliest that it can be: a time that was proved, plus what has gone by since. It goes on by
/// itself, so that a clock that stays behind is not taken for one that stands still.
#[derive(Debug)]
struct Floor {
    /// The proved time, less the seconds from `since` to when it was proved.
    at_since: AtomicI64,
    since: Instant,
}

impl Floor {
    fn new(at: i64) -> Self {
        Self {
            at_since: AtomicI64::new(at),
            since: Instant::now(),
        }
    }

    fn raise(&self, verified_at: i64) {
        let at_since = verified_at.saturating_sub(self.elapsed());
        self.at_since.fetch_max(at_since, Ordering::Relaxed);
    }

    fn now(&self) -> i64 {
        let at_since = self.at_since.load(Ordering::Relaxed);
        at_since.saturating_add(self.elapsed())
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.since.elapsed().as_secs()).unwrap_or(i64::MAX)
    }
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// The system's clock plus `offset` seconds, which a test may change while it runs.
    #[must_use]
    pub fn fixed_offset(offset: Arc<AtomicI64>) -> Self {
        Self {
            floor: None,
            offset: Some(offset),
        }
    }

    /// This clock, which is from now on never before `floor` (Unix seconds): a time that somebody
    /// has vouched for. All clones of what this gives share the floor; if this clock has one
    /// already, that one is raised.
    #[must_use]
    pub fn floored(&self, floor: i64) -> Self {
        if self.floor.is_some() {
            self.raise_floor(floor);
            return self.clone();
        }
        Self {
            floor: Some(Arc::new(Floor::new(floor))),
            offset: self.offset.clone(),
        }
    }

    /// Raises the floor to `verified_at`, a time that was verified; never lowers it. Does nothing
    /// on a clock without a floor.
    pub fn raise_floor(&self, verified_at: i64) {
        if let Some(floor) = &self.floor {
            floor.raise(verified_at);
        }
    }

    /// Seconds since 1970, negative before.
    #[must_use]
    pub fn now(&self) -> i64 {
        let (told, floor) = (self.told(), self.floor.as_ref());
        floor.map_or(told, |floor| told.max(floor.now()))
    }

    /// What the machine's own clock says, whatever anybody has vouched for: to tell how far it is
    /// off, and never to judge by.
    #[must_use]
    pub fn told(&self) -> i64 {
        let offset = self
            .offset
            .as_ref()
            .map_or(0, |offset| offset.load(Ordering::Relaxed));
        unix_seconds(SystemTime::now()).saturating_add(offset)
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_moves_the_clock_while_it_runs() {
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::fixed_offset(Arc::clone(&offset));
        let before = clock.now();
        offset.store(86_400, Ordering::Relaxed);
        assert!((86_400..86_410).contains(&(clock.now() - before)));
        assert!((Clock::system().now() - before).abs() < 10);
    }

    #[test]
    fn a_floor_lifts_a_clock_that_is_behind_until_it_is_set_right() {
        let offset = Arc::new(AtomicI64::new(0));
        let bare = Clock::fixed_offset(Arc::clone(&offset));
        let proved = bare.now();
        bare.raise_floor(proved + 100);
        assert!(bare.now() < proved + 50, "it has no floor");
        let clock = bare.floored(proved);
        offset.store(-86_400, Ordering::Relaxed);
        assert!(bare.now() < proved - 80_000);
        assert!((proved..proved + 5).contains(&clock.now()));
        assert!(clock.told() < proved - 80_000);
        // Who shares it shares its floor, however it was come by.
        clock.floored(proved + 50).raise_floor(proved + 70);
        clock.raise_floor(proved);
        assert!((proved + 70..proved + 80).contains(&clock.now()));
        offset.store(86_400, Ordering::Relaxed);
        assert!(clock.now() >= proved + 86_400, "a clock ahead is let be");
    }
}
