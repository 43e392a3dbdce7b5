//! Inventories: what devices say of themselves. The last of each is kept; check-ins name it by its
//! digest, and who names one that is not here is asked for it.

mod board;
pub mod log;
#[cfg(test)]
mod tests;
pub mod view;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::{DeviceId, Identity, Peer, Role};
use content::Digest;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use protocol::{Code, Fault, Inventory};
use service::{Pace, Report};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::error;

use crate::api::{Reply, fault, full, too_many};
use crate::authority::Authority;
use crate::ledger::inventories::{self as table, Stored};
use crate::ledger::{LedgerError, Read, commit, devices, smart};
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::model::Rule;
use crate::model::smart::settle;
use board::Board;
use view::{Found, InventoryView, Wanted};

/// The inventories. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Inventories {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    authority: Authority,
    board: Board,
    manifests: Manifests,
    metrics: Metrics,
    log_pace: Pace<Identity>,
    pace: Pace<Identity>,
    room: Arc<Semaphore>,
}

#[derive(Debug, Error)]
enum KeepError {
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    #[error("cannot pack it")]
    Pack(#[source] io::Error),
    #[error("cannot go on: the origin is stopping")]
    Stopping(#[source] JoinError),
}

/// How fast one device may send inventories in the long run, and how many at once.
const STEP: Duration = Duration::from_secs(600);
const BURST: u32 = 6;
/// Inventories that are taken in at a time: each takes some megabytes of memory.
const AT_ONCE: usize = 16;
/// What is heard of devices is written down so many at a time.
const SEEN_BATCH: usize = 1000;

impl Inventories {
    /// The inventories in the ledger of `authority`; what they change of groups changes `manifests`.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn open(
        authority: Authority,
        manifests: Manifests,
        metrics: Metrics,
    ) -> Result<Self, LedgerError> {
        let inner = Inner {
            authority,
            board: Board::default(),
            manifests,
            metrics,
            log_pace: Pace::new(STEP, BURST),
            pace: Pace::new(STEP, BURST),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        };
        let inventories = Self {
            inner: Arc::new(inner),
        };
        inventories.refresh().await?;
        Ok(inventories)
    }

    /// Reads anew which inventory is kept of whom: those of devices that are gone are forgotten.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn refresh(&self) -> Result<(), LedgerError> {
        let mut db = self.inner.authority.ledger().read().await?;
        let began = self.inner.board.era();
        let (digests, seen) = (table::digests(&mut db).await?, table::seen(&mut db).await?);
        self.inner.board.reset(began, digests, seen);
        Ok(())
    }

    /// Notes that the device `id` was heard, whose inventory is called `digest`. Whether it should
    /// send it.
    #[must_use]
    pub fn heard(&self, id: &DeviceId, digest: Option<Digest>) -> bool {
        let now = self.inner.authority.clock().now();
        self.inner.board.heard(id, digest, now, Instant::now())
    }

    /// Writes down when devices were heard, as far as that is news.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does; then it is news the next time.
    pub async fn note_seen(&self) -> Result<(), LedgerError> {
        let heard = self.inner.board.unwritten();
        for batch in heard.chunks(SEEN_BATCH) {
            let mut tx = self.inner.authority.ledger().write().await?;
            table::note_seen(&mut tx, batch).await?;
            commit(tx).await?;
            self.inner.board.written(batch);
        }
        Ok(())
    }

    /// Room to hear one inventory out; none if as many come as may.
    #[must_use]
    pub fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.room).try_acquire_owned().ok()
    }

    /// `POST /v1/inventory` of `peer`.
    pub async fn answer(&self, peer: &Peer, body: &Bytes) -> Reply {
        if peer.role() != Role::Client {
            return fault(&Fault::new(
                Code::Forbidden,
                "only a client has an inventory",
            ));
        }
        if let Err(wait) = self.inner.pace.take(peer.identity(), Instant::now()) {
            self.inner.metrics.inventory("refused");
            return too_many("inventories come too fast", wait);
        }
        let (bytes, now) = (body.clone(), self.inner.authority.clock().now());
        // Off the runtime: a long one takes ten milliseconds.
        let packed = tokio::task::spawn_blocking(move || {
            let inventory = Inventory::decode(&bytes)?;
            let stored = Stored::pack(inventory.clone(), &bytes, now);
            Some(stored.map(|stored| (inventory, stored)))
        });
        let kept = match packed.await {
            Ok(None) => {
                self.inner.metrics.inventory("refused");
                return fault(&Fault::new(Code::BadRequest, "want an inventory"));
            }
            Ok(Some(Ok((inventory, stored)))) => self.keep(peer.id(), &inventory, &stored).await,
            Ok(Some(Err(failure))) => Err(KeepError::Pack(failure)),
            Err(failure) => Err(KeepError::Stopping(failure)),
        };
        match kept {
            Ok(()) => {
                self.inner.metrics.inventory("kept");
                nothing()
            }
            Err(failure) => {
                error!(error = %Report(&failure), "cannot keep an inventory");
                self.inner.metrics.inventory("failed");
                let told = "the origin cannot take that at the moment";
                fault(&Fault::new(Code::Internal, told))
            }
        }
    }

    /// Keeps what the device `id` says, and lets it into the smart groups that it fits now.
    async fn keep(
        &self,
        id: &DeviceId,
        inventory: &Inventory,
        stored: &Stored,
    ) -> Result<(), KeepError> {
        let mut tx = self.inner.authority.ledger().write().await?;
        let is_kept = table::put(&mut tx, id, stored).await?;
        let (digest, now) = (stored.digest, stored.received_at);
        let moved = is_kept && settle(&mut tx, id, inventory, digest, now).await?;
        commit(tx).await?;
        if is_kept {
            self.inner.board.put(id, digest);
        }
        if moved {
            self.inner.manifests.changed(std::slice::from_ref(id));
        }
        Ok(())
    }

    /// When the device `id` was last heard.
    #[must_use]
    pub fn seen_at(&self, id: &DeviceId) -> Option<i64> {
        self.inner.board.seen_at(id)
    }

    /// A page of the devices that fit what is `wanted`.
    ///
    /// # Errors
    ///
    /// Fails if the rule is none, or if the ledger does.
    pub async fn find(&self, wanted: &Wanted) -> Result<Found, Fault> {
        let rule: Option<Rule> = match wanted.rule.as_deref().map(str::parse).transpose() {
            Ok(rule) => rule,
            Err(error) => return Err(Fault::new(Code::BadRequest, Report(&error).to_string())),
        };
        let mut db = self.inner.authority.ledger().read().await.map_err(failed)?;
        let page = smart::page(&mut db, &wanted.after, view::PAGE, true).await;
        let page = page.map_err(failed)?;
        drop(db);
        let last = page.last().map(|known| known.id.to_string());
        let (board, now) = (Arc::clone(&self.inner), self.inner.authority.clock().now());
        let judge = move || {
            let rows = page.into_iter().map(|known| {
                let seen_at = board.board.seen_at(&known.id);
                view::row(known, rule.as_ref(), seen_at, now)
            });
            rows.collect::<Result<Vec<_>, LedgerError>>()
        };
        let rows = tokio::task::spawn_blocking(judge).await;
        let stopping = |_| Fault::new(Code::Busy, "the origin is stopping");
        let rows = rows.map_err(stopping)?.map_err(failed)?;
        Ok(Found {
            devices: rows.into_iter().flatten().collect(),
            after: last,
        })
    }

    /// What the device `id` says of itself.
    ///
    /// # Errors
    ///
    /// Fails if there is no such device, if nothing has come from it, or if the ledger does.
    pub async fn show(&self, id: &DeviceId) -> Result<InventoryView, Fault> {
        let mut db = self.of(id).await?;
        let Some(stored) = table::find(&mut db, id).await.map_err(failed)? else {
            let told = format!("cannot show an inventory of {id}: none has come");
            return Err(Fault::new(Code::NotFound, told));
        };
        Ok(InventoryView {
            device: id.to_string(),
            seen_at: self.inner.board.seen_at(id),
            received_at: stored.received_at,
            digest: stored.digest.to_string(),
            inventory: stored.unpack().map_err(failed)?,
        })
    }

    /// The ledger, if there is a device `id` in it.
    async fn of(&self, id: &DeviceId) -> Result<Read, Fault> {
        let mut db = self.inner.authority.ledger().read().await.map_err(failed)?;
        if devices::find(&mut db, id).await.map_err(failed)?.is_none() {
            let told = format!("cannot find a device called {id}");
            return Err(Fault::new(Code::NotFound, told));
        }
        Ok(db)
    }
}

/// The ledger has failed, as operators are told.
fn failed(error: LedgerError) -> Fault {
    Fault::new(Code::Internal, Report(&error).to_string())
}

fn nothing() -> Reply {
    let mut reply = Response::new(full(Vec::new()));
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let no_store = HeaderValue::from_static("no-store");
    reply.headers_mut().insert(CACHE_CONTROL, no_store);
    reply
}
