//! What devices say of themselves, kept: all that is said at one time in one transaction, and
//! nobody is told that it was heard before it is durable.

use std::fmt;

use certs::DeviceId;
use protocol::FilesetResult;
use service::{CancellationToken, Report};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::authority::Authority;
use crate::ledger::{LedgerError, commit, results};
use crate::manifests::Manifests;

/// Hands on what devices say. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Keep {
    told: mpsc::Sender<Told>,
}

/// Keeps what devices say.
pub struct Keeper {
    authority: Authority,
    manifests: Manifests,
    told: mpsc::Receiver<Told>,
}

/// What one device said.
#[derive(Debug)]
struct Told {
    device: DeviceId,
    results: Vec<FilesetResult>,
    done: Vec<u64>,
    kept: oneshot::Sender<()>,
}

/// Devices that wait to be heard: some seconds' worth.
const WAITING_MAX: usize = 4096;
/// What is kept in one transaction: 64 results of each are 16,000 rows, a tenth of a second.
const BATCH: usize = 256;

impl Keeper {
    /// A keeper in the ledger of `authority`, and the way to it.
    #[must_use]
    pub fn new(authority: Authority, manifests: Manifests) -> (Keep, Self) {
        let (tell, told) = mpsc::channel(WAITING_MAX);
        let keeper = Self {
            authority,
            manifests,
            told,
        };
        (Keep { told: tell }, keeper)
    }

    /// Keeps what comes until it is asked to stop, and then what has come.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                told = self.told.recv() => told,
                () = stop.cancelled() => self.told.try_recv().ok(),
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(told) = self.told.try_recv()
            {
                batch.push(told);
            }
            match self.keep(&batch).await {
                Ok(()) => batch.into_iter().for_each(|told| {
                    self.manifests.done(&told.device, &told.done);
                    // Who went away tells it again.
                    let _gone = told.kept.send(());
                }),
                // They are told so, and say it again.
                Err(failure) => error!(error = %Report(&failure), "cannot keep results"),
            }
        }
    }

    async fn keep(&self, batch: &[Told]) -> Result<(), LedgerError> {
        let now = self.authority.clock().now();
        let mut tx = self.authority.ledger().write().await?;
        for told in batch {
            for result in &told.results {
                results::put(&mut tx, &told.device, result, now).await?;
            }
            for number in &told.done {
                results::done(&mut tx, &told.device, *number, now).await?;
            }
        }
        commit(tx).await
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keep {
    /// Keeps what the device `id` said; whether it is durable.
    pub async fn keep(&self, id: &DeviceId, results: Vec<FilesetResult>, done: Vec<u64>) -> bool {
        let (kept, heard) = oneshot::channel();
        let told = Told {
            device: id.clone(),
            results,
            done,
            kept,
        };
        self.told.try_send(told).is_ok() && heard.await.is_ok()
    }
}
