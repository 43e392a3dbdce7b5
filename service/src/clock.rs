//! The clock: the one place where a program asks what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time in whole seconds since 1970 (Unix time). Cloning shares it.
///
/// Whoever waits uses tokio's timers; whoever *judges* a time (certificates, tokens, statements)
/// asks this, so that a test can live through a month in a moment.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Seconds to add to the system's time; none outside tests.
    offset: Option<Arc<AtomicI64>>,
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
            offset: Some(offset),
        }
    }

    /// Seconds since 1970, negative before.
    #[must_use]
    pub fn now(&self) -> i64 {
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
}
