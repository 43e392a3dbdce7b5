//! Statements: what the origin says, signed, so that it holds wherever it comes from.
//!
//! The envelope is DSSE 1.0.2 in its JSON form. A payload is one of the types below, in
//! deterministic CBOR. The signature covers the payload's type, and every payload names its
//! deployment, so that nothing can be passed off as something else.

mod deployment;
mod envelope;
mod manifest;
mod revision;
mod roster;
mod snapshot;
mod spoken;
mod timestamp;

use std::fmt;

use thiserror::Error;

pub use crate::cbor::CborError;
pub use deployment::{BoosterEntry, Deployment, OriginEntry};
pub use envelope::{EnvelopeError, Signature, seal};
pub use manifest::{
    HealMode, HealRule, InstallMode, Item, Manifest, PathPattern, PatternError, Script, Stage,
    Times,
};
pub use revision::Revision;
pub use roster::RosterHead;
pub use snapshot::{FilesetEntry, RevisionEntry, Snapshot};
pub use spoken::Spoken;
pub use timestamp::{IssuerMinimum, Timestamp};

use crate::digest::Digest;

/// The most bytes that an envelope adds to its payload beyond base64's third: signature, chain and
/// JSON.
pub const ENVELOPE_EXTRA_BYTES_MAX: usize = 64 << 10;

/// Something that the origin can state.
pub trait Payload: Sized {
    /// The media type, which the signature covers.
    const TYPE: &'static str;
    /// The most bytes of its CBOR form.
    const BYTES_MAX: usize;

    /// The most bytes of an envelope that holds one.
    const ENVELOPE_BYTES_MAX: usize = Self::BYTES_MAX / 3 * 4 + 4 + ENVELOPE_EXTRA_BYTES_MAX;

    /// The deployment that it belongs to.
    fn deployment(&self) -> &str;

    /// At which time its signer's certificate is judged, in Unix seconds; none for the present.
    fn judged_at(&self) -> Option<i64>;

    /// The CBOR form.
    fn encode(&self) -> Vec<u8>;

    /// Reads the CBOR form.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not exactly one such payload in deterministic form and within limits.
    fn decode(bytes: &[u8]) -> Result<Self, CborError>;
}

/// Decides whether a signature is the origin's.
///
/// This room knows no certificates; who does hands itself in.
pub trait Judge {
    /// The deployment whose statements count.
    fn deployment(&self) -> &str;

    /// Judges `signature` over `message` by the certificate `chain` (DER, signer first), at the
    /// time `at` in Unix seconds.
    ///
    /// # Errors
    ///
    /// Says why it does not count.
    fn judge(
        &self,
        message: &[u8],
        signature: &[u8],
        chain: &[Vec<u8>],
        at: i64,
    ) -> Result<(), JudgeError>;
}

/// Why a signature does not count.
#[derive(Debug, Error)]
#[error("cannot trust its signer")]
pub struct JudgeError {
    /// What the judge found.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A payload that is known to be the origin's word.
#[derive(Clone, Eq, PartialEq)]
pub struct Statement<T> {
    payload: T,
    digest: Digest,
}

impl<T: Payload> Statement<T> {
    /// Takes an envelope from somewhere untrusted, if `judge` finds that it is the origin's word.
    ///
    /// `now` (Unix seconds) counts only for payloads that are judged at the present.
    ///
    /// # Errors
    ///
    /// Names the check that failed.
    pub fn open(envelope: &[u8], judge: &impl Judge, now: i64) -> Result<Self, StatementError> {
        let failed = |fault| StatementError {
            kind: T::TYPE,
            fault,
        };
        let opened = envelope::open(envelope, T::TYPE, T::BYTES_MAX)
            .map_err(|source| failed(Fault::Envelope { source }))?;
        // The payload says at which time to judge, so it is read first: within bounds, and nothing
        // of it is used before the verdict.
        let payload =
            T::decode(&opened.payload).map_err(|source| failed(Fault::Payload { source }))?;
        let at = payload.judged_at().unwrap_or(now);
        judge
            .judge(
                &opened.message(T::TYPE),
                &opened.signature,
                &opened.chain,
                at,
            )
            .map_err(|source| failed(Fault::Signer { source }))?;
        if payload.deployment() != judge.deployment() {
            return Err(failed(Fault::Deployment));
        }
        Ok(Self {
            payload,
            digest: Digest::of(envelope),
        })
    }

    /// The same, if the envelope is also the one called `wanted`.
    ///
    /// # Errors
    ///
    /// Names the check that failed.
    pub fn open_named(
        envelope: &[u8],
        wanted: Digest,
        judge: &impl Judge,
        now: i64,
    ) -> Result<Self, StatementError> {
        let got = Digest::of(envelope);
        if got == wanted {
            Self::open(envelope, judge, now)
        } else {
            Err(StatementError {
                kind: T::TYPE,
                fault: Fault::Digest { wanted, got },
            })
        }
    }

    /// The name of the statement: the digest of its envelope.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it says.
    pub fn into_payload(self) -> T {
        self.payload
    }
}

impl<T> std::ops::Deref for Statement<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.payload
    }
}

impl<T: fmt::Debug> fmt::Debug for Statement<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.payload.fmt(f)
    }
}

/// A statement that does not count.
#[derive(Debug, Error)]
#[error("statement check failed ({kind})")]
pub struct StatementError {
    kind: &'static str,
    #[source]
    fault: Fault,
}

impl StatementError {
    /// Which check failed.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

/// The checks that a statement can fail.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Fault {
    /// It belongs to another deployment.
    #[error("it belongs to another deployment")]
    Deployment,
    /// It is another statement than the one asked for.
    #[error("want {wanted}, got {got}")]
    Digest {
        /// Its name where it was listed.
        wanted: Digest,
        /// The name of what came.
        got: Digest,
    },
    /// The envelope is none.
    #[error("cannot read the envelope")]
    Envelope {
        /// Why.
        source: EnvelopeError,
    },
    /// The payload is none.
    #[error("cannot read the payload")]
    Payload {
        /// Why.
        source: CborError,
    },
    /// The signature does not count.
    #[error("the signature does not count")]
    Signer {
        /// Why.
        source: JudgeError,
    },
}

#[cfg(test)]
mod tests;
