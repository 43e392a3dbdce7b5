//! A fill: getting one pack from upstream, for whoever wants it, and keeping it.
//!
//! A fill belongs to nobody's request. It runs in a task of its own; every request, the first one
//! too, reads along behind it, up to where it has been checked.

mod line;
mod pace;
mod run;
mod trails;
mod turns;

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use content::FilesetName;
use content::locator::PackEntry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::index::Asker;
use super::off_runtime;
use super::pieces::PIECE_BYTES;
use super::rope::Rope;
use super::store::{StoredPack, Written};
use crate::upstream::UpstreamError;
use crate::wan::Purpose;
pub(crate) use run::Job;
pub(crate) use trails::{Course, Order, Place, Trails};
pub(crate) use turns::{Ticket, Turns, Waiter};

/// A fill, as its task and its readers share it.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) entry: PackEntry,
    pub(crate) fileset: FilesetName,
    held: Mutex<Held>,
    progress: watch::Sender<Progress>,
    readers: watch::Sender<Readers>,
    /// Whether little is left to come.
    ebbs: AtomicBool,
    want: watch::Sender<Want>,
    /// How many read along to its end.
    whole: AtomicUsize,
}

/// How much a fill is wanted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Want {
    /// Nobody has asked for it.
    Ahead,
    /// Somebody is about to: he reads what comes before it.
    Soon,
    /// A device has asked for it.
    Now,
}

/// Those who read along.
#[derive(Clone, Copy, Debug)]
struct Readers {
    count: usize,
    /// When the last of them left, or when it began.
    left: Instant,
}

/// How far a fill has come.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// How it ended, once it has.
    pub(crate) ended: Option<Result<(), FillError>>,
    /// Whether the pack is going to be kept.
    pub(crate) storing: bool,
    /// Bytes from the start that have been checked: all that a reader may see.
    pub(crate) verified: u64,
}

/// Where the checked bytes are.
#[derive(Debug)]
enum Held {
    /// The last of them in memory, and all before those in the file, while the fill runs; without a
    /// file all of them in memory.
    Filling { file: Option<Written>, rope: Rope },
    /// In the pack's own file: the fill is done.
    Stored(Arc<StoredPack>),
    /// Nowhere: the fill failed, or its readers were too slow.
    Gone,
}

/// Reads along behind a fill. As long as there is one, the fill is wanted.
#[derive(Debug)]
pub(crate) struct Tail {
    fill: Arc<Fill>,
    progress: watch::Receiver<Progress>,
    /// Whether it goes on to the end.
    whole: bool,
}

/// Where a reader finds its next bytes.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Here they are.
    Here(Bytes),
    /// In the pack's file.
    Stored(Arc<StoredPack>),
}

/// Why a fill did not end well.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum FillError {
    /// Its task was cut off.
    #[error("the fill was cut off")]
    Aborted,
    /// Too many others were waiting for a turn.
    #[error("too many fills are under way")]
    Busy,
    /// Nobody wanted it any more.
    #[error("nobody waits for the fill any more")]
    Cancelled,
    /// What was written a moment ago cannot be read.
    #[error("cannot read what has been filled")]
    Disk {
        /// Why; none if the work was cut off.
        source: Option<Arc<io::Error>>,
    },
    /// Nobody has asked for it yet, and others wait for the line. What came is kept.
    #[error("it makes way for what somebody waits for")]
    PutOff,
    /// Its bytes are no longer held, because this reader was too slow.
    #[error("the reader was too slow for a fill that could not be kept")]
    TooSlow,
    /// The booster is stopping.
    #[error("the booster is stopping")]
    Stopping,
    /// Nobody has asked for it yet, and there is no room for it.
    #[error("there is no room for what nobody waits for")]
    Unkept,
    /// No source gave bytes that pass their checks.
    #[error("no source has it as it should be: {what}")]
    Unverified {
        /// Which check failed last.
        what: String,
    },
    /// No source gave it.
    #[error("no source gave it")]
    Upstream {
        /// What the last one said.
        #[from]
        source: UpstreamError,
    },
}

impl Fill {
    pub(crate) fn new(fileset: FilesetName, entry: PackEntry) -> Self {
        let progress = Progress {
            ended: None,
            storing: true,
            verified: 0,
        };
        Self {
            entry,
            fileset,
            held: Mutex::new(Held::Filling {
                file: None,
                rope: Rope::default(),
            }),
            progress: watch::Sender::new(progress),
            readers: watch::Sender::new(Readers {
                count: 0,
                left: Instant::now(),
            }),
            ebbs: AtomicBool::new(false),
            want: watch::Sender::new(Want::Ahead),
            whole: AtomicUsize::new(0),
        }
    }

    /// Takes note of somebody who asks for it.
    pub(crate) fn ask_for(&self, asker: Asker) {
        if asker != Asker::NOBODY {
            self.want_at_least(Want::Now);
        }
    }

    /// Takes note that it is wanted so much. It is never wanted less than before.
    pub(crate) fn want_at_least(&self, want: Want) {
        self.want.send_if_modified(|before| {
            let grows = want > *before;
            *before = want.max(*before);
            grows
        });
    }

    fn want(&self) -> Want {
        *self.want.borrow()
    }

    /// Waits until it is for more than `purpose`.
    async fn outgrows(&self, purpose: Purpose) {
        if purpose != Purpose::Prefetch {
            return pending().await;
        }
        self.is_more_than(Want::Ahead).await;
    }

    /// Waits until it is wanted more than that.
    async fn is_more_than(&self, before: Want) {
        let mut want = self.want.subscribe();
        // The fill holds the sender, so this does not fail.
        let _wanted = want.wait_for(|want| *want > before).await;
    }

    fn purpose(&self) -> Purpose {
        match self.want() {
            Want::Ahead => Purpose::Prefetch,
            Want::Soon | Want::Now => Purpose::Wanted,
        }
    }

    /// Waits until nobody reads along. If somebody is about to, he may come a little later: between
    /// one pack and the next, nobody holds it.
    async fn left_alone(&self) {
        let mut readers = self.readers.subscribe();
        loop {
            // The fill holds the sender, so none of this fails.
            let none = readers.wait_for(|readers| readers.count == 0).await;
            let left = none.map_or_else(|_| Instant::now(), |readers| readers.left);
            if self.want() != Want::Soon {
                return;
            }
            // Somebody may have come and gone before this looks.
            let again = readers.wait_for(|readers| readers.count > 0 || readers.left > left);
            if timeout_at(left + BETWEEN_PACKS, again).await.is_err() {
                return;
            }
        }
    }

    /// Begins to read along.
    pub(crate) fn attach(self: &Arc<Self>) -> Tail {
        self.readers.send_modify(|readers| readers.count += 1);
        Tail {
            fill: Arc::clone(self),
            progress: self.progress.subscribe(),
            whole: false,
        }
    }

    fn readers(&self) -> usize {
        self.readers.borrow().count
    }

    /// Whether it is over, however it ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.progress.borrow().ended.is_some()
    }

    /// Takes note that little is left to come.
    fn ebbs(&self) {
        self.ebbs.store(true, Ordering::SeqCst);
    }

    /// Whether little is left to come, and many will be done with it then.
    pub(crate) fn is_next_wanted(&self) -> bool {
        self.ebbs.load(Ordering::SeqCst) && self.whole.load(Ordering::SeqCst) >= MANY
    }

    /// Shows readers bytes that have been checked, and written if they are to be `stored`: then
    /// only the last ones stay in memory.
    fn publish(&self, bytes: Bytes, stored: bool) {
        let mut held = self.held();
        if let Held::Filling { rope, .. } = &mut *held {
            rope.push(bytes);
            let verified = rope.length();
            if stored {
                rope.let_go(KEPT_BYTES);
            }
            drop(held);
            self.progress
                .send_modify(|progress| progress.verified = verified);
        }
    }

    /// Shows readers all that an earlier fill left in `file`, which has been checked.
    fn publish_all(&self, file: Written, mut rope: Rope) {
        let verified = rope.length();
        rope.let_go(KEPT_BYTES);
        self.hold(Held::Filling {
            file: Some(file),
            rope,
        });
        self.progress
            .send_modify(|progress| progress.verified = verified);
    }

    /// Lets go of the bytes in memory, in favour of `held`.
    fn hold(&self, held: Held) {
        *self.held() = held;
    }

    /// Tells readers the end. They never take silence for it.
    fn end(&self, ended: Result<(), FillError>) {
        self.progress.send_modify(|progress| {
            progress.ended.get_or_insert(ended);
        });
    }

    /// Bytes that are held in memory.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> u64 {
        match &*self.held() {
            Held::Filling { rope, .. } => rope.length() - rope.start(),
            Held::Stored(_) | Held::Gone => 0,
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    /// What it reads along behind.
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Takes note that somebody wants to read on to the end.
    pub(crate) fn wants_all(&mut self) {
        if !std::mem::replace(&mut self.whole, true) {
            self.fill.whole.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until the pack's header has been checked; says whether the pack will be kept.
    ///
    /// # Errors
    ///
    /// Fails as the fill fails.
    pub(crate) async fn header(&mut self) -> Result<bool, FillError> {
        let header_bytes = u64::from(self.fill.entry.header_bytes);
        self.verified_beyond(header_bytes - 1).await
    }

    /// Waits until the byte at `from` has been checked; gives it and some that follow it, but none
    /// from `end` on. Who reads right behind the fill gets them from memory, and who is slower from
    /// the file, however many they are.
    ///
    /// # Errors
    ///
    /// Fails as the fill fails, or the disk.
    pub(crate) async fn piece(&mut self, from: u64, end: u64) -> Result<Piece, FillError> {
        self.verified_beyond(from).await?;
        let (file, end) = match &*self.fill.held() {
            Held::Filling { file, rope } => match (rope.piece(from, end), file) {
                (Some(piece), _) => return Ok(Piece::Here(piece)),
                (None, Some(file)) => (file.clone(), end.min(rope.start())),
                (None, None) => return Err(FillError::Aborted),
            },
            Held::Stored(pack) => return Ok(Piece::Stored(Arc::clone(pack))),
            Held::Gone => {
                return Err(match &self.fill.progress.borrow().ended {
                    Some(Err(failure)) => failure.clone(),
                    Some(Ok(())) => FillError::TooSlow,
                    None => FillError::Aborted,
                });
            }
        };
        let length = (end - from).min(PIECE_BYTES as u64) as usize;
        // It was written a moment ago.
        if let Some(piece) = file.at_hand(from, length) {
            return Ok(Piece::Here(piece));
        }
        match off_runtime(move || file.read(from, length)).await {
            Some(Ok(piece)) => Ok(Piece::Here(piece)),
            Some(Err(failure)) => Err(FillError::Disk {
                source: Some(Arc::new(failure)),
            }),
            None => Err(FillError::Disk { source: None }),
        }
    }

    /// Whether the fill has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.fill.has_ended()
    }

    /// Whether `other` reads along behind the same fill.
    pub(crate) fn is_behind_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fill, &other.fill)
    }

    /// Waits until the fill has ended.
    ///
    /// # Errors
    ///
    /// Fails as the fill fails.
    pub(crate) async fn end(&mut self) -> Result<(), FillError> {
        let ended = self.progress.wait_for(|progress| progress.ended.is_some());
        let progress = ended.await.map_err(|_| FillError::Aborted)?;
        progress.ended.clone().unwrap_or(Err(FillError::Aborted))
    }

    async fn verified_beyond(&mut self, at: u64) -> Result<bool, FillError> {
        let progress = self
            .progress
            .wait_for(|progress| progress.verified > at || progress.ended.is_some())
            .await
            // The fill holds the sender, and this holds the fill.
            .map_err(|_| FillError::Aborted)?;
        match &progress.ended {
            _ if progress.verified > at => Ok(progress.storing),
            Some(Err(failure)) => Err(failure.clone()),
            Some(Ok(())) | None => Err(FillError::Aborted),
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if self.whole {
            self.fill.whole.fetch_sub(1, Ordering::SeqCst);
        }
        self.fill.readers.send_modify(|readers| {
            readers.count -= 1;
            readers.left = Instant::now();
        });
    }
}

/// How long somebody who reads in order may take from the end of one pack to the next request.
const BETWEEN_PACKS: Duration = Duration::from_secs(2);
/// So many who want all of a pack at the same time are taking what is new, one pack after the other.
/// Fewer may be one device that has lost its connection and asks again.
const MANY: usize = 3;
/// How much of a fill that is being stored stays in memory, and up to a frame more: who reads along
/// at the pace of the line finds all there.
const KEPT_BYTES: u64 = 1 << 20;
