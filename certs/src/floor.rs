//! The trusted floor under a clock that may be wrong.

/// The earliest that it can be now, as far as we can prove.
///
/// A device whose battery died comes back in 1970 and would take expired certificates for
/// good. The floor is the latest of the times that somebody we trust has vouched for: when
/// this program was built, our certificate's own notBefore, and the newest verified
/// timestamp. The caller keeps it durably. A system clock that runs ahead never raises it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Floor {
    at: i64,
}

impl Floor {
    /// A floor at `at`, Unix seconds.
    pub fn new(at: i64) -> Self {
        Self { at }
    }

    /// Where the floor is, in Unix seconds.
    pub fn at(self) -> i64 {
        self.at
    }

    /// Raises the floor to `verified_at`, a time out of something whose signature has been
    /// verified. Never lowers it. Says whether it moved.
    pub fn raise(&mut self, verified_at: i64) -> bool {
        let moved = verified_at > self.at;
        self.at = self.at.max(verified_at);
        moved
    }

    /// The time to judge certificates by: the later of the system's clock and the floor.
    pub fn verification_time(self, system_now: i64) -> i64 {
        self.at.max(system_now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_only_rises() {
        let mut floor = Floor::new(100);
        assert!(floor.raise(200));
        assert!(!floor.raise(150));
        assert_eq!(floor.at(), 200);
    }

    #[test]
    fn a_clock_behind_is_lifted_and_a_clock_ahead_lifts_nothing() {
        let floor = Floor::new(100);
        assert_eq!(floor.verification_time(0), 100);
        assert_eq!(floor.verification_time(5_000), 5_000);
        assert_eq!(floor.at(), 100);
    }
}
