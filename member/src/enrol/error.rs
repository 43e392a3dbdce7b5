//! Why a member could not enrol.

use std::time::Duration;

use protocol::Code;
use thiserror::Error;
use transport::CallError;

use crate::data::DataError;
use crate::identity::IdentityError;
use crate::standing::StandingError;

/// Why a member could not enrol.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// A call came to nothing.
    #[error("cannot enrol")]
    Call {
        /// Why.
        source: CallError,
    },
    /// No request can be made.
    #[error("cannot make a certificate request")]
    Csr {
        /// Why.
        source: certs::csr::MakeCsrError,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An operator said no.
    #[error("cannot enrol: an operator has denied this request")]
    Denied {
        /// In these words.
        source: CallError,
    },
    /// Nobody has shown the pinned root.
    #[error("cannot enrol: nothing secret has been sent")]
    FirstContact {
        /// Why.
        source: transport::enrol::EnrolError,
    },
    /// The host name is no id.
    #[error("cannot use the host name {host:?} as an id: choose one with --id, of a-z 0-9 -")]
    HostName {
        /// What it is.
        host: String,
    },
    /// What enrolment made cannot be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Issued {
        /// Why not.
        source: transport::enrol::EnrolError,
    },
    /// This data folder belongs to another deployment.
    #[error(
        "cannot enrol: this data folder belongs to deployment {deployment}; use another with --data"
    )]
    OtherDeployment {
        /// Which.
        deployment: String,
    },
    /// The certificate is for somebody else.
    #[error("cannot use the certificate that was issued: it is for {got}")]
    OtherName {
        /// For whom.
        got: String,
    },
    /// Nobody has approved yet.
    #[error("cannot wait any longer for an operator to approve {id}: run the same command again")]
    Pending {
        /// What it asked to be called.
        id: String,
    },
    /// An operator has revoked whoever has this key.
    #[error(
        "cannot enrol: an operator has revoked this key; with another, from another data folder, \
         it is let in if an operator approves"
    )]
    Revoked {
        /// In the origin's words.
        source: CallError,
    },
    /// The server may not be spoken to.
    #[error("cannot trust the server: {reason}; nothing secret has been sent")]
    Server {
        /// Why not.
        reason: certs::RefusalReason,
    },
    /// The origin's lists or document cannot be had.
    #[error("cannot enrol: nothing secret has been sent")]
    Standing(#[from] StandingError),
    /// Another key has that name.
    #[error("cannot enrol under this name: choose another with --id")]
    Taken {
        /// In the origin's words.
        source: CallError,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        source: certs::tls::TlsError,
    },
    /// The token is unknown, used up or past its end.
    #[error("cannot enrol with this join string: ask for a new one")]
    Token {
        /// In the origin's words.
        source: CallError,
    },
}

impl EnrolError {
    /// How long to wait before the same is tried again, if too many ask at the moment.
    pub(super) fn when_less_busy(&self) -> Option<Duration> {
        if let Self::Call { source }
        | Self::FirstContact {
            source: transport::enrol::EnrolError::Call { source },
        }
        | Self::Standing(StandingError::Call(source)) = self
        {
            source.when_less_busy()
        } else {
            None
        }
    }

    /// Whether nothing is known but that nobody has answered.
    pub(super) fn is_of_the_way(&self) -> bool {
        if let Self::Call { source }
        | Self::FirstContact {
            source: transport::enrol::EnrolError::Call { source },
        }
        | Self::Standing(StandingError::Call(source)) = self
        {
            source.is_retryable()
        } else {
            false
        }
    }
}

/// Tells what can be told better than the call itself does.
pub(super) fn refused(source: CallError) -> EnrolError {
    let code = if let CallError::Fault { fault, .. } = &source {
        Some(fault.code)
    } else {
        None
    };
    if code == Some(Code::Denied) {
        EnrolError::Denied { source }
    } else if code == Some(Code::Conflict) {
        EnrolError::Taken { source }
    } else if code == Some(Code::Revoked) {
        EnrolError::Revoked { source }
    } else if code == Some(Code::Unauthorised) {
        EnrolError::Token { source }
    } else {
        EnrolError::Call { source }
    }
}
