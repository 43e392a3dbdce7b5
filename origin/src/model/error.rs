//! Why a wish about the model was not done, and what the operator's program is told.

use content::FilesetName;
use protocol::{Code, Fault};
use thiserror::Error;

use super::desk::MESSAGE_BYTES_MAX;
use super::key::{GroupName, KeyError};
use super::value::ValueError;
use crate::ledger::LedgerError;
use crate::published::PublishedError;

/// Why a wish about the model was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Somebody else changed the same since the draft began.
    #[error(
        "cannot commit the draft {draft}: since model {base} others changed {keys}; look at them, \
         and run model draft rebase {draft} if the draft is still right",
        keys = keys.join(", ")
    )]
    Conflict {
        /// The draft.
        draft: String,
        /// The model that it began from.
        base: u64,
        /// What both change.
        keys: Vec<String>,
    },
    /// A key is none.
    #[error("cannot tell what is meant")]
    Key(#[from] KeyError),
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// It has no reason, or an endless one.
    #[error("cannot commit without a message of 1 to {MESSAGE_BYTES_MAX} bytes")]
    Message,
    /// There is no such draft.
    #[error("cannot find a draft called {draft}")]
    NoDraft {
        /// The name.
        draft: String,
    },
    /// There is no such group.
    #[error("cannot find a group called {name}")]
    NoGroup {
        /// The name.
        name: GroupName,
    },
    /// There is no such model.
    #[error("cannot find a model {number}")]
    NoModel {
        /// The number.
        number: u64,
    },
    /// A script that is named was never handed in.
    #[error("cannot use the script {name} of {fileset}: its bytes have not come")]
    NoScript {
        /// The fileset.
        fileset: FilesetName,
        /// The script.
        name: String,
    },
    /// It would change nothing.
    #[error("cannot make a model that says what the current one does")]
    Nothing,
    /// The result would contradict itself.
    #[error("cannot commit what contradicts itself:\n  {list}", list = offenders.join("\n  "))]
    Offenders {
        /// All that is wrong.
        offenders: Vec<String>,
    },
    /// The number could not be kept.
    #[error("cannot keep the number of the model")]
    Published(#[from] PublishedError),
    /// It is more than there can be.
    #[error("cannot keep more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        max: u64,
    },
    /// A value makes no sense.
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl ModelError {
    /// What the operator's program is told: an operator may know what went wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::Ledger(_) | Self::Published(_) => Code::Internal,
            Self::Key(_) | Self::Message | Self::TooMany { .. } | Self::Value(_) => {
                Code::BadRequest
            }
            Self::NoDraft { .. } | Self::NoGroup { .. } | Self::NoModel { .. } => Code::NotFound,
            Self::Conflict { .. }
            | Self::NoScript { .. }
            | Self::Nothing
            | Self::Offenders { .. } => Code::Conflict,
        };
        Fault::new(code, service::Report(self).to_string())
    }
}
