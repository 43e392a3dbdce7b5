//! What the origin answers over HTTP: on the enrolment listener (EST, and what authenticates
//! itself) and on the content listener (mutual TLS).

pub mod content;
mod public;
pub(crate) mod reply;
mod serve;
mod statement;

pub use public::{answer_crl, answer_crls, answer_deployment, answer_hello};
pub use reply::{Body, Reply, UnderWay, document, fault, full, too_many};
pub use serve::{Api, ContentRequest, EnrolRequest};
