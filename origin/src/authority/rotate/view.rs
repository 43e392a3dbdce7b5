//! What an operator sees of the CAs.

use std::path::Path;

use certs::CaCert;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{AuthorityError, KEYS};
use crate::authority::keys::{self, KeyState};
use crate::ledger::authorities;

/// One CA.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CaView {
    /// `root`, `node`, `client` or `content`.
    pub kind: String,
    /// Its generation.
    pub generation: u32,
    /// `announced`, `in use`, `running out` (a newer one issues) or `retired`.
    pub state: &'static str,
    /// SHA-256 of its public key, in hexadecimal.
    pub issuer: String,
    /// From when on it issues, in Unix seconds.
    pub issues_from: i64,
    /// The first second of its certificate, in Unix seconds.
    pub not_before: i64,
    /// The last second of its certificate.
    pub not_after: i64,
    /// The number of its newest list, if it has one.
    pub crl_number: Option<u64>,
    /// Until when that list counts, in Unix seconds.
    pub crl_next_update: Option<i64>,
    /// How its key lies in the data folder.
    pub key: KeyView,
}

/// How a key lies in the data folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyView {
    /// It is not there.
    Absent,
    /// Under a passphrase.
    Encrypted,
    /// In the clear.
    Plain,
    /// In a token, which a file names.
    Token,
}

impl KeyView {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Encrypted => "encrypted",
            Self::Plain => "in the clear",
            Self::Token => "in a token",
        }
    }
}

/// Every CA of the deployment in the data folder `data`, as it is at `now`.
///
/// # Errors
///
/// Fails if the ledger does, or holds what is no CA.
pub async fn view(
    data: &Path,
    db: &mut SqliteConnection,
    now: i64,
) -> Result<Vec<CaView>, AuthorityError> {
    let known = authorities::list(db).await?;
    let lists = authorities::crls(db).await?;
    let view = |entry: &authorities::Authority| {
        let cert = CaCert::parse(&entry.der).map_err(AuthorityError::CaCert)?;
        let list = lists.iter().find(|list| list.issuer == entry.issuer);
        let (folder, kind, generation) = (data.join(KEYS), &entry.kind, entry.generation);
        let path = keys::ca_key_path(&folder, kind, generation);
        let in_token = keys::token_path(&folder, kind, generation).exists();
        Ok(CaView {
            kind: entry.kind.clone(),
            generation: entry.generation,
            state: state(&known, entry, now),
            issuer: content::Digest::from_raw(entry.issuer).hex(),
            issues_from: entry.issues_from,
            not_before: cert.not_before(),
            not_after: cert.not_after(),
            crl_number: list.map(|list| list.number),
            crl_next_update: list.map(|list| list.next_update),
            key: match keys::key_state(&path) {
                KeyState::Absent if in_token => KeyView::Token,
                KeyState::Absent => KeyView::Absent,
                KeyState::Encrypted => KeyView::Encrypted,
                KeyState::Plain => KeyView::Plain,
            },
        })
    };
    known.iter().map(view).collect()
}

fn state(
    known: &[authorities::Authority],
    entry: &authorities::Authority,
    now: i64,
) -> &'static str {
    let follows = |it: &&authorities::Authority| {
        it.kind == entry.kind && it.generation > entry.generation && it.issues_from <= now
    };
    match (entry.retired_at, entry.issues_from > now) {
        (Some(_), _) => "retired",
        (None, true) => "announced",
        (None, false) if known.iter().any(|it| follows(&it)) => "running out",
        (None, false) => "in use",
    }
}
