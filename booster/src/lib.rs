//! The branch's copy: fetches what the origin publishes once, checks it, keeps it, serves it.
//!
//! It signs nothing, and serves no byte that it has not checked.

pub mod admin;
mod api;
pub mod cache;
pub mod catalogue;
mod check_in;
pub mod cli;
mod clock;
pub mod config;
pub mod metrics;
pub mod offline;
pub mod pins;
mod prefetch;
mod renewal;
mod revocation;
mod roster;
pub mod server;
mod single;
pub mod status;
#[cfg(test)]
mod testing;
pub mod upstream;
pub mod wan;

pub use config::Config;
pub use server::{BindError, Booster, Bound, Counted};
