//! What can come of a call, and what calls cost.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use certs::RefusalReason;
use certs::tls::Evidence;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use protocol::{Code, Fault};
use rustls::AlertDescription;
use thiserror::Error;

use crate::body::BoxError;
use crate::source::text;

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
        /// When it may be asked again, from 1 s to 1 h, if it said so.
        retry_after: Option<Duration>,
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
            Self::Fault { fault, .. } => fault.code.is_retryable(),
            Self::BadResponse { .. }
            | Self::Distrusted { .. }
            | Self::Refused { .. }
            | Self::Tls { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// How long to wait before the same is asked again, if all that is wrong is that too many ask:
    /// what the server said, or a minute. From 1 s to 1 h.
    #[must_use]
    pub fn when_less_busy(&self) -> Option<Duration> {
        match self {
            Self::Fault { fault, retry_after }
                if matches!(fault.code, Code::Busy | Code::TooMany) =>
            {
                Some(retry_after.unwrap_or(RETRY_AFTER_DEFAULT))
            }
            Self::BadResponse { .. }
            | Self::Broken { .. }
            | Self::Distrusted { .. }
            | Self::Fault { .. }
            | Self::Refused { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::TooLong { .. }
            | Self::Unreachable { .. } => None,
        }
    }

    pub(crate) fn bad(what: impl Into<String>) -> Self {
        Self::BadResponse { what: what.into() }
    }

    /// What an answer means that is none, with this `body`.
    pub(crate) fn of_status(status: StatusCode, body: &[u8], wait: Option<Duration>) -> Self {
        Fault::decode(body).map_or_else(
            || Self::bad(format!("status {status}")),
            |fault| Self::Fault {
                fault,
                retry_after: wait,
            },
        )
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

/// What `Retry-After` asks for: seconds, within reason. A date, which nobody here sends, means
/// nothing.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = text(headers, &RETRY_AFTER)?.parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
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

/// When to ask again if nobody has said.
pub(crate) const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(60);
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

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
            retry_after: None,
        };
        assert!(CallError::Timeout { step: "x" }.is_retryable());
        assert!(fault(Code::Busy).is_retryable());
        assert!(!fault(Code::NotFound).is_retryable());
        assert!(!CallError::bad("x").is_retryable());
        let minute = Some(RETRY_AFTER_DEFAULT);
        assert_eq!(fault(Code::TooMany).when_less_busy(), minute);
        assert_eq!(fault(Code::Internal).when_less_busy(), None);
        assert!(
            !CallError::Refused {
                reason: RefusalReason::Revoked
            }
            .is_retryable()
        );
    }

    #[test]
    fn a_wait_that_is_asked_for_is_within_reason() {
        let check = |field: &str, seconds: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, field.parse().unwrap());
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs));
        };
        check("7", Some(7));
        check("0", Some(1));
        check("86400", Some(3600));
        check("-1", None);
        check("Sun, 06 Nov 1994 08:49:37 GMT", None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
