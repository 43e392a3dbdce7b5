//! Packs, and which chunks they hold.

use std::collections::HashSet;

use content::pack::PackHeader;
use content::{Digest, PackId};
use sqlx::{QueryBuilder, SqliteConnection, query};

use super::{LedgerError, blob, failed, value};

/// A pack as the ledger lists it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pack {
    /// Its number within the ledger.
    pub number: i64,
    /// Its name.
    pub id: PackId,
    /// Bytes of its header.
    pub header_bytes: u32,
    /// Bytes of all of it.
    pub total_bytes: u32,
    /// Bytes of its chunks.
    pub plain_bytes: i64,
}

/// Rows of one statement: enough to make its overhead small, well below SQLite's limit of values.
pub(super) const BATCH_ROWS: usize = 500;

/// Enters a pack that is safely on disk, with its chunks, and returns its number. A pack that was
/// entered before keeps its number, and gets its chunks back if they were forgotten.
///
/// # Errors
///
/// Fails if the database does.
pub async fn insert(
    db: &mut SqliteConnection,
    header: &PackHeader,
    now: i64,
) -> Result<i64, LedgerError> {
    if let Some(known) = find(db, header.id()).await? {
        if !has_chunks(db, known.number).await? {
            enter_chunks(db, header, known.number).await?;
        }
        return Ok(known.number);
    }
    let plain: i64 = header
        .chunks()
        .iter()
        .map(|chunk| i64::from(chunk.length))
        .sum();
    let row = query(
        "INSERT INTO packs (id, header_bytes, total_bytes, plain_bytes, unreferenced_since) \
         VALUES ($1, $2, $3, $4, $5) RETURNING pack",
    )
    .bind(header.id().0.as_raw().as_slice())
    .bind(header.header_bytes())
    .bind(header.total_bytes())
    .bind(plain)
    .bind(now)
    .fetch_one(&mut *db)
    .await
    .map_err(failed("enter a pack"))?;
    let number: i64 = value(&row, "pack")?;
    enter_chunks(db, header, number).await?;
    Ok(number)
}

async fn enter_chunks(
    db: &mut SqliteConnection,
    header: &PackHeader,
    number: i64,
) -> Result<(), LedgerError> {
    let mut chunks: Vec<_> = header.chunks().iter().enumerate().collect();
    // In the table's order: each of its pages is then read and written once.
    chunks.sort_unstable_by_key(|(ordinal, chunk)| (chunk.id, *ordinal));
    for batch in chunks.chunks(BATCH_ROWS) {
        let mut insert = QueryBuilder::new("INSERT INTO chunks (id, pack, ordinal, length) ");
        insert.push_values(batch, |mut row, (ordinal, chunk)| {
            row.push_bind(chunk.id.0.as_raw().to_vec());
            row.push_bind(number);
            row.push_bind(*ordinal as i64);
            row.push_bind(i64::from(chunk.length));
        });
        // A pack may hold a chunk twice; the first is as good as the second.
        insert.push(" ON CONFLICT DO NOTHING");
        insert
            .build()
            .execute(&mut *db)
            .await
            .map_err(failed("enter a pack's chunks"))?;
    }
    Ok(())
}

async fn has_chunks(db: &mut SqliteConnection, number: i64) -> Result<bool, LedgerError> {
    let row = query("SELECT 1 FROM chunks WHERE pack = $1 LIMIT 1")
        .bind(number)
        .fetch_optional(db)
        .await
        .map_err(failed("look for a pack's chunks"))?;
    Ok(row.is_some())
}

/// Forgets where the chunks of the pack numbered `number` lie, because it is not on disk: they are
/// asked for again. The pack itself stays, for the revisions that need it.
///
/// # Errors
///
/// Fails if the database does.
pub async fn forget(db: &mut SqliteConnection, number: i64) -> Result<(), LedgerError> {
    for sql in [
        "DELETE FROM chunks WHERE pack = $1",
        "UPDATE publish_chunks SET pack = NULL WHERE pack = $1 \
         AND publish IN (SELECT publish FROM publish_packs WHERE pack = $1)",
    ] {
        query(sql)
            .bind(number)
            .execute(&mut *db)
            .await
            .map_err(failed("forget a pack's chunks"))?;
    }
    Ok(())
}

/// The first `most` packs that are numbered above `after`, each with whether its chunks are known.
///
/// # Errors
///
/// Fails if the database does.
pub async fn page(
    db: &mut SqliteConnection,
    after: i64,
    most: u32,
) -> Result<Vec<(Pack, bool)>, LedgerError> {
    let rows = query(
        "SELECT *, EXISTS (SELECT 1 FROM chunks WHERE chunks.pack = packs.pack) AS known \
         FROM packs WHERE pack > $1 ORDER BY pack LIMIT $2",
    )
    .bind(after)
    .bind(most)
    .fetch_all(db)
    .await
    .map_err(failed("list the packs"))?;
    rows.iter()
        .map(|row| Ok((read(row)?, value(row, "known")?)))
        .collect()
}

/// The first `most` retained revisions, by fileset and number, that need a pack whose chunks were
/// forgotten.
///
/// # Errors
///
/// Fails if the database does.
pub async fn wanting(
    db: &mut SqliteConnection,
    most: u32,
) -> Result<Vec<(String, u64)>, LedgerError> {
    let rows = query(
        "SELECT DISTINCT fileset, number FROM revision_packs AS used \
         WHERE NOT EXISTS (SELECT 1 FROM chunks WHERE chunks.pack = used.pack) \
         ORDER BY fileset, number LIMIT $1",
    )
    .bind(most)
    .fetch_all(db)
    .await
    .map_err(failed("list what lacks packs"))?;
    rows.iter()
        .map(|row| Ok((value(row, "fileset")?, value(row, "number")?)))
        .collect()
}

/// Whether the revision `number` of `fileset` needs a pack whose chunks were forgotten.
///
/// # Errors
///
/// Fails if the database does.
pub async fn is_wanting(
    db: &mut SqliteConnection,
    fileset: &str,
    number: i64,
) -> Result<bool, LedgerError> {
    let row = query(
        "SELECT 1 FROM revision_packs AS used WHERE fileset = $1 AND number = $2 \
         AND NOT EXISTS (SELECT 1 FROM chunks WHERE chunks.pack = used.pack) LIMIT 1",
    )
    .bind(fileset)
    .bind(number)
    .fetch_optional(db)
    .await
    .map_err(failed("look for a revision's packs"))?;
    Ok(row.is_some())
}

/// The pack called `id`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn find(db: &mut SqliteConnection, id: PackId) -> Result<Option<Pack>, LedgerError> {
    let row = query("SELECT * FROM packs WHERE id = $1")
        .bind(id.0.as_raw().as_slice())
        .fetch_optional(db)
        .await
        .map_err(failed("find a pack"))?;
    row.map(|row| read(&row)).transpose()
}

/// Whether some retained revision of `fileset` needs the pack called `id`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn serves(
    db: &mut SqliteConnection,
    fileset: &str,
    id: PackId,
) -> Result<bool, LedgerError> {
    let row = query(
        "SELECT 1 FROM packs JOIN revision_packs USING (pack) \
         WHERE packs.id = $1 AND fileset = $2 LIMIT 1",
    )
    .bind(id.0.as_raw().as_slice())
    .bind(fileset)
    .fetch_optional(db)
    .await
    .map_err(failed("find a pack"))?;
    Ok(row.is_some())
}

/// The numbers of the packs that the retained revisions of `fileset` need.
///
/// # Errors
///
/// Fails if the database does.
pub async fn of_fileset(
    db: &mut SqliteConnection,
    fileset: &str,
) -> Result<HashSet<i64>, LedgerError> {
    let rows = query("SELECT DISTINCT pack FROM revision_packs WHERE fileset = $1")
        .bind(fileset)
        .fetch_all(db)
        .await
        .map_err(failed("list a fileset's packs"))?;
    rows.iter().map(|row| value(row, "pack")).collect()
}

/// Every pack.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(db: &mut SqliteConnection) -> Result<Vec<Pack>, LedgerError> {
    let rows = query("SELECT * FROM packs ORDER BY pack")
        .fetch_all(db)
        .await
        .map_err(failed("list the packs"))?;
    rows.iter().map(read).collect()
}

/// Removes up to `most` packs that no revision has needed since `before` and no publish leases;
/// returns them.
///
/// # Errors
///
/// Fails if the database does.
pub async fn remove_unreferenced(
    db: &mut SqliteConnection,
    before: i64,
    most: u32,
) -> Result<Vec<Pack>, LedgerError> {
    let gone = unreferenced(db, before, most).await?;
    for pack in &gone {
        query("DELETE FROM packs WHERE pack = $1")
            .bind(pack.number)
            .execute(&mut *db)
            .await
            .map_err(failed("remove a pack"))?;
    }
    Ok(gone)
}

/// Up to `most` packs that no revision has needed since `before` and no publish leases.
///
/// # Errors
///
/// Fails if the database does.
pub async fn unreferenced(
    db: &mut SqliteConnection,
    before: i64,
    most: u32,
) -> Result<Vec<Pack>, LedgerError> {
    let rows = query(
        "SELECT * FROM packs WHERE unreferenced_since <= $1 \
         AND NOT EXISTS (SELECT 1 FROM publish_packs AS leased WHERE leased.pack = packs.pack) \
         AND NOT EXISTS (SELECT 1 FROM revision_packs AS used WHERE used.pack = packs.pack) \
         ORDER BY pack LIMIT $2",
    )
    .bind(before)
    .bind(most)
    .fetch_all(db)
    .await
    .map_err(failed("find packs to remove"))?;
    rows.iter().map(read).collect()
}

/// Marks which packs no revision needs, from `now` on.
///
/// # Errors
///
/// Fails if the database does.
pub async fn mark(db: &mut SqliteConnection, now: i64) -> Result<(), LedgerError> {
    query(
        "UPDATE packs SET unreferenced_since = NULL WHERE unreferenced_since IS NOT NULL \
         AND EXISTS (SELECT 1 FROM revision_packs AS used WHERE used.pack = packs.pack)",
    )
    .execute(&mut *db)
    .await
    .map_err(failed("mark the packs"))?;
    query(
        "UPDATE packs SET unreferenced_since = $1 WHERE unreferenced_since IS NULL \
         AND NOT EXISTS (SELECT 1 FROM revision_packs AS used WHERE used.pack = packs.pack)",
    )
    .bind(now)
    .execute(db)
    .await
    .map_err(failed("mark the packs"))?;
    Ok(())
}

pub(super) fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Pack, LedgerError> {
    Ok(Pack {
        number: value(row, "pack")?,
        id: PackId(Digest::from_raw(blob(row, "id")?)),
        header_bytes: value(row, "header_bytes")?,
        total_bytes: value(row, "total_bytes")?,
        plain_bytes: value(row, "plain_bytes")?,
    })
}
