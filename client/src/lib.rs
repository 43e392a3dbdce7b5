//! The client: enrols a device, pulls filesets and installs them.
//!
//! It trusts nothing but the pinned root: statements, freshness, pack headers, frames and chunks
//! are all checked here, whatever a booster has checked before.

mod agent;
mod catalogue;
mod choose;
pub mod cli;
pub mod config;
mod fetch;
mod guide;
mod install;
mod inventory;
mod keep;
mod net;
mod plan;
mod progress;
mod pull;
mod session;
mod status;
mod steps;
#[cfg(test)]
mod testing;
mod tree;
mod why;

pub use agent::{
    Agent, AgentError, AgentStatus, CheckInError, CheckedIn, FilesError, FilesetStatus, check_in,
};
pub use catalogue::CatalogueError;
pub use choose::{ParseSourceError, SourceAddress};
pub use config::Config;
pub use fetch::FetchError;
pub use fetch::downloads::PartError;
pub use fetch::reader::ReadError;
pub use fetch::receive::ReceiveError;
pub use fetch::sources::{Bypass, NoSource, Traffic};
pub use install::TargetError;
pub use install::build::BuildError;
pub use install::examine::{Difference, DifferenceKind, Fate};
pub use install::foreign::ForeignError;
pub use install::record::RecordError;
pub use install::room::RoomError;
pub use keep::{Place, confirm, go_back, uninstall};
pub use plan::walk::WalkError;
pub use progress::{Done, Progress};
pub use pull::verify::{Verified, VerifyReport, VerifyRequest, verify};
pub use pull::{AssembleError, PullError, PullReport, PullRequest, pull};
pub use session::SessionError;
pub use status::{DeviceStatus, InstalledStatus, Status, TimestampState, TimestampStatus, status};
pub use why::{FilesetWhy, RestWhy, SourceWhy, TestWhy, Why, why};
