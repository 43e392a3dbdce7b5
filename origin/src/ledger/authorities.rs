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

/// Records an authority.
///
/// # Errors
///
/// Fails if there is one of its kind and generation, or the database does not answer.
pub async fn insert(db: &mut SqliteConnection, new: &Authority) -> Result<(), LedgerError> {
    query("INSERT INTO authorities (issuer, kind, generation, der) VALUES ($1, $2, $3, $4)")
        .bind(new.issuer.as_slice())
        .bind(&new.kind)
        .bind(new.generation)
        .bind(&new.der)
        .execute(db)
        .await
        .map_err(failed("record an authority"))?;
    Ok(())
}

/// Every authority, the newest generation of each kind first.
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
        "INSERT INTO crls (issuer, number, this_update, next_update, der) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (issuer) DO UPDATE SET \
         number = excluded.number, this_update = excluded.this_update, \
         next_update = excluded.next_update, der = excluded.der",
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

/// Forgets every CRL: the next ones are signed at the next start.
///
/// # Errors
///
/// Fails if the database does.
pub async fn drop_crls(db: &mut SqliteConnection) -> Result<(), LedgerError> {
    query("DELETE FROM crls")
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

fn crl_from_row(row: &SqliteRow) -> Result<StoredCrl, LedgerError> {
    let number: i64 = value(row, "number")?;
    Ok(StoredCrl {
        issuer: blob(row, "issuer")?,
        number: u64::try_from(number).map_err(|_| LedgerError::Malformed {
            what: "a CRL number",
        })?,
        this_update: value(row, "this_update")?,
        next_update: value(row, "next_update")?,
        der: value(row, "der")?,
    })
}
