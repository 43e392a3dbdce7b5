//! The ends of devices' logs, which they send when an operator asks for them.

use std::fmt;

use bytes::Bytes;
use certs::{DeviceId, Peer, Role};
use protocol::{Code, Fault, LOG_BYTES_MAX};
use serde::{Deserialize, Serialize};
use service::Report;
use tokio::time::Instant;
use tracing::error;

use super::{Inventories, KeepError, failed, nothing};
use crate::api::{Reply, fault, too_many};
use crate::fleet::time;
use crate::ledger::commit;
use crate::ledger::logs::{self as table, StoredLog};

/// The end of a device's log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogView {
    /// The device.
    pub device: String,
    /// When it came, in Unix seconds.
    pub received_at: i64,
    /// Its lines, the oldest first: untrusted.
    pub text: String,
}

impl fmt::Display for LogView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log of {}, {}:", self.device, time(self.received_at))?;
        for line in self.text.lines() {
            // A stranger's text shall not speak to the terminal.
            let line = line.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}");
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

/// As fast as logs are packed, and as small as they need be.
const ZSTD_LEVEL: i32 = 3;

impl Inventories {
    /// `POST /v1/log` of `peer`.
    pub async fn answer_log(&self, peer: &Peer, body: &Bytes) -> Reply {
        if peer.role() != Role::Client {
            return fault(&Fault::new(Code::Forbidden, "only a client shows its log"));
        }
        if let Err(wait) = self.inner.log_pace.take(peer.identity(), Instant::now()) {
            return too_many("logs come too fast", wait);
        }
        if body.len() > LOG_BYTES_MAX {
            return fault(&Fault::new(Code::TooLarge, "the log is too long"));
        }
        if std::str::from_utf8(body).is_err() {
            return fault(&Fault::new(Code::BadRequest, "want text in UTF-8"));
        }
        match self.keep_log(peer.id(), body.clone()).await {
            Ok(()) => nothing(),
            Err(failure) => {
                error!(error = %Report(&failure), "cannot keep a log");
                let told = "the origin cannot take that at the moment";
                fault(&Fault::new(Code::Internal, told))
            }
        }
    }

    async fn keep_log(&self, id: &DeviceId, text: Bytes) -> Result<(), KeepError> {
        let packed = tokio::task::spawn_blocking(move || zstd::bulk::compress(&text, ZSTD_LEVEL));
        let stored = StoredLog {
            text: packed
                .await
                .map_err(KeepError::Stopping)?
                .map_err(KeepError::Pack)?,
            received_at: self.inner.authority.clock().now(),
        };
        let mut tx = self.inner.authority.ledger().write().await?;
        table::put(&mut tx, id, &stored).await?;
        Ok(commit(tx).await?)
    }

    /// The log that the device `id` has sent last.
    ///
    /// # Errors
    ///
    /// Fails if there is no such device, if no log has come from it, or if the ledger does.
    pub async fn show_log(&self, id: &DeviceId) -> Result<LogView, Fault> {
        let mut db = self.of(id).await?;
        let Some(stored) = table::find(&mut db, id).await.map_err(failed)? else {
            let told = format!(
                "cannot show a log of {id}: none has come; ask for it: device command {id} log"
            );
            return Err(Fault::new(Code::NotFound, told));
        };
        let damaged = |why: String| {
            let told = format!("cannot read the log of {id}: {why}");
            Fault::new(Code::Internal, told)
        };
        let bytes = zstd::bulk::decompress(&stored.text, LOG_BYTES_MAX);
        let bytes = bytes.map_err(|error| damaged(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        Ok(LogView {
            device: id.to_string(),
            received_at: stored.received_at,
            text,
        })
    }
}
