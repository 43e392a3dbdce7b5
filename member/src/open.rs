//! A member that goes to work: what enrolment and earlier runs left, taken up again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use service::Clock;
use thiserror::Error;
use tracing::warn;
use transport::ContentJudge;

use crate::data::{Data, DataError, Lock};
use crate::identity::{Identity, IdentityError};
use crate::kind::Kind;
use crate::skew::{ClockStatus, Skew, time};
use crate::state::{State, StateError};

/// A member at work, alone on its data folder.
#[derive(Clone, Debug)]
pub struct Member {
    /// The time: never before what the origin has vouched for.
    pub clock: Clock,
    /// The data folder.
    pub data: Data,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What keeps others away from the folder.
    pub lock: Lock,
    /// What was verified before.
    pub state: State,
}

impl Member {
    /// Opens the data folder at `root` and puts the lists that lie there in force; each counts for
    /// `grace` after its next was due. Asks nobody. Reads the disk, some tens of MiB if the lists
    /// are long.
    ///
    /// # Errors
    ///
    /// Fails if nobody has enrolled there, if another program is at work there, or if what lies
    /// there is damaged.
    pub fn open(
        root: &Path,
        kind: Kind,
        grace: Duration,
        clock: &Clock,
    ) -> Result<Self, OpenError> {
        let data = Data::new(root, kind);
        let lock = data.lock()?;
        // An older release may have enrolled, which had fewer folders.
        data.create()?;
        let state = State::new(data.state());
        let clock = floored(clock, BUILT_AT.max(state.marks()?.issued()));
        let identity = match Identity::load(&data.identity(), kind, grace, clock.now()) {
            Err(error) if error.is_out_of_date() => {
                let now = time(clock.now());
                return Err(OpenError::NoRoot { now, source: error });
            }
            loaded => loaded?.ok_or_else(|| data.missing())?,
        };
        let begins = identity.cell.validity().map_or(0, |(begins, _)| begins);
        let clock = floored(&clock, begins);
        state.load_crls(&identity.trust, clock.now());
        Ok(Self {
            clock,
            data,
            identity: Arc::new(identity),
            lock,
            state,
        })
    }

    /// Who decides whether a statement counts.
    #[must_use]
    pub fn judge(&self) -> ContentJudge {
        ContentJudge::new(Arc::clone(&self.identity.trust))
    }
}

/// What a data folder says of a member, for somebody who only looks: it may be at work, or may
/// never have enrolled.
#[derive(Debug)]
pub struct Glance {
    /// The time: never before what the origin has vouched for.
    pub clock: Clock,
    /// What is known of the clock of this machine.
    pub clock_status: ClockStatus,
    /// Who it is; none before enrolment. The lists that lie there are in force.
    pub identity: Option<Identity>,
    /// The latest time that the origin has vouched for, in Unix seconds.
    pub proven_at: i64,
    /// What was verified before.
    pub state: State,
}

impl Glance {
    /// Looks into the data folder at `root`, whatever the clock of this machine says. Takes no
    /// lock, asks nobody and changes nothing.
    ///
    /// # Errors
    ///
    /// Fails if what lies there cannot be read or is damaged.
    pub fn of(root: &Path, kind: Kind, grace: Duration, clock: &Clock) -> Result<Self, OpenError> {
        let data = Data::new(root, kind);
        let state = State::new(data.state());
        let mut proven_at = BUILT_AT.max(state.marks()?.issued());
        let clock = clock.floored(proven_at);
        let load = |now| Identity::load(&data.identity(), kind, grace, now);
        let (identity, has_root) = match load(clock.now()) {
            // By a clock that is far ahead no root is in date. Who we are does not hang on it.
            Err(error) if error.is_out_of_date() => (load(proven_at)?, false),
            loaded => (loaded?, true),
        };
        if let Some(identity) = &identity {
            let begins = identity.cell.validity().map_or(0, |(begins, _)| begins);
            proven_at = proven_at.max(begins);
            clock.raise_floor(begins);
            state.load_crls(&identity.trust, clock.now());
        }
        let skew = Skew::kept(&data.state());
        Ok(Self {
            clock_status: ClockStatus::new(&clock, skew, has_root),
            clock,
            identity,
            proven_at,
            state,
        })
    }
}

/// `clock`, which is from now on never before `at_least`, in Unix seconds.
fn floored(clock: &Clock, at_least: i64) -> Clock {
    let now = clock.now();
    if now < at_least {
        warn!(now, at_least, "the clock of this machine is behind");
    }
    clock.floored(at_least)
}

/// Why a member cannot go to work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// It does not know who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// By the clock of this machine, no root counts.
    #[error(
        "cannot judge anybody: no root is in date at {now}; is the clock of this machine ahead?"
    )]
    NoRoot {
        /// What the clock says.
        now: String,
        /// What came of it.
        source: IdentityError,
    },
    /// What protects it cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Before which no clock that is right can be: when this program was built, if whoever built it
/// says so (as packagers do, by <https://reproducible-builds.org/specs/source-date-epoch/>), and
/// the year before it was begun otherwise.
const BUILT_AT: i64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => digits(text.as_bytes()),
    None => 1_735_689_600,
};

/// A whole number in decimal digits; 0 if it is none.
const fn digits(text: &[u8]) -> i64 {
    let (mut number, mut at) = (0_i64, 0);
    while at < text.len() {
        if !text[at].is_ascii_digit() || number > MILLENNIA {
            return 0;
        }
        number = number * 10 + (text[at] - b'0') as i64;
        at += 1;
    }
    number
}

/// More than any clock says, and far from where arithmetic ends.
const MILLENNIA: i64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_building_is_a_number_or_nothing() {
        assert_eq!(digits(b"1735689600"), 1_735_689_600);
        for bad in [&b""[..], b"-1", b"yesterday", b"99999999999999999999999"] {
            assert_eq!(digits(bad), 0);
        }
        const { assert!(BUILT_AT > 0) };
    }
}
