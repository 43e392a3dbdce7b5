//! Reading a tree: cuts and hashes its files, writes its index, and hands out the chunks.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use content::chunker::{Chunker, Profile};
use content::index::{Entry, Head, IndexWriter, Kind};
use content::{Chunk, ChunkRef, ChunkRun, EntryPath, Hasher};
use rustix::fs::OFlags;
use tokio::sync::mpsc;

use super::links::Links;
use super::offenders::Offenders;
use super::walk::{Found, Walk};
use super::{IndexFile, Progress, PublishFailure, Request};
use crate::publish::messages::HAVE_CHUNKS_MAX;

/// Gathers chunks and hands them on in batches.
#[derive(Debug)]
pub(super) struct Batcher {
    batch: ChunkRun,
    sink: mpsc::Sender<ChunkRun>,
}

/// The bytes of a batch: enough that the ledger's round trip is little beside them.
const BATCH_BYTES: usize = 8 << 20;

fn empty() -> ChunkRun {
    ChunkRun::with_capacity(BATCH_BYTES + Profile::Content.bytes_max())
}

impl Batcher {
    pub(super) fn new(sink: mpsc::Sender<ChunkRun>) -> Self {
        Self {
            batch: empty(),
            sink,
        }
    }

    pub(super) fn push(&mut self, chunk: Chunk<'_>) {
        // The zeros of a sparse file are one chunk, over and over.
        if self
            .batch
            .refs()
            .last()
            .is_some_and(|last| last.id == chunk.id())
        {
            return;
        }
        self.batch.push(chunk);
        if self.batch.bytes() >= BATCH_BYTES || self.batch.refs().len() >= HAVE_CHUNKS_MAX {
            self.flush();
        }
    }

    /// Hands on what there is. If nobody takes it any more, whoever did knows why.
    pub(super) fn flush(&mut self) {
        if !self.batch.refs().is_empty() {
            let _unwanted = self
                .sink
                .blocking_send(std::mem::replace(&mut self.batch, empty()))
                .is_err();
        }
    }

    fn is_unwanted(&self) -> bool {
        self.sink.is_closed()
    }
}

/// Reads the tree; returns its index and how many records that has.
pub(super) fn tree(
    request: &Request,
    index: File,
    batcher: &mut Batcher,
    progress: &dyn Progress,
) -> Result<(File, u64), PublishFailure> {
    let head = Head {
        case_policy: request.case_policy,
        features: Vec::new(),
        system: std::env::consts::OS.to_owned(),
    };
    let index = IndexWriter::new(BufWriter::new(index), head).map_err(PublishFailure::Scratch)?;
    let mut reading = Reading {
        root: &request.folder,
        index,
        batcher,
        progress,
        links: Links::new()?,
        buffer: Vec::new(),
    };
    let mut walk = Walk::new(&request.folder, request.case_policy);
    let mut offenders = Offenders::default();
    while let Some(found) = walk.next_path(&mut offenders) {
        reading.entry(found)?;
        if reading.batcher.is_unwanted() {
            break;
        }
    }
    // The first look found none: they came since.
    if !offenders.is_empty() {
        return Err(offenders.into());
    }
    let (index, records, _) = reading.index.finish().map_err(PublishFailure::Scratch)?;
    let index = index
        .into_inner()
        .map_err(|error| PublishFailure::Scratch(error.into_error()))?;
    Ok((index, records))
}

struct Reading<'a> {
    root: &'a Path,
    index: IndexWriter<IndexFile>,
    batcher: &'a mut Batcher,
    progress: &'a dyn Progress,
    links: Links,
    buffer: Vec<u8>,
}

impl Reading<'_> {
    fn entry(&mut self, found: Found) -> Result<(), PublishFailure> {
        let Found { path, meta } = found;
        let kind = if meta.is_dir() {
            Kind::Folder
        } else if meta.is_symlink() {
            self.symlink(&path)?
        } else if let Some(first) = self.links.first_name(&path, &meta)? {
            Kind::HardLink { target: first }
        } else {
            self.file(&path, &meta)?
        };
        let entry = Entry {
            path,
            kind,
            mode: meta.mode() & 0o7777,
            mtime: meta
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(meta.mtime_nsec()),
            extra: BTreeMap::new(),
        };
        self.index.push(entry).map_err(PublishFailure::Scratch)
    }

    fn symlink(&self, path: &EntryPath) -> Result<Kind, PublishFailure> {
        let full = self.root.join(path.as_str());
        let target = match fs::read_link(&full) {
            Ok(target) => target,
            Err(source) => return Err(PublishFailure::Read { path: full, source }),
        };
        match target.into_os_string().into_string() {
            Ok(target) => Ok(Kind::Symlink { target }),
            Err(_) => {
                let mut offenders = Offenders::default();
                offenders.push(path.as_str(), "it links to a path that is not UTF-8");
                Err(offenders.into())
            }
        }
    }

    fn file(&mut self, path: &EntryPath, meta: &fs::Metadata) -> Result<Kind, PublishFailure> {
        let full = self.root.join(path.as_str());
        let failed = |source| PublishFailure::Read {
            path: full.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&full)
            .map_err(failed)?;
        let (kind, size) = self.cut(&file).map_err(failed)?;
        let after = file.metadata().map_err(failed)?;
        let same = (after.len(), after.mtime(), after.mtime_nsec(), after.ino())
            == (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino());
        if same && size == meta.len() {
            Ok(kind)
        } else {
            Err(PublishFailure::Changed { path: full })
        }
    }

    /// Cuts a file into chunks; says what it is, and how long.
    fn cut(&mut self, file: impl Read) -> std::io::Result<(Kind, u64)> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut chunker = Chunker::with_buffer(file, Profile::Content, buffer);
        let mut chunks: Vec<ChunkRef> = Vec::new();
        let mut whole: Option<Hasher> = None;
        let mut size = 0;
        while let Some(bytes) = chunker.next_chunk()? {
            let chunk = Chunk::name(bytes);
            // A file of one chunk has that chunk's digest; only a longer one is hashed as a whole.
            if chunks.is_empty() && bytes.len() < Profile::Content.bytes_min() {
                whole = None;
            } else {
                whole.get_or_insert_default().update(bytes);
            }
            size += bytes.len() as u64;
            chunks.push(ChunkRef {
                id: chunk.id(),
                length: bytes.len() as u32,
            });
            self.batcher.push(chunk);
            self.progress.advance(bytes.len() as u64);
        }
        self.buffer = chunker.into_buffer();
        let digest = whole.filter(|_| chunks.len() > 1).map(Hasher::finish);
        Ok((
            Kind::File {
                size,
                digest,
                chunks,
                more: false,
            },
            size,
        ))
    }
}
