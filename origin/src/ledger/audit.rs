//! The audit log: what was done, by whom, in a chain of hashes.
//!
//! An entry is appended in the transaction that does what it tells, so that neither is ever there
//! without the other. Its hash is the SHA-256 of the hash before it, then its bytes; the first
//! follows 32 zeros. The bytes are what is kept, so that verifying needs no encoder.

use minicbor::{Decoder, Encoder};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use super::{LedgerError, blob, failed, value};

/// What was done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// When, in Unix seconds.
    pub at: i64,
    /// By whom.
    pub actor: String,
    /// What.
    pub event: String,
    /// With or to what: names and values, by name.
    pub details: Vec<(String, String)>,
}

/// An entry as it stands in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its number: the first has 1.
    pub number: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The hash that it has led to.
    pub hash: Hash,
}

/// A link of the chain, and all before it.
pub type Hash = [u8; 32];

/// What the first entry follows.
pub const START: Hash = [0; 32];

/// The newest entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Its number; 0 if there is none.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
}

/// Version of an entry's bytes.
const FORMAT: u64 = 1;
/// What we write ourselves is a tenth of it.
pub const ENTRY_BYTES_MAX: usize = 16 << 10;

impl Entry {
    /// The entry's bytes under the number `number`: CBOR in the core deterministic encoding of
    /// RFC 8949 §4.2.1.
    #[must_use]
    pub fn encode(&self, number: u64) -> Vec<u8> {
        let mut details: Vec<_> = self.details.iter().collect();
        // Of encoded strings the shorter goes first.
        details.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
        let mut encoder = Encoder::new(Vec::new());
        let write = |encoder: &mut Encoder<Vec<u8>>| {
            encoder.array(6)?.u64(FORMAT)?.u64(number)?.i64(self.at)?;
            encoder.str(&self.actor)?.str(&self.event)?;
            encoder.map(details.len() as u64)?;
            for (name, value) in details {
                encoder.str(name)?.str(value)?;
            }
            Ok::<_, minicbor::encode::Error<std::convert::Infallible>>(())
        };
        write(&mut encoder).expect("memory takes all that is written to it");
        encoder.into_writer()
    }

    /// Reads an entry's bytes, and the number that they name.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return None;
        }
        let mut decoder = Decoder::new(bytes);
        if decoder.array().ok()? != Some(6) || decoder.u64().ok()? != FORMAT {
            return None;
        }
        let number = decoder.u64().ok()?;
        let mut entry = Self {
            at: decoder.i64().ok()?,
            actor: decoder.str().ok()?.to_owned(),
            event: decoder.str().ok()?.to_owned(),
            details: Vec::new(),
        };
        for _ in 0..decoder.map().ok()?? {
            let name = decoder.str().ok()?.to_owned();
            entry.details.push((name, decoder.str().ok()?.to_owned()));
        }
        (decoder.position() == bytes.len()).then_some((number, entry))
    }
}

/// The hash of `bytes` after `before`.
#[must_use]
pub fn chained(before: &Hash, bytes: &[u8]) -> Hash {
    *content::Digest::of(&[before.as_slice(), bytes].concat()).as_raw()
}

/// Adds `entry` to the end of the log.
///
/// # Errors
///
/// Fails if the database does: then what it tells must not be done.
pub async fn append(db: &mut SqliteConnection, entry: &Entry) -> Result<(), LedgerError> {
    let head = head(db).await?;
    let number = head.number + 1;
    let bytes = entry.encode(number);
    let hash = chained(&head.hash, &bytes);
    let number = i64::try_from(number).map_err(|_| malformed())?;
    query("INSERT INTO audit (number, entry, hash) VALUES ($1, $2, $3)")
        .bind(number)
        .bind(&bytes)
        .bind(hash.as_slice())
        .execute(&mut *db)
        .await
        .map_err(failed("write the audit log"))?;
    query(
        "INSERT INTO audit_head (one, number, hash) VALUES (1, $1, $2) \
         ON CONFLICT (one) DO UPDATE SET number = excluded.number, hash = excluded.hash",
    )
    .bind(number)
    .bind(hash.as_slice())
    .execute(db)
    .await
    .map_err(failed("write the audit log"))?;
    Ok(())
}

/// The newest entry, as the log itself says.
///
/// # Errors
///
/// Fails if the database does.
pub async fn head(db: &mut SqliteConnection) -> Result<Head, LedgerError> {
    let row = query("SELECT number, hash FROM audit_head WHERE one = 1")
        .fetch_optional(db)
        .await
        .map_err(failed("read the audit log"))?;
    match row {
        Some(row) => Ok(Head {
            number: number(&row)?,
            hash: blob(&row, "hash")?,
        }),
        None => Ok(Head {
            number: 0,
            hash: START,
        }),
    }
}

/// The highest number in the log, and the head, as they are at one moment. In a log that nobody
/// has touched they agree.
///
/// # Errors
///
/// Fails if the database does.
pub async fn ends(db: &mut SqliteConnection) -> Result<(u64, Head), LedgerError> {
    let row = query(
        "SELECT last, coalesce(number, 0) AS number, hash FROM \
         (SELECT coalesce(max(number), 0) AS last FROM audit) LEFT JOIN audit_head",
    )
    .fetch_one(db)
    .await
    .map_err(failed("read the audit log"))?;
    let last = u64::try_from(value::<i64>(&row, "last")?).map_err(|_| malformed())?;
    let number = number(&row)?;
    let hash = if number == 0 {
        START
    } else {
        blob(&row, "hash")?
    };
    Ok((last, Head { number, hash }))
}

/// At most `limit` entries from the number `first` on, in order.
///
/// # Errors
///
/// Fails if the database does.
pub async fn page(
    db: &mut SqliteConnection,
    first: u64,
    limit: u32,
) -> Result<Vec<Link>, LedgerError> {
    let first = i64::try_from(first).map_err(|_| malformed())?;
    let rows =
        query("SELECT number, entry, hash FROM audit WHERE number >= $1 ORDER BY number LIMIT $2")
            .bind(first)
            .bind(limit)
            .fetch_all(db)
            .await
            .map_err(failed("read the audit log"))?;
    let link = |row| {
        Ok(Link {
            number: number(row)?,
            bytes: value(row, "entry")?,
            hash: blob(row, "hash")?,
        })
    };
    rows.iter().map(link).collect()
}

fn number(row: &SqliteRow) -> Result<u64, LedgerError> {
    u64::try_from(value::<i64>(row, "number")?).map_err(|_| malformed())
}

fn malformed() -> LedgerError {
    LedgerError::Malformed {
        what: "the audit log",
    }
}
