//! The end of a generation.

use std::path::Path;

use certs::{Ca, CaKind, CrlStore, Trust};
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{AuthorityError, Entry, RotateError, certificates, in_words, kind_name};
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
    let is_it = |it: &&Entry| it.kind == kind && it.generation == generation;
    let found = known.iter().find(|it| is_it(it) && it.retired_at.is_none());
    let ca = found.ok_or_else(|| RotateError::Unknown {
        kind: kind.to_owned(),
        generation,
    })?;
    check(&mut tx, &known, ca, now).await?;
    if kind != ROOT {
        let key = keys::issuing_key(&data.join(KEYS), kind, generation)?;
        let last = Ca::load(&ca.der, key).map_err(AuthorityError::from)?;
        let is_content = kind == kind_name(CaKind::Content);
        sign_crl(&mut tx, &last, is_content, now, LATEST - now).await?;
    }
    authorities::retire(&mut tx, &ca.issuer, now).await?;
    Event::CaRetired
        .by(&Actor::acting(), now)
        .with("ca", kind)
        .with("generation", generation)
        .with_issuer(&ca.issuer)
        .append(&mut tx)
        .await?;
    commit(tx).await?;
    Ok(Retired {
        kind: kind.to_owned(),
        generation,
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
    let follows = |it: &&Entry| it.kind == kind && it.generation > generation;
    let in_use = known
        .iter()
        .filter(follows)
        .filter(|it| it.issues_from <= now);
    // Of several, the first: it is the one that took over.
    let Some(switched_at) = in_use.map(|it| it.issues_from).min() else {
        return Err(RotateError::Successor { kind, generation });
    };
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
