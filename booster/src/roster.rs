//! What holds for the devices that come here: the roster that the origin signs for this booster, and
//! what follows from it. One wait at the origin stands for the waits of all devices.
//!
//! ```text
//! origin ── roster: who goes by which manifest ──► follow ──► held ──► access: may it read that?
//!    ▲                                               ▲          └────► speak: check-in, wait, proof
//!    │                                               │ who has come        │
//!    └─────────── outbox: what devices have sealed ◄─┴─────────────────────┘
//! ```

mod access;
mod devices;
mod follow;
mod outbox;
mod speak;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use certs::Trust;
use content::statement::{RosterHead, Statement, StatementError};
use content::{Digest, Roster, RosterEntry, RosterTree};
use protocol::{Code, Fault};
use service::{CancellationToken, Clock, Pace, Spawner};
use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use transport::{CallError, Source};

use crate::cache::Cache;
use crate::catalogue::AnyJudge;
use crate::metrics::RosterMetrics;
use crate::single::SingleFlight;
use access::Named;
pub(crate) use access::Private;
use devices::Devices;
use follow::Asked;
use outbox::Message;
pub(crate) use outbox::Outbox;

/// What holds for the devices that come here. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Rosters {
    shared: Arc<Shared>,
}

/// What it is made of.
pub(crate) struct RosterParts {
    /// Where manifests and scripts are kept.
    pub(crate) cache: Cache,
    /// By which heads are judged.
    pub(crate) clock: Clock,
    /// Where the last roster is kept.
    pub(crate) folder: PathBuf,
    /// Who this booster is.
    pub(crate) id: String,
    /// Whose word counts.
    pub(crate) judge: AnyJudge,
    /// What is counted.
    pub(crate) metrics: RosterMetrics,
    /// The origin.
    pub(crate) origin: Arc<Source>,
    /// Starts what many wait for.
    pub(crate) spawner: Spawner,
    /// Whether it speaks for its devices.
    pub(crate) speaks: bool,
    /// By which devices are judged.
    pub(crate) trust: Arc<Trust>,
}

struct Shared {
    parts: RosterParts,
    /// When the origin was asked, and what came of it.
    asked: Mutex<Asked>,
    /// Asks the origin, once for all who want to know.
    asks: SingleFlight<(), Result<(), Arc<RosterError>>>,
    /// How fast each device may check in.
    check_ins: Pace<String>,
    /// Ends all waits.
    closing: CancellationToken,
    devices: Devices,
    /// Manifests and scripts under way.
    fetches: SingleFlight<Digest, Option<Bytes>>,
    held: watch::Sender<Option<Arc<Held>>>,
    /// Whether the last roster lies on the disk.
    is_kept: AtomicBool,
    /// Whether an earlier run had one that cannot be used any more.
    is_lost: AtomicBool,
    /// Somebody has come who is not on the roster.
    joined: Notify,
    /// What manifests name.
    named: Mutex<HashMap<Digest, Arc<Named>>>,
    outbox: mpsc::Sender<Message>,
    /// Who is being heard out.
    speaking: Mutex<HashSet<String>>,
    room: Arc<Semaphore>,
    /// Who waits, and what ends that: one wait for each device.
    waiting: Mutex<HashMap<String, CancellationToken>>,
    /// How fast each device may begin to wait.
    waits: Pace<String>,
}

/// A roster that was verified.
#[derive(Debug)]
pub(crate) struct Held {
    head: Statement<RosterHead>,
    envelope: Bytes,
    tree: Arc<RosterTree>,
    /// When the origin gave it; none if it is from an earlier run.
    taken: Option<Instant>,
}

/// What one device says, and room for it; it says one thing at a time.
pub(crate) struct Turn {
    device: String,
    shared: Arc<Shared>,
    room: Option<OwnedSemaphorePermit>,
}

/// The wait of one device.
struct Place {
    device: String,
    shared: Arc<Shared>,
    /// Ends it: another one of the same device has taken its place.
    taken: CancellationToken,
}

/// Why there is no newer roster.
#[derive(Debug, Error)]
pub(crate) enum RosterError {
    /// The origin did not give it.
    #[error("cannot get the roster")]
    Call(#[from] CallError),
    /// It is not what it should be.
    #[error("cannot use the roster: {0}")]
    Bad(&'static str),
    /// The one of the last run cannot be read.
    #[error("cannot read the roster")]
    Disk(#[from] io::Error),
    /// It is not the origin's word.
    #[error("cannot trust the roster")]
    Statement(#[from] StatementError),
    /// The booster stops.
    #[error("cannot ask for the roster: the booster is stopping")]
    Stopping,
}

/// Messages that wait to be passed on: some seconds' worth.
const WAITING_MAX: usize = 1024;
/// Devices that are heard out at a time: each takes up to 130 KiB.
const HEARD_AT_ONCE: usize = 256;
/// An answer from the roster costs a signature's judgement, a wait nothing: more than any agent asks.
const STEP: Duration = Duration::from_secs(1);
const BURST: u32 = 64;
/// Devices that wait at a time, as at the origin.
const WAITING_AT_ONCE: usize = 16_384;

impl Rosters {
    /// What holds as far as the last run knew, and what passes on what devices say.
    pub(crate) async fn open(parts: RosterParts) -> (Self, Outbox) {
        let (outbox, waiting) = mpsc::channel(WAITING_MAX);
        let origin = Arc::clone(&parts.origin);
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            asks: SingleFlight::new(parts.spawner.clone()),
            check_ins: Pace::new(STEP, BURST),
            closing: CancellationToken::new(),
            devices: Devices::default(),
            fetches: SingleFlight::new(parts.spawner.clone()),
            held: watch::Sender::new(None),
            is_kept: AtomicBool::new(true),
            is_lost: AtomicBool::new(false),
            joined: Notify::new(),
            named: Mutex::default(),
            outbox,
            speaking: Mutex::default(),
            room: Arc::new(Semaphore::new(HEARD_AT_ONCE)),
            waiting: Mutex::default(),
            waits: Pace::new(STEP, BURST),
            parts,
        });
        let rosters = Self { shared };
        rosters.recall().await;
        (rosters, Outbox::new(origin, waiting))
    }

    /// Whether it speaks for its devices.
    pub(crate) fn speaks(&self) -> bool {
        self.shared.parts.speaks
    }

    /// Takes note that `device` has come.
    pub(crate) fn seen(&self, device: &str) {
        let is_news = self.shared.devices.seen(device, Instant::now());
        let is_on = || self.held().is_some_and(|held| held.entry(device).is_some());
        if is_news && !is_on() {
            self.shared.joined.notify_one();
        }
    }

    /// Room to hear `device` out.
    ///
    /// # Errors
    ///
    /// Fails if it speaks already, or if as many do as may.
    pub(crate) fn enter(&self, device: &str) -> Result<Turn, Fault> {
        let room = Arc::clone(&self.shared.room).try_acquire_owned();
        let busy = |_| Fault::new(Code::Busy, "too many devices speak at once");
        let room = room.map_err(busy)?;
        let paced = self.shared.check_ins.take(device, Instant::now());
        paced.map_err(|_| Fault::new(Code::TooMany, "check-ins come too fast"))?;
        if !self.shared.speaking().insert(device.to_owned()) {
            return Err(Fault::new(Code::TooMany, "one thing at a time"));
        }
        Ok(Turn {
            device: device.to_owned(),
            shared: Arc::clone(&self.shared),
            room: Some(room),
        })
    }

    /// Ends all waits: the booster stops.
    pub(crate) fn close(&self) {
        self.shared.closing.cancel();
    }

    fn held(&self) -> Option<Arc<Held>> {
        self.shared.held.borrow().clone()
    }

    /// The last roster, if it has not expired.
    fn current(&self) -> Option<Arc<Held>> {
        let now = self.shared.parts.clock.now();
        self.held().filter(|held| now < held.head.expires)
    }
}

impl Shared {
    fn speaking(&self) -> MutexGuard<'_, HashSet<String>> {
        self.speaking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for `device` to wait; an earlier wait of it ends.
    fn place(self: &Arc<Self>, device: &str) -> Result<Place, Fault> {
        let paced = self.waits.take(device, Instant::now());
        paced.map_err(|_| Fault::new(Code::TooMany, "waits come too fast"))?;
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_AT_ONCE && !waiting.contains_key(device) {
            return Err(Fault::new(Code::Busy, "too many devices wait at once"));
        }
        let taken = CancellationToken::new();
        if let Some(before) = waiting.insert(device.to_owned(), taken.clone()) {
            before.cancel();
        }
        Ok(Place {
            device: device.to_owned(),
            shared: Arc::clone(self),
            taken,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting();
        // Looked at under the lock: whoever takes it says so there.
        if !self.taken.is_cancelled() {
            waiting.remove(&self.device);
        }
    }
}

impl Turn {
    /// It has been heard out: another may be.
    pub(crate) fn heard(&mut self) {
        self.room = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.speaking().remove(&self.device);
    }
}

impl Held {
    fn roster(&self) -> &Roster {
        self.tree.roster()
    }

    fn entry(&self, device: &str) -> Option<&RosterEntry> {
        self.roster().entry(device)
    }
}

impl fmt::Debug for Rosters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rosters").finish_non_exhaustive()
    }
}

/// What is told while the origin would have to be asked, and cannot be.
fn out_of_reach() -> Fault {
    let told = "the booster cannot ask the origin what holds for that device";
    Fault::new(Code::UpstreamUnavailable, told)
}
