//! Publishes under way: their chunks, and the packs that they lease.

use std::collections::{BTreeSet, HashMap};

use content::{ChunkId, ChunkRef, Digest, FilesetName};
use sqlx::{QueryBuilder, SqliteConnection, query};

use super::packs::{BATCH_ROWS, Pack, read};
use super::{LedgerError, blob, failed, parsed, value};

/// A publish under way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Publish {
    /// Its number.
    pub number: i64,
    /// The fileset.
    pub fileset: FilesetName,
    /// When it was last heard of.
    pub seen_at: i64,
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkPlace {
    /// The number of the pack within the ledger.
    pub pack: i64,
    /// Which chunk of it.
    pub ordinal: u32,
    /// Bytes of the chunk, by the pack's header and not by whoever publishes.
    pub length: u32,
}

/// How much of a pack a publish would use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Use {
    /// The pack.
    pub pack: Pack,
    /// Bytes of the chunks that the publish takes from it.
    pub used_bytes: i64,
}

/// Begins a publish of `fileset`; none if one is under way that was heard of since `dead_before`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn begin(
    db: &mut SqliteConnection,
    fileset: &FilesetName,
    dead_before: i64,
    now: i64,
) -> Result<Option<i64>, LedgerError> {
    query("DELETE FROM publishes WHERE fileset = $1 AND seen_at < $2")
        .bind(fileset.as_str())
        .bind(dead_before)
        .execute(&mut *db)
        .await
        .map_err(failed("end a dead publish"))?;
    let row = query(
        "INSERT INTO publishes (fileset, started_at, seen_at) VALUES ($1, $2, $2) \
         ON CONFLICT (fileset) DO NOTHING RETURNING publish",
    )
    .bind(fileset.as_str())
    .bind(now)
    .fetch_optional(db)
    .await
    .map_err(failed("begin a publish"))?;
    row.map(|row| value(&row, "publish")).transpose()
}

/// The publish with that number, which is noted as heard of.
///
/// # Errors
///
/// Fails if the database does.
pub async fn seen(
    db: &mut SqliteConnection,
    number: i64,
    now: i64,
) -> Result<Option<Publish>, LedgerError> {
    let row =
        query("UPDATE publishes SET seen_at = $2 WHERE publish = $1 RETURNING fileset, seen_at")
            .bind(number)
            .bind(now)
            .fetch_optional(db)
            .await
            .map_err(failed("find a publish"))?;
    row.map(|row| {
        Ok(Publish {
            number,
            fileset: parsed(&row, "fileset")?,
            seen_at: value(&row, "seen_at")?,
        })
    })
    .transpose()
}

/// When the publish with that number was last heard of; none if it ended.
///
/// # Errors
///
/// Fails if the database does.
pub async fn seen_at(db: &mut SqliteConnection, number: i64) -> Result<Option<i64>, LedgerError> {
    let row = query("SELECT seen_at FROM publishes WHERE publish = $1")
        .bind(number)
        .fetch_optional(db)
        .await
        .map_err(failed("find a publish"))?;
    row.map(|row| value(&row, "seen_at")).transpose()
}

/// Ends a publish, with its leases.
///
/// # Errors
///
/// Fails if the database does.
pub async fn end(db: &mut SqliteConnection, number: i64) -> Result<(), LedgerError> {
    query("DELETE FROM publishes WHERE publish = $1")
        .bind(number)
        .execute(db)
        .await
        .map_err(failed("end a publish"))?;
    Ok(())
}

/// Ends every publish that was last heard of before `dead_before`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn end_dead(db: &mut SqliteConnection, dead_before: i64) -> Result<(), LedgerError> {
    query("DELETE FROM publishes WHERE seen_at < $1")
        .bind(dead_before)
        .execute(db)
        .await
        .map_err(failed("end dead publishes"))?;
    Ok(())
}

/// Takes note of chunks that the publish consists of, and leases the packs that hold them already.
/// Returns those that nobody has sent and nobody asked for before: the publisher is to send them.
///
/// # Errors
///
/// Fails if the database does.
pub async fn add_chunks(
    db: &mut SqliteConnection,
    publish: i64,
    chunks: &[ChunkRef],
) -> Result<Vec<ChunkId>, LedgerError> {
    let mut missing = Vec::new();
    let mut leased = BTreeSet::new();
    // In the table's order: each of its pages is then read and written once.
    let mut chunks = chunks.to_vec();
    chunks.sort_unstable_by_key(|chunk| chunk.id);
    for batch in chunks.chunks(BATCH_ROWS) {
        let mut insert =
            QueryBuilder::new("INSERT INTO publish_chunks (publish, id, length, pack) SELECT ");
        insert.push_bind(publish);
        // One subquery for all rows: one for each would open as many cursors, and SQLite looks
        // through all that are open whenever it opens one. The newest pack that holds a chunk is
        // the likeliest to be live in other revisions too.
        insert.push(
            ", new.column1, new.column2, \
             (SELECT max(pack) FROM chunks WHERE chunks.id = new.column1) FROM (",
        );
        insert.push_values(batch, |mut row, chunk| {
            row.push_bind(chunk.id.0.as_raw().to_vec());
            row.push_bind(i64::from(chunk.length));
        });
        insert.push(") AS new WHERE true");
        insert.push(" ON CONFLICT DO NOTHING RETURNING id, pack");
        let rows = insert
            .build()
            .fetch_all(&mut *db)
            .await
            .map_err(failed("enter chunks"))?;
        for row in rows {
            match value(&row, "pack")? {
                Some(pack) => _ = leased.insert(pack),
                None => missing.push(ChunkId(Digest::from_raw(blob(&row, "id")?))),
            }
        }
    }
    for pack in leased {
        lease(db, publish, pack).await?;
    }
    Ok(missing)
}

/// Leases the pack numbered `pack`: it is not removed before the publish has ended.
///
/// # Errors
///
/// Fails if the database does.
pub async fn lease(db: &mut SqliteConnection, publish: i64, pack: i64) -> Result<(), LedgerError> {
    query("INSERT INTO publish_packs (publish, pack) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(publish)
        .bind(pack)
        .execute(db)
        .await
        .map_err(failed("lease a pack"))?;
    Ok(())
}

/// Looks for the packs of those chunks of the publish that had not come when they were first heard
/// of, among the `most` that follow the chunk `after`. Where to go on, if these were not the last.
///
/// # Errors
///
/// Fails if the database does.
pub async fn place_chunks(
    db: &mut SqliteConnection,
    publish: i64,
    after: Option<ChunkId>,
    most: u32,
) -> Result<Option<ChunkId>, LedgerError> {
    let row = query(
        "SELECT id FROM publish_chunks WHERE publish = $1 AND id > $2 \
         ORDER BY id LIMIT 1 OFFSET $3",
    );
    // Every id is greater than no bytes at all.
    let after = after.map_or_else(Vec::new, |id| id.0.as_raw().to_vec());
    let row = row
        .bind(publish)
        .bind(&after)
        .bind(most - 1)
        .fetch_optional(&mut *db)
        .await
        .map_err(failed("find chunks"))?;
    let last = row.map(|row| blob::<32>(&row, "id")).transpose()?;
    // And no id is greater than this.
    let upto = last.map_or_else(|| vec![0xff; 33], |id| id.to_vec());
    for sql in [
        "UPDATE publish_chunks SET pack = \
         (SELECT max(pack) FROM chunks WHERE chunks.id = publish_chunks.id) \
         WHERE publish = $1 AND id > $2 AND id <= $3 AND pack IS NULL",
        "INSERT INTO publish_packs (publish, pack) \
         SELECT DISTINCT publish, pack FROM publish_chunks \
         WHERE publish = $1 AND id > $2 AND id <= $3 AND pack IS NOT NULL \
         ON CONFLICT DO NOTHING",
    ] {
        query(sql)
            .bind(publish)
            .bind(&after)
            .bind(&upto)
            .execute(&mut *db)
            .await
            .map_err(failed("place chunks"))?;
    }
    Ok(last.map(|id| ChunkId(Digest::from_raw(id))))
}

/// How much of each pack the publish uses, in order of the packs.
///
/// # Errors
///
/// Fails if the database does.
pub async fn uses(db: &mut SqliteConnection, publish: i64) -> Result<Vec<Use>, LedgerError> {
    let rows = query(
        "SELECT packs.*, sum(used.length) AS used_bytes FROM publish_chunks AS used \
         JOIN packs USING (pack) WHERE used.publish = $1 GROUP BY pack ORDER BY pack",
    )
    .bind(publish)
    .fetch_all(db)
    .await
    .map_err(failed("weigh packs"))?;
    rows.iter()
        .map(|row| {
            Ok(Use {
                pack: read(row)?,
                used_bytes: value(row, "used_bytes")?,
            })
        })
        .collect()
}

/// Takes the chunks of the publish that the pack numbered `pack` holds from that one: they were packed
/// anew.
///
/// # Errors
///
/// Fails if the database does.
pub async fn move_chunks(
    db: &mut SqliteConnection,
    publish: i64,
    pack: i64,
) -> Result<(), LedgerError> {
    query(
        "UPDATE publish_chunks SET pack = $2 WHERE publish = $1 \
         AND id IN (SELECT id FROM chunks WHERE pack = $2)",
    )
    .bind(publish)
    .bind(pack)
    .execute(db)
    .await
    .map_err(failed("leave a pack"))?;
    Ok(())
}

/// Where chunks of the publish lie; one that has not come is not among them.
///
/// # Errors
///
/// Fails if the database does.
pub async fn places(
    db: &mut SqliteConnection,
    publish: i64,
    ids: &[ChunkId],
) -> Result<HashMap<ChunkId, ChunkPlace>, LedgerError> {
    let mut places = HashMap::with_capacity(ids.len());
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    for batch in ids.chunks(BATCH_ROWS) {
        let mut select = QueryBuilder::new(
            "SELECT used.id, used.pack, ordinal, chunks.length FROM publish_chunks AS used \
             JOIN chunks ON chunks.id = used.id AND chunks.pack = used.pack \
             WHERE used.publish = ",
        );
        select.push_bind(publish);
        select.push(" AND used.id IN (");
        let mut list = select.separated(", ");
        for id in batch {
            list.push_bind(id.0.as_raw().to_vec());
        }
        select.push(")");
        let rows = select
            .build()
            .fetch_all(&mut *db)
            .await
            .map_err(failed("find chunks"))?;
        for row in rows {
            let place = ChunkPlace {
                pack: value(&row, "pack")?,
                ordinal: value(&row, "ordinal")?,
                length: value(&row, "length")?,
            };
            places.insert(ChunkId(Digest::from_raw(blob(&row, "id")?)), place);
        }
    }
    Ok(places)
}
