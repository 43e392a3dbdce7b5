//! What needs the root's key: new generations, and the roots' lists. Done by a program beside the
//! origin that serves, so that the root's key never lies in the memory of one that strangers talk
//! to.
//!
//! A new generation is announced first (in `/cacerts`, by lists of its own, a root in the
//! deployment document), issues after an overlap in which everybody hears of it, and the one
//! before is retired when its last certificate has ended.

mod retire;
#[cfg(test)]
mod tests;
mod view;

use std::path::Path;

use certs::key::Passphrase;
use certs::pkcs11::Pkcs11Uri;
use certs::{Ca, CaKind, DeploymentId};
use serde::Serialize;
use sqlx::SqliteConnection;
use thiserror::Error;

pub use retire::{Retired, retire, revoke};
pub use view::{CaView, KeyView, view};

use super::crls::sign_crl;
use super::keys::{self, ROOT, kind_name};
use super::{AuthorityError, KEYS};
use crate::audit::{Actor, Event};
use crate::ledger::authorities::{self, Authority as Entry, StoredCrl};
use crate::ledger::deployment;
use crate::ledger::{Ledger, LedgerError, certificates, commit};

/// How long a root's list lives, in seconds: a year, and a month to see to the next one.
pub const ROOT_LIST_LIFE: i64 = 396 * 86_400;
/// How long before its end a root's list is an alarm, in seconds.
pub const ROOT_LIST_ALARM: i64 = 30 * 86_400;

/// What gets a new generation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Which {
    /// The root, and below it a new CA of every kind.
    Root,
    /// One issuing CA, under the root in use.
    Issuing(CaKind),
    /// The same, with a key that lies in a token and stays there.
    InToken(CaKind, Box<Pkcs11Uri>),
}

/// A CA that was made.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NewCa {
    /// `root`, `node`, `client` or `content`.
    pub kind: String,
    /// Its generation.
    pub generation: u32,
    /// SHA-256 of its public key, in hexadecimal.
    pub issuer: String,
    /// From when on it issues, in Unix seconds.
    pub issues_from: i64,
}

/// A root's list that was signed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RootList {
    /// The root's generation.
    pub generation: u32,
    /// The list's number.
    pub number: u64,
    /// Until when it counts, in Unix seconds.
    pub next_update: i64,
}

/// Why there is no new generation, or the old one stays.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RotateError {
    /// A key cannot be used, or nothing can be signed.
    #[error("cannot do this with the keys that are here")]
    Authority(#[from] AuthorityError),
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// Certificates of it still count.
    #[error("cannot retire {kind} generation {generation}: its last certificate ends at {until}")]
    NotOver {
        /// The kind.
        kind: String,
        /// The generation.
        generation: u32,
        /// When, in words.
        until: String,
    },
    /// The generation announced last is not in use yet.
    #[error(
        "cannot begin another rotation: {kind} generation {generation} issues from {from} on only"
    )]
    Pending {
        /// The kind.
        kind: String,
        /// The generation.
        generation: u32,
        /// When, in words.
        from: String,
    },
    /// Revisions are kept that were signed under it.
    #[error(
        "cannot retire {kind} generation {generation}: revisions of {filesets} are kept that were \
         signed under it; publish those filesets again and keep fewer revisions"
    )]
    Signed {
        /// The kind.
        kind: String,
        /// The generation.
        generation: u32,
        /// The filesets, up to ten of them.
        filesets: String,
    },
    /// There is no newer generation in use.
    #[error("cannot retire {kind} generation {generation}: no newer one is in use")]
    Successor {
        /// The kind.
        kind: String,
        /// The generation.
        generation: u32,
    },
    /// A CA below it is still there.
    #[error("cannot retire root generation {generation}: retire its {kind} CA first")]
    Subordinate {
        /// The root's generation.
        generation: u32,
        /// What hangs on it.
        kind: String,
    },
    /// There is no such CA, or it is retired.
    #[error("cannot find {kind} generation {generation} among the CAs that are not retired")]
    Unknown {
        /// The kind.
        kind: String,
        /// The generation.
        generation: u32,
    },
}

/// Generations of the root and of the CAs of [`CaKind::ALL`], and from when on they issue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hierarchy {
    pub(super) generations: [u32; 4],
    pub(super) issues_from: i64,
}

/// What [`make_hierarchy`] made.
pub(super) struct Made {
    pub(super) issuing: Vec<Ca>,
    entries: Vec<Entry>,
}

impl Which {
    /// The word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Root => ROOT,
            Self::Issuing(kind) | Self::InToken(kind, _) => kind_name(*kind),
        }
    }
}

/// Announces the next generation of `which` in the data folder `data`, at the time `now`. It issues
/// after `overlap` seconds. An origin that serves has to be told to take it up.
///
/// # Errors
///
/// Fails if a rotation has begun that is not in use yet, or if the root's key cannot be used.
pub async fn rotate(
    data: &Path,
    ledger: &Ledger,
    which: &Which,
    passphrase: Option<&Passphrase>,
    overlap: i64,
    now: i64,
) -> Result<Vec<NewCa>, RotateError> {
    let folder = data.join(KEYS);
    let mut tx = ledger.write().await?;
    let known = authorities::list(&mut tx).await?;
    if let Some(pending) = known.iter().find(|it| it.issues_from > now) {
        return Err(RotateError::Pending {
            kind: pending.kind.clone(),
            generation: pending.generation,
            from: in_words(pending.issues_from),
        });
    }
    let issues_from = now.saturating_add(overlap);
    let entries = match which {
        Which::Root => {
            let deployment = deployment::find(&mut tx).await?;
            let id = deployment.ok_or(AuthorityError::NotInitialised)?.id;
            let [node, client, content] = CaKind::ALL.map(|kind| next(&known, kind_name(kind)));
            let new = Hierarchy {
                generations: [next(&known, ROOT), node, client, content],
                issues_from,
            };
            make_hierarchy(&mut tx, &folder, &id, passphrase, new, now)
                .await?
                .entries
        }
        Which::Issuing(kind) | Which::InToken(kind, _) => {
            let root = root_in_use(&folder, &known, passphrase, now)?;
            let generation = next(&known, kind_name(*kind));
            let ca = match which {
                Which::InToken(_, token) => {
                    keys::make_issuing_in_token(&folder, *kind, generation, token, &root, now)?
                }
                Which::Root | Which::Issuing(_) => {
                    keys::make_issuing(&folder, *kind, generation, &root, now)?
                }
            };
            let entry = entry(kind_name(*kind), generation, &ca, issues_from, now);
            record(&mut tx, &entry, now).await?;
            vec![entry]
        }
    };
    commit(tx).await?;
    Ok(entries.iter().map(NewCa::of).collect())
}

/// Makes a root with its first list, and the three CAs below it.
pub(super) async fn make_hierarchy(
    db: &mut SqliteConnection,
    folder: &Path,
    deployment: &DeploymentId,
    passphrase: Option<&Passphrase>,
    new: Hierarchy,
    now: i64,
) -> Result<Made, AuthorityError> {
    let [generation, below @ ..] = new.generations;
    let root = keys::make_root(folder, deployment, generation, passphrase, now)?;
    let mut entries = vec![entry(ROOT, generation, &root, new.issues_from, now)];
    let mut issuing = Vec::new();
    for (kind, generation) in CaKind::ALL.into_iter().zip(below) {
        let ca = keys::make_issuing(folder, kind, generation, &root, now)?;
        entries.push(entry(
            kind_name(kind),
            generation,
            &ca,
            new.issues_from,
            now,
        ));
        issuing.push(ca);
    }
    for entry in &entries {
        record(db, entry, now).await?;
    }
    sign_crl(db, &root, true, now, ROOT_LIST_LIFE).await?;
    Ok(Made { issuing, entries })
}

/// Signs the lists of all roots that are not retired. An origin that serves has to be told to take
/// them up.
///
/// # Errors
///
/// Fails if a root's key cannot be used: then none is signed.
pub async fn sign_root_lists(
    data: &Path,
    ledger: &Ledger,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<Vec<RootList>, RotateError> {
    let mut tx = ledger.write().await?;
    let mut signed = Vec::new();
    for root in authorities::list(&mut tx).await? {
        if root.kind == ROOT && root.retired_at.is_none() {
            let list = sign_root_list(&mut tx, data, &root, passphrase, now).await?;
            signed.push(RootList {
                generation: root.generation,
                number: list.number,
                next_update: list.next_update,
            });
        }
    }
    commit(tx).await?;
    Ok(signed)
}

/// Encrypts the keys of all roots that lie there in the clear, under `passphrase`; returns the
/// generations.
///
/// # Errors
///
/// Fails if a key cannot be read or written.
pub async fn encrypt_root_keys(
    data: &Path,
    ledger: &Ledger,
    passphrase: &Passphrase,
) -> Result<Vec<u32>, RotateError> {
    let folder = data.join(KEYS);
    let mut encrypted = Vec::new();
    for root in authorities::list(&mut *ledger.read().await?).await? {
        let path = keys::ca_key_path(&folder, &root.kind, root.generation);
        if root.kind == ROOT && keys::key_state(&path) == keys::KeyState::Plain {
            let key = keys::root_key(&folder, root.generation, None)?;
            keys::write_root_key(&folder, root.generation, &key, Some(passphrase))?;
            encrypted.push(root.generation);
        }
    }
    Ok(encrypted)
}

/// Signs the next list of one root.
pub(crate) async fn sign_root_list(
    db: &mut SqliteConnection,
    data: &Path,
    root: &Entry,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<StoredCrl, AuthorityError> {
    let key = keys::root_key(&data.join(KEYS), root.generation, passphrase)?;
    sign_crl(db, &Ca::load(&root.der, key)?, true, now, ROOT_LIST_LIFE).await
}

/// The root in use, with its key.
fn root_in_use(
    folder: &Path,
    known: &[Entry],
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<Ca, AuthorityError> {
    let in_use = |it: &&Entry| it.kind == ROOT && it.retired_at.is_none() && it.issues_from <= now;
    let root = known.iter().find(in_use);
    let root = root.ok_or(AuthorityError::NotInitialised)?;
    let key = keys::root_key(folder, root.generation, passphrase)?;
    Ok(Ca::load(&root.der, key)?)
}

/// The generation after the newest of `kind`.
fn next(known: &[Entry], kind: &str) -> u32 {
    let of_kind = known.iter().filter(|it| it.kind == kind);
    of_kind.map(|it| it.generation).max().unwrap_or(0) + 1
}

fn entry(kind: &str, generation: u32, ca: &Ca, issues_from: i64, now: i64) -> Entry {
    Entry {
        issuer: *ca.id().as_bytes(),
        kind: kind.to_owned(),
        generation,
        der: ca.cert_der().to_vec(),
        announced_at: now,
        issues_from,
        retired_at: None,
    }
}

async fn record(db: &mut SqliteConnection, new: &Entry, now: i64) -> Result<(), LedgerError> {
    authorities::insert(db, new).await?;
    Event::CaCreated
        .by(&Actor::acting(), now)
        .with("ca", &new.kind)
        .with("generation", new.generation)
        .with_issuer(&new.issuer)
        .with("issues-from", new.issues_from)
        .with_digest("sha256", content::Digest::of(&new.der).as_raw())
        .append(db)
        .await
}

impl NewCa {
    fn of(entry: &Entry) -> Self {
        Self {
            kind: entry.kind.clone(),
            generation: entry.generation,
            issuer: content::Digest::from_raw(entry.issuer).hex(),
            issues_from: entry.issues_from,
        }
    }
}

/// A time for people.
pub(crate) fn in_words(at: i64) -> String {
    match jiff::Timestamp::from_second(at) {
        Ok(time) => time.to_string(),
        Err(_) => at.to_string(),
    }
}
