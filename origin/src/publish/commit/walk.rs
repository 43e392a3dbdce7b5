//! Following an index from its first chunk to its last, in memory bounded by a batch.

use super::{
    BATCH_CHUNKS, BufReader, ChunkRef, CommitError, File, IndexReader, IndexRoot, Kind, Record,
    Seek, SeekFrom,
};

/// The chunks of an index, in batches.
pub(super) struct Batches {
    /// None while it is at work off the runtime.
    reader: Option<IndexReader<BufReader<File>>>,
    counts: Counts,
    records: u64,
}

/// What an index adds up to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) chunks: u64,
    pub(super) size: u64,
}

impl Batches {
    /// From the start of the index in `file`, whose root is `root`.
    pub(super) fn of(file: &File, root: &IndexRoot) -> Result<Self, CommitError> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let reader = Some(IndexReader::new(BufReader::new(file))?);
        Ok(Self {
            reader,
            counts: Counts::default(),
            records: root.records,
        })
    }

    /// The next chunks, none at the end.
    pub(super) async fn next_batch(&mut self) -> Result<Option<Vec<ChunkRef>>, CommitError> {
        let mut reader = self
            .reader
            .take()
            .expect("the reader is back after each batch");
        let mut counts = self.counts;
        let worked = tokio::task::spawn_blocking(move || {
            let mut batch = Vec::with_capacity(BATCH_CHUNKS);
            let mut ended = false;
            while batch.len() < BATCH_CHUNKS {
                let Some(record) = reader.next_record()? else {
                    ended = true;
                    break;
                };
                counts.add(&record);
                match record {
                    Record::Chunks { chunks, .. } => batch.extend(chunks),
                    Record::Entry(entry) => match entry.kind {
                        Kind::File { chunks, .. } => batch.extend(chunks),
                        Kind::Folder | Kind::HardLink { .. } | Kind::Symlink { .. } => {}
                    },
                    Record::Head(_) => {}
                }
            }
            Ok::<_, CommitError>((reader, counts, batch, ended))
        });
        let (reader, counts, batch, ended) = worked.await??;
        (self.reader, self.counts) = (Some(reader), counts);
        Ok((!(ended && batch.is_empty())).then_some(batch))
    }

    /// What it all added up to, once there are no more.
    pub(super) fn finish(self) -> Result<Counts, CommitError> {
        let got = self.reader.map_or(0, |reader| reader.records());
        if got == self.records {
            Ok(self.counts)
        } else {
            Err(CommitError::Records {
                wanted: self.records,
                got,
            })
        }
    }
}

impl Counts {
    fn add(&mut self, record: &Record) {
        match record {
            Record::Chunks { chunks, .. } => self.chunks += chunks.len() as u64,
            Record::Entry(entry) => {
                self.entries += 1;
                if let Kind::File { size, chunks, .. } = &entry.kind {
                    self.files += 1;
                    self.size += size;
                    self.chunks += chunks.len() as u64;
                }
            }
            Record::Head(_) => {}
        }
    }
}
