//! How fast a disk is read while others need it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

/// Counts what is read, and waits where that is too fast.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes for each second; no limit if left out.
    rate: Option<u64>,
    since: Instant,
    bytes: u64,
    stop: Stop,
}

/// Ends what goes at a pace when its last owner goes: whoever waits for it has gone by then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Has it stop at the next chunk when what is given back is dropped.
    pub(crate) fn on_drop(&self) -> StopGuard {
        StopGuard(Arc::clone(&self.0))
    }
}

/// Stops what goes at a pace when it is dropped.
#[derive(Debug)]
pub(crate) struct StopGuard(Arc<AtomicBool>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pace {
    /// Goes at `rate` bytes for each second, or without a limit.
    pub(crate) fn new(rate: Option<u64>, stop: Stop) -> Self {
        Self {
            rate,
            since: Instant::now(),
            bytes: 0,
            stop,
        }
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes note of bytes that were read, and waits if they came too early.
    pub(crate) fn read(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes += bytes;
        if self.stop.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for the end"));
        }
        if let Some(ahead) = self.ahead(self.since.elapsed()).filter(|it| *it > NAP_MIN) {
            std::thread::sleep(ahead.min(NAP_MAX));
        }
        Ok(())
    }

    /// How long what was read in `elapsed` should have taken in addition.
    fn ahead(&self, elapsed: Duration) -> Option<Duration> {
        let rate = self.rate?.max(1);
        let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
        due.checked_sub(elapsed)
    }

    /// Has the system forget a file that was read in the background, in favour of what others
    /// read more often.
    pub(crate) fn leave(&self, file: &File) {
        if self.rate.is_some() {
            // It is advice: what comes of it is the system's.
            fadvise(file, 0, None, Advice::DontNeed).unwrap_or_default();
        }
    }
}

/// Shorter waits cost more than they spare the disk.
const NAP_MIN: Duration = Duration::from_millis(5);
/// How soon a stop is seen at the latest.
const NAP_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_too_fast_has_to_wait() {
        let check = |rate, bytes, millis, wanted: Option<u64>| {
            let mut pace = Pace::new(rate, Stop::default());
            pace.bytes = bytes;
            let ahead = pace.ahead(Duration::from_millis(millis));
            assert_eq!(
                ahead,
                wanted.map(Duration::from_millis),
                "{bytes} in {millis}"
            );
        };
        check(None, 1 << 40, 1, None);
        check(Some(1000), 2000, 500, Some(1500));
        check(Some(1000), 2000, 3000, None);
        check(Some(0), 1, 0, Some(1000));
    }

    #[test]
    fn it_ends_when_nobody_waits() {
        let stop = Stop::default();
        let mut pace = Pace::new(Some(1 << 30), stop.clone());
        let guard = stop.on_drop();
        pace.read(1).unwrap();
        drop(guard);
        pace.read(1).unwrap_err();
    }
}
