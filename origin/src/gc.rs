//! Removing packs that nothing needs any more.

use std::fmt;

use content::durable::{self, RealDisk};
use serde::{Deserialize, Serialize};

use crate::ledger::packs::{self, Pack};
use crate::ledger::{commit, publishes};
use crate::publish::intake::{DEAD_AFTER_SECONDS, Intake, PublishError, at_files};

/// A pack is removed once no revision has needed it for so long, in seconds: whoever began to fetch
/// an old revision may finish.
pub const UNREFERENCED_SECONDS: i64 = 72 * 3600;

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Collected {
    /// Whether nothing was removed, only counted.
    pub dry_run: bool,
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files among the packs that the ledger did not know: left by a crash.
    pub stray: u64,
    /// Packs that are missing or are not what their headers say, if all were read.
    #[serde(default)]
    pub bad: u64,
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run {
            "would remove"
        } else {
            "removed"
        };
        let size = bytesize::ByteSize(self.bytes);
        write!(
            f,
            "{verb} {} packs of {size}, {} of them stray files",
            self.packs, self.stray
        )?;
        if self.bad > 0 {
            let bad = self.bad;
            write!(
                f,
                "; {bad} packs are missing or bad: publish the same again"
            )?;
        }
        Ok(())
    }
}

impl Intake {
    /// Removes the packs that no revision has needed for [`UNREFERENCED_SECONDS`] and no publish
    /// leases, and files that a crash left behind.
    ///
    /// # Errors
    ///
    /// Fails if ledger or disk do; what was removed by then stays removed.
    pub async fn collect(&self, dry_run: bool) -> Result<Collected, PublishError> {
        self.collect_older(UNREFERENCED_SECONDS, dry_run).await
    }

    /// The same with another age, for tests.
    ///
    /// # Errors
    ///
    /// As [`Intake::collect`].
    pub async fn collect_older(&self, age: i64, dry_run: bool) -> Result<Collected, PublishError> {
        let mut collected = Collected {
            dry_run,
            ..Collected::default()
        };
        loop {
            let gone = self.step(age, dry_run).await?;
            collected.packs += gone.len() as u64;
            collected.bytes += gone
                .iter()
                .map(|pack| u64::from(pack.total_bytes))
                .sum::<u64>();
            if dry_run || gone.len() < STEP_PACKS as usize {
                break;
            }
        }
        let (stray, bytes) = self.collect_stray(dry_run).await?;
        collected.stray = stray;
        collected.packs += stray;
        collected.bytes += bytes;
        Ok(collected)
    }

    /// Removes some packs: rows and files together, so that none that comes in now is lost.
    async fn step(&self, age: i64, dry_run: bool) -> Result<Vec<Pack>, PublishError> {
        let now = self.now();
        let files = self.lock_files().await;
        let mut tx = self.catalogue.authority().ledger().write().await?;
        publishes::end_dead(&mut tx, now - DEAD_AFTER_SECONDS).await?;
        if dry_run {
            return Ok(packs::unreferenced(&mut tx, now - age, u32::MAX).await?);
        }
        let gone = packs::remove_unreferenced(&mut tx, now - age, STEP_PACKS).await?;
        commit(tx).await?;
        let (folder, removed) = (self.catalogue.packs().clone(), gone.clone());
        let remove = move || {
            let mut paths = removed.iter().map(|pack| folder.path(pack.id));
            paths.try_for_each(|path| durable::remove(&RealDisk, &path))
        };
        at_files(files, remove).await?;
        Ok(gone)
    }

    /// Removes files that bear a pack's name and are in no row: a pack that was written when the
    /// machine stopped, before it was entered.
    async fn collect_stray(&self, dry_run: bool) -> Result<(u64, u64), PublishError> {
        let files = self.lock_files().await;
        let mut db = self.catalogue.authority().ledger().read().await?;
        let known: std::collections::HashSet<_> = packs::list(&mut db)
            .await?
            .into_iter()
            .map(|pack| pack.id)
            .collect();
        drop(db);
        let folder = self.catalogue.packs().clone();
        let remove = move || {
            let (mut count, mut bytes) = (0, 0);
            for id in folder.list()?.into_iter().filter(|id| !known.contains(id)) {
                let path = folder.path(id);
                bytes += path.metadata()?.len();
                count += 1;
                if !dry_run {
                    durable::remove(&RealDisk, &path)?;
                }
            }
            Ok((count, bytes))
        };
        let (_files, removed) = at_files(files, remove).await?;
        Ok(removed)
    }
}

/// Packs removed in one transaction: short enough that nobody waits long for the ledger.
const STEP_PACKS: u32 = 64;
