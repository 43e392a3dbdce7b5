//! The statement of one revision.

use super::Payload;
use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::digest::Digest;
use crate::locator::read_name;
use crate::name::{FilesetName, RevisionNumber};

/// One revision of a fileset. It never changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revision {
    /// The deployment that it belongs to.
    pub deployment: String,
    /// The fileset.
    pub fileset: FilesetName,
    /// Its number.
    pub number: RevisionNumber,
    /// The digest of its index root.
    pub root: Digest,
    /// Bytes of the index root.
    pub root_bytes: u64,
    /// Bytes of all its files together.
    pub size: u64,
    /// How many paths it has.
    pub entries: u64,
    /// When it was published, in Unix seconds.
    pub created: i64,
}

impl Payload for Revision {
    const TYPE: &'static str = "application/vnd.larder.revision+cbor";
    const BYTES_MAX: usize = 4 << 10;

    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judged_at(&self) -> Option<i64> {
        Some(self.created)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(8);
        writer.u64(DEPLOYMENT).text(&self.deployment);
        writer.u64(FILESET).text(self.fileset.as_str());
        writer.u64(NUMBER).u64(self.number.0);
        writer.u64(ROOT).digest(&self.root);
        writer.u64(ROOT_BYTES).u64(self.root_bytes);
        writer.u64(SIZE).u64(self.size);
        writer.u64(ENTRIES).u64(self.entries);
        writer.u64(CREATED).i64(self.created);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut deployment, mut fileset, mut number, mut root) = (None, None, None, None);
        let (mut root_bytes, mut size, mut entries, mut created) = (None, None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                DEPLOYMENT => deployment = Some(fields.text(64)?.to_owned()),
                FILESET => fileset = Some(read_name(&mut fields)?),
                NUMBER => number = Some(RevisionNumber(fields.u64()?)),
                ROOT => root = Some(fields.digest()?),
                ROOT_BYTES => root_bytes = Some(fields.u64()?),
                SIZE => size = Some(fields.u64()?),
                ENTRIES => entries = Some(fields.u64()?),
                CREATED => created = Some(fields.i64()?),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let revision = Self {
            deployment: need(deployment, DEPLOYMENT)?,
            fileset: need(fileset, FILESET)?,
            number: need(number, NUMBER)?,
            root: need(root, ROOT)?,
            root_bytes: need(root_bytes, ROOT_BYTES)?,
            size: need(size, SIZE)?,
            entries: need(entries, ENTRIES)?,
            created: need(created, CREATED)?,
        };
        cbor::same(bytes, &revision.encode())?;
        Ok(revision)
    }
}

const DEPLOYMENT: u64 = 0;
const FILESET: u64 = 1;
const NUMBER: u64 = 2;
const ROOT: u64 = 3;
const ROOT_BYTES: u64 = 4;
const SIZE: u64 = 5;
const ENTRIES: u64 = 6;
const CREATED: u64 = 7;
