//! Manifests: what each device should hold, signed, and at hand for its check-ins.
//!
//! A commit only notes, in its own transaction, whose manifest is due: a hundred thousand signatures
//! and 300 MB of envelopes in one transaction would keep everybody else from writing for half a
//! minute. [`Builder`] makes what is due, a batch in each transaction; a device that checks in before
//! its turn goes into the next batch, so that nobody is told what no longer holds. The notes are
//! rows: whenever the origin is killed, it goes on where it was.

mod access;
mod board;
mod build;
mod desk;
mod rosters;
#[cfg(test)]
mod tests;
pub mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use certs::{DeviceId, Peer, Role};
use content::Digest;
use protocol::Command;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use access::Access;
pub use access::AccessError;
use board::Board;
pub use board::{Standing, WaitRefused};
pub use build::{BuildError, Builder};
pub use desk::HoldsError;
use rosters::Rosters;
pub use rosters::{RosterError, Sealed};

use crate::authority::Authority;
use crate::ledger::{LedgerError, manifests as table, models, results, scripts};
use crate::metrics::Metrics;

/// The manifests. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Manifests {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    access: Access,
    asks: mpsc::Sender<Ask>,
    authority: Authority,
    board: Board,
    kick: Notify,
    metrics: Metrics,
    model: AtomicU64,
    rosters: Rosters,
}

/// Somebody who wants to know what holds for a device.
#[derive(Debug)]
struct Ask {
    device: DeviceId,
    tell: oneshot::Sender<()>,
}

/// Those who wait for the next batch: more come again.
const ASKS_MAX: usize = 4096;
/// A batch takes some tens of milliseconds; with a full queue before it, a second.
const BUILD_PATIENCE: Duration = Duration::from_secs(10);
/// Manifests that are read at once at the start.
const PAGE: u32 = 10_000;

impl Manifests {
    /// The manifests in the ledger of `authority`, and who makes them.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn open(
        authority: Authority,
        metrics: Metrics,
    ) -> Result<(Self, Builder), LedgerError> {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let board = Board::default();
        let mut db = authority.ledger().read().await?;
        let mut after = String::new();
        loop {
            let page = table::page(&mut db, &after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.device.to_string();
            page.iter().for_each(|made| board.made(made, 0));
        }
        board.mark_due(&table::due(&mut db, u32::MAX).await?);
        for given in results::pending(&mut db).await? {
            board.command(&given.device, given.id, given.what);
        }
        let model = models::current(&mut db).await?;
        drop(db);
        metrics.model_is(model);
        let inner = Arc::new(Inner {
            access: Access::default(),
            asks,
            authority,
            board,
            kick: Notify::new(),
            metrics,
            model: AtomicU64::new(model),
            rosters: Rosters::default(),
        });
        let builder = Builder::new(Arc::clone(&inner), asked);
        Ok((Self { inner }, builder))
    }

    /// Takes note that a model was committed, after which `devices` hold something else.
    pub fn model_changed(&self, model: u64, devices: &[DeviceId]) {
        self.inner.model.store(model, Ordering::Relaxed);
        self.inner.metrics.model_is(model);
        self.inner.board.mark_due(devices);
        if model == 1 {
            // From now on not everybody may read everything.
            self.inner.rosters.all_touched();
        }
        self.inner.kick.notify_one();
    }

    /// Takes note that `devices` came into groups or left them: what they hold is looked at anew.
    pub fn changed(&self, devices: &[DeviceId]) {
        self.inner.board.mark_due(devices);
        self.inner.kick.notify_one();
    }

    /// What holds for the device `id` now. What is due is made first; if that takes too long, what
    /// held until now is told: it comes again.
    pub async fn standing(&self, id: &DeviceId) -> Standing {
        let standing = self.inner.board.standing(id);
        let is_made = standing.manifest.is_some() && !standing.due;
        if is_made || self.inner.model.load(Ordering::Relaxed) == 0 {
            return standing;
        }
        let (tell, told) = oneshot::channel();
        let device = id.clone();
        if self.inner.asks.try_send(Ask { device, tell }).is_ok() {
            // Late, failed or stopping: it is told what is known.
            let _late = timeout(BUILD_PATIENCE, told).await;
        }
        self.inner.board.standing(id)
    }

    /// Notes that the device `id` has been told when to come again since this origin started.
    pub fn told(&self, id: &DeviceId) {
        self.inner.board.told(id);
    }

    /// Has everybody told anew: what others than its manifest have to say has changed.
    pub fn forget_told(&self) {
        self.inner.board.forget_told();
    }

    /// Tells the device `id` to do something.
    pub fn command(&self, id: &DeviceId, command: &Command) {
        self.inner.board.command(id, command.id, command.what);
        self.inner.board.wake(id);
        self.inner.rosters.touched(id);
    }

    /// Notes what the device `id` has done.
    pub fn done(&self, id: &DeviceId, commands: &[u64]) {
        self.inner.board.done(id, commands);
        if !commands.is_empty() {
            self.inner.rosters.touched(id);
        }
    }

    /// Whether the device `id` goes by the manifest `held`; if it does, what ends the wait for
    /// another one.
    ///
    /// # Errors
    ///
    /// Fails if too many wait, or if the origin stops.
    pub fn wait(
        &self,
        id: &DeviceId,
        held: Option<Digest>,
    ) -> Result<Option<oneshot::Receiver<()>>, WaitRefused> {
        self.inner.board.wait(id, held)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.board.waiting()
    }

    /// Ends all waits, and takes no more: the origin stops.
    pub fn stop_waiting(&self) {
        self.inner.board.close();
        self.inner.rosters.close();
    }

    /// The authority that signs them.
    pub(crate) fn authority(&self) -> &Authority {
        &self.inner.authority
    }

    /// The envelope called `digest`, if it is the current manifest of `peer`, or of a device on the
    /// roster of the booster `peer`: whose it is not, does not learn that it is there.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn envelope(
        &self,
        peer: &Peer,
        digest: Digest,
    ) -> Result<Option<Vec<u8>>, LedgerError> {
        let owner = match peer.role() {
            Role::Client => Some(peer.id().clone()),
            Role::Booster => self.owner(peer.id(), &digest),
            Role::Origin | Role::Signer => None,
        };
        let Some(owner) = owner.filter(|id| self.inner.board.manifest(id) == Some(digest)) else {
            return Ok(None);
        };
        let mut db = self.inner.authority.ledger().read().await?;
        table::envelope(&mut db, &owner, digest).await
    }

    /// The list called `digest`, if it is that of one of the last rosters of the booster `peer`.
    #[must_use]
    pub fn list(&self, peer: &Peer, digest: Digest) -> Option<Vec<u8>> {
        let sealed = self.recent(peer.id(), |sealed| sealed.list == digest)?;
        (peer.role() == Role::Booster).then(|| sealed.bytes.clone())
    }

    /// The script called `digest`, for a client whose manifest names it, or for its booster.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn script(
        &self,
        peer: &Peer,
        digest: Digest,
    ) -> Result<Option<Vec<u8>>, LedgerError> {
        if !matches!(peer.role(), Role::Client | Role::Booster) {
            return Ok(None);
        }
        let mut db = self.inner.authority.ledger().read().await?;
        scripts::find(&mut db, digest).await
    }
}
