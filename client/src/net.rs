//! Sources on the network.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use certs::IssuerId;
use content::{FilesetName, PackId};
use protocol::Code;
use protocol::report::BypassReason;
use transport::source::CallLimits;
use transport::{CallError, Fetched, PackBody, Source};

use crate::fetch::supply::{Ask, Body, Supply, SupplyError};

/// A booster or the origin.
#[derive(Debug)]
pub(crate) struct Net {
    name: String,
    source: Source,
}

impl Net {
    /// Calls to `source`, called `name`: role and id.
    pub(crate) fn new(name: String, source: Source) -> Self {
        Self { name, source }
    }
}

impl Supply for Net {
    type Body = PackBody;

    fn name(&self) -> &str {
        &self.name
    }

    async fn get(&self, ask: Ask) -> Result<Vec<u8>, SupplyError> {
        let source = &self.source;
        let fetched = match ask {
            Ask::Crl(issuer) => source.crl(IssuerId::from_bytes(issuer), None).await,
            Ask::Deployment => source.deployment(None).await,
            Ask::Snapshot(digest) => source.snapshot(&digest).await.map(new),
            Ask::Timestamp => source.timestamp(None).await,
            Ask::Locator(digest) | Ask::Revision(digest) | Ask::Root(digest) => {
                source.statement(&digest, ask.bytes_max()).await.map(new)
            }
        };
        match fetched.map_err(failed)? {
            Fetched::New { bytes, .. } => Ok(bytes.into()),
            Fetched::Unchanged => Err(SupplyError {
                is_retryable: false,
                code: None,
                check: Some("answer"),
                reason: BypassReason::BadContent,
                source: "it says that nothing has changed, unasked".into(),
            }),
        }
    }

    async fn pack(
        &self,
        fileset: &FilesetName,
        id: PackId,
        range: Option<Range<u64>>,
        doubted: bool,
    ) -> Result<PackBody, SupplyError> {
        let pack = self.source.pack(fileset, &id, range, doubted);
        pack.await.map_err(failed)
    }
}

impl Body for PackBody {
    async fn next(&mut self) -> Result<Option<Bytes>, SupplyError> {
        Self::next(self).await.map_err(failed)
    }
}

/// How long the steps of a call may take. Shorter than usual to connect: there is another source.
pub(crate) fn limits() -> CallLimits {
    CallLimits {
        connect_timeout: Duration::from_secs(5),
        ..CallLimits::default()
    }
}

fn new(bytes: Bytes) -> Fetched {
    Fetched::New { bytes, etag: None }
}

fn failed(error: CallError) -> SupplyError {
    let (check, code) = match &error {
        CallError::BadResponse { .. } | CallError::TooLong { .. } => (Some("answer"), None),
        CallError::Fault { fault, .. } => (None, Some(fault.code)),
        CallError::Refused { reason } => {
            let revoked = *reason == certs::RefusalReason::Revoked;
            (None, revoked.then_some(Code::Revoked))
        }
        CallError::Broken { .. }
        | CallError::Distrusted { .. }
        | CallError::Timeout { .. }
        | CallError::Tls { .. }
        | CallError::Unreachable { .. }
        // A new kind of failure counts as out of reach until we know better.
        | _ => (None, None),
    };
    SupplyError {
        is_retryable: error.is_retryable(),
        code,
        check,
        reason: reason(&error),
        source: Box::new(error),
    }
}

/// Why a source is gone round that fails like that.
pub(crate) fn reason(error: &CallError) -> BypassReason {
    match error {
        CallError::BadResponse { .. } | CallError::TooLong { .. } => BypassReason::BadContent,
        CallError::Broken { .. } | CallError::Tls { .. } => BypassReason::Broken,
        CallError::Distrusted { .. } => BypassReason::Distrusted,
        CallError::Fault { .. } if error.when_less_busy().is_some() => BypassReason::Busy,
        CallError::Fault { .. } => BypassReason::Fault,
        CallError::Refused { .. } => BypassReason::Refused,
        CallError::Timeout { .. } => BypassReason::Timeout,
        CallError::Unreachable { .. } => BypassReason::Unreachable,
        _ => BypassReason::Other,
    }
}
