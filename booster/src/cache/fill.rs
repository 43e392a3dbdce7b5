//! A fill: getting one pack from upstream, for whoever wants it, and keeping it.
//!
//! A fill belongs to nobody's request. It runs in a task of its own; every request, the first one
//! too, reads along behind it, up to where it has been checked.

mod run;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use content::FilesetName;
use content::locator::PackEntry;
use thiserror::Error;
use tokio::sync::watch;

use super::rope::Rope;
use super::store::StoredPack;
use crate::upstream::UpstreamError;
pub(crate) use run::Job;

/// A fill, as its task and its readers share it.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) entry: PackEntry,
    pub(crate) fileset: FilesetName,
    held: Mutex<Held>,
    progress: watch::Sender<Progress>,
    readers: watch::Sender<usize>,
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
    /// In memory, for as long as the fill runs.
    Memory(Rope),
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
    /// Its bytes are no longer held, because this reader was too slow.
    #[error("the reader was too slow for a fill that could not be kept")]
    TooSlow,
    /// The booster is stopping.
    #[error("the booster is stopping")]
    Stopping,
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
            held: Mutex::new(Held::Memory(Rope::default())),
            progress: watch::Sender::new(progress),
            readers: watch::Sender::new(0),
        }
    }

    /// Begins to read along.
    pub(crate) fn attach(self: &Arc<Self>) -> Tail {
        self.readers.send_modify(|readers| *readers += 1);
        Tail {
            fill: Arc::clone(self),
            progress: self.progress.subscribe(),
        }
    }

    fn readers(&self) -> usize {
        *self.readers.borrow()
    }

    /// Shows readers bytes that have been checked.
    fn publish(&self, bytes: Bytes) {
        let mut held = self.held();
        if let Held::Memory(rope) = &mut *held {
            rope.push(bytes);
            let verified = rope.length();
            drop(held);
            self.progress
                .send_modify(|progress| progress.verified = verified);
        }
    }

    /// Shows readers all that an earlier fill left, which has been checked.
    fn publish_all(&self, rope: Rope) {
        let verified = rope.length();
        self.hold(Held::Memory(rope));
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

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    /// Waits until the pack's header has been checked; says whether the pack will be kept.
    ///
    /// # Errors
    ///
    /// Fails as the fill fails.
    pub(crate) async fn header(&mut self) -> Result<bool, FillError> {
        let header_bytes = u64::from(self.fill.entry.header_bytes);
        self.verified_beyond(header_bytes - 1).await
    }

    /// Waits until the byte at `from` has been checked; gives it and those that follow it in
    /// memory, but none from `end` on.
    ///
    /// # Errors
    ///
    /// Fails as the fill fails.
    pub(crate) async fn piece(&mut self, from: u64, end: u64) -> Result<Piece, FillError> {
        self.verified_beyond(from).await?;
        match &*self.fill.held() {
            Held::Memory(rope) => rope
                .piece(from, end)
                .map(Piece::Here)
                .ok_or(FillError::Aborted),
            Held::Stored(pack) => Ok(Piece::Stored(Arc::clone(pack))),
            Held::Gone => match &self.fill.progress.borrow().ended {
                Some(Err(failure)) => Err(failure.clone()),
                Some(Ok(())) => Err(FillError::TooSlow),
                None => Err(FillError::Aborted),
            },
        }
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
        self.fill.readers.send_modify(|readers| *readers -= 1);
    }
}
