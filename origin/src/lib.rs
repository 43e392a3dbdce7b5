//! The origin: signs certificates and revocation lists, keeps the ledger of devices, publishes
//! filesets and answers boosters and clients. It never opens a connection to a booster.

pub mod admin;
pub mod api;
pub mod audit;
pub mod authority;
pub mod catalogue;
pub mod check_in;
pub mod cli;
pub mod config;
pub mod documents;
pub mod enrol;
pub mod fleet;
pub mod gc;
pub mod inventory;
pub mod ledger;
pub mod manifests;
pub mod metrics;
pub mod model;
pub mod publish;
pub mod published;
pub mod reports;
pub mod restore;
mod server;
pub mod stock;
#[cfg(test)]
mod testing;

pub use server::{Bound, Origin, StartError, reached_at};

/// The ledger's file within the data folder.
pub const LEDGER_FILE: &str = "larder.db";
