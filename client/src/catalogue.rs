//! The verified walk from the timestamp to a revision.

use certs::trust::TrustCrlError;
use certs::{Crl, IssuerId, Trust};
use content::locator::Locator;
use content::marks::{Marks, MarksError};
use content::statement::{
    Deployment, Judge, Revision, RevisionEntry, Snapshot, Statement, Timestamp,
};
use content::{Digest, FilesetName, RevisionNumber};
use member::{Kind, State, StateError};
use std::panic;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::task::{JoinError, spawn_blocking};
use tracing::warn;

use crate::fetch::sources::{CheckFailed, NoSource, Sources};
use crate::fetch::supply::{Ask, Supply};
use crate::pull::Stated;

/// What the walk is judged by, and where its results are kept.
pub(crate) struct Catalogue<'a, J> {
    /// Whose word counts.
    pub(crate) judge: &'a J,
    /// Whose revocation lists count; none in tests without certificates.
    pub(crate) trust: Option<&'a Arc<Trust>>,
    /// Where marks and lists are kept.
    pub(crate) state: &'a State,
    /// The time, in Unix seconds.
    pub(crate) now: i64,
    /// For how long a timestamp counts after its end, if nobody has a newer one.
    pub(crate) grace: Duration,
}

/// The state of the deployment at one moment, verified.
pub(crate) struct Fresh {
    /// The timestamp.
    pub(crate) timestamp: Statement<Timestamp>,
    /// Its snapshot.
    pub(crate) snapshot: Statement<Snapshot>,
}

/// What was looked up: the deployment document, and the revision.
pub(crate) type Found = (Statement<Deployment>, Stated);

impl<J: Judge> Catalogue<'_, J> {
    /// Walks from the timestamp to a revision. If what is asked for is not known, waits until even
    /// a booster must have asked the origin, and walks once more: its word may be some seconds
    /// old, and what it does not know of may have been published since.
    pub(crate) async fn look_up<S: Supply>(
        &self,
        sources: &Sources<S>,
        name: &FilesetName,
        number: Option<RevisionNumber>,
    ) -> Result<Found, CatalogueError> {
        match self.look_up_once(sources, name, number).await {
            Err(error) if error.may_be_too_new() => {
                tokio::time::sleep(BOOSTER_AGE_MAX).await;
                self.look_up_once(sources, name, number).await
            }
            looked_up => looked_up,
        }
    }

    async fn look_up_once<S: Supply>(
        &self,
        sources: &Sources<S>,
        name: &FilesetName,
        number: Option<RevisionNumber>,
    ) -> Result<Found, CatalogueError> {
        let fresh = self.refresh(sources).await?;
        let document = self.document(sources, &fresh.timestamp).await?;
        let stated = self.resolve(sources, &fresh.snapshot, name, number).await?;
        Ok((document, stated))
    }

    /// Finds out what holds now, and raises the marks to it.
    pub(crate) async fn refresh<S: Supply>(
        &self,
        sources: &Sources<S>,
    ) -> Result<Fresh, CatalogueError> {
        let marks = self.aside(State::marks).await?;
        let (timestamp, envelope) = sources
            .get_best(
                Ask::Timestamp,
                |bytes| {
                    let timestamp = self.timestamp(bytes, &marks)?;
                    Ok((timestamp, bytes.to_vec()))
                },
                |(timestamp, _)| self.now < timestamp.expires,
            )
            .await?;
        let (snapshot, snapshot_envelope) = sources
            .get(Ask::Snapshot(timestamp.snapshot), |bytes| {
                let snapshot = self.snapshot(bytes, &timestamp, &marks)?;
                Ok((snapshot, bytes.to_vec()))
            })
            .await?;
        if self.fetch_crls(sources, &timestamp).await? {
            // Newer lists may name the very signer of what we have just believed.
            let again = self
                .timestamp(&envelope, &marks)
                .and_then(|_| self.snapshot(&snapshot_envelope, &timestamp, &marks));
            again.map_err(|failed| CatalogueError::Revoked {
                source: failed.source,
            })?;
        }
        let raised = marks.raised(&timestamp, &snapshot);
        self.aside(move |state| {
            state.put_marks(&raised)?;
            // Only `status` asks for it again.
            state.put_timestamp(&envelope)
        })
        .await?;
        self.warn_if_over(&timestamp);
        Ok(Fresh {
            timestamp,
            snapshot,
        })
    }

    /// Finds a revision: the current one, or the one with that number if it is kept.
    pub(crate) async fn resolve<S: Supply>(
        &self,
        sources: &Sources<S>,
        snapshot: &Snapshot,
        name: &FilesetName,
        number: Option<RevisionNumber>,
    ) -> Result<Stated, CatalogueError> {
        let entry = find(snapshot, name, number)?;
        let revision = sources
            .get(Ask::Revision(entry.statement), |bytes| {
                let revision = self.open::<Revision>("revision", bytes, entry.statement)?;
                let right = revision.fileset == *name && revision.number == entry.number;
                right
                    .then_some(revision)
                    .ok_or_else(|| other("revision", name, entry.number))
            })
            .await?;
        let locator = sources
            .get(Ask::Locator(entry.locator), |bytes| {
                let locator = self.open::<Locator>("locator", bytes, entry.locator)?;
                let right = locator.fileset == *name
                    && locator.number == entry.number
                    && locator.root == revision.root;
                right
                    .then_some(locator)
                    .ok_or_else(|| other("locator", name, entry.number))
            })
            .await?;
        Ok(Stated {
            fileset: name.clone(),
            number: entry.number,
            root: revision.root,
            statement: entry.statement,
            locator: Arc::new(locator.into_payload()),
        })
    }

    /// Fetches the deployment document if it is not the one that we have; gives back its envelope.
    ///
    /// The one that `timestamp` names may be gone: whoever answers has only the newest. One that
    /// was made after the timestamp cannot be the one it names, and is as good.
    pub(crate) async fn document<S: Supply>(
        &self,
        sources: &Sources<S>,
        timestamp: &Timestamp,
    ) -> Result<Statement<Deployment>, CatalogueError> {
        let wanted = timestamp.deployment_document;
        let kept = self.aside(|state| Ok(state.document_envelope())).await?;
        let open = |bytes: Vec<u8>| Statement::<Deployment>::open(&bytes, self.judge, self.now);
        let kept = kept.and_then(|bytes| open(bytes).ok());
        if let Some(kept) = kept.as_ref().filter(|kept| kept.digest() == wanted) {
            return Ok(kept.clone());
        }
        let (document, envelope) = sources
            .get(Ask::Deployment, |bytes| {
                let failed = |error| CheckFailed::new("deployment document", error);
                let document =
                    Statement::<Deployment>::open(bytes, self.judge, self.now).map_err(failed)?;
                if document.digest() == wanted || document.created >= timestamp.issued {
                    Ok((document, bytes.to_vec()))
                } else {
                    Err(CheckFailed::new("deployment document", OldDocument))
                }
            })
            .await?;
        // A booster's timestamp may be some seconds old, and name a document that is older than
        // the one we have from the enrolment listener: who has moved since would be lost again.
        if let Some(kept) = kept.filter(|kept| kept.version > document.version) {
            return Ok(kept);
        }
        self.aside(move |state| state.put_document(&envelope))
            .await?;
        Ok(document)
    }

    fn timestamp(&self, bytes: &[u8], marks: &Marks) -> Result<Statement<Timestamp>, CheckFailed> {
        let failed = |error| CheckFailed::new("timestamp", error);
        let timestamp =
            Statement::<Timestamp>::open(bytes, self.judge, self.now).map_err(failed)?;
        match marks.check(&timestamp, self.now) {
            // Its end is what is looked at last: all else is in order.
            Err(MarksError::Expired { expires, .. }) if self.now < over(expires, self.grace) => {}
            checked => checked.map_err(|error| CheckFailed::new("timestamp", error))?,
        }
        Ok(timestamp)
    }

    fn warn_if_over(&self, timestamp: &Timestamp) {
        let (ended, expires) = (self.now >= timestamp.expires, timestamp.expires);
        if ended {
            let counts_until = over(expires, self.grace);
            warn!(
                expires,
                counts_until, "nobody knows of anything newer: going by a timestamp that has ended"
            );
        }
    }

    fn snapshot(
        &self,
        bytes: &[u8],
        timestamp: &Timestamp,
        marks: &Marks,
    ) -> Result<Statement<Snapshot>, CheckFailed> {
        let snapshot = self.open::<Snapshot>("snapshot", bytes, timestamp.snapshot)?;
        marks
            .check_snapshot(timestamp, &snapshot)
            .map_err(|error| CheckFailed::new("snapshot", error))?;
        Ok(snapshot)
    }

    fn open<T: content::statement::Payload>(
        &self,
        check: &'static str,
        bytes: &[u8],
        wanted: Digest,
    ) -> Result<Statement<T>, CheckFailed> {
        Statement::open_named(bytes, wanted, self.judge, self.now)
            .map_err(|error| CheckFailed::new(check, error))
    }

    /// Fetches the lists that the timestamp says are newer than ours; whether there were any.
    async fn fetch_crls<S: Supply>(
        &self,
        sources: &Sources<S>,
        timestamp: &Timestamp,
    ) -> Result<bool, CatalogueError> {
        let Some(trust) = self.trust else {
            return Ok(false);
        };
        let mut fetched = false;
        for minimum in &timestamp.crl_minimums {
            let issuer = IssuerId::from_bytes(minimum.issuer);
            let ca = trust.issuer(issuer);
            let known = ca.is_some_and(|ca| Kind::Client.needs_list(ca.kind()));
            let current = trust.crls().current(issuer).map(|crl| crl.number());
            if known && current.is_none_or(|number| number < minimum.number) {
                let (own, least, now) = (Arc::clone(trust), minimum.number, self.now);
                // A million entries take 140 ms of a processor.
                let check = move |bytes: &[u8]| crl(&own, issuer, least, bytes, now);
                let crl = sources.get_aside(Ask::Crl(minimum.issuer), check).await?;
                let trust = Arc::clone(trust);
                self.aside(move |state| state.put_crl(&trust, crl)).await?;
                fetched = true;
            }
            trust.crls().require_number(issuer, minimum.number);
        }
        Ok(fetched)
    }

    /// Reads or writes the state off the runtime.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, CatalogueError> {
        let state = self.state.clone();
        match spawn_blocking(move || work(&state)).await {
            Ok(done) => Ok(done?),
            Err(failed) if failed.is_panic() => panic::resume_unwind(failed.into_panic()),
            Err(source) => Err(CatalogueError::Stopped { source }),
        }
    }
}

/// The list in `bytes`, if it counts and its number is no lower than `least`.
fn crl(
    trust: &Trust,
    issuer: IssuerId,
    least: u64,
    bytes: &[u8],
    now: i64,
) -> Result<Crl, CheckFailed> {
    let failed = |error: TrustCrlError| CheckFailed::new("revocation list", error);
    let crl = trust.verify_crl(issuer, bytes, now).map_err(failed)?;
    let number = crl.number();
    if number >= least {
        Ok(crl)
    } else {
        let error = TooOld { number, least };
        Err(CheckFailed::new("revocation list", error))
    }
}

/// When a timestamp that ends at `expires` counts no more, in Unix seconds.
pub(crate) fn over(expires: i64, grace: Duration) -> i64 {
    let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    expires.saturating_add(grace)
}

fn find(
    snapshot: &Snapshot,
    name: &FilesetName,
    number: Option<RevisionNumber>,
) -> Result<RevisionEntry, CatalogueError> {
    let fileset = snapshot
        .fileset(name)
        .ok_or_else(|| CatalogueError::UnknownFileset { name: name.clone() })?;
    let number = number.unwrap_or(fileset.current);
    let entry = fileset.revision(number);
    entry.copied().ok_or_else(|| CatalogueError::NotRetained {
        name: name.clone(),
        number,
        retained: fileset
            .retained
            .iter()
            .map(|entry| entry.number.to_string())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

fn other(check: &'static str, name: &FilesetName, number: RevisionNumber) -> CheckFailed {
    CheckFailed::new(
        check,
        Other {
            name: name.clone(),
            number,
        },
    )
}

/// A statement that is right in itself, and of something else.
#[derive(Debug, Error)]
#[error("it is not the one of {name}@{number}")]
struct Other {
    name: FilesetName,
    number: RevisionNumber,
}

/// A list that is older than the timestamp allows.
#[derive(Debug, Error)]
#[error("it has number {number}, and the timestamp asks for {least}")]
struct TooOld {
    number: u64,
    least: u64,
}

/// Why a revision cannot be found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// No source is left.
    #[error(transparent)]
    NoSource(#[from] NoSource),
    /// The fileset no longer keeps that revision.
    #[error("cannot get {name}@{number}: the origin keeps revisions {retained}")]
    NotRetained {
        /// The fileset.
        name: FilesetName,
        /// The revision asked for.
        number: RevisionNumber,
        /// Those that it keeps.
        retained: String,
    },
    /// The signer of the timestamp has been revoked.
    #[error("cannot trust the timestamp any more, now that there are newer revocation lists")]
    Revoked {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was verified cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The program is ending.
    #[error("cannot find out what holds now")]
    Stopped {
        /// Why.
        source: JoinError,
    },
    /// There is no such fileset.
    #[error("cannot find a fileset called {name}")]
    UnknownFileset {
        /// The name asked for.
        name: FilesetName,
    },
}

/// A deployment document that is neither the one that the timestamp names nor a newer one.
#[derive(Debug, Error)]
#[error("it is not the one that the timestamp names, and no newer one")]
struct OldDocument;

impl CatalogueError {
    /// Whether what was asked for may be there, and too new for the one that was asked.
    pub(crate) fn may_be_too_new(&self) -> bool {
        match self {
            Self::NotRetained { .. } | Self::UnknownFileset { .. } => true,
            Self::NoSource(_) | Self::Revoked { .. } | Self::State(_) | Self::Stopped { .. } => {
                false
            }
        }
    }
}

/// A little longer than a booster goes by the timestamp that it has.
const BOOSTER_AGE_MAX: Duration = Duration::from_secs(protocol::TIMESTAMP_FRESH_SECONDS as u64 + 1);

#[cfg(test)]
mod tests;
