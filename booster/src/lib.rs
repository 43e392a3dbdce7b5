//! The branch's copy: fetches what the origin publishes once, checks it, keeps it, serves it.
//!
//! It signs nothing, and serves no byte that it has not checked.

pub mod cache;
pub mod metrics;
#[cfg(test)]
mod testing;
pub mod upstream;
