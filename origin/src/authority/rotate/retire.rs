//! The end of a generation.

use std::path::Path;

use certs::crl::RevocationReason;
use certs::key::Passphrase;
use certs::{Ca, CaCert, CaKind, CrlStore, Trust};
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{
    AuthorityError, Entry, RotateError, certificates, in_words, kind_name, sign_root_list,
};
use crate::audit::{Actor, Event};
use crate::authority::KEYS;
use crate::authority::crls::sign_crl;
use crate::authority::keys::{self, ROOT};
use crate::ledger::{Ledger, authorities, commit, filesets};

/// What was retired.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Retired {
    /// `root`, `node`, `client` or `content`.
    pub kind: String,
    /// The generation.
    pub generation: u32,
}

/// Retires generation `generation` of `kind` at the time `now`. An issuing CA signs a last list,
/// which does not end, for whoever still asks; its key is needed no more. An origin that serves
/// has to be told.
///
/// # Errors
///
/// Fails if there is none, if no newer one is in use, or if something still hangs on it, and says
/// until when.
pub async fn retire(
    data: &Path,
    ledger: &Ledger,
    kind: &str,
    generation: u32,
    now: i64,
) -> Result<Retired, RotateError> {
    let mut tx = ledger.write().await?;
    let known = authorities::list(&mut tx).await?;
    let ca = find(&known, kind, generation)?;
    check(&mut tx, &known, ca, now).await?;
    let retired = end(&mut tx, data, ca, "its certificates have ended", now).await?;
    commit(tx).await?;
    Ok(retired)
}

/// Retires an issuing CA whose key is in wrong hands, at once: it goes onto the list of its root,
/// and whatever it certified counts for nothing as soon as that list has arrived.
///
/// # Errors
///
/// Fails if there is none, if no newer one is in use, or if the root's key cannot be used.
pub async fn revoke(
    data: &Path,
    ledger: &Ledger,
    kind: CaKind,
    generation: u32,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<Retired, RotateError> {
    let mut tx = ledger.write().await?;
    let known = authorities::list(&mut tx).await?;
    let ca = find(&known, kind_name(kind), generation)?;
    took_over_at(&known, ca, now)?;
    let roots = known.iter().filter(|it| it.kind == ROOT);
    let root = roots.into_iter().find(|root| hangs_on(ca, root, now));
    let root = root.ok_or(AuthorityError::NotInitialised)?;
    let cert = CaCert::parse(&ca.der).map_err(AuthorityError::CaCert)?;
    let (serial, reason) = (cert.serial(), RevocationReason::CaCompromise);
    certificates::revoke_ca(&mut tx, &root.issuer, serial, cert.not_after(), reason, now).await?;
    sign_root_list(&mut tx, data, root, passphrase, now).await?;
    let retired = end(&mut tx, data, ca, "its key is in wrong hands", now).await?;
    commit(tx).await?;
    Ok(retired)
}

/// Signs the last list of `ca`, and notes that it is no more.
async fn end(
    db: &mut SqliteConnection,
    data: &Path,
    ca: &Entry,
    why: &str,
    now: i64,
) -> Result<Retired, RotateError> {
    let (kind, generation) = (ca.kind.clone(), ca.generation);
    if kind != ROOT {
        let key = keys::issuing_key(&data.join(KEYS), &kind, generation)?;
        let last = Ca::load(&ca.der, key).map_err(AuthorityError::from)?;
        let is_content = kind == kind_name(CaKind::Content);
        sign_crl(db, &last, is_content, now, LATEST - now).await?;
    }
    authorities::retire(db, &ca.issuer, now).await?;
    Event::CaRetired
        .by(&Actor::acting(), now)
        .with("ca", &kind)
        .with("generation", generation)
        .with_issuer(&ca.issuer)
        .with("because", why)
        .append(db)
        .await?;
    Ok(Retired { kind, generation })
}

fn find<'a>(known: &'a [Entry], kind: &str, generation: u32) -> Result<&'a Entry, RotateError> {
    let is_it = |it: &&Entry| it.kind == kind && it.generation == generation;
    let found = known.iter().find(|it| is_it(it) && it.retired_at.is_none());
    found.ok_or_else(|| RotateError::Unknown {
        kind: kind.to_owned(),
        generation,
    })
}

/// Since when a newer generation issues in place of `ca`.
fn took_over_at(known: &[Entry], ca: &Entry, now: i64) -> Result<i64, RotateError> {
    let follows = |it: &&Entry| it.kind == ca.kind && it.generation > ca.generation;
    let in_use = known
        .iter()
        .filter(follows)
        .filter(|it| it.issues_from <= now);
    // Of several, the first: it is the one that took over.
    let first = in_use.map(|it| it.issues_from).min();
    first.ok_or_else(|| RotateError::Successor {
        kind: ca.kind.clone(),
        generation: ca.generation,
    })
}

/// Whether nobody needs `ca` any more.
async fn check(
    db: &mut SqliteConnection,
    known: &[Entry],
    ca: &Entry,
    now: i64,
) -> Result<(), RotateError> {
    let (kind, generation) = (ca.kind.clone(), ca.generation);
    let switched_at = took_over_at(known, ca, now)?;
    let ends = certificates::last_end(db, &ca.issuer).await?;
    if let Some(ends) = ends.filter(|ends| *ends >= now) {
        let until = in_words(ends);
        return Err(RotateError::NotOver {
            kind,
            generation,
            until,
        });
    }
    if kind == ROOT {
        let below = known.iter().filter(|it| it.retired_at.is_none());
        if let Some(below) = below.into_iter().find(|it| hangs_on(it, ca, now)) {
            let kind = format!("{} generation {}", below.kind, below.generation);
            return Err(RotateError::Subordinate { generation, kind });
        }
    }
    if kind == ROOT || kind == kind_name(CaKind::Content) {
        // A statement is judged by the chain that it was signed with, for as long as it is kept.
        let before = switched_at + SWITCH_MARGIN;
        let filesets = filesets::with_revisions_before(db, before, NAMED_MAX).await?;
        if !filesets.is_empty() {
            let filesets = filesets.join(", ");
            return Err(RotateError::Signed {
                kind,
                generation,
                filesets,
            });
        }
    }
    Ok(())
}

/// Whether `root` has signed `ca`, which is in date.
fn hangs_on(ca: &Entry, root: &Entry, now: i64) -> bool {
    let lists = std::sync::Arc::new(CrlStore::new(std::time::Duration::ZERO));
    let trust = Trust::new(&[&root.der], lists, now);
    trust.is_ok_and(|trust| trust.add_issuing_ca(&ca.der, now).is_ok())
}

/// 9999-12-31T23:59:59Z, the last moment that a list can name (RFC 5280 §4.1.2.5): of a last list
/// there is no next.
const LATEST: i64 = 253_402_300_799;
/// An origin that was stopped or busy may have signed under the old CA for a while longer.
const SWITCH_MARGIN: i64 = 86_400;
/// As many as a line of text has room for.
const NAMED_MAX: u32 = 10;
