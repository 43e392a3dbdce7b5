//! How fast the formats are: cutting, packing, verifying, listing.
//!
//! The inputs are made, the same in every run: half of each megabyte is text-like and compresses to
//! about a third, the other half is noise.

use std::hint::black_box;
use std::io;

use content::chunker::{Chunker, Profile};
use content::frame::{Frame, PackedFrame, PlainFrame};
use content::index::{CasePolicy, Entry, Head, IndexReader, IndexRoot, IndexWriter, Kind};
use content::pack::{BuiltPack, PackBuilder, PackHeader};
use content::{Chunk, ChunkRef, Digest, EntryPath};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, chunker, frame, pack, index);
criterion_main!(benches);

fn chunker(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunker");
    let input = bytes(32 << 20);
    group.throughput(Throughput::Bytes(input.len() as u64));
    for (name, profile) in [("content", Profile::Content), ("index", Profile::Index)] {
        group.bench_function(name, |b| b.iter(|| cut(&input, profile)));
    }
    group.bench_function("content and digest", |b| {
        b.iter(|| {
            let mut chunker = Chunker::new(&input[..], Profile::Content);
            while let Some(bytes) = chunker.next_chunk().expect("memory does not fail") {
                black_box(Chunk::name(bytes).id());
            }
        });
    });
    group.finish();
}

fn cut(input: &[u8], profile: Profile) -> usize {
    let mut chunker = Chunker::new(input, profile);
    let mut chunks = 0;
    while let Some(bytes) = chunker.next_chunk().expect("memory does not fail") {
        black_box(bytes);
        chunks += 1;
    }
    chunks
}

fn frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let input = bytes(1 << 20);
    group.throughput(Throughput::Bytes(input.len() as u64));
    for level in [1, 3, 6] {
        group.bench_function(format!("pack, zstd level {level}"), |b| {
            b.iter_batched(
                || plain(&input),
                |plain| plain.pack(level).expect("zstd packs"),
                BatchSize::LargeInput,
            );
        });
    }
    let pack = built([packed(&input)]);
    let info = &pack.header.frames()[0];
    let stored = &pack.bytes[pack.header.header_bytes() as usize..];
    let verified = Frame::verify(info, stored).expect("our own frame");
    let mut unpacked = Vec::new();
    group.bench_function("unpack", |b| {
        b.iter(|| verified.unpack(&mut unpacked).expect("our own frame"));
    });
    group.bench_function("verify each chunk", |b| {
        verified.unpack(&mut unpacked).expect("our own frame");
        b.iter(|| verify_chunks(&pack.header, &unpacked));
    });
    // A booster verifies what is stored, not what it unpacks to.
    group.throughput(Throughput::Bytes(stored.len() as u64));
    group.bench_function("verify", |b| {
        b.iter(|| Frame::verify(info, black_box(stored)).expect("our own frame"));
    });
    group.finish();
}

fn verify_chunks(header: &PackHeader, plain: &[u8]) {
    let mut rest = plain;
    for chunk in header.chunks() {
        let (bytes, after) = rest.split_at(chunk.length as usize);
        black_box(Chunk::verify(bytes, chunk.id).expect("our own chunk"));
        rest = after;
    }
}

fn pack(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack header");
    let usual = built((0..6).map(|_| packed(&bytes(1 << 20))));
    let crowded = built((0..4).map(|frame| crowded_frame(frame * 2000)));
    for (name, pack) in [("usual", &usual), ("8000 chunks", &crowded)] {
        let header = &pack.bytes[..pack.header.header_bytes() as usize];
        let id = pack.header.id();
        group.throughput(Throughput::Bytes(header.len() as u64));
        group.bench_function(format!("verify, {name}"), |b| {
            b.iter(|| PackHeader::verify(black_box(header), id).expect("our own header"));
        });
    }
    group.finish();
}

/// A frame of tiny chunks, as a folder of tiny files makes it.
fn crowded_frame(first: u32) -> PackedFrame {
    let mut frame = PlainFrame::default();
    for number in first..first + 2000 {
        frame.push(Chunk::name(
            format!("a tiny file, number {number}").as_bytes(),
        ));
    }
    frame.pack(3).expect("zstd packs")
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    let entries = entries(20_000);
    let written = write(&entries);
    group.throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("write", |b| b.iter(|| write(&entries)));
    group.bench_function("read", |b| {
        b.iter(|| {
            let mut reader = IndexReader::new(&written[..]).expect("our own index");
            while let Some(record) = reader.next_record().expect("our own index") {
                black_box(record);
            }
        });
    });
    group.bench_function("root", |b| {
        b.iter(|| IndexRoot::build(&written[..], 1, |_| Ok(())).expect("memory does not fail"));
    });
    group.finish();
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let head = Head {
        case_policy: CasePolicy::Unique,
        features: Vec::new(),
        system: "linux".to_owned(),
    };
    let written = || -> io::Result<Vec<u8>> {
        let mut writer = IndexWriter::new(Vec::new(), head)?;
        for entry in entries {
            writer.push(entry.clone())?;
        }
        Ok(writer.finish()?.0)
    };
    written().expect("memory does not fail")
}

/// Small files, a hundred to a folder.
fn entries(files: u32) -> Vec<Entry> {
    let entry = |path: String, kind| Entry {
        path: EntryPath::new(path).expect("a plain path"),
        kind,
        mode: 0o644,
        mtime: 1_700_000_000_000_000_000,
        extra: [].into(),
    };
    (0..files)
        .flat_map(|file| {
            let folder = format!("folder-{:04}", file / 100);
            let chunk = ChunkRef {
                id: Chunk::name(&file.to_be_bytes()).id(),
                length: 4000,
            };
            let kind = Kind::File {
                size: 4000,
                digest: None,
                chunks: vec![chunk],
                more: false,
            };
            let path = format!("{folder}/file-{:02}", file % 100);
            let first = (file % 100 == 0).then(|| entry(folder, Kind::Folder));
            first.into_iter().chain([entry(path, kind)])
        })
        .collect()
}

fn plain(input: &[u8]) -> PlainFrame {
    let mut frame = PlainFrame::default();
    let mut chunker = Chunker::new(input, Profile::Content);
    while let Some(bytes) = chunker.next_chunk().expect("memory does not fail") {
        frame.push(Chunk::name(bytes));
    }
    frame
}

fn packed(input: &[u8]) -> PackedFrame {
    plain(input).pack(3).expect("zstd packs")
}

fn built(frames: impl IntoIterator<Item = PackedFrame>) -> BuiltPack {
    let mut builder = PackBuilder::default();
    for frame in frames {
        if builder.fits(&frame) {
            builder.push(frame);
        }
    }
    builder.finish().expect("it has a frame")
}

/// `length` bytes: by turns 4 KiB of words and 4 KiB of noise.
fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8192);
    let mut number = 0u64;
    while bytes.len() < length {
        let words = bytes.len() + 4096;
        while bytes.len() < words {
            number += 1;
            let digest = Digest::of(&number.to_be_bytes());
            let word = WORDS[usize::from(digest.as_raw()[0]) % WORDS.len()];
            bytes.extend_from_slice(word.as_bytes());
        }
        for _ in 0..4096 / 32 {
            number += 1;
            bytes.extend_from_slice(Digest::of(&number.to_be_bytes()).as_raw());
        }
    }
    bytes.truncate(length);
    bytes
}

const WORDS: [&str; 8] = [
    "bread ",
    "butter ",
    "cheese\n",
    "larder ",
    "jar of jam, ",
    "salt ",
    "flour; ",
    "shelf ",
];
