//! For tests: publishing a folder in memory, and sources that serve it, well or badly.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use content::chunker::{Chunker, Profile};
use content::frame::PlainFrame;
use content::index::{CasePolicy, Entry, Head, IndexRoot, IndexWriter, Kind};
use content::locator::{Locator, PackEntry, Place, RunBuilder};
use content::pack::{PackBuilder, PackHeader};
use content::{Chunk, ChunkId, ChunkRef, Digest, EntryPath, Hasher, PackId, RevisionNumber};

use crate::fetch::supply::{Ask, Body, Supply, SupplyError};
use crate::pull::Stated;

/// Publishes revisions of one fileset, in memory.
#[derive(Default)]
pub(crate) struct Publisher {
    number: u64,
    packs: BTreeMap<PackId, Vec<u8>>,
    entries: Vec<PackEntry>,
    known: HashMap<ChunkId, (PackId, u32)>,
    /// Objects by their names.
    objects: HashMap<Digest, Vec<u8>>,
}

impl Publisher {
    /// Publishes `folder` as the next revision.
    pub(crate) fn publish(&mut self, folder: &Path) -> Stated {
        let (index, records, bodies) = read(folder);
        let mut chunks = Vec::new();
        let root = IndexRoot::build(&index[..], records, |chunk| {
            chunks.push((chunk.id(), chunk.bytes().to_vec()));
            Ok(())
        })
        .unwrap();
        self.number += 1;
        let index_from = self.entries.len();
        self.pack(&chunks);
        let index_packs = self.entries.len() - index_from;
        self.pack(&bodies);
        let order: Vec<ChunkId> = chunks.iter().chain(&bodies).map(|(id, _)| *id).collect();
        let locator = self.locator(&order, index_packs, Digest::of(&root.encode()));
        self.objects
            .insert(Digest::of(&root.encode()), root.encode());
        Stated::of(locator, Digest::of(b"statement"))
    }

    /// The packs of a revision that earlier ones did not have, in bytes.
    pub(crate) fn serve(&self) -> Arc<Served> {
        Arc::new(Served {
            packs: self.packs.clone(),
            objects: self.objects.clone(),
        })
    }

    fn pack(&mut self, chunks: &[(ChunkId, Vec<u8>)]) {
        let mut builder = PackBuilder::default();
        let (mut plain, mut plain_bytes) = (PlainFrame::default(), 0);
        let mut seen = std::collections::HashSet::new();
        for (id, bytes) in chunks {
            if self.known.contains_key(id) || !seen.insert(*id) {
                continue;
            }
            // Small frames and packs, so that small tests see many of them.
            if !plain.fits(bytes.len()) || plain_bytes > 96 << 10 {
                plain_bytes = 0;
                builder.push(std::mem::take(&mut plain).pack(1).unwrap());
                if builder_full(&builder) {
                    self.close(std::mem::take(&mut builder));
                }
            }
            plain.push(Chunk::verify(bytes, *id).unwrap());
            plain_bytes += bytes.len();
        }
        if !plain.is_empty() {
            builder.push(plain.pack(1).unwrap());
        }
        self.close(builder);
    }

    fn close(&mut self, builder: PackBuilder) {
        let Some(pack) = builder.finish() else {
            return;
        };
        let id = pack.header.id();
        for (ordinal, chunk) in pack.header.chunks().iter().enumerate() {
            self.known.insert(chunk.id, (id, ordinal as u32));
        }
        self.entries.push(PackEntry {
            id,
            header_bytes: pack.header.header_bytes(),
            total_bytes: pack.header.total_bytes(),
        });
        self.packs.insert(id, pack.bytes);
    }

    fn locator(&self, order: &[ChunkId], index_packs: usize, root: Digest) -> Locator {
        let mut packs: Vec<PackEntry> = Vec::new();
        let mut runs = RunBuilder::default();
        for id in order {
            let (pack, ordinal) = self.known[id];
            let at = packs.iter().position(|entry| entry.id == pack);
            let at = at.unwrap_or_else(|| {
                packs.push(*self.entries.iter().find(|entry| entry.id == pack).unwrap());
                packs.len() - 1
            });
            runs.push(Place {
                pack: at as u32,
                ordinal,
            });
        }
        Locator {
            deployment: "d1".to_owned(),
            fileset: "tools".parse().unwrap(),
            number: RevisionNumber(self.number),
            root,
            created: 1_700_000_000,
            index_packs: index_packs.min(packs.len()) as u32,
            packs,
            runs: runs.finish(),
        }
    }
}

fn builder_full(builder: &PackBuilder) -> bool {
    // Debug is the only way to see how many frames it holds.
    format!("{builder:?}").matches("FrameInfo").count() >= 4
}

type Read = (Vec<u8>, u64, Vec<(ChunkId, Vec<u8>)>);

/// The index of a folder, how many records it has, and the chunks of its files in order.
fn read(folder: &Path) -> Read {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path.clone());
            }
            let within = path.strip_prefix(folder).unwrap();
            paths.push(EntryPath::new(within.to_str().unwrap()).unwrap());
        }
    }
    paths.sort();
    let head = Head {
        case_policy: CasePolicy::Unique,
        features: Vec::new(),
        system: "linux".to_owned(),
    };
    let mut writer = IndexWriter::new(Vec::new(), head).unwrap();
    let (mut bodies, mut inodes) = (Vec::new(), HashMap::new());
    for path in paths {
        let full = folder.join(path.as_str());
        let metadata = full.symlink_metadata().unwrap();
        let kind = if metadata.is_dir() {
            Kind::Folder
        } else if metadata.is_symlink() {
            let target = fs::read_link(&full).unwrap();
            Kind::Symlink {
                target: target.to_str().unwrap().to_owned(),
            }
        } else if let Some(first) = inodes.get(&metadata.ino()) {
            Kind::HardLink {
                target: EntryPath::clone(first),
            }
        } else {
            inodes.insert(metadata.ino(), path.clone());
            file(&full, &mut bodies)
        };
        let entry = Entry {
            path,
            kind,
            mode: metadata.permissions().mode() & 0o7777,
            mtime: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            extra: BTreeMap::new(),
        };
        writer.push(entry).unwrap();
    }
    let (index, records, _) = writer.finish().unwrap();
    (index, records, bodies)
}

fn file(path: &Path, bodies: &mut Vec<(ChunkId, Vec<u8>)>) -> Kind {
    let bytes = fs::read(path).unwrap();
    let mut chunker = Chunker::new(&bytes[..], Profile::Content);
    let mut chunks = Vec::new();
    while let Some(chunk) = chunker.next_chunk().unwrap() {
        let id = ChunkId(Digest::of(chunk));
        chunks.push(ChunkRef {
            id,
            length: chunk.len() as u32,
        });
        bodies.push((id, chunk.to_vec()));
    }
    let mut hasher = Hasher::default();
    hasher.update(&bytes);
    Kind::File {
        size: bytes.len() as u64,
        digest: (chunks.len() > 1).then(|| hasher.finish()),
        chunks,
        more: false,
    }
}

/// What sources serve.
pub(crate) struct Served {
    pub(crate) packs: BTreeMap<PackId, Vec<u8>>,
    pub(crate) objects: HashMap<Digest, Vec<u8>>,
}

/// How a source misbehaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Vice {
    /// Not at all.
    None,
    /// It flips a bit in the last byte of each pack or range.
    Flips,
    /// The last byte of each answer with a pack is wrong, unless it is asked to look first.
    Rots,
    /// It gives another pack than was asked for.
    Swaps,
    /// It ends bodies one byte early.
    Truncates,
    /// It ends the connection after so many bytes of packs in all, and is dead from then on.
    DiesAfter(u64),
    /// It answers nothing.
    Dead,
    /// It gives other objects than were asked for.
    Lies,
    /// It takes so long for each object, and for each piece of a pack, as a thin line does.
    Slow(Duration),
    /// It gives ten bytes of a pack at a time, and takes so long for each.
    Trickles(Duration),
}

/// What was sent: which bytes of which pack.
pub(crate) type Sent = Arc<Mutex<Vec<(PackId, Range<u64>)>>>;

/// A source in memory.
pub(crate) struct Memory {
    name: String,
    served: Arc<Served>,
    vice: Vice,
    /// The bytes of each pack that were sent, as ranges.
    pub(crate) sent: Sent,
}

impl Memory {
    pub(crate) fn new(name: &str, served: &Arc<Served>, vice: Vice) -> Self {
        Self {
            name: name.to_owned(),
            served: Arc::clone(served),
            vice,
            sent: Arc::default(),
        }
    }

    fn left(&self) -> u64 {
        let sent = self.sent.lock().unwrap();
        let sent: u64 = sent.iter().map(|(_, range)| range.end - range.start).sum();
        match self.vice {
            Vice::DiesAfter(bytes) => bytes.saturating_sub(sent),
            Vice::Dead => 0,
            Vice::None
            | Vice::Flips
            | Vice::Rots
            | Vice::Swaps
            | Vice::Truncates
            | Vice::Lies
            | Vice::Slow(_)
            | Vice::Trickles(_) => u64::MAX,
        }
    }
}

/// Bytes of a pack, in pieces of odd sizes.
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
    pause: Duration,
    breaks: bool,
    id: PackId,
    start: u64,
    sent: Sent,
}

impl Supply for Memory {
    type Body = Pieces;

    fn name(&self) -> &str {
        &self.name
    }

    async fn get(&self, ask: Ask) -> Result<Vec<u8>, SupplyError> {
        if self.left() == 0 {
            return Err(broken());
        }
        if let Vice::Slow(pause) = self.vice {
            tokio::time::sleep(pause).await;
        }
        let digest = match ask {
            Ask::Locator(digest)
            | Ask::Revision(digest)
            | Ask::Root(digest)
            | Ask::Snapshot(digest) => digest,
            Ask::Timestamp => Digest::of(b"timestamp"),
            Ask::Deployment => Digest::of(b"deployment"),
            Ask::Crl(issuer) => Digest::from_raw(issuer),
        };
        let mut bytes = self
            .served
            .objects
            .get(&digest)
            .cloned()
            .ok_or_else(refused)?;
        if self.vice == Vice::Lies {
            bytes[0] ^= 1;
        }
        Ok(bytes)
    }

    async fn pack(
        &self,
        _: &content::FilesetName,
        id: PackId,
        range: Option<Range<u64>>,
        doubted: bool,
    ) -> Result<Pieces, SupplyError> {
        let pack = match self.vice {
            Vice::Swaps => self.served.packs.values().next(),
            Vice::None
            | Vice::Flips
            | Vice::Rots
            | Vice::Truncates
            | Vice::DiesAfter(_)
            | Vice::Dead
            | Vice::Lies
            | Vice::Slow(_)
            | Vice::Trickles(_) => self.served.packs.get(&id),
        };
        let pack = pack.ok_or_else(refused)?;
        let length = pack.len() as u64;
        let range = range.unwrap_or(0..length);
        let mut bytes =
            pack[range.start.min(length) as usize..range.end.min(length) as usize].to_vec();
        match self.vice {
            Vice::Flips => *bytes.last_mut().unwrap() ^= 1,
            Vice::Rots if !doubted => *bytes.last_mut().unwrap() ^= 1,
            Vice::Truncates => drop(bytes.pop()),
            Vice::None
            | Vice::Rots
            | Vice::Swaps
            | Vice::DiesAfter(_)
            | Vice::Dead
            | Vice::Lies
            | Vice::Slow(_)
            | Vice::Trickles(_) => {}
        }
        let left = self.left();
        if left == 0 {
            return Err(broken());
        }
        let breaks = left < bytes.len() as u64;
        bytes.truncate(left.min(bytes.len() as u64) as usize);
        let (piece, pause) = match self.vice {
            Vice::Slow(pause) => (PIECE_BYTES, pause),
            Vice::Trickles(pause) => (10, pause),
            Vice::None
            | Vice::Flips
            | Vice::Rots
            | Vice::Swaps
            | Vice::Truncates
            | Vice::DiesAfter(_)
            | Vice::Dead
            | Vice::Lies => (PIECE_BYTES, Duration::ZERO),
        };
        Ok(Pieces {
            bytes,
            at: 0,
            piece,
            pause,
            breaks,
            id,
            start: range.start,
            sent: Arc::clone(&self.sent),
        })
    }
}

impl Body for Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, SupplyError> {
        let end = self.bytes.len().min(self.at + self.piece);
        if end == self.at {
            return if self.breaks { Err(broken()) } else { Ok(None) };
        }
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        let piece = Bytes::copy_from_slice(&self.bytes[self.at..end]);
        let range = self.start + self.at as u64..self.start + end as u64;
        self.sent.lock().unwrap().push((self.id, range));
        self.at = end;
        Ok(Some(piece))
    }
}

/// An odd size, so that pieces end anywhere.
const PIECE_BYTES: usize = 10_007;

fn broken() -> SupplyError {
    SupplyError {
        is_retryable: true,
        code: None,
        check: None,
        reason: protocol::report::BypassReason::Broken,
        source: "the connection broke".into(),
    }
}

fn refused() -> SupplyError {
    SupplyError {
        is_retryable: false,
        code: Some(protocol::Code::NotFound),
        check: None,
        reason: protocol::report::BypassReason::Fault,
        source: "there is no such thing (not-found)".into(),
    }
}

/// How often each frame was sent whole, by all sources together.
pub(crate) fn frames_sent(
    served: &Served,
    sent: &[(PackId, Range<u64>)],
) -> BTreeMap<(PackId, usize), u32> {
    let mut counts = BTreeMap::new();
    for (id, bytes) in &served.packs {
        let length = PackHeader::length(bytes).unwrap().unwrap();
        let header = PackHeader::verify(&bytes[..length], *id).unwrap();
        for frame in 0..header.frames().len() {
            let wanted = header.frame_range(frame);
            let last = sent
                .iter()
                .filter(|(pack, range)| pack == id && range.contains(&(wanted.end - 1)));
            counts.insert((*id, frame), last.count() as u32);
        }
    }
    counts
}
