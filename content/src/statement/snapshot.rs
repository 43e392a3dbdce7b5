//! The snapshot: which revision of each fileset is current, and which are kept.

use super::Payload;
use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::digest::Digest;
use crate::locator::read_name;
use crate::name::{FilesetName, RevisionNumber};

/// The state of all filesets at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// The deployment that it belongs to.
    pub deployment: String,
    /// When it was made, in Unix seconds.
    pub created: i64,
    /// The filesets, in order of their names.
    pub filesets: Vec<FilesetEntry>,
}

/// One fileset in a snapshot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FilesetEntry {
    /// Its name.
    pub name: FilesetName,
    /// The revision that is current.
    pub current: RevisionNumber,
    /// The revisions that are kept, the current one among them, in rising order.
    pub retained: Vec<RevisionEntry>,
}

/// One revision in a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RevisionEntry {
    /// Its number.
    pub number: RevisionNumber,
    /// The digest of its statement's envelope.
    pub statement: Digest,
    /// The digest of its locator's envelope.
    pub locator: Digest,
}

impl Snapshot {
    /// The fileset called `name`.
    #[must_use]
    pub fn fileset(&self, name: &FilesetName) -> Option<&FilesetEntry> {
        let at = self
            .filesets
            .binary_search_by(|entry| entry.name.cmp(name))
            .ok()?;
        self.filesets.get(at)
    }
}

impl FilesetEntry {
    /// The revision with that number, if it is kept.
    #[must_use]
    pub fn revision(&self, number: RevisionNumber) -> Option<&RevisionEntry> {
        self.retained
            .iter()
            .find(|revision| revision.number == number)
    }
}

impl Payload for Snapshot {
    const TYPE: &'static str = "application/vnd.larder.snapshot+cbor";
    const BYTES_MAX: usize = 16 << 20;

    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judged_at(&self) -> Option<i64> {
        Some(self.created)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(4);
        writer.u64(DEPLOYMENT).text(&self.deployment);
        writer.u64(CREATED).i64(self.created);
        writer.u64(FILESETS).array(self.filesets.len());
        for fileset in &self.filesets {
            writer
                .array(3)
                .text(fileset.name.as_str())
                .u64(fileset.current.0);
            writer.array(fileset.retained.len() * 3);
            for revision in &fileset.retained {
                writer.u64(revision.number.0);
                writer.digest(&revision.statement).digest(&revision.locator);
            }
        }
        // What each device of a site should hold: empty until manifests exist.
        writer.u64(SITES).array(0);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut deployment, mut created, mut filesets, mut sites) = (None, None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                DEPLOYMENT => deployment = Some(fields.text(64)?.to_owned()),
                CREATED => created = Some(fields.i64()?),
                FILESETS => filesets = Some(read_filesets(&mut fields)?),
                SITES => sites = Some(fields.array(0)?),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        need(sites, SITES)?;
        let snapshot = Self {
            deployment: need(deployment, DEPLOYMENT)?,
            created: need(created, CREATED)?,
            filesets: need(filesets, FILESETS)?,
        };
        cbor::same(bytes, &snapshot.encode())?;
        Ok(snapshot)
    }
}

fn read_filesets(fields: &mut Fields<'_>) -> Result<Vec<FilesetEntry>, CborError> {
    let count = fields.array(FILESETS_MAX)?;
    let mut filesets: Vec<FilesetEntry> = Vec::new();
    for _ in 0..count {
        let fileset = read_fileset(fields)?;
        if filesets
            .last()
            .is_some_and(|last| last.name >= fileset.name)
        {
            return Err(fields.bounds("filesets out of order"));
        }
        filesets.push(fileset);
    }
    Ok(filesets)
}

fn read_fileset(fields: &mut Fields<'_>) -> Result<FilesetEntry, CborError> {
    if fields.array(3)? != 3 {
        return Err(fields.bounds("not three values a fileset"));
    }
    let name = read_name(fields)?;
    let current = RevisionNumber(fields.u64()?);
    let items = fields.array(RETAINED_MAX * 3)?;
    if items % 3 != 0 {
        return Err(fields.bounds("not three values a revision"));
    }
    let mut retained: Vec<RevisionEntry> = Vec::with_capacity(items / 3);
    for _ in 0..items / 3 {
        let number = RevisionNumber(fields.u64()?);
        let (statement, locator) = (fields.digest()?, fields.digest()?);
        if retained.last().is_some_and(|last| last.number >= number) {
            return Err(fields.bounds("revisions out of order"));
        }
        retained.push(RevisionEntry {
            number,
            statement,
            locator,
        });
    }
    if retained.iter().any(|revision| revision.number == current) {
        Ok(FilesetEntry {
            name,
            current,
            retained,
        })
    } else {
        Err(fields.bounds("the current revision is not among those kept"))
    }
}

/// The most filesets of a deployment.
const FILESETS_MAX: usize = 10_000;
/// The most revisions that a fileset keeps.
const RETAINED_MAX: usize = 1000;

const DEPLOYMENT: u64 = 0;
const CREATED: u64 = 1;
const FILESETS: u64 = 2;
const SITES: u64 = 3;
