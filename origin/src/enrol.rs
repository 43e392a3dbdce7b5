//! Enrolment: EST (RFC 7030) as far as we speak it. Who asks, with which key and token, becomes a
//! certificate, a place in the queue of an operator, or a refusal.

mod admit;
#[cfg(test)]
mod cuts;
mod decide;
mod est;
mod limits;
mod refusal;
mod rekeys;
#[cfg(test)]
mod tests;

pub use decide::{Decision, Enrolment, Request};
pub(crate) use est::retry_after;
pub use est::{answer_ca_certs, answer_enrol, answer_reenrol};
pub use refusal::EnrolError;
#[cfg(test)]
pub(crate) use rekeys::DELAY as SUPERSEDE_DELAY;
