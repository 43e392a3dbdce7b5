//! Restoring the ledger from a backup without going back in time: every number that was promised
//! never to fall is raised well above what was ever published.

use std::io;
use std::path::{Path, PathBuf};

use certs::key::Passphrase;
use certs::{DeploymentId, IssuerId};
use content::durable::{Disk as _, RealDisk};
use serde::Serialize;
use sqlx::SqliteConnection;
use thiserror::Error;

use crate::LEDGER_FILE;
use crate::audit::{Actor, Event};
use crate::authority::{AuthorityError, crl_counter, rotate};
use crate::ledger::{
    Ledger, LedgerError, audit, authorities, commit, counters, deployment, filesets, manifests,
    models,
};
use crate::model::world::Edits;
use crate::publish::commit::KEEP_DEFAULT;
use crate::published::{Published, PublishedError};

/// What a restore did.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Restored {
    /// The deployment that the backup is of.
    pub deployment: String,
    /// Its new epoch.
    pub epoch: u64,
    /// Where the ledger went that was there before.
    pub replaced: Option<PathBuf>,
}

/// Why nothing was restored. The ledger that was there is still there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The keys here are not those of the backup.
    #[error("cannot use the keys in this data folder with the backup")]
    Keys(#[source] AuthorityError),
    /// The disk refused.
    #[error("cannot restore {path}", path = path.display())]
    Io {
        /// The file at hand.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The backup cannot be used.
    #[error("cannot use the backup")]
    Ledger(#[from] LedgerError),
    /// It is not of an origin.
    #[error("cannot use the backup: there is no deployment in it")]
    NoDeployment,
    /// It is of another deployment.
    #[error("cannot use the backup: it is of {found}, and here is {here}")]
    OtherDeployment {
        /// The deployment of the backup.
        found: DeploymentId,
        /// The deployment of this data folder.
        here: DeploymentId,
    },
    /// The published numbers cannot be read.
    #[error("cannot read what was published")]
    Published(#[from] PublishedError),
}

/// How far each counter is raised above the highest value known. The file of published numbers may
/// be lost with the disk: a million is then more than a deployment signs in a hundred years of
/// hourly lists, and leaves room for as many restores as anybody has patience for.
const STEP: u64 = 1 << 20;

/// Puts the ledger in `backup` in place of the one in the data folder `data`, at the time `now`.
/// The origin must not be running. What stood there is kept beside it.
///
/// The roots' lists are signed anew, for which an encrypted root key needs its `passphrase`, or
/// kept if they are the last that were published.
///
/// # Errors
///
/// Fails if the backup is not of this deployment, its keys are not here or cannot be used, or the
/// disk refuses.
pub async fn restore(
    data: &Path,
    backup: &Path,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<Restored, RestoreError> {
    let published = Published::load(data)?;
    let here = deployment_here(data).await;
    let fresh = data.join("larder.db.restoring");
    remove_ledger(&fresh)?;
    copy_ledger(backup, &fresh)?;
    let ledger = Ledger::open(&fresh).await?;
    let raised = raise(data, &ledger, &published, here, passphrase, now).await;
    ledger.close().await;
    let (deployment, epoch) = raised?;

    let current = data.join(LEDGER_FILE);
    let replaced = data.join(format!("{LEDGER_FILE}.replaced-{now}"));
    let was_there = current.exists();
    if was_there {
        move_ledger(&current, &replaced)?;
    }
    move_ledger(&fresh, &current)?;
    let synced = RealDisk
        .sync(&current)
        .and_then(|()| RealDisk.sync_folder(data));
    synced.map_err(failed(&current))?;
    Ok(Restored {
        deployment: deployment.to_string(),
        epoch,
        replaced: was_there.then_some(replaced),
    })
}

/// Raises every counter, and drops the lists, which are signed anew at the next start.
async fn raise(
    data: &Path,
    ledger: &Ledger,
    published: &Published,
    here: Option<DeploymentId>,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<(DeploymentId, u64), RestoreError> {
    let mut tx = ledger.write().await?;
    let found = deployment::find(&mut tx)
        .await?
        .ok_or(RestoreError::NoDeployment)?
        .id;
    if let Some(here) = here.filter(|here| *here != found) {
        return Err(RestoreError::OtherDeployment { found, here });
    }
    let known = authorities::list(&mut tx).await?;
    crate::authority::check_keys(data, &known).map_err(RestoreError::Keys)?;
    let mut values = counters::promised(&mut tx).await?;
    for (name, mark) in published.marks() {
        let value = values.entry(name).or_default();
        *value = mark.max(*value);
    }
    let epoch = values.remove(counters::EPOCH).unwrap_or(0) + 1;
    counters::raise(&mut tx, counters::EPOCH, epoch).await?;
    for (name, value) in values {
        let least = value.saturating_add(STEP);
        match filesets::of_counter(&name) {
            Some(fileset) => filesets::raise(&mut tx, &fileset, least, KEEP_DEFAULT, now).await?,
            None => counters::raise(&mut tx, &name, least).await?,
        }
    }
    raise_manifests(&mut tx, now).await?;
    authorities::drop_crls(&mut tx).await?;
    sign_root_lists(data, &mut tx, published, passphrase, now).await?;
    let before = audit::head(&mut tx).await?;
    Event::Restore
        .by(&Actor::acting(), now)
        .with("epoch", epoch)
        .with("entries", before.number)
        .append(&mut tx)
        .await?;
    commit(tx).await?;
    Ok((found, epoch))
}

/// Lets every device have a manifest with a number above all that it ever had, under a model above
/// all that there ever were. The counters have been raised.
async fn raise_manifests(db: &mut SqliteConnection, now: i64) -> Result<(), RestoreError> {
    let raised = counters::all(&mut *db).await?;
    if let Some(floor) = raised.get(manifests::COUNTER) {
        counters::raise(db, manifests::FLOOR, *floor).await?;
        manifests::raise_all(db, *floor).await?;
    }
    if models::current(db).await? > 0 {
        let again = models::Model {
            number: 0,
            author: Actor::acting().to_string(),
            message: "restored from a backup".to_owned(),
            made_at: now,
            changes: 0,
            of_model: None,
        };
        models::insert(db, &Edits::new(), &again).await?;
    }
    Ok(())
}

/// Signs the roots' lists, with numbers above all that were published. Where the key cannot be
/// used, the list in the backup does as well, if nothing newer ever left.
async fn sign_root_lists(
    data: &Path,
    db: &mut SqliteConnection,
    published: &Published,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<(), RestoreError> {
    let (lists, marks) = (authorities::crls(db).await?, published.marks());
    for root in authorities::list(db).await? {
        if root.kind != "root" || root.retired_at.is_some() {
            continue;
        }
        if let Err(failure) = rotate::sign_root_list(db, data, &root, passphrase, now).await {
            let held = lists.iter().find(|list| list.issuer == root.issuer);
            let mark = marks.get(&crl_counter(IssuerId::from_bytes(root.issuer)));
            if mark.is_none() || held.map(|list| list.number) != mark.copied() {
                return Err(RestoreError::Keys(failure));
            }
        }
    }
    Ok(())
}

/// The deployment of the ledger that is to be replaced, if it can still be read.
async fn deployment_here(data: &Path) -> Option<DeploymentId> {
    let path = data.join(LEDGER_FILE);
    if !path.exists() {
        return None;
    }
    let ledger = Ledger::open(&path).await.ok()?;
    let found = match ledger.read().await {
        Ok(mut db) => deployment::find(&mut db).await.ok().flatten(),
        Err(_) => None,
    };
    ledger.close().await;
    found.map(|deployment| deployment.id)
}

fn copy_ledger(from: &Path, to: &Path) -> Result<(), RestoreError> {
    std::fs::copy(from, to).map_err(failed(from))?;
    // A copy of a running origin's folder has its last transactions beside the ledger.
    let log = beside(from, "-wal");
    if log.exists() {
        std::fs::copy(&log, beside(to, "-wal")).map_err(failed(&log))?;
    }
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(to, private).map_err(failed(to))
}

fn move_ledger(from: &Path, to: &Path) -> Result<(), RestoreError> {
    // The log first: a ledger without its log is short of transactions, a log without its ledger
    // is ignored.
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (beside(from, suffix), beside(to, suffix));
        if from.exists() {
            RealDisk.rename(&from, &to).map_err(failed(&from))?;
        }
    }
    Ok(())
}

fn remove_ledger(path: &Path) -> Result<(), RestoreError> {
    for suffix in ["", "-wal", "-shm"] {
        let path = beside(path, suffix);
        RealDisk.remove(&path).map_err(failed(&path))?;
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bed;

    #[tokio::test]
    async fn a_restored_ledger_is_above_all_that_was_published() {
        let bed = Bed::new().await;
        let data = bed.folder.path();
        let issuer = IssuerId::from_bytes(bed.authority.root_pin());
        let backup = data.join("backup.db");
        bed.authority.ledger().close().await;
        std::fs::copy(data.join(LEDGER_FILE), &backup).unwrap();
        // After the backup, more was published than it knows of.
        bed.authority
            .published()
            .raise("timestamp", 40)
            .await
            .unwrap();
        bed.authority
            .published()
            .raise(counters::EPOCH, 3)
            .await
            .unwrap();
        let before = bed.authority.published().marks();

        let restored = restore(data, &backup, None, 7).await.unwrap();
        assert_eq!(restored.epoch, 4);
        assert!(restored.replaced.unwrap().exists());
        let authority = bed.reopen().await.unwrap();
        let mut db = authority.ledger().read().await.unwrap();
        let after = counters::all(&mut db).await.unwrap();
        assert!(
            before.iter().all(|(name, mark)| after[name] > *mark),
            "{before:?} {after:?}"
        );
        let crl = authority.trust().crls().current(issuer).unwrap();
        assert!(crl.number() > STEP);
    }

    #[tokio::test]
    async fn without_the_roots_passphrase_its_list_must_be_the_last_that_left() {
        let bed = Bed::new().await;
        let (data, now) = (bed.folder.path(), bed.authority.clock().now());
        let ledger = bed.authority.ledger();
        let key = Passphrase::new(b"correct horse".to_vec()).unwrap();
        rotate::encrypt_root_keys(data, ledger, &key).await.unwrap();
        let backup = data.join("backup.db");
        sqlx::query("VACUUM INTO $1")
            .bind(backup.to_str().unwrap())
            .execute(&mut *ledger.read().await.unwrap())
            .await
            .unwrap();
        restore(data, &backup, None, now).await.unwrap();
        let ledger = Ledger::open(&data.join(LEDGER_FILE)).await.unwrap();
        rotate::sign_root_lists(data, &ledger, Some(&key), now)
            .await
            .unwrap();
        ledger.close().await;
        let issuer = IssuerId::from_bytes(bed.authority.root_pin());
        let number = |authority: &crate::authority::Authority| {
            authority.trust().crls().current(issuer).unwrap().number()
        };
        let published = number(&bed.reopen().await.unwrap());

        let refusal = restore(data, &backup, None, now).await;
        assert!(matches!(refusal, Err(RestoreError::Keys(_))), "{refusal:?}");
        restore(data, &backup, Some(&key), now).await.unwrap();
        assert!(number(&bed.reopen().await.unwrap()) > published);
    }

    #[tokio::test]
    async fn a_foreign_backup_is_refused_and_nothing_changes() {
        let (ours, theirs) = (Bed::new().await, Bed::new().await);
        theirs.authority.ledger().close().await;
        let refusal = restore(
            ours.folder.path(),
            &theirs.folder.path().join(LEDGER_FILE),
            None,
            7,
        )
        .await;
        assert!(matches!(refusal, Err(RestoreError::Keys(_))), "{refusal:?}");
        ours.reopen().await.unwrap();
    }
}
