//! When to try again.

use std::time::Duration;

/// Waits that double from one failure to the next, up to a limit, each with jitter.
///
/// Decides, and neither waits nor rolls dice: the caller does. A branch full of devices that
/// lost their booster at the same moment must not come back at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits between half of `first` and all of it after the first failure, and never longer
    /// than `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// Takes note of a failure, and says how long to wait. `random` lies in `0.0..1.0`; what
    /// lies outside counts as the nearest that does not.
    pub fn failed(&mut self, random: f64) -> Duration {
        let doubled = 2u32
            .checked_pow(self.failures)
            .and_then(|by| self.first.checked_mul(by));
        let most = doubled.unwrap_or(self.longest).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let random = if random.is_nan() {
            0.5
        } else {
            random.clamp(0.0, 1.0)
        };
        // Rounding may lift it a little.
        most.mul_f64(0.5 + random / 2.0).min(self.longest)
    }

    /// Takes note that it went well: the next failure is a first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_limit_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let seconds: Vec<u64> = (0..9).map(|_| backoff.failed(1.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.succeeded();
        assert_eq!(backoff.failed(0.0), Duration::from_millis(500));
    }

    #[test]
    fn nothing_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(u64::MAX / 4), Duration::MAX / 2);
        for random in [0.0, 1.0, -1.0, 7.0, f64::NAN, f64::INFINITY] {
            for _ in 0..40 {
                assert!(backoff.failed(random) <= Duration::MAX / 2);
            }
        }
    }
}
