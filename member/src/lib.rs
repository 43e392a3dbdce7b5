//! Membership: how a booster or a client belongs to a deployment, and how it stays so.
//!
//! Both enrol with a key of their own, keep certificate, roots, revocation lists and marks in a
//! folder, renew the certificate, and judge by a clock that never falls behind what the origin has
//! vouched for. What they do with it is theirs; how it is done is the same, and stands here once.
//!
//! ```text
//! DATA/lock                                                     one program at a time
//! DATA/identity/  key.pem cert.pem roots.pem cas.pem join.json  0700, files 0600
//! DATA/state/     marks <issuer>.crl timestamp.json deployment.json clock.json
//! ```

mod blocking;
pub mod courier;
pub mod data;
pub mod enrol;
pub mod identity;
mod kind;
pub mod open;
pub mod renew;
pub mod roots;
pub mod skew;
pub mod standing;
pub mod state;
#[cfg(test)]
mod testing;

pub use courier::Courier;
pub use data::{Data, DataError, Lock};
pub use enrol::{EnrolError, EnrolNote, EnrolReport, EnrolRequest, enrol};
pub use identity::{Identity, IdentityError, Joined};
pub use kind::Kind;
pub use open::{Glance, Member, OpenError};
pub use renew::{Due, Proof, RenewError, renew};
pub use skew::{ClockStatus, Skew};
pub use standing::StandingError;
pub use state::{State, StateError};
