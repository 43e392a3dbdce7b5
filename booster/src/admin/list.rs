//! What the cache holds, by fileset and by pack.

use std::collections::BTreeMap;
use std::fmt;

use content::locator::PackEntry;
use content::{FilesetName, PackId, RevisionNumber};
use protocol::{Code, Fault};
use serde::{Deserialize, Serialize};

use super::{Admin, no_such_fileset};
use crate::cache::off_runtime;
use crate::pins::{At, Pin};

/// What is here of the filesets that are published, a page of them, and of everything else.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CacheList {
    /// Bytes of all files.
    pub bytes: u64,
    /// What they may be.
    pub bytes_max: u64,
    /// The filesets, in the order of their names.
    pub filesets: Vec<FilesetRow>,
    /// After which name the next page begins; none if this is the last.
    pub next: Option<String>,
    /// All files, by kind and by how soon they are given up.
    pub totals: Vec<TotalRow>,
}

/// What is here of one fileset.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FilesetRow {
    /// Bytes of its packs that are here. A pack that another fileset has too counts in both.
    pub bytes: u64,
    /// Its current revision.
    pub current: u64,
    /// Its name.
    pub fileset: String,
    /// About when one of its packs was last used, in Unix seconds; none if none is here.
    pub last_used: Option<i64>,
    /// Bytes of all packs that its revisions name.
    pub named_bytes: u64,
    /// How many packs they name, as far as their locators have been read.
    pub named_packs: u64,
    /// Packs that are here.
    pub packs: u64,
    /// Which of its revisions are pinned: `latest`, or numbers.
    pub pinned: Vec<String>,
    /// Revisions whose locators have not been read yet.
    pub unread: u64,
}

/// Files of one kind that are given up at the same time.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TotalRow {
    /// Their bytes.
    pub bytes: u64,
    /// How many.
    pub files: u64,
    /// `object`, `pack`, `partial` or `quarantined`.
    pub kind: String,
    /// From first to last: `abandoned`, `superseded`, `older`, `one-client`, `current`, `pinned`.
    pub rank: String,
}

/// The packs of one fileset that are here, a page of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PackList {
    /// After which name the next page begins; none if this is the last.
    pub next: Option<String>,
    /// The packs, in the order of their names.
    pub packs: Vec<PackRow>,
}

/// One pack.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PackRow {
    /// Its bytes.
    pub bytes: u64,
    /// Whether somebody reads it just now.
    pub in_use: bool,
    /// About when it was last used, in Unix seconds.
    pub last_used: i64,
    /// Its name.
    pub pack: String,
    /// How soon it is given up, in the words of [`TotalRow::rank`].
    pub rank: String,
    /// The revisions of the fileset that name it.
    pub revisions: Vec<u64>,
    /// Whether it is known to be good; else it is checked before it is next served.
    pub verified: bool,
}

/// A fileset as the catalogue knows it.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Its current revision.
    pub current: Option<RevisionNumber>,
    /// Its packs, each with the revisions that name it, in rising order.
    pub packs: BTreeMap<PackId, (PackEntry, Vec<RevisionNumber>)>,
    /// Revisions whose locators have not been read yet.
    pub unread: u64,
}

impl Admin {
    /// The filesets after `after`, at most so many, and the sum of everything.
    pub(super) async fn list(&self, after: &str, limit: usize) -> CacheList {
        let mut names = self.catalogue.filesets();
        names.retain(|name| name.as_str() > after);
        let more = names.len() > limit;
        names.truncate(limit);
        let (cache, clock) = (self.cache.clone(), self.clock.clone());
        let (catalogue, pins) = (self.catalogue.clone(), self.pins.wanted());
        let listed = off_runtime(move || {
            let rows = names.iter().filter_map(|name| {
                let mut row = FilesetRow::new(name, &catalogue.contents(name)?, &cache, &clock);
                let pinned = pins.iter().filter(|pin| pin.fileset == *name);
                row.pinned = pinned.map(at).collect();
                Some(row)
            });
            let filesets: Vec<FilesetRow> = rows.collect();
            let next = more
                .then(|| names.last().map(ToString::to_string))
                .flatten();
            CacheList {
                bytes: cache.stored_bytes(),
                bytes_max: cache.bytes_max(),
                filesets,
                next,
                totals: cache.totals(),
            }
        });
        listed.await.unwrap_or_default()
    }

    /// The packs of a fileset that are here, after `after`, at most so many.
    pub(super) async fn packs(
        &self,
        fileset: &FilesetName,
        after: Option<PackId>,
        limit: usize,
    ) -> Result<PackList, Fault> {
        let contents = self.catalogue.contents(fileset);
        let contents = contents.ok_or_else(|| no_such_fileset(fileset))?;
        let (cache, now) = (self.cache.clone(), self.clock.now());
        let listed = off_runtime(move || {
            let mut list = PackList::default();
            for (id, (_, revisions)) in &contents.packs {
                let Some(sight) = cache.sight(*id).filter(|_| Some(*id) > after) else {
                    continue;
                };
                if list.packs.len() == limit {
                    list.next = list.packs.last().map(|row| row.pack.clone());
                    break;
                }
                list.packs.push(PackRow {
                    bytes: sight.glimpse.bytes,
                    in_use: sight.glimpse.in_use,
                    last_used: sight.last_used.unwrap_or(now),
                    pack: id.to_string(),
                    rank: sight.glimpse.rank.name().to_owned(),
                    revisions: revisions.iter().map(|number| number.0).collect(),
                    verified: sight.glimpse.verified,
                });
            }
            list
        });
        let stopping = || Fault::new(Code::Busy, "the booster is stopping");
        listed.await.ok_or_else(stopping)
    }
}

impl FilesetRow {
    fn new(
        name: &FilesetName,
        contents: &Contents,
        cache: &crate::cache::Cache,
        clock: &service::Clock,
    ) -> Self {
        let mut row = Self {
            bytes: 0,
            current: contents.current.map_or(0, |number| number.0),
            fileset: name.to_string(),
            last_used: None,
            named_bytes: 0,
            named_packs: contents.packs.len() as u64,
            packs: 0,
            pinned: Vec::new(),
            unread: contents.unread,
        };
        for (id, (entry, _)) in &contents.packs {
            row.named_bytes += u64::from(entry.total_bytes);
            if let Some(sight) = cache.sight(*id) {
                row.packs += 1;
                row.bytes += sight.glimpse.bytes;
                let used = sight.last_used.unwrap_or_else(|| clock.now());
                row.last_used = row.last_used.max(Some(used));
            }
        }
        row
    }
}

/// Which revision a pin means.
fn at(pin: &Pin) -> String {
    match pin.at {
        At::Latest => "latest".to_owned(),
        At::Revision(number) => number.to_string(),
    }
}

impl fmt::Display for CacheList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, max) = (config::Bytes(self.bytes), config::Bytes(self.bytes_max));
        write!(f, "{bytes} of {max}")?;
        for row in &self.totals {
            let TotalRow { files, kind, .. } = row;
            let (bytes, rank) = (config::Bytes(row.bytes), &row.rank);
            write!(f, "\n  {bytes:>10}  {files:>7}  {kind} {rank}")?;
        }
        for row in &self.filesets {
            write!(f, "\n{row}")?;
        }
        match &self.next {
            Some(next) => write!(f, "\nthere are more: --after {next}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FilesetRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (here, named) = (config::Bytes(self.bytes), config::Bytes(self.named_bytes));
        let Self {
            fileset,
            current,
            packs,
            named_packs,
            ..
        } = self;
        write!(
            f,
            "{fileset}@{current}  {packs} of {named_packs} packs, {here} of {named}"
        )?;
        if let Some(used) = self.last_used {
            write!(f, ", used {}", crate::status::day(used))?;
        }
        if !self.pinned.is_empty() {
            write!(f, ", pinned: {}", self.pinned.join(", "))?;
        }
        if self.unread > 0 {
            write!(f, ", {} revisions not looked at yet", self.unread)?;
        }
        Ok(())
    }
}

impl fmt::Display for PackList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.packs.is_empty() {
            return f.write_str("no packs of it are here");
        }
        for (at, row) in self.packs.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{row}")?;
        }
        match &self.next {
            Some(next) => write!(f, "\nthere are more: --after {next}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PackRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pack, rank, .. } = self;
        let (bytes, used) = (
            config::Bytes(self.bytes),
            crate::status::day(self.last_used),
        );
        let checked = if self.verified {
            "checked"
        } else {
            "to be checked"
        };
        let revisions: Vec<String> = self.revisions.iter().map(ToString::to_string).collect();
        let revisions = revisions.join(",");
        write!(
            f,
            "{pack}  {bytes:>10}  {rank:<10}  used {used}  {checked}  @{revisions}"
        )?;
        if self.in_use {
            f.write_str("  in use")?;
        }
        Ok(())
    }
}
