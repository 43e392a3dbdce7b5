//! How long requests took, in bounded memory.

use std::time::Duration;

/// Counts durations in buckets that are at most 1/64 (1.6 %) wide, whatever their size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: Duration,
}

impl Histogram {
    pub(crate) fn record(&mut self, took: Duration) {
        let bucket = bucket(micros(took));
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.longest = self.longest.max(took);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// The time within which `share` (0 to 1) of all were done; zero if there were none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                // The upper end: rather say too slow than too fast.
                return Duration::from_micros(start(bucket + 1) - 1).min(self.longest);
            }
        }
        self.longest
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 1)
}

/// Up to 128 µs a bucket for each; from there on 64 buckets for each doubling.
fn bucket(micros: u64) -> usize {
    let doublings = (u64::BITS - micros.leading_zeros()).saturating_sub(STEP_BITS + 1);
    (u64::from(doublings) * STEPS + (micros >> doublings)) as usize
}

/// The shortest time that goes into `bucket`.
fn start(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket / STEPS).saturating_sub(1);
    (bucket - doublings * STEPS) << doublings
}

const STEP_BITS: u32 = 6;
const STEPS: u64 = 1 << STEP_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_begins_with_it() {
        for micros in (0..10_000).chain([1 << 20, (1 << 20) - 1, 60_000_000, 3_600_000_000]) {
            let bucket = bucket(micros);
            assert!(start(bucket) <= micros, "{micros}");
            assert!(micros < start(bucket + 1), "{micros}");
            let width = start(bucket + 1) - start(bucket);
            assert!(width == 1 || width * 64 <= micros, "{micros}");
        }
    }

    #[test]
    fn quantiles_are_right_to_a_sixty_fourth() {
        let (mut even, mut odd) = (Histogram::default(), Histogram::default());
        for millis in 1..=1000 {
            let half = if millis % 2 == 0 { &mut even } else { &mut odd };
            half.record(Duration::from_millis(millis));
        }
        even.add(&odd);
        assert_eq!(even.count(), 1000);
        for (share, millis) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let got = even.quantile(share).as_secs_f64() * 1000.0;
            assert!((millis..=millis * 1.016).contains(&got), "{share}: {got}");
        }
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
