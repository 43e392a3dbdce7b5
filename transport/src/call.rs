//! What can come of a call, and what calls cost.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use certs::RefusalReason;
use certs::tls::Evidence;
use protocol::Fault;
use rustls::AlertDescription;
use thiserror::Error;

use crate::body::BoxError;

/// Why a call came to nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The answer is not what was asked for.
    #[error("cannot use the answer: {what}")]
    BadResponse {
        /// What is wrong with it.
        what: String,
    },
    /// The connection broke in the middle.
    #[error("cannot go on: the connection broke")]
    Broken {
        /// Why.
        source: BoxError,
    },
    /// We turned from the server: it is not who it should be, or may not be spoken to.
    #[error("cannot trust the server: {reason}")]
    Distrusted {
        /// Why.
        reason: RefusalReason,
        /// The certificate that it showed.
        evidence: Option<Box<Evidence>>,
    },
    /// The server understood, and said no.
    #[error("the server refuses: {fault}")]
    Fault {
        /// In these words.
        fault: Fault,
    },
    /// The server turned from us in the handshake, or put us out.
    #[error("cannot get in: the server refuses our certificate ({reason})")]
    Refused {
        /// What its alert says. Only a hint: a server that cannot tell says unknown issuer.
        reason: RefusalReason,
    },
    /// It took too long.
    #[error("cannot wait any longer to {step}")]
    Timeout {
        /// What took too long.
        step: &'static str,
    },
    /// TLS could not be set up at all.
    #[error("cannot speak TLS with the server")]
    Tls {
        /// Why not.
        source: io::Error,
    },
    /// The answer is longer than allowed.
    #[error("cannot take an answer of more than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: u64,
    },
    /// Nobody answers at any of its addresses.
    #[error("cannot reach {addresses}")]
    Unreachable {
        /// Those that were tried.
        addresses: String,
        /// What was wrong with the last.
        source: io::Error,
    },
}

impl CallError {
    /// Whether the same call to the same party may succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Timeout { .. } | Self::Unreachable { .. } => true,
            Self::Fault { fault } => fault.code.is_retryable(),
            Self::BadResponse { .. }
            | Self::Distrusted { .. }
            | Self::Refused { .. }
            | Self::Tls { .. }
            | Self::TooLong { .. } => false,
        }
    }

    pub(crate) fn bad(what: impl Into<String>) -> Self {
        Self::BadResponse { what: what.into() }
    }

    /// Finds out what a broken connection means. `alert` is what the stream below has seen.
    pub(crate) fn of_broken(error: BoxError, alert: Option<AlertDescription>) -> Self {
        match alert.or_else(|| alert_in(error.as_ref())) {
            Some(alert) => Self::Refused {
                reason: RefusalReason::of_alert(alert),
            },
            None => Self::Broken { source: error },
        }
    }
}

/// The alert in a chain of errors, if the peer sent one that ends the connection.
pub(crate) fn alert_in(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref() {
            return Some(*alert);
        }
        // An I/O error names what it wraps not as its source but as itself.
        if let Some(inner) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            next = Some(inner);
        } else {
            next = error.source();
        }
    }
    None
}

/// What the calls to one party have cost. Shared; read it at any time.
#[derive(Debug, Default)]
pub struct Meter {
    /// Calls begun.
    pub calls: AtomicU64,
    /// Calls that came to nothing.
    pub failures: AtomicU64,
    /// Connections opened.
    pub connections: AtomicU64,
    /// Bytes of packs received.
    pub pack_bytes: AtomicU64,
    /// Bytes of other answers received.
    pub other_bytes: AtomicU64,
}

impl Meter {
    /// Bytes of answers received, of every kind.
    pub fn bytes(&self) -> u64 {
        self.pack_bytes.load(Ordering::Relaxed) + self.other_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Code;

    #[test]
    fn an_alert_is_found_however_deep_it_lies() {
        let alert = AlertDescription::CertificateRevoked;
        let tls = rustls::Error::AlertReceived(alert);
        let inner = io::Error::new(io::ErrorKind::InvalidData, tls);
        let outer = io::Error::other(inner);
        assert_eq!(alert_in(&outer), Some(alert));
        assert_eq!(alert_in(&io::Error::other("else")), None);
        let error = CallError::of_broken(Box::new(outer), None);
        assert!(matches!(
            error,
            CallError::Refused {
                reason: RefusalReason::Revoked
            }
        ));
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        let fault = |code| CallError::Fault {
            fault: Fault::new(code, "d"),
        };
        assert!(CallError::Timeout { step: "x" }.is_retryable());
        assert!(fault(Code::Busy).is_retryable());
        assert!(!fault(Code::NotFound).is_retryable());
        assert!(!CallError::bad("x").is_retryable());
        assert!(
            !CallError::Refused {
                reason: RefusalReason::Revoked
            }
            .is_retryable()
        );
    }
}
