//! What a member needs to judge others by: issuing CAs, revocation lists, the deployment document.
//!
//! All of it authenticates itself, so that any enrolment listener or relay may hand it out.

use std::io;
use std::sync::Arc;

use certs::crl::Freshness;
use certs::trust::TrustCrlError;
use certs::{IssuerId, Trust};
use content::statement::{Deployment, Statement, StatementError};
use service::Report;
use thiserror::Error;
use tracing::debug;
use transport::{CallError, ContentJudge, Fetched, Source};

use crate::blocking::off_the_runtime;
use crate::kind::Kind;
use crate::roots;
use crate::state::{State, StateError};

/// The issuers whose lists a member of this kind judges others by, roots first: their lists say
/// which issuing CAs still count.
#[must_use]
pub fn judged_issuers(trust: &Trust, kind: Kind) -> Vec<IssuerId> {
    let cas = trust.roots().into_iter().chain(trust.issuing_cas());
    cas.filter(|ca| kind.needs_list(ca.kind()))
        .map(|ca| ca.id())
        .collect()
}

/// Whether a list that it judges others by is missing or out of date at `now`, or no CA is known
/// that certifies them.
#[must_use]
pub fn is_behind(trust: &Trust, kind: Kind, now: i64) -> bool {
    let is_stale = |issuer: &IssuerId| match trust.crls().freshness(*issuer, now) {
        Freshness::Fresh | Freshness::Grace => false,
        Freshness::Missing | Freshness::Stale => true,
    };
    !trust.knows_cas_for(kind.judges()) || judged_issuers(trust, kind).iter().any(is_stale)
}

/// Whether a list that it judges others by is overdue at `now`, and still counts in grace.
#[must_use]
pub fn is_overdue(trust: &Trust, kind: Kind, now: i64) -> bool {
    let mut issuers = judged_issuers(trust, kind).into_iter();
    issuers.any(|issuer| trust.crls().freshness(issuer, now) == Freshness::Grace)
}

/// Fetches issuing CAs, the lists that it judges others by, and the deployment document from the
/// enrolment listener that `source` calls, and keeps lists and document.
///
/// # Errors
///
/// Fails if the listener cannot be reached, or if something does not count or cannot be kept. What
/// came before that stays.
pub async fn fetch(
    source: &Source,
    trust: &Arc<Trust>,
    state: &State,
    kind: Kind,
    now: i64,
) -> Result<(), StandingError> {
    if fetch_once(source, trust, state, kind, now).await? {
        // What hangs on a root that we have just heard of could not be taken the first time.
        fetch_once(source, trust, state, kind, now).await?;
    }
    Ok(())
}

/// Says whether the document has brought or taken roots.
async fn fetch_once(
    source: &Source,
    trust: &Arc<Trust>,
    state: &State,
    kind: Kind,
    now: i64,
) -> Result<bool, StandingError> {
    let cas = source.cacerts().await?;
    aside(trust, state, move |trust, _| {
        learn(trust, &cas, now);
        Ok(())
    })
    .await?;
    for issuer in judged_issuers(trust, kind) {
        let tag = trust.crls().current(issuer).map(|crl| etag(crl.digest()));
        if let Fetched::New { bytes, .. } = source.crl(issuer, tag.as_deref()).await? {
            // A million entries take 140 ms of a processor, and 42 MB of the disk.
            aside(trust, state, move |trust, state| {
                let crl = trust.verify_crl(issuer, &bytes, now)?;
                state.put_crl(trust, crl)?;
                Ok(())
            })
            .await?;
        }
    }
    let Fetched::New { bytes, .. } = source.deployment(None).await? else {
        return Ok(false);
    };
    aside(trust, state, move |trust, state| {
        let judge = ContentJudge::new(Arc::clone(trust));
        let document: Statement<Deployment> = Statement::open(&bytes, &judge, now)?;
        let kept = state.document(&judge, now);
        if kept.is_some_and(|kept| kept.version > document.version) {
            return Ok(false);
        }
        state.put_document(&bytes)?;
        Ok(roots::follow(trust, &document, now))
    })
    .await
}

fn learn(trust: &Trust, cas: &[Vec<u8>], now: i64) {
    for ca in cas {
        if let Err(failure) = trust.add_issuing_ca(ca, now) {
            // The roots are among them, and whatever no root has signed is passed over.
            debug!(error = %Report(&failure), "passing over a CA certificate");
        }
    }
}

/// Verifies and keeps off the runtime.
async fn aside<T: Send + 'static>(
    trust: &Arc<Trust>,
    state: &State,
    work: impl FnOnce(&Arc<Trust>, &State) -> Result<T, StandingError> + Send + 'static,
) -> Result<T, StandingError> {
    let (trust, state) = (Arc::clone(trust), state.clone());
    let done = off_the_runtime(move || work(&trust, &state)).await;
    done.map_err(|source| StandingError::Stopped { source })?
}

/// The ETag under which the origin serves the list with that digest.
#[must_use]
pub fn etag(digest: &[u8; 32]) -> String {
    format!("\"{}\"", content::Digest::from_raw(*digest).hex())
}

/// Why a member is not up to date.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StandingError {
    /// Nobody hands it out.
    #[error("cannot catch up with the origin")]
    Call(#[from] CallError),
    /// A list does not count.
    #[error("cannot catch up with the origin")]
    Crl(#[from] TrustCrlError),
    /// The deployment document does not count.
    #[error("cannot catch up with the origin")]
    Document(#[from] StatementError),
    /// It cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The program is ending.
    #[error("cannot catch up with the origin")]
    Stopped {
        /// Why.
        source: io::Error,
    },
}
