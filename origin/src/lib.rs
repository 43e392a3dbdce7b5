//! The origin: signs certificates and revocation lists, keeps the ledger of devices, publishes
//! filesets and answers boosters and clients. It never opens a connection to a booster.

pub mod admin;
pub mod api;
pub mod authority;
pub mod config;
pub mod documents;
pub mod enrol;
pub mod fleet;
pub mod ledger;
pub mod metrics;
pub mod published;
pub mod restore;
#[cfg(test)]
mod testing;

/// The ledger's file within the data folder.
pub const LEDGER_FILE: &str = "larder.db";
