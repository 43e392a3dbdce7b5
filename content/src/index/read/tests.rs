//! An index comes back, holds its form, and is refused by the name of the rule that it breaks.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::*;
use crate::digest::{ChunkId, Digest};
use crate::index::{
    CasePolicy, Entry, INDEX_CHUNKS_MAX, IndexRoot, IndexWriter, RECORD_CHUNKS_MAX,
};

fn head() -> Head {
    Head {
        case_policy: CasePolicy::Unique,
        features: Vec::new(),
        system: "linux".to_owned(),
    }
}

fn entry(path: &str, kind: Kind) -> Entry {
    let path = EntryPath::new(path).unwrap();
    Entry {
        path,
        kind,
        mode: 0o644,
        mtime: 1_700_000_000_000_000_000,
        extra: BTreeMap::new(),
    }
}

fn chunk(length: u32) -> ChunkRef {
    ChunkRef {
        id: ChunkId(Digest::of(&length.to_be_bytes())),
        length,
    }
}

fn file(path: &str, lengths: &[u32]) -> Entry {
    let chunks: Vec<_> = lengths.iter().map(|&length| chunk(length)).collect();
    let size = lengths.iter().map(|&length| u64::from(length)).sum();
    let digest = (chunks.len() > 1).then(|| Digest::of(b"whole"));
    entry(
        path,
        Kind::File {
            size,
            digest,
            chunks,
            more: false,
        },
    )
}

fn folder(path: &str) -> Entry {
    entry(path, Kind::Folder)
}

fn link(path: &str, target: &str) -> Entry {
    entry(
        path,
        Kind::HardLink {
            target: EntryPath::new(target).unwrap(),
        },
    )
}

fn written(entries: &[Entry]) -> Vec<u8> {
    let mut writer = IndexWriter::new(Vec::new(), head()).unwrap();
    entries
        .iter()
        .for_each(|entry| writer.push(entry.clone()).unwrap());
    writer.finish().unwrap().0
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, IndexError> {
    let mut reader = IndexReader::new(bytes)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok(records)
}

fn tree() -> Vec<Entry> {
    let mut odd = file("b", &[5]);
    odd.extra.insert(128, b"may be ignored".to_vec());
    odd.mtime = -1;
    vec![
        folder("a"),
        file("a-b", &[]),
        folder("a-c"),
        file("a-c/x", &[1]),
        file("a/x", &[20_000, 3]),
        link("a/y", "a/x"),
        odd,
        entry(
            "c",
            Kind::Symlink {
                target: "../anywhere".to_owned(),
            },
        ),
    ]
}

#[test]
fn an_index_comes_back_and_its_bytes_do_not_drift() {
    let bytes = written(&tree());
    let expected: Vec<_> = tree().into_iter().map(Record::Entry).collect();
    assert_eq!(read(&bytes).unwrap(), expected);
    expect!["430 bytes, sha256:84d916da32f2…"].assert_eq(&format!(
        "{} bytes, {:?}",
        bytes.len(),
        Digest::of(&bytes)
    ));
}

#[test]
fn a_file_with_very_many_chunks_goes_on_in_further_records() {
    let lengths: Vec<u32> = (0..RECORD_CHUNKS_MAX as u32 * 2 + 5)
        .map(|at| at % 200 + 1)
        .collect();
    let bytes = written(&[file("big", &lengths), file("small", &[1])]);
    let records = read(&bytes).unwrap();
    assert_eq!(records.len(), 4);
    let mut got = Vec::new();
    for record in &records[..3] {
        match record {
            Record::Entry(Entry {
                kind: Kind::File { chunks, .. },
                ..
            })
            | Record::Chunks { chunks, .. } => got.extend(chunks.iter().map(|chunk| chunk.length)),
            Record::Entry(_) | Record::Head(_) => unreachable!("only files were written"),
        }
    }
    assert_eq!(got, lengths);
}

#[test]
fn an_index_cut_short_is_never_taken_for_a_whole_one() {
    let bytes = written(&tree());
    let whole = read(&bytes).unwrap().len();
    for end in 0..bytes.len() {
        if let Ok(records) = read(&bytes[..end]) {
            assert!(records.len() < whole);
        }
    }
}

/// An index without the help of the writer.
fn raw_index(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Record::Head(head()).encode();
    entries
        .iter()
        .for_each(|entry| bytes.extend(Record::Entry(entry.clone()).encode()));
    bytes
}

fn check(bytes: &[u8], expected: Expect) {
    let mut text = String::new();
    let error = read(bytes).unwrap_err();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = next {
        text.push_str(&format!(
            "{}{error}",
            if text.is_empty() { "" } else { ": " }
        ));
        next = error.source();
    }
    expected.assert_eq(&text);
}

#[test]
fn an_index_that_breaks_a_rule_is_refused_by_its_name() {
    check(
        &[],
        expect!["cannot use record 0 of the index: it is not an index"],
    );
    check(
        b"\xa0",
        expect!["cannot use record 0 of the index: index record check failed: key 7 is missing"],
    );
    check(
        &written(&[file("b", &[1]), file("a", &[1])]),
        expect!["index check failed: a is not in order"],
    );
    check(
        &written(&[file("a", &[1]), file("a", &[1])]),
        expect!["index check failed: a is not in order"],
    );
    check(
        &written(&[file("a/b", &[1])]),
        expect!["index check failed: a/b lies in no folder that is listed"],
    );
    check(
        &written(&[file("a", &[1]), file("a/b", &[1])]),
        expect!["index check failed: a/b lies in no folder that is listed"],
    );
    check(
        &written(&[folder("a"), folder("b"), file("b/x", &[1]), link("c", "d")]),
        expect!["index check failed: c is a hard link to a path that does not come before it"],
    );
}

#[test]
fn a_file_whose_chunks_do_not_fit_it_is_refused() {
    let more = |path| {
        let chunks = vec![chunk(1)];
        entry(
            path,
            Kind::File {
                size: 2,
                digest: None,
                chunks,
                more: true,
            },
        )
    };
    let raw = raw_index;
    check(
        &raw(&[more("a"), file("b", &[1])]),
        expect!["index check failed: the chunks of a do not add up to its size"],
    );
    check(
        &raw(&[more("a")]),
        expect!["index check failed: the chunks of a do not add up to its size"],
    );
    let stray = Record::Chunks {
        chunks: vec![chunk(1)],
        more: false,
    }
    .encode();
    check(
        &[raw(&[]), stray].concat(),
        expect!["index check failed: record 2 continues no file"],
    );
    let short = entry(
        "a",
        Kind::File {
            size: 9,
            digest: None,
            chunks: vec![chunk(1)],
            more: false,
        },
    );
    check(
        &raw(&[short]),
        expect!["index check failed: the chunks of a do not add up to its size"],
    );
}

#[test]
fn a_record_that_would_escape_or_is_not_understood_is_refused() {
    let raw = raw_index;
    let mut escaping = raw(&[file("aa", &[1])]);
    let at = escaping.windows(2).rposition(|pair| pair == b"aa").unwrap();
    escaping[at..at + 2].copy_from_slice(b"..");
    check(
        &escaping,
        expect![[
            r#"cannot use record 1 of the index: index record check failed: cannot use the path "..": it has a component . or .."#
        ]],
    );
    // Key 20, extended attributes, would change what is installed.
    let mut reserved = file("a", &[1]);
    reserved.extra.insert(20, b"x".to_vec());
    check(
        &raw(&[reserved]),
        expect![
            "cannot use record 1 of the index: index record check failed: key 20 is not known here"
        ],
    );
    check(
        &[&raw(&[])[..], &Record::Head(head()).encode()].concat(),
        expect!["cannot use record 2 of the index: it is not an index"],
    );
}

#[test]
fn a_number_in_a_longer_form_is_refused() {
    let mut bytes = written(&[]);
    // Map of five, key 64: the key again, with an eight-byte length.
    assert_eq!(bytes[..3], [0xa5, 0x18, 64]);
    bytes.splice(1..3, [0x1b, 0, 0, 0, 0, 0, 0, 0, 64]);
    check(
        &bytes,
        expect![
            "cannot use record 0 of the index: index record check failed: it is not in deterministic form"
        ],
    );
}

#[test]
fn a_root_names_its_index() {
    let bytes = written(&tree());
    let root = IndexRoot::build(&bytes[..], 9, |_| Ok(())).unwrap();
    let encoded = root.encode();
    let digest = Digest::of(&encoded);
    assert_eq!(IndexRoot::verify(&encoded, digest), Ok(root.clone()));
    assert!(IndexRoot::verify(&encoded, Digest::of(b"other")).is_err());
    let lying = IndexRoot {
        bytes: root.bytes + 1,
        ..root.clone()
    }
    .encode();
    assert!(IndexRoot::verify(&lying, Digest::of(&lying)).is_err());
    let many = IndexRoot {
        chunks: vec![chunk(1); INDEX_CHUNKS_MAX + 1],
        ..root
    }
    .encode();
    assert!(IndexRoot::verify(&many, Digest::of(&many)).is_err());
    expect!["sha256:17bc7344426b…"].assert_eq(&format!("{digest:?}"));
}
