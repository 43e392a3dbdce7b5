//! The model: who should hold what. A set of entries, each under a key, numbered anew with each
//! commit; what it is and why is told in `docs/fleet.md`.
//!
//! What an entry says, which items follow for a device, and whom a change concerns are pure
//! functions of entries ([`resolve`], [`concern`], [`check`]); [`desk`] reads and writes them.

pub mod calls;
pub mod check;
pub mod concern;
pub mod desk;
mod error;
pub mod groups;
pub mod key;
pub mod plan;
pub mod resolve;
pub mod rule;
pub mod smart;
#[cfg(test)]
mod tests;
pub mod value;
pub mod view;
pub mod world;

pub use desk::Models;
pub use error::ModelError;
pub use key::{GroupName, Key, Whom};
pub use rule::Rule;
pub use smart::SmartGroups;
pub use value::{Association, FilesetSpec, GroupSpec, Value};
pub use world::World;
