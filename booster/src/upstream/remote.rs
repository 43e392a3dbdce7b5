//! A source on the network: the origin, or a parent booster.

use std::sync::Arc;

use bytes::Bytes;
use certs::IssuerId;
use content::pack::PACK_BYTES_MAX;
use http::StatusCode;
use protocol::{Code, Route};
use transport::{CallError, Source};

use crate::wan::Purpose;

use super::{Fetched, Later, PackAsk, PackBody, Pieces, Upstream, UpstreamError};

/// Content by typed calls.
#[derive(Debug)]
pub struct Remote {
    /// For packs that nobody has asked for yet.
    ahead: Arc<Source>,
    name: String,
    /// For packs that somebody waits for.
    packs: Arc<Source>,
    source: Arc<Source>,
}

impl Remote {
    /// The party that `source` calls, under a `name` for the log.
    #[must_use]
    pub fn new(name: impl Into<String>, source: Arc<Source>) -> Self {
        Self {
            ahead: Arc::clone(&source),
            name: name.into(),
            packs: Arc::clone(&source),
            source,
        }
    }

    /// The same party, which is asked for packs over connections of their own: `packs` for those
    /// that somebody waits for, `ahead` for others.
    #[must_use]
    pub fn with_packs(self, packs: Arc<Source>, ahead: Arc<Source>) -> Self {
        Self {
            ahead,
            packs,
            ..self
        }
    }
}

impl Upstream for Remote {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn pack<'a>(&'a self, ask: &'a PackAsk) -> Later<'a, Result<PackBody, UpstreamError>> {
        Box::pin(async move {
            // No pack is longer; the source answers up to its real end.
            let range = (ask.from > 0).then_some(ask.from..PACK_BYTES_MAX as u64);
            let source = match ask.purpose {
                Purpose::Prefetch => &self.ahead,
                Purpose::Control | Purpose::Wanted => &self.packs,
            };
            let body = source
                .pack(&ask.fileset, &ask.id, range, ask.no_cache)
                .await
                .map_err(|error| fault(&self.name, error))?;
            let start = body.range().start;
            let name = self.name.clone();
            let pieces = Box::new(RemotePieces { body, name });
            Ok(PackBody { start, pieces })
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a new route is not fetched until somebody fetches it"
    )]
    fn fetch<'a>(
        &'a self,
        route: &'a Route,
        etag: Option<&'a str>,
        bytes_max: usize,
    ) -> Later<'a, Result<Fetched, UpstreamError>> {
        Box::pin(async move {
            let new = |bytes: Bytes| transport::Fetched::New { bytes, etag: None };
            let source = &self.source;
            let fetched = match route {
                Route::Timestamp => source.timestamp(etag).await,
                Route::Deployment => source.deployment(etag).await,
                Route::Crl(issuer) => source.crl(IssuerId::from_bytes(*issuer), etag).await,
                Route::Snapshot(digest) => source.snapshot(digest).await.map(new),
                Route::Statement(digest) => source.statement(digest, bytes_max).await.map(new),
                _ => {
                    return Err(UpstreamError::Protocol {
                        name: self.name.clone(),
                        what: "that is not fetched in this way",
                    });
                }
            };
            match fetched.map_err(|error| fault(&self.name, error))? {
                transport::Fetched::New { bytes, etag } => Ok(Fetched::New { etag, bytes }),
                transport::Fetched::Unchanged => Ok(Fetched::NotModified),
            }
        })
    }
}

struct RemotePieces {
    body: transport::PackBody,
    name: String,
}

impl Pieces for RemotePieces {
    fn next(&mut self) -> Later<'_, Result<Option<Bytes>, UpstreamError>> {
        Box::pin(async move {
            let next = self.body.next().await;
            next.map_err(|error| fault(&self.name, error))
        })
    }
}

fn fault(name: &str, error: CallError) -> UpstreamError {
    let name = name.to_owned();
    let is_unknown = |code| {
        let unknown = [Code::NotFound, Code::UnknownFileset, Code::UnknownPack];
        unknown.contains(&code)
    };
    if let CallError::Fault { fault, .. } = error {
        let detail = fault.to_string();
        let status = fault.code.status();
        return if is_unknown(fault.code) {
            UpstreamError::NotFound { name }
        } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            UpstreamError::Busy { name, detail }
        } else {
            UpstreamError::Refused { name, detail }
        };
    }
    if matches!(error, CallError::Timeout { .. }) {
        return UpstreamError::Stalled { name };
    }
    UpstreamError::Broken {
        name,
        source: Arc::new(error),
    }
}
