//! Writing an index.

use std::io::{self, Write};

use super::{Entry, Head, Kind, RECORD_CHUNKS_MAX, Record};

/// Writes an index record by record.
///
/// The caller gives entries in byte order of their paths; [`super::IndexReader`] refuses others.
#[derive(Debug)]
pub struct IndexWriter<W> {
    sink: W,
    records: u64,
    bytes: u64,
}

impl<W: Write> IndexWriter<W> {
    /// Starts an index with its head.
    ///
    /// # Errors
    ///
    /// Fails as the sink fails.
    pub fn new(sink: W, head: Head) -> io::Result<Self> {
        let mut writer = Self {
            sink,
            records: 0,
            bytes: 0,
        };
        writer.put(&Record::Head(head))?;
        Ok(writer)
    }

    /// Adds an entry; a file with more chunks than a record may list goes on in further records.
    ///
    /// # Errors
    ///
    /// Fails as the sink fails.
    pub fn push(&mut self, mut entry: Entry) -> io::Result<()> {
        let Kind::File { chunks, more, .. } = &mut entry.kind else {
            return self.put(&Record::Entry(entry));
        };
        let rest = chunks.split_off(chunks.len().min(RECORD_CHUNKS_MAX));
        *more = !rest.is_empty();
        self.put(&Record::Entry(entry))?;
        let mut rest = rest.chunks(RECORD_CHUNKS_MAX).peekable();
        while let Some(chunks) = rest.next() {
            let more = rest.peek().is_some();
            self.put(&Record::Chunks {
                chunks: chunks.to_owned(),
                more,
            })?;
        }
        Ok(())
    }

    /// Ends the index; says how many records and bytes it has.
    ///
    /// # Errors
    ///
    /// Fails as the sink fails.
    pub fn finish(mut self) -> io::Result<(W, u64, u64)> {
        self.sink.flush()?;
        Ok((self.sink, self.records, self.bytes))
    }

    fn put(&mut self, record: &Record) -> io::Result<()> {
        let bytes = record.encode();
        self.records += 1;
        self.bytes += bytes.len() as u64;
        self.sink.write_all(&bytes)
    }
}
