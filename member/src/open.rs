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
        let clock = floored(clock, state.marks()?.issued());
        let identity = Identity::load(&data.identity(), kind, grace, clock.now())?;
        let identity = identity.ok_or_else(|| data.missing())?;
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
    /// What protects it cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}
