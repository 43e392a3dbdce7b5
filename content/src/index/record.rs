//! One record of an index, as bytes and as a type.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{EXTRA_BYTES_MAX, EXTRAS_MAX, LINK_BYTES_MAX, RECORD_BYTES_MAX, RECORD_CHUNKS_MAX};
use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::chunk::ChunkRef;
use crate::chunker::Profile;
use crate::digest::{ChunkId, Digest};
use crate::path::{EntryPath, PathError};

/// The first record: how to read the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// Whether two paths may differ only by the case of their letters.
    pub case_policy: CasePolicy,
    /// Features that a reader must know; none are defined yet.
    pub features: Vec<String>,
    /// The system that the tree came from, such as `linux`: 1 to 32 bytes.
    pub system: String,
}

/// Whether paths may differ only by the case of their letters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CasePolicy {
    /// No two paths do, so that the tree can be installed on any system.
    Unique,
    /// They may: the publisher said so.
    Sensitive,
}

/// One path, with what is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Where.
    pub path: EntryPath,
    /// What.
    pub kind: Kind,
    /// Permission bits: the lower twelve of `st_mode`.
    pub mode: u32,
    /// When it was last modified, in nanoseconds since 1970.
    pub mtime: i64,
    /// Values under keys from 128 up, which need not be understood.
    pub extra: BTreeMap<u64, Vec<u8>>,
}

/// What is at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// SHA-256 of the whole; left out where it is one chunk, or none.
        digest: Option<Digest>,
        /// Its chunks in order, or the first of them.
        chunks: Vec<ChunkRef>,
        /// Whether the list goes on in the next record.
        more: bool,
    },
    /// A folder.
    Folder,
    /// Another name of the file at an earlier path.
    HardLink {
        /// That path.
        target: EntryPath,
    },
    /// A symbolic link.
    Symlink {
        /// What it says: any text without NUL.
        target: String,
    },
}

/// One record of an index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    /// The next chunks of the file before.
    Chunks {
        /// The chunks.
        chunks: Vec<ChunkRef>,
        /// Whether the list goes on.
        more: bool,
    },
    /// A path.
    Entry(Entry),
    /// The first record.
    Head(Head),
}

/// Keys that are set aside: a reader of this release refuses them, since they would change what
/// is installed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
pub enum ReservedKey {
    /// Owner by number.
    Uid = 16,
    /// Group by number.
    Gid = 17,
    /// Owner by name.
    Owner = 18,
    /// Group by name.
    Group = 19,
    /// Extended attributes.
    Xattrs = 20,
    /// Linux capabilities.
    Capabilities = 21,
    /// Hard-link group, for systems where links have no first name.
    LinkGroup = 22,
    /// Holes of a sparse file.
    Holes = 23,
}

impl Record {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Chunks { chunks, more } => {
                let mut writer = Writer::map(1 + u64::from(*more));
                put_chunks(&mut writer, chunks, *more);
                writer.finish()
            }
            Self::Entry(entry) => encode_entry(entry),
            Self::Head(head) => {
                let mut writer = Writer::map(5);
                writer.u64(FORMAT).text(FORMAT_NAME);
                writer.u64(VERSION).u64(1);
                writer.u64(FEATURES).array(head.features.len());
                for feature in &head.features {
                    writer.text(feature);
                }
                writer.u64(SYSTEM).text(&head.system);
                writer
                    .u64(CASE)
                    .u64(u64::from(head.case_policy == CasePolicy::Sensitive));
                writer.finish()
            }
        }
    }

    /// Reads the record at the start of `bytes`; says how many bytes it took, or that its end has
    /// not arrived yet.
    ///
    /// # Errors
    ///
    /// Fails if the bytes cannot be the start of a record.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, RecordError> {
        let (draft, length) = match Draft::read(bytes) {
            Ok(read) => read,
            Err(RecordError::Cbor {
                source: CborError::End,
            }) if bytes.len() < RECORD_BYTES_MAX => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let record = draft.finish()?;
        cbor::same(&bytes[..length], &record.encode())?;
        Ok(Some((record, length)))
    }
}

/// The fields of a record as they are read, before it is known what they make.
#[derive(Default)]
struct Draft<'b> {
    head: Option<Head>,
    path: Option<&'b str>,
    kind: Option<u64>,
    mode: Option<u32>,
    size: Option<u64>,
    mtime: Option<i64>,
    target: Option<&'b str>,
    digest: Option<Digest>,
    chunks: Option<Vec<ChunkRef>>,
    more: bool,
    extra: BTreeMap<u64, Vec<u8>>,
}

impl<'b> Draft<'b> {
    fn read(bytes: &'b [u8]) -> Result<(Self, usize), RecordError> {
        let mut fields = Fields::new(bytes)?;
        let mut draft = Self::default();
        while let Some(key) = fields.next_key()? {
            match key {
                PATH => draft.path = Some(fields.text(EntryPath::BYTES_MAX)?),
                KIND => draft.kind = Some(fields.u64()?),
                MODE => draft.mode = Some(fields.u32()?),
                SIZE => draft.size = Some(fields.u64()?),
                MTIME => draft.mtime = Some(fields.i64()?),
                TARGET => draft.target = Some(fields.text(LINK_BYTES_MAX)?),
                DIGEST => draft.digest = Some(fields.digest()?),
                CHUNKS => draft.chunks = Some(read_chunks(&mut fields)?),
                MORE => draft.more = fields.bool()?,
                FORMAT => draft.head = Some(read_head(&mut fields)?),
                VERSION..=CASE => return Err(CborError::NotDeterministic.into()),
                128.. if draft.extra.len() < EXTRAS_MAX => {
                    draft
                        .extra
                        .insert(key, fields.bytes(EXTRA_BYTES_MAX)?.to_owned());
                }
                unknown => return Err(CborError::UnknownKey { key: unknown }.into()),
            }
            if draft.head.is_some() {
                break;
            }
        }
        Ok((draft, fields.position()))
    }

    fn finish(self) -> Result<Record, RecordError> {
        if let Some(head) = self.head {
            return Ok(Record::Head(head));
        }
        let Some(path) = self.path else {
            let chunks = need(self.chunks, CHUNKS)?;
            return Ok(Record::Chunks {
                chunks,
                more: self.more,
            });
        };
        let path = EntryPath::new(path)?;
        let mode = need(self.mode, MODE)?;
        let mtime = need(self.mtime, MTIME)?;
        if mode > MODE_MAX {
            return Err(CborError::Bounds {
                key: MODE,
                what: "over 0o7777",
            }
            .into());
        }
        let target = || need(self.target, TARGET);
        let kind = match need(self.kind, KIND)? {
            FILE => Kind::File {
                size: need(self.size, SIZE)?,
                digest: self.digest,
                chunks: self.chunks.unwrap_or_default(),
                more: self.more,
            },
            FOLDER => Kind::Folder,
            SYMLINK => Kind::Symlink {
                target: link_target(target()?)?,
            },
            HARD_LINK => Kind::HardLink {
                target: EntryPath::new(target()?)?,
            },
            _ => {
                return Err(CborError::Bounds {
                    key: KIND,
                    what: "unknown type",
                }
                .into());
            }
        };
        Ok(Record::Entry(Entry {
            path,
            kind,
            mode,
            mtime,
            extra: self.extra,
        }))
    }
}

fn link_target(target: &str) -> Result<String, CborError> {
    if target.is_empty() || target.contains('\0') {
        return Err(CborError::Bounds {
            key: TARGET,
            what: "empty, or holds a NUL",
        });
    }
    Ok(target.to_owned())
}

fn read_chunks(fields: &mut Fields<'_>) -> Result<Vec<ChunkRef>, CborError> {
    let items = fields.array(RECORD_CHUNKS_MAX * 2)?;
    let mut chunks = Vec::with_capacity(items / 2);
    for _ in 0..items / 2 {
        let id = ChunkId(fields.digest()?);
        let length = fields.u32()?;
        if length == 0 || length as usize > Profile::Content.bytes_max() {
            return Err(fields.bounds("a chunk's length"));
        }
        chunks.push(ChunkRef { id, length });
    }
    if items % 2 == 0 {
        Ok(chunks)
    } else {
        Err(fields.bounds("an odd count"))
    }
}

fn read_head(fields: &mut Fields<'_>) -> Result<Head, RecordError> {
    if fields.text(FORMAT_NAME.len())? != FORMAT_NAME {
        return Err(RecordError::Format);
    }
    let expect = |fields: &mut Fields<'_>, key| match fields.next_key()? {
        Some(found) if found == key => Ok(()),
        Some(_) | None => Err(CborError::MissingKey { key }),
    };
    expect(fields, VERSION)?;
    let version = fields.u64()?;
    if version != 1 {
        return Err(RecordError::Version { version });
    }
    expect(fields, FEATURES)?;
    let count = fields.array(FEATURES_MAX)?;
    let features: Vec<String> = (0..count)
        .map(|_| fields.text(32).map(str::to_owned))
        .collect::<Result<_, _>>()?;
    if let Some(feature) = features.first() {
        return Err(RecordError::Feature {
            feature: feature.clone(),
        });
    }
    expect(fields, SYSTEM)?;
    let system = fields.text(32)?.to_owned();
    expect(fields, CASE)?;
    let case_policy = match fields.u64()? {
        0 => CasePolicy::Unique,
        1 => CasePolicy::Sensitive,
        _ => return Err(fields.bounds("unknown case policy").into()),
    };
    match fields.next_key()? {
        None => Ok(Head {
            case_policy,
            features,
            system,
        }),
        Some(key) => Err(CborError::UnknownKey { key }.into()),
    }
}

fn encode_entry(entry: &Entry) -> Vec<u8> {
    let extra = entry.extra.len() as u64;
    let common = 4 + extra;
    let pairs = common
        + match &entry.kind {
            Kind::File {
                digest,
                chunks,
                more,
                ..
            } => 1 + u64::from(digest.is_some()) + u64::from(!chunks.is_empty()) + u64::from(*more),
            Kind::Folder => 0,
            Kind::HardLink { .. } | Kind::Symlink { .. } => 1,
        };
    let mut writer = Writer::map(pairs);
    writer.u64(PATH).text(entry.path.as_str());
    let kind = match &entry.kind {
        Kind::File { .. } => FILE,
        Kind::Folder => FOLDER,
        Kind::HardLink { .. } => HARD_LINK,
        Kind::Symlink { .. } => SYMLINK,
    };
    writer
        .u64(KIND)
        .u64(kind)
        .u64(MODE)
        .u64(u64::from(entry.mode));
    if let Kind::File { size, .. } = &entry.kind {
        writer.u64(SIZE).u64(*size);
    }
    writer.u64(MTIME).i64(entry.mtime);
    match &entry.kind {
        Kind::File {
            digest,
            chunks,
            more,
            ..
        } => {
            if let Some(digest) = digest {
                writer.u64(DIGEST).digest(digest);
            }
            if !chunks.is_empty() {
                put_chunks(&mut writer, chunks, *more);
            }
        }
        Kind::Folder => {}
        Kind::HardLink { target } => {
            writer.u64(TARGET).text(target.as_str());
        }
        Kind::Symlink { target } => {
            writer.u64(TARGET).text(target);
        }
    }
    for (key, value) in &entry.extra {
        writer.u64(*key).bytes(value);
    }
    writer.finish()
}

fn put_chunks(writer: &mut Writer, chunks: &[ChunkRef], more: bool) {
    writer.u64(CHUNKS).array(chunks.len() * 2);
    for chunk in chunks {
        writer.digest(&chunk.id.0).u64(u64::from(chunk.length));
    }
    if more {
        writer.u64(MORE).bool(true);
    }
}

/// Why some bytes are not a record.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RecordError {
    /// They are not the CBOR that a record is.
    #[error("index record check failed")]
    Cbor {
        /// What is wrong.
        #[from]
        source: CborError,
    },
    /// The index needs a feature that this release does not have.
    #[error("index needs the feature {feature:?}, which this release does not have")]
    Feature {
        /// Which.
        feature: String,
    },
    /// It is no index.
    #[error("it is not an index")]
    Format,
    /// A path that could lead out of the tree.
    #[error("index record check failed")]
    Path {
        /// Which, and why.
        #[from]
        source: PathError,
    },
    /// A version of the format that this release does not know.
    #[error("index has version {version}, this release knows version 1")]
    Version {
        /// The version found.
        version: u64,
    },
}

const FORMAT_NAME: &str = "larder-index";
const FEATURES_MAX: usize = 64;
const MODE_MAX: u32 = 0o7777;

const FILE: u64 = 0;
const FOLDER: u64 = 1;
const SYMLINK: u64 = 2;
const HARD_LINK: u64 = 3;

const PATH: u64 = 0;
const KIND: u64 = 1;
const MODE: u64 = 2;
const SIZE: u64 = 3;
const MTIME: u64 = 4;
const TARGET: u64 = 5;
const DIGEST: u64 = 6;
const CHUNKS: u64 = 7;
const MORE: u64 = 8;
// The head's keys lie apart, so that no other record can be taken for it.
const FORMAT: u64 = 64;
const VERSION: u64 = 65;
const FEATURES: u64 = 66;
const SYSTEM: u64 = 67;
const CASE: u64 = 68;
