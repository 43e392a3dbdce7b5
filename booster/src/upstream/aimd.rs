//! How many packs to ask one source for at a time: more while that brings more, half of it when it
//! hurts. Reads no clock.

use std::time::Duration;

use tokio::time::Instant;

/// The concurrency that one source bears.
///
/// Additive increase, multiplicative decrease, in steps: bytes are counted over a while in which
/// as much was under way as may be. Then one more is tried; it stays if it brought at least half of
/// its share. A step that brought nothing is taken back, and for some time nothing is tried. That
/// settles where the line, and not the wait for answers, is the limit, so that as few packs as
/// possible share it and each comes soon.
#[derive(Debug)]
pub(crate) struct Aimd {
    /// Above this was trouble, and for so many measurements it is not tried again.
    ceiling: (usize, u32),
    limit: usize,
    measured: Measured,
    phase: Phase,
    /// Losses before this are of the same trouble as the last.
    lost_until: Option<Instant>,
}

/// What came since when.
#[derive(Clone, Copy, Debug)]
struct Measured {
    began: Instant,
    bytes: u64,
    /// Whether as much was under way as may be.
    full: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// One more than `before` is being tried, which brought so many bytes a second.
    Trying { before: f64 },
    /// Nothing is tried for so many measurements.
    Settled { left: u32 },
}

impl Aimd {
    /// The least that may be under way at a time: the next request is there when an answer ends.
    pub(crate) const MIN: usize = 2;
    /// The most.
    pub(crate) const MAX: usize = 16;

    pub(crate) fn new(now: Instant) -> Self {
        Self {
            ceiling: (Self::MAX, 0),
            limit: Self::MIN,
            measured: Measured::from(now),
            phase: Phase::Settled { left: 0 },
            lost_until: None,
        }
    }

    /// How many may be under way at a time.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes note that so many are under way, one of which has just begun.
    pub(crate) fn begun(&mut self, now: Instant, under_way: usize) {
        if under_way <= 1 {
            // Nothing was wanted for a while, which says nothing about the line.
            self.measured = Measured::from(now);
        }
        self.measured.full |= under_way >= self.limit;
    }

    /// Takes note of bytes that came.
    pub(crate) fn received(&mut self, now: Instant, bytes: u64) {
        self.measured.bytes += bytes;
        let elapsed = now.saturating_duration_since(self.measured.began);
        let enough = self.measured.bytes >= BYTES_MIN || elapsed >= LONGEST;
        if elapsed < SHORTEST || !enough {
            return;
        }
        let goodput = self.measured.bytes as f64 / elapsed.as_secs_f64();
        let full = std::mem::replace(&mut self.measured, Measured::from(now)).full;
        // Whoever is under way still is: only a beginning is told of.
        self.measured.full = full;
        if full {
            self.judge(goodput);
        }
    }

    /// Takes note that the source stalled, or said that it has too much to do.
    pub(crate) fn lost(&mut self, now: Instant) {
        if self.lost_until.is_some_and(|until| now < until) {
            return;
        }
        self.lost_until = Some(now + LOSS_PAUSE);
        self.ceiling = ((self.limit - 1).max(Self::MIN), CEILING);
        self.set((self.limit / 2).max(Self::MIN), RECOVERY);
        self.measured = Measured::from(now);
    }

    fn judge(&mut self, goodput: f64) {
        self.ceiling.1 = self.ceiling.1.saturating_sub(1);
        if self.ceiling.1 == 0 {
            self.ceiling.0 = Self::MAX;
        }
        match self.phase {
            Phase::Settled { left: 0 } => self.try_more(goodput),
            Phase::Settled { left } => self.phase = Phase::Settled { left: left - 1 },
            Phase::Trying { before } => {
                let whole_share = 1.0 / (self.limit - 1) as f64;
                if goodput >= before * (1.0 + whole_share / 2.0) {
                    self.try_more(goodput);
                } else {
                    self.set(self.limit - 1, SETTLED);
                }
            }
        }
    }

    fn try_more(&mut self, before: f64) {
        if self.limit < self.ceiling.0 {
            self.set(self.limit + 1, 0);
            self.phase = Phase::Trying { before };
        } else {
            self.phase = Phase::Settled { left: SETTLED };
        }
    }

    fn set(&mut self, limit: usize, left: u32) {
        if limit > self.limit {
            self.measured.full = false;
        }
        self.limit = limit;
        self.phase = Phase::Settled { left };
    }
}

impl Measured {
    fn from(began: Instant) -> Self {
        Self {
            began,
            bytes: 0,
            full: false,
        }
    }
}

/// Shorter than this, what lies in buffers counts for more than the line.
const SHORTEST: Duration = Duration::from_millis(500);
/// Less than a frame or so says little of a slow line ...
const BYTES_MIN: u64 = 1 << 20;
/// ... but for longer than this nobody wants to wait for it.
const LONGEST: Duration = Duration::from_secs(5);
/// Measurements between two trials.
const SETTLED: u32 = 8;
/// Measurements before the first trial after trouble.
const RECOVERY: u32 = 2;
/// A minute or so.
const CEILING: u32 = 120;
/// Those who were under way together fail together.
const LOSS_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line of `line` bytes a second on which each request alone gets at most `each`; the source
    /// refuses what is over `bears` at a time.
    #[derive(Clone, Copy, Debug)]
    struct Line {
        line: f64,
        each: f64,
        bears: usize,
    }

    impl Line {
        /// Runs it for two minutes, always with enough to do. The limits that were in force in the
        /// second of them, and the share of the most that the line could have carried then.
        fn run(self, seed: u64) -> (Vec<usize>, f64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (start, tick) = (Instant::now(), Duration::from_millis(20));
            let mut aimd = Aimd::new(start);
            let (mut limits, mut carried) = (Vec::new(), 0.0);
            for step in 0..6000 {
                let now = start + tick * step;
                let under_way = aimd.limit();
                aimd.begun(now, under_way);
                if under_way > self.bears {
                    aimd.lost(now);
                }
                let rate = (under_way.min(self.bears) as f64 * self.each).min(self.line);
                let bytes = rate * tick.as_secs_f64() * (0.9 + 0.2 * random.f64());
                aimd.received(now, bytes as u64);
                if step >= 3000 {
                    limits.push(aimd.limit());
                    carried += bytes;
                }
            }
            let most = (self.bears.min(Aimd::MAX) as f64 * self.each).min(self.line) * 60.0;
            (limits, carried / most)
        }

        fn check(self, expected: usize, share: f64) {
            for seed in 0..20 {
                let (mut limits, carried) = self.run(seed);
                limits.sort_unstable();
                let median = limits[limits.len() / 2];
                let says = format!("{self:?}, seed {seed}: {median}, {carried}");
                assert!(median.abs_diff(expected) <= 1, "{says}");
                assert!(carried >= share, "{says}");
                assert!(limits[limits.len() - 1] <= expected + 3, "{says}");
            }
        }
    }

    #[test]
    fn it_settles_where_the_line_is_the_limit() {
        let all = usize::MAX;
        let line = |line, each, bears| Line { line, each, bears };
        // A line that one request fills: more would only be slower each.
        line(12.5e6, 12.5e6, all).check(2, 0.98);
        line(0.25e6, 0.25e6, all).check(2, 0.98);
        // A long line, on which each request waits for windows.
        line(12.5e6, 3.0e6, all).check(4, 0.95);
        line(50e6, 5e6, all).check(10, 0.9);
        line(1e9, 5e6, all).check(16, 0.9);
        // A source that says when it has too much.
        line(1e9, 5e6, 6).check(6, 0.7);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_limit_stays_within_its_bounds(
            steps in proptest::collection::vec((0u8..3, 0u64..5_000_000, 0u64..3000), 1..300)
        ) {
            let mut now = Instant::now();
            let mut aimd = Aimd::new(now);
            for (step, bytes, millis) in steps {
                let before = aimd.limit();
                now += Duration::from_millis(millis);
                match step {
                    0 => aimd.begun(now, (bytes % 20) as usize),
                    1 => aimd.received(now, bytes),
                    _ => aimd.lost(now),
                }
                let after = aimd.limit();
                prop_assert!((Aimd::MIN..=Aimd::MAX).contains(&after));
                prop_assert!(after <= before + 1, "it grows by one at a time");
                prop_assert!(after + 1 >= before || step == 2, "only trouble halves it");
            }
        }
    }

    #[test]
    fn trouble_halves_it_once_however_many_tell_of_it() {
        let start = Instant::now();
        let mut aimd = Aimd::new(start);
        aimd.limit = 16;
        for _ in 0..16 {
            aimd.lost(start);
        }
        assert_eq!(aimd.limit(), 8);
        aimd.lost(start + LOSS_PAUSE);
        assert_eq!(aimd.limit(), 4);
    }

    #[test]
    fn what_was_not_wanted_says_nothing() {
        let start = Instant::now();
        let mut aimd = Aimd::new(start);
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            aimd.begun(now, 1);
            aimd.received(now + Duration::from_millis(900), 10 << 20);
        }
        assert_eq!(aimd.limit(), Aimd::MIN);
    }
}
