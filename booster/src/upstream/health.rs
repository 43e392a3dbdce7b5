//! Whether a source is worth asking: told by what came of asking it. Reads no clock, rolls no dice.

use std::time::Duration;

use tokio::time::Instant;
use transport::Backoff;

/// The health of one source.
///
/// A few failures in a row take it out of use for a while, which grows with each further one. After
/// that one question, and no more, goes to it as a probe: an answer brings it back.
#[derive(Debug)]
pub(crate) struct Health {
    backoff: Backoff,
    state: State,
}

/// Whether a source may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// Like any other.
    Up,
    /// Once, to see whether it is back.
    Due,
    /// Only if there is nobody else.
    Down,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Down {
        until: Instant,
    },
    /// Somebody is asking. Should he be cut off, another may ask from then on.
    Probing {
        until: Instant,
    },
    Up,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            backoff: Backoff::new(DOWN_MIN, DOWN_MAX),
            state: State::Up,
        }
    }
}

impl Health {
    /// How it stands at `now`.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::Up => Standing::Up,
            State::Down { until } | State::Probing { until } if until <= now => Standing::Due,
            State::Down { .. } | State::Probing { .. } => Standing::Down,
        }
    }

    /// Takes note that it is being asked.
    pub(crate) fn asked(&mut self, now: Instant) {
        if self.standing(now) == Standing::Due {
            self.state = State::Probing {
                until: now + PROBE_MAX,
            };
        }
    }

    /// Takes note that it answered.
    pub(crate) fn answered(&mut self) {
        self.backoff.succeeded();
        self.state = State::Up;
    }

    /// Takes note that it did not. `random` lies in `0.0..1.0`. Says whether that took it out of
    /// use.
    pub(crate) fn failed(&mut self, now: Instant, random: f64) -> bool {
        let was_up = matches!(self.state, State::Up);
        let wait = self.backoff.failed(random);
        if was_up && self.backoff.failures() < FAILURES_MAX {
            return false;
        }
        // Many questions that were under way at once fail at once: the last one counts.
        self.state = State::Down { until: now + wait };
        was_up
    }
}

/// As many failures in a row are no accident.
const FAILURES_MAX: u32 = 3;
/// The third failure in a row costs two to four seconds, each further one twice as much.
const DOWN_MIN: Duration = Duration::from_secs(1);
/// A source that is back is in use again a minute later.
const DOWN_MAX: Duration = Duration::from_secs(60);
/// As long as a probe may take: to a connection, and to an answer.
const PROBE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_take_a_source_out_of_use_and_one_probe_brings_it_back() {
        let start = Instant::now();
        let mut health = Health::default();
        assert!(!health.failed(start, 1.0) && !health.failed(start, 1.0));
        health.answered();
        assert!(!health.failed(start, 1.0) && !health.failed(start, 1.0));
        assert_eq!(health.standing(start), Standing::Up);
        assert!(health.failed(start, 1.0), "the third in a row");
        assert_eq!(health.standing(start), Standing::Down);
        let back = start + Duration::from_secs(4);
        assert_eq!(health.standing(back), Standing::Due);
        health.asked(back);
        assert_eq!(health.standing(back), Standing::Down, "one probe at a time");
        assert_eq!(
            health.standing(back + PROBE_MAX),
            Standing::Due,
            "a probe that was cut off"
        );
        assert!(!health.failed(back, 1.0), "it was out of use already");
        assert_eq!(
            health.standing(back + Duration::from_secs(7)),
            Standing::Down
        );
        assert_eq!(
            health.standing(back + Duration::from_secs(8)),
            Standing::Due
        );
        health.answered();
        assert_eq!(health.standing(back), Standing::Up);
    }

    #[test]
    fn it_is_never_out_of_use_for_over_a_minute() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..100 {
            health.failed(now, 1.0);
        }
        assert_eq!(health.standing(now + DOWN_MAX), Standing::Due);
    }
}
