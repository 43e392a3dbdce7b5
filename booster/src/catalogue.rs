//! The catalogue: what the origin says there is, verified, and kept for when it cannot be asked.
//!
//! It hangs from the timestamp, which is asked for again when it is older than five seconds, by
//! all who want it together. What the snapshot and the locators below it do not name is never
//! fetched for anybody.

mod learn;
mod names;
mod pinned;
mod ranking;
mod refresh;
#[cfg(test)]
pub(crate) mod tests;
mod unreadable;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use content::locator::{Locator, PackEntry};
use content::marks::{Marks, MarksError};
use content::statement::{
    Deployment, IssuerMinimum, Judge, JudgeError, Payload as _, Snapshot, Statement, Timestamp,
};
use content::{Digest, FilesetName, PackId};
use member::{State, StateError};
use protocol::TIMESTAMP_FRESH_SECONDS;
use service::{Clock, Spawner};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::admin::list::Contents;
use crate::cache::{Asker, Cache, Course, Order, Place};
use crate::pins::{Pin, Pins};
use crate::single::SingleFlight;
use crate::upstream::{Later, UpstreamError, Upstreams};
use names::{Lookup, Names};
use ranking::Ranking;
use unreadable::Unreadable;

/// What the origin says there is. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Catalogue {
    shared: Arc<Shared>,
}

/// Decides whose word counts; see [`Judge`].
#[derive(Clone)]
pub struct AnyJudge(pub Arc<dyn Judge + Send + Sync>);

/// Who keeps the revocation lists.
pub trait Lists: Send + Sync + 'static {
    /// Fetches lists until none is older than these numbers. Says whether a new one is in force:
    /// what was judged before must then be judged again.
    ///
    /// # Errors
    ///
    /// Says which is.
    fn satisfy<'a>(&'a self, minimums: &'a [IssuerMinimum]) -> Later<'a, Result<bool, String>>;
}

/// What a catalogue is made of.
pub struct Parts {
    /// Where what was fetched is kept.
    pub cache: Cache,
    /// By which statements are judged. It is given a floor, which rises with each timestamp.
    pub clock: Clock,
    /// Whose word counts.
    pub judge: AnyJudge,
    /// Who keeps the revocation lists.
    pub lists: Arc<dyn Lists>,
    /// What is pinned.
    pub pins: Pins,
    /// Where fetching runs.
    pub spawner: Spawner,
    /// Where marks are kept.
    pub(crate) state: State,
    /// Where statements come from.
    pub upstreams: Arc<Upstreams>,
}

struct Shared {
    parts: Parts,
    /// When the timestamp was last asked for, with whatever success.
    asked: Mutex<Option<Instant>>,
    document: watch::Sender<Option<Arc<Document>>>,
    /// Whether it was last asked for in vain.
    failing: AtomicBool,
    marks: Mutex<Marks>,
    names: Arc<RwLock<Names>>,
    /// That there is another snapshot, for whoever follows what is pinned.
    news: Notify,
    objects: SingleFlight<Digest, Result<Bytes, Arc<CatalogueError>>>,
    ranking: Arc<Ranking>,
    locators: SingleFlight<FilesetName, Result<(), Arc<CatalogueError>>>,
    refreshing: SingleFlight<(), Result<(), Arc<CatalogueError>>>,
    unreadable: Mutex<Unreadable>,
    view: ArcSwapOption<View>,
}

/// What holds now.
#[derive(Debug)]
pub struct View {
    /// The timestamp's envelope.
    pub envelope: Bytes,
    /// What it says.
    pub timestamp: Statement<Timestamp>,
    /// Which revisions there are.
    pub snapshot: Statement<Snapshot>,
    /// What the source calls this timestamp.
    etag: Option<String>,
}

/// The deployment document.
#[derive(Debug)]
pub struct Document {
    /// Its envelope.
    pub envelope: Bytes,
    /// What it says.
    pub statement: Statement<Deployment>,
}

/// Why the catalogue does not know.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// What came is not what it should be.
    #[error("cannot use what came as {what}: {why}")]
    Bad {
        /// What it came as.
        what: &'static str,
        /// Which check failed.
        why: String,
    },
    /// A revocation list is older than one that the origin vouches for.
    #[error("cannot get the revocation lists that the timestamp asks for: {why}")]
    Lists {
        /// Which.
        why: String,
    },
    /// The timestamp cannot be used.
    #[error("cannot use the timestamp")]
    Marks {
        /// Why.
        #[from]
        source: MarksError,
    },
    /// Nobody who counts names it.
    #[error("nothing of that name is known")]
    NotNamed,
    /// What protects us could not be written down.
    #[error("cannot go on without keeping the marks")]
    State {
        /// Why.
        #[from]
        source: StateError,
    },
    /// The booster is stopping.
    #[error("the booster is stopping")]
    Stopping,
    /// There is no such fileset.
    #[error("there is no such fileset")]
    UnknownFileset,
    /// No locator names the pack.
    #[error("no revision that is kept has that pack")]
    UnknownPack,
    /// It cannot be fetched.
    #[error("cannot fetch it")]
    Upstream {
        /// Why.
        #[from]
        source: UpstreamError,
    },
}

impl Catalogue {
    /// Opens the catalogue with what the last run knew, as far as it still holds. To tell, upstream
    /// may be asked for what is not here: a revocation list, the snapshot, the deployment document.
    /// That none can be had is no failure.
    ///
    /// # Errors
    ///
    /// Fails if the marks are damaged: to go on without them is to allow a rollback.
    pub async fn open(mut parts: Parts) -> Result<Self, StateError> {
        let marks = parts.state.marks()?;
        parts.clock = parts.clock.floored(marks.issued());
        let spawner = parts.spawner.clone();
        let shared = Arc::new(Shared {
            asked: Mutex::new(None),
            document: watch::Sender::new(None),
            failing: AtomicBool::new(false),
            marks: Mutex::new(marks),
            names: Arc::default(),
            news: Notify::new(),
            objects: SingleFlight::new(spawner.clone()),
            locators: SingleFlight::new(spawner.clone()),
            ranking: Arc::default(),
            refreshing: SingleFlight::new(spawner),
            unreadable: Mutex::default(),
            view: ArcSwapOption::empty(),
            parts,
        });
        let names = Arc::clone(&shared.names);
        shared.parts.cache.ask_order(Box::new(names));
        shared.recall().await;
        Ok(Self { shared })
    }

    /// What holds now: asked for again if it is older than five seconds.
    ///
    /// # Errors
    ///
    /// Fails if nobody can be asked and what we have, if anything, has expired.
    pub async fn current(&self) -> Result<Arc<View>, Arc<CatalogueError>> {
        self.shared.no_older_than(FRESH).await
    }

    /// What was last found to hold, if it has not expired. Asks nobody.
    #[must_use]
    pub fn last(&self) -> Option<Arc<View>> {
        self.shared.unexpired()
    }

    /// What was last found to hold, even if it has expired since: for those who judge that
    /// themselves. Asks nobody.
    #[must_use]
    pub fn last_known(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    /// The last deployment document that was verified, now and as it changes.
    #[must_use]
    pub fn document(&self) -> watch::Receiver<Option<Arc<Document>>> {
        self.shared.document.subscribe()
    }

    /// Looks for a deployment document that is newer than ours, wherever it is shown, without a
    /// timestamp: it says where the origin is, without which there may never be one.
    pub async fn look_for_document(&self) {
        self.shared.look_for_document().await;
    }

    /// The small object called `digest`: a snapshot, statement or index root.
    ///
    /// # Errors
    ///
    /// Fails if it is neither here nor named, or cannot be fetched.
    pub async fn object(&self, digest: Digest) -> Result<Bytes, Arc<CatalogueError>> {
        // What was once verified stays what it is, even if nobody names it any more.
        let cache = &self.shared.parts.cache;
        if let Some(bytes) = cache.object(digest, Locator::ENVELOPE_BYTES_MAX).await {
            return Ok(bytes);
        }
        if self.shared.names().object(&digest).is_none() {
            self.shared.no_older_than(DOUBT_PAUSE).await?;
        }
        Shared::fetch_object(&self.shared, digest).await
    }

    /// The pack `id`, which `asker` wants, as a verified locator of `fileset` lists it. Only what this
    /// gives may be filled.
    ///
    /// # Errors
    ///
    /// Fails if none does, or if none can be read.
    pub async fn pack(
        &self,
        fileset: &FilesetName,
        id: PackId,
        asker: Asker,
    ) -> Result<PackEntry, Arc<CatalogueError>> {
        if let Lookup::Known(entry) = self.shared.names().pack_for(fileset, id, asker) {
            return Ok(entry);
        }
        // It may be of a revision that we have not heard of yet.
        self.shared.no_older_than(DOUBT_PAUSE).await?;
        let mut read = Ok(());
        if self.shared.names().pack(fileset, id) == Lookup::Maybe {
            read = Shared::read_locators(&self.shared, fileset).await;
        }
        match self.shared.names().pack(fileset, id) {
            Lookup::Known(entry) => Ok(entry),
            Lookup::NoFileset => Err(Arc::new(CatalogueError::UnknownFileset)),
            Lookup::Maybe | Lookup::Unknown => {
                read?;
                Err(Arc::new(CatalogueError::UnknownPack))
            }
        }
    }

    /// What is pinned.
    pub(crate) fn pins(&self) -> Pins {
        self.shared.parts.pins.clone()
    }

    /// The filesets that are published, in the order of their names.
    pub(crate) fn filesets(&self) -> Vec<FilesetName> {
        self.shared.names().filesets()
    }

    /// The filesets that have a pack.
    pub(crate) fn filesets_with(&self, id: PackId) -> Vec<FilesetName> {
        self.shared.names().filesets_with(id)
    }

    /// What is known of a fileset; none if it is not published.
    pub(crate) fn contents(&self, name: &FilesetName) -> Option<Contents> {
        self.shared.names().contents(name)
    }

    /// Whether the origin is known to have what a pin means.
    #[must_use]
    pub fn has(&self, pin: &Pin) -> bool {
        self.shared.names().has(pin)
    }

    /// The pack `id`, with a fileset whose verified locator lists it. Asks nobody.
    #[must_use]
    pub fn find(&self, id: PackId) -> Option<(FilesetName, PackEntry)> {
        self.shared.names().find(id)
    }
}

impl Shared {
    /// What holds, if we looked within `age_max`; looks otherwise. If that takes long, what has
    /// not expired is good enough.
    async fn no_older_than(
        self: &Arc<Self>,
        age_max: Duration,
    ) -> Result<Arc<View>, Arc<CatalogueError>> {
        let asked = *self.asked();
        let is_young = asked.is_some_and(|asked| asked.elapsed() < age_max);
        let before = self.unexpired();
        if is_young && let Some(view) = before {
            return Ok(view);
        }
        let patience = match before {
            None => WAIT_WITHOUT,
            // It is asked for all the same, but who can do with what holds need not wait for that
            // to fail again.
            Some(_) if age_max >= FRESH && self.failing.load(Ordering::Relaxed) => Duration::ZERO,
            Some(_) => WAIT_WITH_VIEW,
        };
        let refreshing = self.refreshing.run((), || {
            let shared = Arc::clone(self);
            async move { shared.refresh().await.map_err(Arc::new) }
        });
        let refreshed = timeout(patience, refreshing).await;
        match (self.unexpired(), refreshed) {
            (Some(view), _) => Ok(view),
            (None, Ok(Some(Err(failure)))) => Err(failure),
            (None, Ok(Some(Ok(())) | None) | Err(_)) => Err(Arc::new(CatalogueError::Stopping)),
        }
    }

    fn unexpired(&self) -> Option<Arc<View>> {
        let now = self.now();
        self.view
            .load_full()
            .filter(|view| now < view.timestamp.expires)
    }

    /// The time to judge by: never before the latest that the origin has stated.
    fn now(&self) -> i64 {
        self.parts.clock.now()
    }

    fn asked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self) -> MutexGuard<'_, Unreadable> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> std::sync::RwLockReadGuard<'_, Names> {
        // Names are left consistent by each of their functions, which do not panic.
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn names_mut(&self) -> std::sync::RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order for Arc<RwLock<Names>> {
    fn place(&self, fileset: &FilesetName, id: PackId) -> Option<Place> {
        let names = self.read().unwrap_or_else(PoisonError::into_inner);
        names.place(fileset, id)
    }

    fn after(
        &self,
        fileset: &FilesetName,
        place: Place,
        course: Course,
        count: usize,
    ) -> Vec<PackEntry> {
        let names = self.read().unwrap_or_else(PoisonError::into_inner);
        names.after(fileset, place, course, count)
    }
}

impl Judge for AnyJudge {
    fn deployment(&self) -> &str {
        self.0.deployment()
    }

    fn judge(
        &self,
        message: &[u8],
        signature: &[u8],
        chain: &[Vec<u8>],
        at: i64,
    ) -> Result<(), JudgeError> {
        self.0.judge(message, signature, chain, at)
    }
}

impl fmt::Debug for AnyJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyJudge").field(&self.deployment()).finish()
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("view", &self.view.load())
            .finish_non_exhaustive()
    }
}

/// How old what we say of the present may be.
const FRESH: Duration = Duration::from_secs(TIMESTAMP_FRESH_SECONDS as u64);
/// How often somebody who names what we do not know makes us look whether it is new.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait for something newer than what still holds.
const WAIT_WITH_VIEW: Duration = Duration::from_secs(2);
/// How long to wait when there is nothing else to give.
const WAIT_WITHOUT: Duration = Duration::from_secs(60);
