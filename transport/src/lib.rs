//! How bytes travel: mutual TLS listeners and connectors, HTTP over them, typed calls, retry.
//!
//! This room never knows which party it serves: what to answer, whom to trust and how long to
//! wait are handed in. Every connection has an owner, every wait a deadline, every body a bound.

pub mod admin;
mod body;
pub mod call;
mod connect;
pub mod enrol;
mod hear;
mod io;
mod judge;
pub mod listen;
mod places;
pub mod refusals;
pub mod relay;
pub mod respond;
pub mod retry;
pub mod source;

pub use body::{Body, BoxError, ReadBodyError, read_body};
pub use call::{CallError, Meter};
pub use connect::{Pace, Stranger};
pub use hear::hear;
pub use io::Traffic;
pub use judge::{ContentJudge, DeviceJudge};
pub use listen::{Handshake, HandshakeSink, ListenSettings, Listener, Refused, Session};
pub use refusals::Refusals;
pub use relay::{Relay, RelaySettings};
pub use retry::Backoff;
pub use source::{Fetched, PackBody, Source, SourceSettings};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
