//! Why somebody gets no certificate, in two messages: one for the peer, one for us.

use std::net::IpAddr;
use std::time::Duration;

use certs::csr::CsrError;
use certs::name::NameError;
use certs::pkcs7::Pkcs7Error;
use protocol::{Code, Fault};
use thiserror::Error;

use crate::authority::AuthorityError;
use crate::ledger::LedgerError;

/// Why somebody gets no certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// We could not issue one.
    #[error("cannot issue a certificate")]
    Authority(#[from] AuthorityError),
    /// The request is not base64, or too long.
    #[error("cannot read the request")]
    Base64(#[from] Pkcs7Error),
    /// The request is malformed.
    #[error("cannot use the request")]
    Csr(#[from] CsrError),
    /// An operator turned this key down.
    #[error("cannot enrol {id}: an operator has denied it")]
    Denied {
        /// The device.
        id: String,
    },
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// The name that is claimed is none.
    #[error("cannot use the name in the request")]
    Name(#[from] NameError),
    /// The request claims no name.
    #[error("cannot tell who asks: want one common name in the request")]
    NoName,
    /// Renewal without a certificate.
    #[error("cannot renew without a client certificate")]
    NotAuthenticated,
    /// The name belongs to another key, or the key to another name.
    #[error("cannot enrol {id}: another key has that name, or that key another name")]
    Taken {
        /// The name that was claimed.
        id: String,
    },
    /// Too many requests from there.
    #[error("cannot answer {who} so often: it may ask again in {} s", wait.as_secs_f32().ceil())]
    TooFast {
        /// Who asks.
        who: IpAddr,
        /// When it may ask again.
        wait: Duration,
    },
    /// It speaks a version of the protocol that the operator allows no more.
    #[error("cannot speak version {speaks} of the protocol: want at least {min}")]
    TooOld {
        /// What it speaks.
        speaks: u32,
        /// What it must.
        min: u32,
    },
    /// Too many requests wait for an operator.
    #[error("cannot queue another request: {limit} wait already")]
    TooMany {
        /// How many may.
        limit: u32,
    },
    /// The device was revoked.
    #[error("cannot enrol {id}: it has been revoked")]
    Revoked {
        /// The device.
        id: String,
    },
    /// The token is not good, or there is none where one is needed.
    #[error("cannot accept the token: it is missing, wrong, used up, expired or for another role")]
    Token,
}

impl EnrolError {
    /// What the peer is told.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Authority(_) | Self::Ledger(_) => Fault::new(
                Code::Internal,
                "the origin cannot issue certificates at the moment",
            ),
            Self::Base64(_) => Fault::new(Code::BadRequest, "want a PKCS#10 request in base64"),
            Self::Csr(CsrError::TooLong) => Fault::new(Code::TooLarge, "the request is too long"),
            Self::Csr(error) => Fault::new(Code::BadRequest, error.to_string()),
            Self::Denied { .. } => Fault::new(Code::Denied, "an operator has denied this request"),
            Self::Name(error) => Fault::new(Code::BadRequest, error.to_string()),
            Self::NoName => Fault::new(Code::BadRequest, self.to_string()),
            Self::NotAuthenticated => Fault::new(
                Code::Forbidden,
                "renewal needs the old certificate: use simpleenroll",
            ),
            Self::Taken { .. } => Fault::new(Code::Conflict, self.to_string()),
            Self::TooFast { .. } => Fault::new(Code::TooMany, "too many requests: slow down"),
            Self::TooOld { speaks, min } => Fault::new(
                Code::TooOld,
                format!(
                    "this program speaks version {speaks} of the protocol, and this deployment \
                     wants at least {min}: upgrade it"
                ),
            ),
            Self::TooMany { .. } => {
                Fault::new(Code::Busy, "too many requests wait for an operator")
            }
            Self::Revoked { .. } => Fault::new(Code::Revoked, "this device has been revoked"),
            // Which of them is not for strangers to know.
            Self::Token => Fault::new(Code::Unauthorised, "the token is missing or not valid"),
        }
    }

    /// When the peer may ask again; `usual` where nothing else is known.
    #[must_use]
    pub fn retry_after(&self, usual: Duration) -> Option<Duration> {
        if let Self::TooFast { wait, .. } = self {
            return Some(*wait);
        }
        self.fault().code.is_retryable().then_some(usual)
    }

    /// Its name in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.fault().code.name()
    }
}
