//! The scrub: looks at all that is kept, a little at a time, puts aside what is damaged, and has it
//! fetched again.

mod doubts;
mod hand;
mod position;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use content::locator::PackEntry;
use content::{Digest, FilesetName, PackId};
use serde::{Deserialize, Serialize};
use service::{CancellationToken, Clock, Report};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::index::{Key, Kind};
pub(crate) use super::store::Examined;
use super::{Asker, Cache, Extent, FillError, Shared, off_runtime, pack_key};
pub(crate) use doubts::Doubts;
use hand::Hand;
use position::{Position, share};

/// Who can tell of which fileset a pack is, if it is named and may be fetched now.
pub(crate) type Wanted = Arc<dyn Fn(PackId) -> Option<(FilesetName, PackEntry)> + Send + Sync>;

/// Looks at files, one at a time and no faster than it may. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Scrubber {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    clock: Clock,
    /// From when on the next file may be read.
    free: Mutex<Instant>,
    hand: Hand,
    path: PathBuf,
    /// How far the round has come, as the last look left it.
    position: Mutex<Position>,
    repairs: Arc<Semaphore>,
    turn: Semaphore,
    wanted: Wanted,
}

/// How the scrub stands.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ScrubStatus {
    /// When the round under way began, in Unix seconds; none if there are no rounds.
    pub began: Option<i64>,
    /// Files found damaged since the start of the booster.
    pub damaged: u64,
    /// When the last whole round ended, in Unix seconds; none if there has been none.
    pub finished: Option<i64>,
    /// How much of the round under way is done, in percent.
    pub percent: u8,
    /// Packs fetched again since the start of the booster.
    pub repaired: u64,
}

/// A round, as its task knows it.
struct Round {
    /// How long ago the round had begun when the task did.
    age_at_start: Duration,
    started: Instant,
    /// What is to be looked at next, of the folder that was read last.
    keys: VecDeque<Key>,
    /// The folder that is to be read next; beyond the last at the end of the round.
    shard: u16,
    kept: Instant,
}

impl Scrubber {
    /// Scrubs `cache`, and has fetched again what `wanted` knows. `path` is where the position is
    /// kept. Touches the disk.
    pub(crate) fn open(cache: Cache, path: PathBuf, clock: Clock, wanted: Wanted) -> Self {
        let position = Position::load(&path, clock.now());
        let finished = &cache.shared.metrics.scrub_finished;
        finished.set(position.finished.unwrap_or(0));
        Self {
            inner: Arc::new(Inner {
                cache,
                clock,
                free: Mutex::new(Instant::now()),
                hand: Hand::default(),
                path,
                position: Mutex::new(position),
                repairs: Arc::new(Semaphore::new(1)),
                turn: Semaphore::new(1),
                wanted,
            }),
        }
    }

    /// How it stands.
    pub(crate) fn status(&self) -> ScrubStatus {
        let position = *self.inner.position();
        let metrics = &self.inner.shared().metrics;
        let percent = match position.after {
            _ if position.done => 100,
            Some(digest) => (u64::from(share(&digest)) * 100 / SHARES) as u8,
            None => 0,
        };
        ScrubStatus {
            began: (!self.inner.period().is_zero()).then_some(position.began),
            damaged: metrics.scrubbed.with_label_values(&["damaged"]).get(),
            finished: position.finished,
            percent,
            repaired: metrics.repairs.with_label_values(&["fetched"]).get(),
        }
    }

    /// Looks at one file, in its turn and at no more than the rate that is allowed.
    pub(crate) async fn examine(&self, key: Key, stop: &CancellationToken) -> Examined {
        let inner = &self.inner;
        let Ok(_turn) = inner.turn.acquire().await else {
            return Examined::Stopped;
        };
        let free = *inner.free();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Examined::Stopped,
            () = sleep_until(free) => {}
        }
        let (scrubber, stopped, runtime) = (self.clone(), stop.clone(), Handle::current());
        let looked = inner.hand.run(move || {
            let examined = scrubber.inner.shared().store.examine(key, &stopped);
            // Here, so that it is done even if whoever asked has gone.
            let _in_which_repairs_run = runtime.enter();
            scrubber.account(key, &examined);
            examined
        });
        looked.await.unwrap_or(Examined::Stopped)
    }

    /// The files of the first folder that has any after `after`, in the order of digests, and the
    /// folder's number: that of the last folder if there are none.
    pub(crate) async fn keys_after(&self, after: Option<Digest>) -> (VecDeque<Key>, u8) {
        for shard in after.map_or(0, |after| after.as_raw()[0])..=u8::MAX {
            let keys = self.read_shard(shard, after).await;
            if !keys.is_empty() {
                return (keys, shard);
            }
        }
        (VecDeque::new(), u8::MAX)
    }

    /// Counts what a look came to, and sees to what is damaged.
    fn account(&self, key: Key, examined: &Examined) {
        let shared = self.inner.shared();
        let (result, bytes) = match examined {
            Examined::Absent | Examined::Stopped => return,
            Examined::Damaged { bytes } => ("damaged", *bytes),
            Examined::Good { bytes } => ("good", *bytes),
            Examined::Unreadable { error } => {
                let digest = key.digest;
                debug!(?digest, %error, "cannot look at a file of the cache");
                ("unreadable", 0)
            }
        };
        shared.metrics.scrubbed.with_label_values(&[result]).inc();
        shared.metrics.scrubbed_bytes.inc_by(bytes);
        let rate = shared.limits.scrub_bytes_per_second.max(1);
        *self.inner.free() = Instant::now() + Duration::from_secs_f64(bytes as f64 / rate as f64);
        if result == "damaged" {
            // What is in memory may have been read from that file after it was damaged.
            shared.memory.forget(key);
            if key.kind == Kind::Pack {
                self.repair(PackId(key.digest));
            }
        }
    }

    /// Has a pack fetched again that has been put aside, if it is named and may be.
    fn repair(&self, id: PackId) {
        let scrubber = self.clone();
        let spawner = &self.inner.shared().spawner;
        let _started = spawner.start_brief("repair", |stop| async move {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = scrubber.inner.fetch_again(id) => ended,
            };
            let repairs = &scrubber.inner.shared().metrics.repairs;
            repairs.with_label_values(&[ended]).inc();
            info!(pack = ?id, ended, "a pack that was damaged");
        });
    }

    /// Goes round and round, and looks at what is doubted, until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let inner = &self.inner;
        let mut round = Round::resume(&inner.position(), inner.clock.now());
        while !stop.is_cancelled() {
            let due = round.due(inner.period(), inner.position().done);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                id = inner.shared().doubts.next() => {
                    // What is cached of it does not count.
                    inner.shared().store.doubt(pack_key(id));
                    self.examine(pack_key(id), &stop).await;
                }
                () = sleep(due.min(LOOK_PAUSE)) => {
                    if due <= LOOK_PAUSE {
                        self.advance(&mut round, &stop).await;
                    }
                }
            }
        }
        self.keep().await;
    }

    /// Takes the next step of the round.
    async fn advance(&self, round: &mut Round, stop: &CancellationToken) {
        let inner = &self.inner;
        if let Some(key) = round.keys.pop_front() {
            if matches!(self.examine(key, stop).await, Examined::Stopped) {
                return;
            }
            inner.position().after = Some(key.digest);
            if round.kept.elapsed() >= KEEP_PAUSE {
                round.kept = Instant::now();
                self.keep().await;
            }
            return;
        }
        if inner.position().done {
            *round = Round::begin();
            inner.begin_round();
            return;
        }
        if let Ok(shard) = u8::try_from(round.shard) {
            round.shard += 1;
            let after = inner.position().after;
            round.keys = self.read_shard(shard, after).await;
            return;
        }
        inner.end_round();
        self.keep().await;
    }

    /// What is to be looked at of a folder.
    async fn read_shard(&self, shard: u8, after: Option<Digest>) -> VecDeque<Key> {
        let store = Arc::clone(&self.inner.shared().store);
        let read = self.inner.hand.run(move || store.shard(shard)).await;
        let keys = match read {
            Some(Ok(keys)) => keys,
            Some(Err(error)) => {
                warn!(%error, "cannot read a folder of the cache: passing it over");
                Vec::new()
            }
            None => Vec::new(),
        };
        let keys = keys.into_iter();
        keys.filter(|key| Some(key.digest) > after).collect()
    }

    async fn keep(&self) {
        let (position, path) = (*self.inner.position(), self.inner.path.clone());
        if !self.inner.period().is_zero() {
            off_runtime(move || position.store(&path)).await;
        }
    }
}

impl Inner {
    fn shared(&self) -> &Arc<Shared> {
        &self.cache.shared
    }

    /// How long a round takes; zero if there are to be none.
    fn period(&self) -> Duration {
        self.shared().limits.scrub_period
    }

    fn begin_round(&self) {
        let mut position = self.position();
        *position = Position {
            began: self.clock.now(),
            finished: position.finished,
            ..Position::default()
        };
    }

    fn end_round(&self) {
        let now = self.clock.now();
        self.shared().metrics.scrub_finished.set(now);
        let mut position = self.position();
        (position.done, position.finished) = (true, Some(now));
        info!("the scrub has been round");
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        // It is replaced as a whole, or by one field at a time, any of which makes sense.
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self) -> MutexGuard<'_, Instant> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a pack as if somebody had asked for it, one at a time. Says how that ended.
    async fn fetch_again(&self, id: PackId) -> &'static str {
        let Ok(_turn) = self.repairs.acquire().await else {
            return "failed";
        };
        let Some((fileset, entry)) = (self.wanted)(id) else {
            return "left";
        };
        let fetching = async {
            let (part, nobody) = (Extent::Part, Asker::NOBODY);
            let fetch = async || {
                let mut served = self.cache.pack(&fileset, entry, part, nobody).await?;
                served.arrived().await
            };
            loop {
                match fetch().await {
                    // What is there of it stays there.
                    Err(FillError::PutOff) => sleep(LINE_PAUSE).await,
                    ended => break ended,
                }
            }
        };
        match timeout(REPAIR_PATIENCE, fetching).await {
            Ok(Ok(())) => "fetched",
            Ok(Err(failure)) => {
                warn!(pack = ?id, error = %Report(&failure), "cannot fetch a damaged pack again");
                "failed"
            }
            Err(_) => "failed",
        }
    }
}

impl Round {
    /// A round from its beginning.
    fn begin() -> Self {
        let now = Instant::now();
        Self {
            age_at_start: Duration::ZERO,
            started: now,
            keys: VecDeque::new(),
            shard: 0,
            kept: now,
        }
    }

    /// A round that an earlier run began.
    fn resume(position: &Position, now: i64) -> Self {
        let age = u64::try_from(now.saturating_sub(position.began)).unwrap_or(0);
        let shard = position.after.map_or(0, |after| after.as_raw()[0]);
        Self {
            age_at_start: Duration::from_secs(age),
            shard: shard.into(),
            ..Self::begin()
        }
    }

    /// How long until the next step. A round is spread over most of its period: digests are spread
    /// evenly, so the first bytes of the next one say where in the round it belongs.
    fn due(&self, period: Duration, done: bool) -> Duration {
        if period.is_zero() {
            return Duration::MAX;
        }
        let part = match self.keys.front() {
            Some(key) => f64::from(share(&key.digest)) / SHARES as f64 * SPREAD,
            None if done => 1.0,
            None => f64::from(self.shard.min(256)) / 256.0 * SPREAD,
        };
        let at = period.mul_f64(part);
        at.saturating_sub(self.age_at_start + self.started.elapsed())
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// How much of its period a round is spread over; the rest is for what has held it up.
const SPREAD: f64 = 0.9;
/// See [`share`].
const SHARES: u64 = 1 << 16;
/// How often to look whether something is due.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
/// How often to write down how far a round has come.
const KEEP_PAUSE: Duration = Duration::from_secs(300);
/// How soon to look whether the line is free again.
const LINE_PAUSE: Duration = Duration::from_secs(10);
/// A pack of 8 MiB within this is the thinnest line that is thought of.
const REPAIR_PATIENCE: Duration = Duration::from_secs(1800);
