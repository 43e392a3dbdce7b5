//! Publishes that are taken step by step, so that something can come in between.

use std::collections::BTreeMap;

use content::frame::PlainFrame;
use content::index::{Entry, Head, IndexWriter};
use content::pack::PackBuilder;
use content::{ChunkRef, ChunkRun};

use super::*;

/// A pack of one frame that holds `run`.
pub(in crate::publish) fn pack_of(run: &ChunkRun) -> Vec<u8> {
    let mut plain = PlainFrame::default();
    run.iter().for_each(|chunk| plain.push(chunk));
    let mut builder = PackBuilder::default();
    builder.push(plain.pack(3).unwrap());
    builder.finish().unwrap().bytes
}

/// The same pack of one frame, under a header that calls its first chunk by another name.
pub(super) fn misname(mut pack: Vec<u8>) -> Vec<u8> {
    let (prelude, frame_entry, algorithm) = (24, 41, 1);
    pack[prelude + frame_entry + algorithm] ^= 1;
    pack
}

/// An index of one file, whose only chunk is `chunk`: its root, and its own chunks.
fn index_of(chunk: ChunkRef) -> (IndexRoot, ChunkRun) {
    let head = Head {
        case_policy: CasePolicy::Unique,
        features: Vec::new(),
        system: "linux".to_owned(),
    };
    let mut index = IndexWriter::new(Vec::new(), head).unwrap();
    let kind = Kind::File {
        size: u64::from(chunk.length),
        digest: None,
        chunks: vec![chunk],
        more: false,
    };
    let entry = Entry {
        path: content::EntryPath::new("file").unwrap(),
        kind,
        mode: 0o644,
        mtime: 0,
        extra: BTreeMap::new(),
    };
    index.push(entry).unwrap();
    let (index, records, _) = index.finish().unwrap();
    let mut run = ChunkRun::default();
    let root = IndexRoot::build(&index[..], records, |chunk| {
        run.push(chunk);
        Ok(())
    });
    (root.unwrap(), run)
}

impl Shop {
    /// Begins a publish of a file that is one chunk, `bytes`, and that the publisher calls `length`
    /// bytes long; all of it comes. Its number, and the root that is to be committed.
    pub(in crate::publish) async fn send_file(
        &self,
        bytes: &[u8],
        length: u32,
    ) -> (i64, IndexRoot) {
        let publish = self.intake.begin(&name()).await.unwrap();
        let mut run = ChunkRun::default();
        run.push(Chunk::name(bytes));
        let said = ChunkRef {
            length,
            ..run.refs()[0]
        };
        let (root, index) = index_of(said);
        for (said, run) in [(&[said][..], &run), (index.refs(), &index)] {
            let missing = self.intake.have(publish, said).await.unwrap();
            if !missing.is_empty() {
                let pack = pack_of(run).into();
                self.intake.pack(publish, pack).await.unwrap();
            }
        }
        (publish, root)
    }
}
