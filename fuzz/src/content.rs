//! Packs, frames, the index and the marks.

use std::collections::BTreeSet;
use std::path::Path;

use content::chunker::Profile;
use content::durable::Disk as _;
use content::durable::model::ModelDisk;
use content::frame::{Codec, FRAME_PLAIN_BYTES_MAX, Frame, FrameInfo, PlainFrame};
use content::index::{
    CasePolicy, Entry, Head, IndexError, IndexReader, IndexRoot, IndexWriter, Kind, Record,
};
use content::marks::Marks;
use content::pack::{PackBuilder, PackHeader};
use content::statement::Timestamp;
use content::{Chunk, ChunkRef, Digest, EntryPath};

use crate::statement;

/// A pack's header: one form, frames without gaps, every chunk in the frame that is said to hold it.
pub fn pack_header(data: &[u8]) {
    let length = PackHeader::length(data);
    let Ok(header) = PackHeader::parse(data) else {
        return;
    };
    assert_eq!(length, Ok(Some(data.len())));
    assert_eq!(PackHeader::verify(data, header.id()).as_ref(), Ok(&header));
    assert_eq!(header_bytes(&header), data, "a header has one form");
    let (mut end, mut ordinal) = (u64::from(header.header_bytes()), 0u32);
    for (at, frame) in header.frames().iter().enumerate() {
        let range = header.frame_range(at);
        assert_eq!(range.start, end, "frames leave no gap");
        end = range.end;
        let mut start = 0;
        for _ in 0..frame.chunks {
            assert_eq!(header.locate(ordinal), Some((at, start)));
            start += header.chunks()[ordinal as usize].length as usize;
            ordinal += 1;
        }
        assert_eq!(start, frame.plain_bytes as usize);
        assert!(start <= FRAME_PLAIN_BYTES_MAX);
    }
    assert_eq!(end, u64::from(header.total_bytes()));
    assert_eq!(ordinal as usize, header.chunks().len());
    assert_eq!(header.locate(ordinal), None);
    assert_eq!(header.locate(u32::MAX), None);
}

/// The bytes of a header, written here once more by what `docs/formats.md` says.
fn header_bytes(header: &PackHeader) -> Vec<u8> {
    let mut bytes = b"LARDPAK\x01".to_vec();
    for field in [
        header.header_bytes(),
        header.total_bytes(),
        header.frames().len() as u32,
        header.chunks().len() as u32,
    ] {
        bytes.extend(field.to_be_bytes());
    }
    for frame in header.frames() {
        bytes.push(frame.codec.code());
        bytes.extend(frame.chunks.to_be_bytes());
        bytes.extend(frame.stored_bytes.to_be_bytes());
        bytes.extend(frame.digest.as_raw());
    }
    for chunk in header.chunks() {
        bytes.extend(chunk.id.0.to_binary());
        bytes.extend(chunk.length.to_be_bytes());
    }
    bytes
}

/// Headers of a pack with one small frame, and of one with many chunks in several.
#[must_use]
pub fn pack_header_seeds() -> Vec<Vec<u8>> {
    [1, 5, 40].map(seed_header).into()
}

fn seed_header(chunks: usize) -> Vec<u8> {
    let mut builder = PackBuilder::default();
    for frame in 0..chunks.div_ceil(8) {
        let mut plain = PlainFrame::default();
        for number in 0..chunks.min(8) {
            plain.push(Chunk::name(format!("chunk {frame} {number}").as_bytes()));
        }
        builder.push(plain.pack(1).expect("zstd packs"));
    }
    let pack = builder.finish().expect("it has frames");
    pack.bytes[..pack.header.header_bytes() as usize].to_vec()
}

/// A frame under a header that names it: a codec byte, the plain length, and the stored bytes.
///
/// It unpacks to exactly what was declared, into no more memory than that, or not at all.
pub fn frame(data: &[u8]) {
    let Some((head, stored)) = data.split_first_chunk::<5>() else {
        return;
    };
    let Some(codec) = Codec::from_code(head[0] % 2) else {
        return;
    };
    let plain_bytes = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let info = FrameInfo {
        codec,
        digest: Digest::of(stored),
        stored_bytes: stored.len() as u32,
        plain_bytes: plain_bytes % (FRAME_PLAIN_BYTES_MAX as u32 + 1),
        first_chunk: 0,
        chunks: 1,
        offset: 0,
    };
    let frame = Frame::verify(&info, stored).expect("the digest was made from these bytes");
    let mut plain = Vec::new();
    let unpacked = frame.unpack(&mut plain);
    // The standard library gives no vector of bytes less than eight.
    let bound = info.plain_bytes.max(stored.len() as u32).max(8) as usize;
    assert!(
        plain.capacity() <= bound,
        "{} for {bound}",
        plain.capacity()
    );
    if unpacked.is_ok() {
        assert_eq!(plain.len(), info.plain_bytes as usize);
        comes_back(&plain);
    }
    if let [first, rest @ ..] = stored {
        assert!(Frame::verify(&info, rest).is_err(), "too short");
        let other = [&[!first], rest].concat();
        assert!(Frame::verify(&info, &other).is_err(), "other bytes");
    }
}

/// What is packed unpacks to the same.
fn comes_back(plain: &[u8]) {
    if plain.is_empty() {
        return;
    }
    let mut run = PlainFrame::default();
    run.push(Chunk::name(plain));
    let mut builder = PackBuilder::default();
    builder.push(run.pack(1).expect("zstd packs"));
    let pack = builder.finish().expect("it has a frame");
    let range = pack.header.frame_range(0);
    let stored = &pack.bytes[range.start as usize..range.end as usize];
    let mut again = Vec::new();
    Frame::verify(&pack.header.frames()[0], stored)
        .and_then(|frame| frame.unpack(&mut again))
        .expect("our own frame unpacks");
    assert_eq!(again, plain);
}

/// Frames raw and compressed, and one that unpacks to more than it says.
#[must_use]
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let text = b"bread and butter, ".repeat(40);
    let mut run = PlainFrame::default();
    run.push(Chunk::name(&text));
    let mut builder = PackBuilder::default();
    builder.push(run.pack(3).expect("zstd packs"));
    let pack = builder.finish().expect("it has a frame");
    let stored = &pack.bytes[pack.header.header_bytes() as usize..];
    let frame = |codec: u8, length: usize, stored: &[u8]| {
        let mut seed = vec![codec];
        seed.extend((length as u32).to_be_bytes());
        seed.extend(stored);
        seed
    };
    vec![
        frame(0, 5, b"bread"),
        frame(1, text.len(), stored),
        frame(1, text.len() - 1, stored),
    ]
}

/// An index, read to its end: it has one form, its paths rise and lie in folders that are listed,
/// hard links point back, and chunks add up to their files.
pub fn index(data: &[u8]) {
    let Ok(mut reader) = IndexReader::new(data) else {
        return;
    };
    let mut encoded = Record::Head(reader.head().clone()).encode();
    let mut seen = Seen::default();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                encoded.extend(record.encode());
                seen.take(record);
            }
            Ok(None) => {
                assert_eq!(encoded, data, "an index has one form");
                assert_eq!(seen.left, 0);
                return;
            }
            Err(IndexError::Io { source }) => panic!("memory does not fail: {source}"),
            Err(_) => {
                // What was handed out before the mistake was good, byte for byte.
                assert!(data.starts_with(&encoded) || encoded.len() > data.len());
                return;
            }
        }
    }
}

/// What an index has said so far, kept in the simplest way.
#[derive(Default)]
struct Seen {
    folders: BTreeSet<String>,
    last: Option<EntryPath>,
    /// Bytes that the open file's chunks still owe.
    left: u64,
}

impl Seen {
    fn take(&mut self, record: Record) {
        match record {
            Record::Head(_) => panic!("a head where none may be"),
            Record::Chunks { chunks, more } => self.pay(&chunks, more),
            Record::Entry(entry) => {
                assert_eq!(self.left, 0, "a file was cut short");
                self.place(&entry);
                match &entry.kind {
                    Kind::File {
                        size, chunks, more, ..
                    } => {
                        self.left = *size;
                        self.pay(chunks, *more);
                    }
                    Kind::Folder => {
                        self.folders.insert(entry.path.as_str().to_owned());
                    }
                    Kind::HardLink { target } => assert!(*target < entry.path),
                    Kind::Symlink { target } => assert!(!target.contains('\0')),
                }
                self.last = Some(entry.path);
            }
        }
    }

    fn place(&self, entry: &Entry) {
        let path = &entry.path;
        assert!(self.last.as_ref().is_none_or(|last| last < path));
        assert!(
            path.parent()
                .is_none_or(|parent| self.folders.contains(parent))
        );
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        assert!(path.as_str().split('/').all(plain), "{path} leads out");
        assert!(entry.mode <= 0o7777);
    }

    fn pay(&mut self, chunks: &[ChunkRef], more: bool) {
        let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let longest = Profile::Content.bytes_max() as u32;
        assert!(
            chunks
                .iter()
                .all(|chunk| (1..=longest).contains(&chunk.length))
        );
        self.left = self.left.checked_sub(bytes).expect("more than the size");
        assert_eq!(self.left > 0, more);
    }
}

/// An index with a path of each kind, and one with nothing.
#[must_use]
pub fn index_seeds() -> Vec<Vec<u8>> {
    vec![seed_index(&[]), seed_index(&entries())]
}

fn seed_index(entries: &[Entry]) -> Vec<u8> {
    let head = Head {
        case_policy: CasePolicy::Unique,
        features: Vec::new(),
        system: "linux".to_owned(),
    };
    let mut writer = IndexWriter::new(Vec::new(), head).expect("memory does not fail");
    for entry in entries {
        writer.push(entry.clone()).expect("memory does not fail");
    }
    writer.finish().expect("memory does not fail").0
}

fn entries() -> Vec<Entry> {
    let chunk = |name: &[u8], length| ChunkRef {
        id: Chunk::name(name).id(),
        length,
    };
    let path = |text: &str| EntryPath::new(text).expect("a plain path");
    let file = |size, digest, chunks| Kind::File {
        size,
        digest,
        chunks,
        more: false,
    };
    let long = vec![chunk(b"one", 65_536), chunk(b"two", 30_000)];
    let link = "../bin/tool".to_owned();
    let kinds = [
        ("bin", Kind::Folder),
        ("bin/empty", file(0, None, Vec::new())),
        ("bin/tool", file(9, None, vec![chunk(b"a", 9)])),
        ("big", file(95_536, Some(Digest::of(b"big")), long)),
        ("lib", Kind::Folder),
        (
            "lib/again",
            Kind::HardLink {
                target: path("bin/tool"),
            },
        ),
        ("lib/link", Kind::Symlink { target: link }),
    ];
    let mut entries: Vec<Entry> = kinds
        .into_iter()
        .map(|(at, kind)| Entry {
            path: path(at),
            kind,
            mode: 0o755,
            mtime: 1_700_000_000_123_456_789,
            extra: [(128, b"extra".to_vec())].into(),
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// An index root: one form, and its chunks are as long as it says.
pub fn index_root(data: &[u8]) {
    let name = Digest::of(data);
    assert!(IndexRoot::verify(data, Digest::of(b"another")).is_err());
    let Ok(root) = IndexRoot::verify(data, name) else {
        return;
    };
    assert_eq!(root.encode(), data, "a root has one form");
    let bytes: u64 = root
        .chunks
        .iter()
        .map(|chunk| u64::from(chunk.length))
        .sum();
    assert_eq!(bytes, root.bytes);
    let longest = Profile::Index.bytes_max() as u32;
    assert!(
        root.chunks
            .iter()
            .all(|chunk| (1..=longest).contains(&chunk.length))
    );
}

/// The roots of an empty index and of one with a few chunks.
#[must_use]
pub fn index_root_seeds() -> Vec<Vec<u8>> {
    let long: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
    [&seed_index(&entries())[..], &long, b""]
        .map(|index| {
            IndexRoot::build(index, 8, |_| Ok(()))
                .expect("memory does not fail")
                .encode()
        })
        .into()
}

/// The file of high-water marks: one form, and damage is never taken for a fresh start.
pub fn marks(data: &[u8]) {
    let (found, again) = (Path::new("state/marks"), Path::new("state/again"));
    let disk = ModelDisk::default();
    disk.create(found, data, 0o600)
        .expect("a model disk takes it");
    let Ok(marks) = Marks::load(&disk, found) else {
        return;
    };
    marks.store(&disk, again).expect("a model disk takes it");
    assert_eq!(disk.files()[again], data, "marks have one form");
    let (timestamp, snapshot) = (statement::timestamp_sample(), statement::snapshot_sample());
    let now = timestamp.issued;
    let passes = |marks: &Marks| {
        marks.check(&timestamp, now).is_ok() && marks.check_snapshot(&timestamp, &snapshot).is_ok()
    };
    if passes(&marks) {
        let raised = marks.raised(&timestamp, &snapshot);
        assert!(raised.issued() >= marks.issued(), "time never falls");
        let fileset = &snapshot.filesets[0];
        assert_eq!(raised.fileset(&fileset.name), Some(fileset.current));
        assert!(passes(&raised), "what was taken is taken again");
        let before = Timestamp {
            version: timestamp.version - 1,
            ..timestamp.clone()
        };
        assert!(raised.check(&before, now).is_err(), "versions never fall");
    }
}

/// Fresh marks, and marks after a snapshot.
#[must_use]
pub fn marks_seeds() -> Vec<Vec<u8>> {
    let (timestamp, snapshot) = (statement::timestamp_sample(), statement::snapshot_sample());
    let raised = Marks::default().raised(&timestamp, &snapshot);
    [Marks::default(), raised]
        .map(|marks| {
            let disk = ModelDisk::default();
            let path = Path::new("state/marks");
            marks.store(&disk, path).expect("a model disk takes it");
            disk.files()[path].clone()
        })
        .into()
}
