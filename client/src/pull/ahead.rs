//! A pull in two halves: what is missing is fetched ahead of its time, and installed later, without
//! asking anybody if all of it is there.

use std::sync::Arc;

use content::locator::Locator;
use content::{Digest, FilesetName};
use service::CancellationToken;
use thiserror::Error;

use super::{PullError, PullRequest, choose, choose_and_find, job};
use crate::fetch::sources::Traffic;
use crate::pull::Stated;
use crate::session::Session;

/// What was fetched.
pub(crate) struct Fetched {
    /// Where its chunks lie.
    pub(crate) locator: Arc<Locator>,
    /// What came from whom.
    pub(crate) traffic: Vec<Traffic>,
}

/// Fetches, one pack after the other, what is missing of the revision that `request` names, whose
/// statement is `statement`. It is kept until it is installed and confirmed.
///
/// # Errors
///
/// Fails as [`AheadError`] says; what was fetched is kept for the next try.
pub(crate) async fn fetch_ahead(
    session: &mut Session,
    request: &PullRequest,
    statement: Digest,
    stop: &CancellationToken,
) -> Result<Fetched, AheadError> {
    session.catch_up().await.map_err(PullError::Session)?;
    let (sources, stated) = Box::pin(choose_and_find(session, request)).await?;
    same(&stated, statement)?;
    let locator = Arc::clone(&stated.locator);
    let job = job(request, session, &stated, &sources);
    if !job.fetch(stop).await? {
        return Err(AheadError::BrokenOff);
    }
    let traffic = sources.traffic();
    Ok(Fetched { locator, traffic })
}

/// Installs what `request` names out of what was fetched ahead, if its `locator` is at hand; else
/// fetches it now.
///
/// # Errors
///
/// Fails as a pull does.
pub(crate) async fn install_ahead(
    session: &mut Session,
    request: &PullRequest,
    statement: Digest,
    locator: Option<Locator>,
) -> Result<Vec<Traffic>, AheadError> {
    let (sources, stated) = match locator {
        Some(locator) => {
            let chosen = choose::sources(session, &request.sources, request.site.as_deref());
            // If something is missing after all, it is asked for.
            let sources = chosen.map_err(PullError::Session)?;
            (sources, Stated::of(locator, statement))
        }
        None => {
            session.catch_up().await.map_err(PullError::Session)?;
            Box::pin(choose_and_find(session, request)).await?
        }
    };
    same(&stated, statement)?;
    job(request, session, &stated, &sources).run().await?;
    Ok(sources.traffic())
}

/// What is under a number now must be what the manifest means by it.
fn same(stated: &Stated, statement: Digest) -> Result<(), AheadError> {
    if stated.statement == statement {
        return Ok(());
    }
    Err(AheadError::Other {
        fileset: stated.fileset.clone(),
        number: stated.number.0,
    })
}

/// Why a half of a pull failed.
#[derive(Debug, Error)]
pub(crate) enum AheadError {
    /// Somebody else has to be served first.
    #[error("broken off")]
    BrokenOff,
    /// The revision with that number is not the one that is wanted.
    #[error("cannot take {fileset}@{number}: it is not the revision that the manifest names")]
    Other {
        /// The fileset.
        fileset: FilesetName,
        /// The number.
        number: u64,
    },
    /// As any pull.
    #[error(transparent)]
    Pull(#[from] PullError),
}
