//! The root, the issuing authorities and the newest CRL of each.

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, failed, value};

/// A certificate authority of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    /// The SHA-256 of its public key.
    pub issuer: [u8; 32],
    /// `root`, `node`, `client` or `content`.
    pub kind: String,
    /// 1 for the first of its kind.
    pub generation: u32,
    /// Its certificate.
    pub der: Vec<u8>,
    /// When others were first told of it.
    pub announced_at: i64,
    /// From when on it issues, in place of the generation before.
    pub issues_from: i64,
    /// Since when it is no more.
    pub retired_at: Option<i64>,
}

/// A revocation list as it was signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredCrl {
    /// The SHA-256 of its issuer's public key.
    pub issuer: [u8; 32],
    /// Its number, which never falls.
    pub number: u64,
    /// When it was made (backdated).
    pub this_update: i64,
    /// Until when it may be believed.
    pub next_update: i64,
    /// The list.
    pub der: Vec<u8>,
}

/// What is told of a list without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CrlHead {
    /// The SHA-256 of its issuer's public key.
    pub issuer: [u8; 32],
    /// Its number.
    pub number: u64,
    /// When it was made (backdated).
    pub this_update: i64,
}

/// Records an authority.
///
/// # Errors
///
/// Fails if there is one of its kind and generation, or the database does not answer.
pub async fn insert(db: &mut SqliteConnection, new: &Authority) -> Result<(), LedgerError> {
    query(
        "INSERT INTO authorities \
         (issuer, kind, generation, der, announced_at, issues_from, retired_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(new.issuer.as_slice())
    .bind(&new.kind)
    .bind(new.generation)
    .bind(&new.der)
    .bind(new.announced_at)
    .bind(new.issues_from)
    .bind(new.retired_at)
    .execute(db)
    .await
    .map_err(failed("record an authority"))?;
    Ok(())
}

/// Notes that the authority `issuer` is no more, since `now`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn retire(
    db: &mut SqliteConnection,
    issuer: &[u8; 32],
    now: i64,
) -> Result<(), LedgerError> {
    query("UPDATE authorities SET retired_at = $2 WHERE issuer = $1 AND retired_at IS NULL")
        .bind(issuer.as_slice())
        .bind(now)
        .execute(db)
        .await
        .map_err(failed("retire an authority"))?;
    Ok(())
}

/// Every authority, retired ones too, the newest generation of each kind first.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(db: &mut SqliteConnection) -> Result<Vec<Authority>, LedgerError> {
    let rows = query("SELECT * FROM authorities ORDER BY kind, generation DESC")
        .fetch_all(db)
        .await
        .map_err(failed("list the authorities"))?;
    let entry = |row| {
        Ok(Authority {
            issuer: blob(row, "issuer")?,
            kind: value(row, "kind")?,
            generation: value(row, "generation")?,
            der: value(row, "der")?,
            announced_at: value(row, "announced_at")?,
            issues_from: value(row, "issues_from")?,
            retired_at: value(row, "retired_at")?,
        })
    };
    rows.iter().map(entry).collect()
}

/// Records a CRL in place of its issuer's last one.
///
/// # Errors
///
/// Fails if the database does.
pub async fn put_crl(db: &mut SqliteConnection, new: &StoredCrl) -> Result<(), LedgerError> {
    let number = i64::try_from(new.number).map_err(|_| LedgerError::Malformed {
        what: "a CRL number",
    })?;
    query(
        // An update on conflict would hold a list of 42 MB twice more.
        "INSERT OR REPLACE INTO crls (issuer, number, this_update, next_update, der) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(new.issuer.as_slice())
    .bind(number)
    .bind(new.this_update)
    .bind(new.next_update)
    .bind(&new.der)
    .execute(db)
    .await
    .map_err(failed("record a CRL"))?;
    Ok(())
}

/// Forgets the CRLs of the authorities that are not roots and not retired: the next ones are signed
/// at the next start.
///
/// # Errors
///
/// Fails if the database does.
pub async fn drop_crls(db: &mut SqliteConnection) -> Result<(), LedgerError> {
    let dropped = "DELETE FROM crls WHERE issuer IN (SELECT issuer FROM authorities \
                   WHERE kind <> 'root' AND retired_at IS NULL)";
    query(dropped)
        .execute(db)
        .await
        .map_err(failed("drop the CRLs"))?;
    Ok(())
}

/// The newest CRL of every issuer.
///
/// # Errors
///
/// Fails if the database does.
pub async fn crls(db: &mut SqliteConnection) -> Result<Vec<StoredCrl>, LedgerError> {
    let rows = query("SELECT * FROM crls ORDER BY issuer")
        .fetch_all(db)
        .await
        .map_err(failed("read the CRLs"))?;
    rows.iter().map(crl_from_row).collect()
}

/// The newest CRL of `issuer`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn crl(
    db: &mut SqliteConnection,
    issuer: &[u8; 32],
) -> Result<Option<StoredCrl>, LedgerError> {
    let row = query("SELECT * FROM crls WHERE issuer = $1")
        .bind(issuer.as_slice())
        .fetch_optional(db)
        .await
        .map_err(failed("read a CRL"))?;
    row.as_ref().map(crl_from_row).transpose()
}

/// The same as [`crls`], without the lists: cheap however long they are.
///
/// # Errors
///
/// Fails if the database does.
pub async fn crl_heads(db: &mut SqliteConnection) -> Result<Vec<CrlHead>, LedgerError> {
    let rows = query("SELECT issuer, number, this_update FROM crls")
        .fetch_all(db)
        .await
        .map_err(failed("look for the CRLs"))?;
    let head = |row| {
        Ok(CrlHead {
            issuer: blob(row, "issuer")?,
            number: number(row)?,
            this_update: value(row, "this_update")?,
        })
    };
    rows.iter().map(head).collect()
}

fn number(row: &SqliteRow) -> Result<u64, LedgerError> {
    let number: i64 = value(row, "number")?;
    u64::try_from(number).map_err(|_| LedgerError::Malformed {
        what: "a CRL number",
    })
}

fn crl_from_row(row: &SqliteRow) -> Result<StoredCrl, LedgerError> {
    Ok(StoredCrl {
        issuer: blob(row, "issuer")?,
        number: number(row)?,
        this_update: value(row, "this_update")?,
        next_update: value(row, "next_update")?,
        der: value(row, "der")?,
    })
}
