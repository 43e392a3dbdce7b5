//! Faults: refusals as they travel, safe for the peer to read and stable for it to match on.

use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The media type of a fault (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A refusal as it travels. What the log is told is another message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// What kind of refusal.
    pub code: Code,
    /// A sentence for a person at the other end.
    pub detail: String,
}

/// The kinds of refusal. Their names are a promise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// The request breaks a rule.
    BadRequest,
    /// Too much to do; come back later.
    Busy,
    /// Another key has that id, or another publish that name.
    Conflict,
    /// An operator said no, once and for all.
    Denied,
    /// That party may not do that.
    Forbidden,
    /// A bug or a broken disk at our end.
    Internal,
    /// The route knows no such method.
    MethodNotAllowed,
    /// Nothing of that name is here.
    NotFound,
    /// The range lies outside.
    RangeNotSatisfiable,
    /// The certificate has been revoked.
    Revoked,
    /// Too large.
    TooLarge,
    /// Too many requests from there; come back later.
    TooMany,
    /// It speaks a version of the protocol that is too old.
    TooOld,
    /// The token is unknown, used up or past its end.
    Unauthorised,
    /// A fileset that does not exist.
    UnknownFileset,
    /// A pack that no locator of the fileset names.
    UnknownPack,
    /// What it would be fetched from cannot be reached.
    UpstreamUnavailable,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::Busy,
        Self::Conflict,
        Self::Denied,
        Self::Forbidden,
        Self::Internal,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::RangeNotSatisfiable,
        Self::Revoked,
        Self::TooLarge,
        Self::TooMany,
        Self::TooOld,
        Self::Unauthorised,
        Self::UnknownFileset,
        Self::UnknownPack,
        Self::UpstreamUnavailable,
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::Busy => "busy",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotFound => "not-found",
            Self::RangeNotSatisfiable => "range-not-satisfiable",
            Self::Revoked => "revoked",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
            Self::TooOld => "too-old",
            Self::Unauthorised => "unauthorised",
            Self::UnknownFileset => "unknown-fileset",
            Self::UnknownPack => "unknown-pack",
            Self::UpstreamUnavailable => "upstream-unavailable",
        }
    }

    /// The status that carries it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Denied | Self::Forbidden | Self::Revoked | Self::TooOld => StatusCode::FORBIDDEN,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound | Self::UnknownFileset | Self::UnknownPack => StatusCode::NOT_FOUND,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::UpstreamUnavailable => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether the same request may succeed later, at the same party.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Busy | Self::Internal | Self::TooMany | Self::UpstreamUnavailable => true,
            Self::BadRequest
            | Self::Conflict
            | Self::Denied
            | Self::Forbidden
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::RangeNotSatisfiable
            | Self::Revoked
            | Self::TooLarge
            | Self::TooOld
            | Self::Unauthorised
            | Self::UnknownFileset
            | Self::UnknownPack => false,
        }
    }
}

impl Fault {
    /// A refusal of that kind, with a sentence for the peer.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }

    /// The body that carries it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            problem: format!("urn:larder:fault:{}", self.code.name()),
            status: self.code.status().as_u16(),
            code: self.code.name().to_owned(),
            detail: self.detail.clone(),
        };
        serde_json::to_vec(&wire).expect("strings and numbers always encode")
    }

    /// Reads a body; none if it is no fault of ours.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > crate::FAULT_BYTES_MAX {
            return None;
        }
        let wire: Wire = serde_json::from_slice(bytes).ok()?;
        let code = Code::ALL
            .into_iter()
            .find(|code| code.name() == wire.code)?;
        Some(Self {
            code,
            detail: wire.detail,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code.name())
    }
}

#[derive(Deserialize, Serialize)]
struct Wire {
    #[serde(rename = "type")]
    problem: String,
    status: u16,
    code: String,
    detail: String,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_wire_does_not_drift() {
        let mut lines = String::new();
        for code in Code::ALL {
            let body = Fault::new(code, "d").encode();
            assert_eq!(Fault::decode(&body), Some(Fault::new(code, "d")));
            lines += &format!(
                "{} {}\n",
                code.is_retryable(),
                String::from_utf8(body).unwrap()
            );
        }
        expect![[r#"
            false {"type":"urn:larder:fault:bad-request","status":400,"code":"bad-request","detail":"d"}
            true {"type":"urn:larder:fault:busy","status":503,"code":"busy","detail":"d"}
            false {"type":"urn:larder:fault:conflict","status":409,"code":"conflict","detail":"d"}
            false {"type":"urn:larder:fault:denied","status":403,"code":"denied","detail":"d"}
            false {"type":"urn:larder:fault:forbidden","status":403,"code":"forbidden","detail":"d"}
            true {"type":"urn:larder:fault:internal","status":500,"code":"internal","detail":"d"}
            false {"type":"urn:larder:fault:method-not-allowed","status":405,"code":"method-not-allowed","detail":"d"}
            false {"type":"urn:larder:fault:not-found","status":404,"code":"not-found","detail":"d"}
            false {"type":"urn:larder:fault:range-not-satisfiable","status":416,"code":"range-not-satisfiable","detail":"d"}
            false {"type":"urn:larder:fault:revoked","status":403,"code":"revoked","detail":"d"}
            false {"type":"urn:larder:fault:too-large","status":413,"code":"too-large","detail":"d"}
            true {"type":"urn:larder:fault:too-many","status":429,"code":"too-many","detail":"d"}
            false {"type":"urn:larder:fault:too-old","status":403,"code":"too-old","detail":"d"}
            false {"type":"urn:larder:fault:unauthorised","status":401,"code":"unauthorised","detail":"d"}
            false {"type":"urn:larder:fault:unknown-fileset","status":404,"code":"unknown-fileset","detail":"d"}
            false {"type":"urn:larder:fault:unknown-pack","status":404,"code":"unknown-pack","detail":"d"}
            true {"type":"urn:larder:fault:upstream-unavailable","status":502,"code":"upstream-unavailable","detail":"d"}
        "#]].assert_eq(&lines);
    }

    #[test]
    fn what_is_no_fault_of_ours_is_none() {
        for body in [
            &b""[..],
            b"{}",
            b"<html>",
            br#"{"type":"","status":1,"code":"x","detail":""}"#,
        ] {
            assert_eq!(Fault::decode(body), None);
        }
        assert_eq!(Fault::decode(&vec![b' '; crate::FAULT_BYTES_MAX + 1]), None);
    }
}
