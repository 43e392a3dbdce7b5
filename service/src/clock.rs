//! The clock: the one place where a program asks what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::time::{ClockId, clock_gettime};

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
    /// The proved time, less the seconds that the machine had run for by then.
    at_boot: AtomicI64,
}

impl Floor {
    fn new(at: i64) -> Self {
        Self {
            at_boot: AtomicI64::new(at.saturating_sub(since_boot())),
        }
    }

    fn raise(&self, verified_at: i64) {
        let at_boot = verified_at.saturating_sub(since_boot());
        self.at_boot.fetch_max(at_boot, Ordering::Relaxed);
    }

    fn now(&self) -> i64 {
        let at_boot = self.at_boot.load(Ordering::Relaxed);
        at_boot.saturating_add(since_boot())
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
        clock_gettime(ClockId::RealtimeCoarse)
            .tv_sec
            .saturating_add(offset)
    }
}

/// Seconds that the machine has run for.
///
/// Times are wanted in seconds, of which Linux keeps the last tick's at hand (a tick is 1 to 10 ms):
/// to ask the hardware takes five times as long, and every request asks.
fn since_boot() -> i64 {
    clock_gettime(ClockId::MonotonicCoarse).tv_sec
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
