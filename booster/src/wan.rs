//! Manners on the branch's line: how fast what the booster fetches may come, and what yields.
//!
//! What somebody waits for goes before what is fetched ahead of time; check-ins, lists and
//! statements wait for nothing, and are counted. Limits are kept by not reading on: what has come
//! is paid for before more is taken off the connection, so that its window fills and the sender
//! rests. Each purpose has connections of its own, or all would be as slow as the slowest.

pub mod schedule;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::config::Rate;
use service::Clock;
use tokio::time::Instant;
use transport::Pace;

use crate::metrics::WanMetrics;
pub use schedule::Schedule;

/// Why something is fetched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// It keeps the booster itself up to date, and never waits.
    Control,
    /// Nobody has asked for it yet.
    Prefetch,
    /// Somebody waits for it.
    Wanted,
}

/// The line to the origin, as far as the booster may use it. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Wan {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    metrics: WanMetrics,
    schedule: Schedule,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    all: Debt,
    prefetch: Debt,
    /// When what somebody waited for last came, or will be paid for.
    wanted_at: Option<Instant>,
    /// Since when such has been coming without a pause.
    wanted_since: Option<Instant>,
}

/// Connections over which something is fetched for one purpose.
#[derive(Debug)]
struct Lane {
    purpose: Purpose,
    wan: Wan,
}

/// What has been let through, as the time by which it is paid for (the generic cell rate
/// algorithm, ITU-T I.371 Annex A, in its form of virtual scheduling).
#[derive(Debug, Default)]
struct Debt {
    paid_at: Option<Instant>,
}

impl Wan {
    /// The line under the limits of `schedule`, by `clock`.
    #[must_use]
    pub fn new(schedule: Schedule, clock: Clock, metrics: WanMetrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                metrics,
                schedule,
                state: Mutex::default(),
            }),
        }
    }

    /// The pace of connections over which comes what is fetched for a `purpose`.
    #[must_use]
    pub fn pace(&self, purpose: Purpose) -> Arc<dyn Pace> {
        Arc::new(Lane {
            purpose,
            wan: self.clone(),
        })
    }

    /// Whether anything may be fetched ahead of time for now: the hour allows for it, and nobody
    /// waits for anything.
    #[must_use]
    pub fn may_prefetch(&self) -> bool {
        let limits = self.shared.schedule.at(self.shared.clock.now());
        limits.prefetch != Rate::bits(0) && self.state().is_quiet(Instant::now())
    }

    /// Whether the hour allows for fetching anything ahead of time, whoever waits for what.
    #[must_use]
    pub fn is_prefetch_hour(&self) -> bool {
        let limits = self.shared.schedule.at(self.shared.clock.now());
        limits.prefetch != Rate::bits(0)
    }

    /// Whether what nobody waits for has rested for so long on behalf of others that it must leave
    /// the line to them, as soon as what has been begun of it is whole.
    #[must_use]
    pub fn must_yield(&self) -> bool {
        self.state().is_long_busy(Instant::now())
    }

    /// Notes what came, and says how long to rest for it.
    fn came(&self, purpose: Purpose, bytes: usize, now: Instant) -> Duration {
        let limits = self.shared.schedule.at(self.shared.clock.now());
        let cost = |rate: Rate| rate.time_for(bytes as u64).unwrap_or(DEBT_MAX);
        let mut state = self.state();
        let all = state.all.pay(now, cost(limits.rate));
        let rest = match purpose {
            Purpose::Control => Duration::ZERO,
            Purpose::Wanted => {
                if state.is_quiet(now) {
                    state.wanted_since = Some(now);
                }
                // Whoever waits for it still does while it is being paid for.
                state.wanted_at = state.wanted_at.max(Some(now + all));
                all
            }
            // What was begun in time is finished, at the pace of all, when the hour has come in
            // which nothing is to be begun.
            Purpose::Prefetch if limits.prefetch == Rate::bits(0) => all.max(state.yields(now)),
            Purpose::Prefetch => {
                let own = state.prefetch.pay(now, cost(limits.prefetch));
                all.max(own).max(state.yields(now))
            }
        };
        drop(state);
        let (metrics, label) = (&self.shared.metrics, &[purpose.name()]);
        metrics.bytes.with_label_values(label).inc_by(bytes as u64);
        if !rest.is_zero() {
            metrics.waits.with_label_values(label).inc();
        }
        self.show(limits);
        rest.min(REST_MAX)
    }

    fn show(&self, limits: schedule::Limits) {
        let metrics = &self.shared.metrics;
        for (purpose, rate) in [
            (Purpose::Wanted, limits.rate),
            (Purpose::Prefetch, limits.prefetch),
        ] {
            let bits = rate.bits_per_second().map_or(-1, |bits| bits as i64);
            let gauge = metrics.limit_bits.with_label_values(&[purpose.name()]);
            gauge.set(bits);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Instants are never half-changed.
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether nothing has come for a while that somebody waited for.
    fn is_quiet(&self, now: Instant) -> bool {
        let wanted_at = self.wanted_at;
        wanted_at.is_none_or(|at| now.saturating_duration_since(at) >= QUIET)
    }

    /// Whether somebody has been waiting for so long, for one thing or another, that no sender would
    /// stay with what rests meanwhile.
    fn is_long_busy(&self, now: Instant) -> bool {
        let since = self.wanted_since.filter(|_| !self.is_quiet(now));
        since.is_some_and(|since| now.saturating_duration_since(since) >= YIELD_MAX)
    }

    /// How long what nobody waits for rests on behalf of what somebody waits for.
    fn yields(&self, now: Instant) -> Duration {
        // In the end, what has been begun is finished: a frame that is broken off comes twice.
        if self.is_quiet(now) || self.is_long_busy(now) {
            Duration::ZERO
        } else {
            YIELD
        }
    }
}

impl Pace for Lane {
    fn came(&self, bytes: usize) -> Duration {
        self.wan.came(self.purpose, bytes, Instant::now())
    }
}

impl Debt {
    /// Takes on a `cost`, and says in how long all is paid for that was taken on so far.
    fn pay(&mut self, now: Instant, cost: Duration) -> Duration {
        // What a timer oversleeps is made up for, or the rate is never reached.
        let earliest = now.checked_sub(CREDIT_MAX).unwrap_or(now);
        let begin = self.paid_at.map_or(now, |paid_at| paid_at.max(earliest));
        // What is owed must not pile up without end if nobody pays.
        let paid_at = (begin + cost.min(DEBT_MAX)).min(now + DEBT_MAX);
        self.paid_at = Some(paid_at);
        paid_at.saturating_duration_since(now)
    }
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Prefetch => "prefetch",
            Self::Wanted => "wanted",
        }
    }
}

/// Below the time after which a fill takes its source for dead (`cache.stall`: from a second on, ten
/// unless said otherwise), at any rate for the latter.
const REST_MAX: Duration = Duration::from_secs(5);
/// Some turns of a scheduler: more would be a burst.
const CREDIT_MAX: Duration = Duration::from_millis(50);
/// As much as some connections come to owe on the slowest line when all of them bring a record.
const DEBT_MAX: Duration = Duration::from_secs(30);
/// How long nothing may have come that somebody waited for: a few round trips of a slow line.
const QUIET: Duration = Duration::from_millis(500);
/// How long a connection over which comes what nobody waits for rests while somebody waits for
/// something else: it then comes as a trickle, which tells its sender that we are there.
const YIELD: Duration = Duration::from_secs(2);
/// How long it may trickle. What the sender has sent ahead lies before its next ping, which it wants
/// to see answered within 20 seconds: that is time enough for a frame of 1 MiB at 1 Mbit/s.
const YIELD_MAX: Duration = Duration::from_secs(6);

#[cfg(test)]
mod tests;
