//! How fast one answer of a source comes, and when its end is near: decided here, without waiting.

use std::time::Duration;

use tokio::time::Instant;

/// How far an answer has come since it was asked for.
#[derive(Debug)]
pub(super) struct Pace {
    asked: Instant,
    /// Bytes that have come.
    got: u64,
    /// Bytes that are still to come.
    left: u64,
    /// Whether its end is near, which has been told.
    near: bool,
}

impl Pace {
    /// Of `bytes` that have just been `asked` for.
    pub(super) fn new(asked: Instant, bytes: u64) -> Self {
        Self {
            asked,
            got: 0,
            left: bytes,
            near: false,
        }
    }

    /// Takes note that so many more bytes have come. Says once that the end is near: what is left
    /// takes about as long as it takes to ask for the next pack and to be answered.
    pub(super) fn ebbs(&mut self, now: Instant, more: u64) -> bool {
        self.got += more;
        self.left = self.left.saturating_sub(more);
        if self.near || self.got < PACE_BYTES.min((self.got + self.left) / 4) {
            return false;
        }
        let elapsed = now.saturating_duration_since(self.asked).as_secs_f64();
        let still_takes = self.left as f64 / self.got.max(1) as f64 * elapsed;
        self.near = still_takes <= EBB.as_secs_f64();
        self.near
    }
}

/// The way to the origin and back of a far branch (60 ms), what the origin takes to answer, and what a
/// booster that serves a whole branch meanwhile takes to ask and to hear it (130 ms with 64 clients on
/// one processor).
const EBB: Duration = Duration::from_millis(300);
/// What came before the first half a megabyte, or the first quarter of a small pack, says little of
/// how fast the rest will come: routers let the first of it pass faster than what follows.
const PACE_BYTES: u64 = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// At which byte of `bytes` the end is near, on a line that bears so many bytes a second, after
    /// a while in which nothing came.
    fn check(bytes: u64, rate: u64, silence_ms: u64, expected: Option<u64>) {
        let asked = Instant::now();
        let mut pace = Pace::new(asked, bytes);
        let (mut got, mut told) = (0, Vec::new());
        while got < bytes {
            let more = 10_000.min(bytes - got);
            got += more;
            let millis = silence_ms + got * 1000 / rate;
            if pace.ebbs(asked + Duration::from_millis(millis), more) {
                told.push(got);
            }
        }
        assert_eq!(told, Vec::from_iter(expected), "{bytes} at {rate}");
    }

    #[test]
    fn the_end_is_near_by_the_time_that_is_left() {
        // 20 Mbit/s, where 300 ms carry 750 kB; 100 Mbit/s; 1 Gbit/s.
        check(5_000_000, 2_500_000, 0, Some(4_250_000));
        check(5_000_000, 12_500_000, 0, Some(1_260_000));
        check(5_000_000, 125_000_000, 0, Some(530_000));
        // While nothing came, nothing could be known of the line.
        check(5_000_000, 12_500_000, 60, Some(2_210_000));
        // A line of nearly nothing; a pack of nearly nothing.
        check(5_000_000, 10_000, 0, Some(5_000_000));
        check(40_000, 2_500_000, 0, Some(10_000));
        check(0, 2_500_000, 0, None);
    }
}
