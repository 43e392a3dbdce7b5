//! Whether the audit log is what was written, entry by entry.

use sqlx::SqliteConnection;
use thiserror::Error;

use crate::ledger::LedgerError;
use crate::ledger::audit::{self, Entry, Hash, Head, Link, START};

/// What a log that holds has to show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verified {
    /// The first entry that was looked at.
    pub first: u64,
    /// The newest entry.
    pub head: Head,
    /// The number of the entry whose hash was asked for.
    pub found: Option<u64>,
}

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Broken {
    /// An entry is not what led to its hash, or follows another than it did.
    #[error("entry {number} does not lead to its hash: it, or one before it, was changed")]
    Changed {
        /// The entry.
        number: u64,
    },
    /// There is more or less at the end than the head says.
    #[error("the log ends with entry {last}, and its head is {head}")]
    End {
        /// The last entry that is there.
        last: u64,
        /// The number of the head.
        head: u64,
    },
    /// The last entry is not the one that the head names.
    #[error("the last entry, {number}, is not the one that the head names")]
    Head {
        /// The last entry.
        number: u64,
    },
    /// An entry cannot be read, or is not the one that its place says.
    #[error("entry {number} is not one that was written there")]
    Malformed {
        /// The entry.
        number: u64,
    },
    /// An entry is not there.
    #[error("entry {number} is missing")]
    Missing {
        /// The entry.
        number: u64,
    },
    /// The hash that was noted is not in the chain.
    #[error("the head that was asked for is not in the log: entries were taken away or rewritten")]
    Unknown,
}

/// Why a log does not count, or cannot be judged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It was tampered with, or damaged.
    #[error("cannot trust the audit log")]
    Broken(#[from] Broken),
    /// The ledger failed.
    #[error("cannot read the audit log")]
    Ledger(#[from] LedgerError),
}

/// Entries read at a time: some 400 KiB.
const PAGE: u32 = 1000;

/// Verifies the log from entry `from` (1: all of it) to its head, and shows each entry to `seen`.
/// With `noted`, a head that was noted earlier must be among the hashes. What comes before `from`
/// is believed. Entries that are added meanwhile are not looked at.
///
/// # Errors
///
/// Says what is wrong first.
pub async fn verify(
    db: &mut SqliteConnection,
    from: u64,
    noted: Option<&Hash>,
    mut seen: impl FnMut(u64, &Entry, &Hash),
) -> Result<Verified, VerifyError> {
    let from = from.max(1);
    let (last, head) = audit::ends(db).await?;
    if last != head.number {
        let head = head.number;
        return Err(Broken::End { last, head }.into());
    }
    let mut walk = Walk {
        before: before(db, from).await?,
        next: from,
        found: None,
    };
    if noted == Some(&walk.before) {
        walk.found = Some(from - 1);
    }
    while walk.next <= head.number {
        let page = audit::page(db, walk.next, PAGE).await?;
        if page.is_empty() {
            return Err(Broken::Missing { number: walk.next }.into());
        }
        for link in page {
            if link.number > head.number {
                break;
            }
            let entry = walk.step(&link, noted)?;
            seen(link.number, &entry, &link.hash);
        }
    }
    if head.number >= from && walk.before != head.hash {
        let number = head.number;
        return Err(Broken::Head { number }.into());
    }
    if noted.is_some() && walk.found.is_none() {
        return Err(Broken::Unknown.into());
    }
    Ok(Verified {
        first: from,
        head,
        found: walk.found,
    })
}

struct Walk {
    before: Hash,
    next: u64,
    found: Option<u64>,
}

impl Walk {
    fn step(&mut self, link: &Link, noted: Option<&Hash>) -> Result<Entry, Broken> {
        let number = self.next;
        if link.number != number {
            return Err(Broken::Missing { number });
        }
        if audit::chained(&self.before, &link.bytes) != link.hash {
            return Err(Broken::Changed { number });
        }
        let (named, entry) = Entry::decode(&link.bytes).ok_or(Broken::Malformed { number })?;
        if named != number {
            return Err(Broken::Malformed { number });
        }
        if noted == Some(&link.hash) {
            self.found = Some(number);
        }
        self.before = link.hash;
        self.next += 1;
        Ok(entry)
    }
}

/// The hash that entry `from` follows.
async fn before(db: &mut SqliteConnection, from: u64) -> Result<Hash, VerifyError> {
    if from == 1 {
        return Ok(START);
    }
    let number = from - 1;
    match audit::page(db, number, 1).await?.first() {
        Some(link) if link.number == number => Ok(link.hash),
        Some(_) | None => Err(Broken::Missing { number }.into()),
    }
}
