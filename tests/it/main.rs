//! The whole system on loopback, in one test binary.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod agent;
mod agent_kills;
mod branch;
mod chain;
mod clocks;
mod coalesce;
mod fleet;
mod heal;
mod heal_modes;
mod herd;
mod kills;
mod lies;
mod memory;
mod offline;
mod openapi;
mod relay;
mod reports;
mod rot;
mod rotation;
mod settings;
mod stolen;
mod tidy;
mod trust;
mod wan;
