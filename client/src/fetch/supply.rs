//! What a pull asks of a source, whoever that is: the network, or a test's memory.

use std::error::Error;
use std::ops::Range;

use bytes::Bytes;
use content::index::ROOT_BYTES_MAX;
use content::locator::Locator;
use content::statement::{Deployment, Payload as _, Revision, Snapshot, Timestamp};
use content::{Digest, FilesetName, PackId};
use protocol::Code;
use protocol::report::BypassReason;
use thiserror::Error;

/// Something small enough to be held in memory, all of which a source can be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ask {
    /// The CRL of an issuer: SHA-256 of its public key info.
    Crl([u8; 32]),
    /// The deployment document.
    Deployment,
    /// A locator.
    Locator(Digest),
    /// A statement of a revision.
    Revision(Digest),
    /// An index root.
    Root(Digest),
    /// A snapshot.
    Snapshot(Digest),
    /// The timestamp.
    Timestamp,
}

impl Ask {
    /// The most bytes of the answer.
    #[must_use]
    pub(crate) fn bytes_max(self) -> usize {
        match self {
            Self::Crl(_) => protocol::CRL_BYTES_MAX,
            Self::Deployment => Deployment::ENVELOPE_BYTES_MAX,
            Self::Locator(_) => Locator::ENVELOPE_BYTES_MAX,
            Self::Revision(_) => Revision::ENVELOPE_BYTES_MAX,
            Self::Root(_) => ROOT_BYTES_MAX,
            Self::Snapshot(_) => Snapshot::ENVELOPE_BYTES_MAX,
            Self::Timestamp => Timestamp::ENVELOPE_BYTES_MAX,
        }
    }

    /// What it is, for people.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crl(_) => "revocation list",
            Self::Deployment => "deployment document",
            Self::Locator(_) => "locator",
            Self::Revision(_) => "revision statement",
            Self::Root(_) => "index root",
            Self::Snapshot(_) => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }
}

/// A party that content can be had from. Nothing that it says is believed unchecked.
pub(crate) trait Supply: Send + Sync + 'static {
    /// A pack, as it arrives.
    type Body: Body;

    /// Its name: role and id.
    fn name(&self) -> &str;

    /// Asks for something small, of at most [`Ask::bytes_max`] bytes. Gives up by itself once
    /// nothing comes any more.
    fn get(&self, ask: Ask) -> impl Future<Output = Result<Vec<u8>, SupplyError>> + Send;

    /// Asks for a pack, or for these bytes of it. One that was `doubted`, since what came of it was
    /// wrong, is to be looked at again first.
    fn pack(
        &self,
        fileset: &FilesetName,
        id: PackId,
        range: Option<Range<u64>>,
        doubted: bool,
    ) -> impl Future<Output = Result<Self::Body, SupplyError>> + Send;
}

/// Bytes that arrive piece by piece.
pub(crate) trait Body: Send + 'static {
    /// The next piece, none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, SupplyError>> + Send;
}

/// A source that did not answer, or refused to.
#[derive(Debug, Error)]
#[error("cannot fetch from it")]
pub(crate) struct SupplyError {
    /// Whether the same request may succeed later.
    pub(crate) is_retryable: bool,
    /// The refusal, if it was one of ours.
    pub(crate) code: Option<Code>,
    /// The check that its answer failed, if it gave one that is no answer.
    pub(crate) check: Option<&'static str>,
    /// Why, in a word.
    pub(crate) reason: BypassReason,
    /// What happened.
    #[source]
    pub(crate) source: Box<dyn Error + Send + Sync>,
}
