//! The cache: finds a pack in memory, on disk or upstream, and serves what has been checked.
//!
//! A miss makes a fill, which runs in a task of its own; all who want the pack read along behind
//! it, so that it crosses the line once. Small objects, which are named by the digest of their
//! bytes, lie in the same tiers under the same limits; the catalogue decides what of them to fetch.

mod ahead;
mod fill;
pub mod index;
mod memory;
mod objects;
mod operate;
mod pieces;
mod promote;
mod reader;
mod rope;
pub mod scrub;
mod served;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use content::locator::PackEntry;
use content::{Digest, FilesetName, PackId};
use service::Spawner;
use tracing::error;

use crate::metrics::CacheMetrics;
use crate::single::SingleFlight;
use crate::upstream::Upstreams;
use ahead::Leads;
pub use fill::FillError;
pub(crate) use fill::{Course, Order, Place};
use fill::{Fill, Tail, Trails, Turns};
pub(crate) use index::Company;
pub use index::{Asker, Standing};
use index::{Key, Kind};
use memory::Memory;
use promote::Promotions;
pub use reader::{ReadError, Reader};
use rope::Rope;
use scrub::Doubts;
use served::Origin;
pub use served::{Extent, How, Served};
pub(crate) use store::Kept;
pub use store::StoreError;
use store::{Store, StoredPack, UnusableError};

/// What the cache may take, and how long it puts up with things.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of all its files.
    pub disk_bytes_max: u64,
    /// Bytes of memory that all fills together may hold; one may always run.
    pub fill_bytes_max: u64,
    /// Hundredths of the file system that are left free, even if others fill it.
    pub free_percent_min: u8,
    /// Fills at a time, however much memory there is.
    pub fills_max: usize,
    /// How long readers may take for a pack that could not be kept, once it is there.
    pub linger: Duration,
    /// Bytes of the memory tier.
    pub memory_bytes_max: u64,
    /// How long a fill that has readers goes on without getting anywhere.
    pub patience: Duration,
    /// Bytes that the scrub reads in a second, at most.
    pub scrub_bytes_per_second: u64,
    /// Within what time the scrub looks at everything once; zero if it shall not.
    pub scrub_period: Duration,
    /// How long a source may send nothing.
    pub stall: Duration,
    /// How long a fill may wait for its turn.
    pub turn_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disk_bytes_max: 50 << 30,
            free_percent_min: 5,
            fill_bytes_max: 64 << 20,
            fills_max: 16,
            linger: Duration::from_secs(60),
            memory_bytes_max: 96 << 20,
            patience: Duration::from_secs(30),
            scrub_bytes_per_second: 8 << 20,
            scrub_period: Duration::from_secs(30 * 24 * 3600),
            stall: Duration::from_secs(10),
            turn_wait: Duration::from_secs(90),
        }
    }
}

/// The cache. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
}

/// What the cache's requests and its fills have in common.
struct Shared {
    doubts: Doubts,
    flights: Mutex<HashMap<PackId, Arc<Fill>>>,
    leads: Leads,
    limits: Limits,
    memory: Memory,
    metrics: CacheMetrics,
    /// Says when what nobody waits for must leave the line.
    must_yield: OnceLock<MustYield>,
    objects: SingleFlight<(Key, usize), Option<Bytes>>,
    promotions: Arc<Promotions>,
    spawner: Spawner,
    /// Who knows what standing a pack has that has just come.
    standing: OnceLock<StandingOf>,
    store: Arc<Store>,
    trails: Trails,
    turns: Arc<Turns>,
    upstreams: Arc<Upstreams>,
}

/// Tells what standing a pack has.
pub(crate) type StandingOf = Box<dyn Fn(PackId) -> Standing + Send + Sync>;
/// Tells whether what nobody waits for must leave the line to others.
pub(crate) type MustYield = Box<dyn Fn() -> bool + Send + Sync>;

type Flights<'a> = MutexGuard<'a, HashMap<PackId, Arc<Fill>>>;

/// What looking a pack up came to.
enum AtHand {
    /// It is here.
    Here(Served),
    /// It is not here.
    Nowhere,
    /// It is on disk, which does not give it for now.
    Unreadable,
}

impl Cache {
    /// Opens the cache in `folder`, which need not exist; its parent must. Fills run in tasks of
    /// `spawner`'s owner. `now` is in Unix seconds.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be made, read or written to.
    pub async fn open(
        folder: &Path,
        limits: Limits,
        upstreams: Arc<Upstreams>,
        spawner: Spawner,
        metrics: CacheMetrics,
        now: i64,
    ) -> Result<Self, StoreError> {
        let (path, numbers) = (folder.to_owned(), metrics.clone());
        let store = off_runtime(move || {
            let (disk, free) = (limits.disk_bytes_max, limits.free_percent_min);
            Store::open(&path, disk, free, now, numbers)
        });
        let store = store.await.ok_or_else(|| StoreError::stopped(folder))??;
        let memory = Memory::new(limits.memory_bytes_max);
        let turns = Turns::of(&limits, &upstreams, &metrics);
        Ok(Self {
            shared: Arc::new(Shared {
                doubts: Doubts::default(),
                flights: Mutex::default(),
                leads: Leads::default(),
                limits,
                memory: memory.clone(),
                metrics,
                must_yield: OnceLock::new(),
                objects: SingleFlight::new(spawner.clone()),
                promotions: Promotions::new(memory),
                spawner,
                standing: OnceLock::new(),
                store,
                trails: Trails::new(),
                turns,
                upstreams,
            }),
        })
    }

    /// Says that all is in good order, if it is, so that the next run need not check everything.
    /// All fills must have ended.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails.
    pub async fn close(&self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.shared.store);
        off_runtime(move || store.close()).await.unwrap_or(Ok(()))
    }

    /// Finds the pack that `entry`, from a verified locator of `fileset`, names. Returns once its
    /// header has been checked. A pack that is often wanted whole moves into memory. If it must be
    /// filled, `asker` takes his turn with all others who ask.
    ///
    /// A fill that this starts runs on if this future is dropped, as far as others want it.
    ///
    /// # Errors
    ///
    /// Fails if it is not here and no source gives it.
    pub async fn pack(
        &self,
        fileset: &FilesetName,
        entry: PackEntry,
        extent: Extent,
        asker: Asker,
    ) -> Result<Served, FillError> {
        let shared = &self.shared;
        loop {
            let whole = extent == Extent::Whole;
            let follow = |missed| shared.read_ahead(fileset, entry.id, asker, missed);
            let there = match shared.find(entry, extent).await {
                AtHand::Here(mut served) => {
                    served.ahead = if whole { follow(false) } else { None };
                    return Ok(served);
                }
                AtHand::Nowhere => false,
                AtHand::Unreadable => true,
            };
            let Some((mut tail, collapsed)) = shared.join(fileset, entry, asker, there) else {
                // It has come in the meantime.
                continue;
            };
            shared.metrics.misses.inc();
            let ahead = if whole {
                shared.count_in(&mut tail);
                follow(true)
            } else {
                None
            };
            let served = Served::behind(tail, collapsed, entry).await?;
            return Ok(Served { ahead, ..served });
        }
    }

    /// Finds the pack that `entry` names as [`Cache::pack`] does, without fetching it: here, or in a
    /// fill that is under way, which `asker` then waits for, too. None if it is in neither.
    ///
    /// # Errors
    ///
    /// Fails as the fill under way fails.
    pub async fn pack_at_hand(
        &self,
        entry: PackEntry,
        extent: Extent,
        asker: Asker,
    ) -> Result<Option<Served>, FillError> {
        let shared = &self.shared;
        if let AtHand::Here(served) = shared.find(entry, extent).await {
            return Ok(Some(served));
        }
        shared.metrics.misses.inc();
        let tail = shared.flights().get(&entry.id).map(|fill| {
            fill.ask_for(asker);
            shared.turns.also_wanted(entry.id, asker.into());
            fill.attach()
        });
        match tail {
            Some(tail) => Ok(Some(Served::behind(tail, true, entry).await?)),
            None => Ok(None),
        }
    }

    /// Whether the pack is on disk, as far as can be told without looking at it: what is only in
    /// memory is soon gone again.
    #[must_use]
    pub fn is_stored(&self, id: PackId) -> bool {
        self.shared.store.contains(pack_key(id))
    }

    /// Whether the pack is here, as far as can be told without looking at it. Starts no fill.
    #[must_use]
    pub fn has_pack(&self, id: PackId) -> bool {
        let key = pack_key(id);
        self.shared.memory.get(key).is_some() || self.shared.store.contains(key)
    }

    /// Somebody doubts a pack: it is checked again before it is next served. False if it has been
    /// checked within the last second, or if so many others have been that this one has to wait for
    /// the scrub: a check costs more than a doubt.
    pub fn doubt(&self, id: PackId) -> bool {
        if !self.shared.doubts.grant(id) {
            return false;
        }
        // In this order: what is just being read into memory looks for a doubt once it is there.
        self.shared.store.doubt(pack_key(id));
        self.shared.memory.forget(pack_key(id));
        true
    }

    /// Takes note that `asker` has been given a pack, from wherever it came: what only one device
    /// has asked for is given up before what many have.
    pub fn used(&self, id: PackId, asker: Asker) {
        self.shared.store.use_by(id.0, asker);
    }

    /// Sorts what is kept anew by its standing: the superseded is given up first, then what is
    /// named only by older revisions, then the current, what is pinned last. Pins over 70 % of the
    /// disk's limit, the least recently used first, count for nothing.
    ///
    /// Belongs off the runtime: with a million files it takes some tenths of a second.
    pub fn rank(&self, pack: impl Fn(PackId) -> Standing, object: impl Fn(Digest) -> Standing) {
        self.shared.store.rank(|key| match key.kind {
            Kind::Object => object(key.digest),
            // Only what holds now is ever asked for; the rest goes by its last use.
            Kind::Private => Standing::Current,
            Kind::Pack | Kind::Partial => pack(PackId(key.digest)),
            Kind::Quarantined => Standing::Superseded,
        });
    }

    /// Asks `standing` of each pack that comes from now on, once it is there, since what
    /// [`Cache::rank`] was told may not have known it. Only the first who wants that is asked.
    pub(crate) fn ask_standing(&self, standing: StandingOf) {
        let _only_the_first = self.shared.standing.set(standing);
    }

    /// Asks `order` from now on what comes behind a pack, to fetch that ahead of those who read in
    /// order. Only the first who wants that is asked.
    pub(crate) fn ask_order(&self, order: Box<dyn Order>) {
        self.shared.trails.ask(order);
    }

    /// Asks `must_yield`, between two frames of what nobody waits for, whether that has to be put off
    /// from now on. Only the first who wants that is asked.
    pub(crate) fn ask_line(&self, must_yield: MustYield) {
        let _only_the_first = self.shared.must_yield.set(must_yield);
    }

    /// Does what is due now and then: drops fills that were broken off over a day before `now`
    /// (Unix seconds), and counts the files.
    pub async fn tidy(&self, now: i64) {
        let store = Arc::clone(&self.shared.store);
        let _done = off_runtime(move || {
            store.sweep(now);
            store.note_uses(now);
            store.count_files();
        })
        .await;
    }

    /// The most bytes that pins keep from being given up.
    #[must_use]
    pub fn pinned_bytes_max(&self) -> u64 {
        index::pinned_bytes_max(self.shared.limits.disk_bytes_max)
    }
}

impl Shared {
    /// The pack, if it is here already.
    async fn find(self: &Arc<Self>, entry: PackEntry, extent: Extent) -> AtHand {
        let key = pack_key(entry.id);
        if let Some(rope) = self.memory.get(key) {
            self.metrics.hits_memory.inc();
            return AtHand::Here(Served {
                ahead: None,
                how: How::Memory,
                total_bytes: rope.length(),
                origin: Origin::Memory(rope),
            });
        }
        let Some(lease) = self.store.lease(key) else {
            return AtHand::Nowhere;
        };
        let is_hot = extent == Extent::Whole
            && lease.uses() >= HOT_USES
            && lease.bytes() <= self.limits.memory_bytes_max;
        let promotion = is_hot.then(|| self.promotions.begin(key)).flatten();
        let lease = match &promotion {
            None => match lease.at_hand() {
                Ok(pack) => return AtHand::Here(self.on_disk(pack, None)),
                Err(lease) => lease,
            },
            Some(_) => lease,
        };
        let opened = off_runtime(move || {
            let pack = lease.open()?;
            let rope = promotion.and_then(|promotion| promotion.read(&pack));
            Ok((pack, rope))
        });
        let (pack, rope) = match opened.await {
            Some(Ok(opened)) => opened,
            Some(Err(UnusableError::Bad | UnusableError::Gone)) => return AtHand::Nowhere,
            Some(Err(UnusableError::Io(_))) | None => return AtHand::Unreadable,
        };
        AtHand::Here(self.on_disk(pack, rope))
    }

    /// A pack that was on disk, of which `rope` is in memory by now.
    fn on_disk(&self, pack: StoredPack, rope: Option<Arc<Rope>>) -> Served {
        self.metrics.hits_disk.inc();
        let total_bytes = pack.bytes();
        let origin = match rope {
            Some(rope) => Origin::Memory(rope),
            None => Origin::Disk(Arc::new(pack)),
        };
        Served {
            ahead: None,
            how: How::Disk,
            origin,
            total_bytes,
        }
    }

    /// Joins the fill of a pack, or starts one. None if the pack has just come; if it is `there`
    /// already and cannot be read, what the fill brings takes its place.
    fn join(
        self: &Arc<Self>,
        fileset: &FilesetName,
        entry: PackEntry,
        asker: Asker,
        there: bool,
    ) -> Option<(Tail, bool)> {
        let flights = self.flights();
        if let Some(fill) = flights.get(&entry.id) {
            self.metrics.coalesced.inc();
            fill.ask_for(asker);
            self.turns.also_wanted(entry.id, asker.into());
            return Some((fill.attach(), true));
        }
        // A fill leaves the map only after its pack is in the store.
        if !there && self.store.contains(pack_key(entry.id)) {
            return None;
        }
        let tail = self.start(
            flights,
            fileset,
            entry,
            |fill| fill.ask_for(asker),
            asker.into(),
        );
        Some((tail, false))
    }

    /// Sorts in a pack that has just come.
    fn sort_in(&self, id: PackId) {
        if let Some(standing) = self.standing.get() {
            self.store.sort_in(pack_key(id), standing(id));
        }
    }

    fn flights(&self) -> Flights<'_> {
        // Nothing panics while it holds the lock, and a map of fills is never half-changed.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("limits", &self.limits)
            .field("upstreams", &self.upstreams)
            .finish_non_exhaustive()
    }
}

pub(crate) fn pack_key(id: PackId) -> Key {
    Key {
        kind: Kind::Pack,
        digest: id.0,
    }
}

/// Runs `work`, which touches the disk or computes for long, where it holds nobody up. None if it
/// panicked or the runtime is ending. If this is dropped, the work is still done.
pub(crate) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|failure| {
        if failure.is_panic() {
            error!(%failure, "work on the cache panicked");
        }
    })
    .ok()
}

/// A pack that is used for the second time since the booster started, and wanted whole, goes into
/// memory.
const HOT_USES: u8 = 2;
