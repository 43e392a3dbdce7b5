//! What the parties say: routes, messages, faults and limits, as bytes and as types.
//!
//! No I/O, no async, no policy. The bytes are pinned by golden tests; `docs/protocol.md` describes
//! them for whoever writes a second client.

mod check_in;
mod fault;
mod hello;
mod inventory;
mod join;
mod range;
mod relayed;
pub mod report;
mod route;

pub use check_in::{
    BoosterAddresses, CheckIn, CheckInAnswer, Command, CommandKind, CurrentManifest, FilesetResult,
    FilesetState, Held, SourceBytes,
};
pub use fault::{Code, Fault, PROBLEM_JSON};
pub use hello::Hello;
pub use inventory::{Disk, FilesetHeld, Inventory, Software, System};
pub use join::{Join, ParseJoinError, Token};
pub use range::{ByteRange, RangeError};
pub use relayed::{Relayed, RelayedAnswer, RelayedAnswers};
pub use report::{Reported, Reports};
pub use route::{EnrolRole, Route, RouteError};

/// The version of the protocol that this release speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// The header in which a caller states it. One who states none speaks version 1.
pub const VERSION_HEADER: &str = "larder-protocol";
/// The most bytes of a path and query that a listener looks at.
pub const TARGET_BYTES_MAX: usize = 512;
/// The most bytes of a log that a device shows.
pub const LOG_BYTES_MAX: usize = 256 << 10;
/// The most bytes of a certificate request, or of any other short body sent to an enrolment listener.
pub const ENROL_BODY_BYTES_MAX: usize = 64 << 10;
/// The most bytes of a fault's body.
pub const FAULT_BYTES_MAX: usize = 4 << 10;
/// The most bytes of a hello.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// The most bytes of a CRL: a million entries take 35 MB.
pub const CRL_BYTES_MAX: usize = 64 << 20;
/// How old a timestamp may be before a booster asks for a newer one, in seconds.
pub const TIMESTAMP_FRESH_SECONDS: i64 = 5;
/// `Cache-Control` of what never changes.
pub const CACHE_IMMUTABLE: &str = "public, max-age=31536000, immutable, no-transform";
/// `Cache-Control` of the timestamp, the one thing that changes by itself.
pub const CACHE_SHORT: &str = "max-age=5";
/// Media type of a statement's envelope.
pub const STATEMENT_TYPE: &str = "application/vnd.larder.dsse+json";
/// Media type of a pack.
pub const PACK_TYPE: &str = "application/vnd.larder.pack";
/// Media type of an index root.
pub const ROOT_TYPE: &str = "application/vnd.larder.index-root+cbor";
/// Media type of a device's entry in a roster, with its proof.
pub const PROOF_TYPE: &str = "application/vnd.larder.roster-proof+cbor";
/// Media type of a roster's list of entries.
pub const ROSTER_TYPE: &str = "application/vnd.larder.roster-list+cbor";
/// How old the head of a roster may be before a device asks the origin, in seconds.
pub const ROSTER_FRESH_SECONDS: i64 = 1800;
/// Media type of a CRL (RFC 2585).
pub const CRL_TYPE: &str = "application/pkix-crl";
