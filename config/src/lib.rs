//! Settings: a file is read into types that cannot be wrong.
//!
//! Each program owns its `Config` and writes it as a public type with private fields, made from a
//! private twin (`#[serde(try_from = "Raw")]`): the twin is what an operator writes, and a rule
//! that spans keys is checked where the one becomes the other. This room gives them the loader,
//! the units and the error that names file, line, key and what was expected.

mod load;
mod unit;

pub use load::{FILE_BYTES_MAX, LoadError, load, parse};
pub use unit::{Bytes, HostPort, Listen, Period, Rate, UnitError};
