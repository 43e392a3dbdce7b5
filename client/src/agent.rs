//! The agent: keeps a device as its manifest says.
//!
//! ```text
//!  line ── check-in, manifest ──▶ mind ── act ──▶ hands
//!                                  │ state, step: pure         download, install, scripts, verify
//!                                  ▼
//!                                files: written down before and after each act
//! ```

mod adopt;
mod ended;
mod files;
mod hands;
mod kept;
mod line;
mod mind;
#[cfg(test)]
mod outage;
mod pace;
mod run;
pub(crate) mod script;
mod settle;
mod state;
mod step;
mod through;
mod told;
mod wake;

use thiserror::Error;

pub use files::FilesError;
pub use line::CheckInError;
pub use run::Agent;
pub use told::{AgentStatus, CheckedIn, FilesetStatus, check_in};

pub(crate) use adopt::in_force;
pub(crate) use told::{agent_status, of_sources};

use crate::session::SessionError;

/// Why the agent cannot go to work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The check-in came to nothing.
    #[error(transparent)]
    CheckIn(#[from] CheckInError),
    /// What it knows cannot be read or kept.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The device is not ready.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The program is ending.
    #[error("cannot go to work: the program is ending")]
    Stopped,
}
