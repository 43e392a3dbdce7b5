//! A new deployment: keys, authorities, first lists.

use std::path::Path;
use std::time::Duration;

use certs::key::Passphrase;
use certs::{DeploymentId, DeviceId};
use content::durable::{self, RealDisk};

use super::crls::sign_crl;
use super::rotate::{self, Hierarchy};
use super::{AuthorityError, KEYS, keys, seconds};
use crate::audit::{Actor, Event};
use crate::ledger::deployment::{self, Deployment};
use crate::ledger::{Ledger, commit, counters};

/// What a new deployment is told.
#[derive(Clone, Debug)]
pub struct NewDeployment {
    /// Its name.
    pub id: DeploymentId,
    /// The origin's id.
    pub origin_id: DeviceId,
    /// Where others reach the origin: a host name or address, without a port.
    pub host: String,
}

/// Makes a deployment in the data folder `data`, at the time `now`.
///
/// The row that says so is written last: interrupted, it may be run again.
///
/// # Errors
///
/// Fails if there is one already, or if keys or ledger cannot be written.
pub async fn init(data: &Path, new: NewDeployment, now: i64) -> Result<(), AuthorityError> {
    init_with(data, new, None, now).await
}

/// [`init`], with the root's key encrypted under `passphrase`.
///
/// # Errors
///
/// As [`init`].
pub async fn init_with(
    data: &Path,
    new: NewDeployment,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<(), AuthorityError> {
    durable::create_folder(&RealDisk, data, 0o700).map_err(|source| AuthorityError::Write {
        path: data.to_owned(),
        source,
    })?;
    let ledger = Ledger::open(&data.join(crate::LEDGER_FILE)).await?;
    let made = fill(data, &ledger, new, passphrase, now).await;
    ledger.close().await;
    made
}

async fn fill(
    data: &Path,
    ledger: &Ledger,
    new: NewDeployment,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<(), AuthorityError> {
    let mut tx = ledger.write().await?;
    if deployment::find(&mut tx).await?.is_some() {
        return Err(AuthorityError::AlreadyInitialised {
            path: data.to_owned(),
        });
    }
    Event::Init
        .by(&Actor::acting(), now)
        .with("deployment", &new.id)
        .with("origin", &new.origin_id)
        .with("address", &new.host)
        .append(&mut tx)
        .await?;
    let folder = data.join(KEYS);
    keys::make_own(&folder)?;
    let first = Hierarchy {
        generations: [keys::FIRST; 4],
        issues_from: now,
    };
    let root = rotate::make_hierarchy(&mut tx, &folder, &new.id, passphrase, first, now).await?;
    counters::raise(&mut tx, counters::EPOCH, 1).await?;
    for ca in root.issuing {
        sign_crl(&mut tx, &ca, false, now, seconds(FIRST_CRL_LIFE)).await?;
    }
    let NewDeployment {
        id,
        origin_id,
        host,
    } = new;
    deployment::insert(
        &mut tx,
        &Deployment {
            id,
            origin_id,
            host,
            created_at: now,
        },
    )
    .await?;
    Ok(commit(tx).await?)
}

/// The default of the settings: a branch that is cut off in the first hour has as long as any other.
/// `serve` signs others within the hour, with the life that its settings name.
const FIRST_CRL_LIFE: Duration = Duration::from_secs(7 * 86_400);
