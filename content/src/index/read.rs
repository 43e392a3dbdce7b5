//! Reading an index, in memory bounded by a record.

use std::io::{self, Read};

use thiserror::Error;

use super::{Head, Kind, RECORD_BYTES_MAX, Record, RecordError};
use crate::chunk::ChunkRef;
use crate::path::EntryPath;

/// Reads an index record by record and holds it to the rules that span records: the head comes
/// first, paths rise in byte order, each lies in a folder that is listed, and a file's chunks add
/// up to its size.
#[derive(Debug)]
pub struct IndexReader<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
    head: Head,
    order: Order,
    file: Option<OpenFile>,
    records: u64,
}

/// A file whose chunk list goes on.
#[derive(Debug)]
struct OpenFile {
    left: u64,
    path: EntryPath,
}

impl<R: Read> IndexReader<R> {
    /// Reads the head.
    ///
    /// # Errors
    ///
    /// Fails if the reader fails or does not begin with the head of an index.
    pub fn new(reader: R) -> Result<Self, IndexError> {
        let head = Head {
            case_policy: super::CasePolicy::Unique,
            features: Vec::new(),
            system: String::new(),
        };
        let mut index = Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            ended: false,
            head,
            order: Order::default(),
            file: None,
            records: 0,
        };
        match index.record()? {
            Some(Record::Head(head)) => {
                index.head = head;
                Ok(index)
            }
            Some(Record::Chunks { .. } | Record::Entry(_)) | None => Err(IndexError::Record {
                record: 0,
                source: RecordError::Format,
            }),
        }
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How many records have been read.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The next record, none at the end. It is never a head.
    ///
    /// # Errors
    ///
    /// Fails if the reader fails or the record breaks a rule; nothing after it can be used.
    pub fn next_record(&mut self) -> Result<Option<Record>, IndexError> {
        let Some(record) = self.record()? else {
            return match self.file.take() {
                None => Ok(None),
                Some(file) => Err(IndexError::Chunks { path: file.path }),
            };
        };
        match &record {
            Record::Chunks { chunks, more } => self.go_on(chunks, *more)?,
            Record::Entry(entry) => {
                if let Some(file) = self.file.take() {
                    return Err(IndexError::Chunks { path: file.path });
                }
                self.order
                    .check(&entry.path, matches!(entry.kind, Kind::Folder))?;
                if let Kind::HardLink { target } = &entry.kind
                    && *target >= entry.path
                {
                    return Err(IndexError::LinkOrder {
                        path: entry.path.clone(),
                    });
                }
                if let Kind::File {
                    size,
                    digest,
                    chunks,
                    more,
                } = &entry.kind
                {
                    if digest.is_some() != (chunks.len() > 1) || (*more && chunks.is_empty()) {
                        return Err(IndexError::Chunks {
                            path: entry.path.clone(),
                        });
                    }
                    self.file = Some(OpenFile {
                        left: *size,
                        path: entry.path.clone(),
                    });
                    self.go_on(chunks, *more)?;
                }
            }
            Record::Head(_) => {
                return Err(IndexError::Record {
                    record: self.records,
                    source: RecordError::Format,
                });
            }
        }
        Ok(Some(record))
    }

    /// Takes note of the next chunks of the open file.
    fn go_on(&mut self, chunks: &[ChunkRef], more: bool) -> Result<(), IndexError> {
        let Some(mut file) = self.file.take() else {
            return Err(IndexError::Stray {
                record: self.records,
            });
        };
        let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        match file.left.checked_sub(bytes) {
            Some(left) if more == (left > 0) => {
                file.left = left;
                self.file = more.then_some(file);
                Ok(())
            }
            Some(_) | None => Err(IndexError::Chunks { path: file.path }),
        }
    }

    /// The next record as such.
    fn record(&mut self) -> Result<Option<Record>, IndexError> {
        loop {
            let window = &self.buffer[self.start..];
            if window.is_empty() && self.ended {
                return Ok(None);
            }
            if !window.is_empty() {
                let failed = |source| IndexError::Record {
                    record: self.records,
                    source,
                };
                if let Some((record, length)) = Record::decode(window).map_err(failed)? {
                    self.start += length;
                    self.records += 1;
                    return Ok(Some(record));
                }
                if self.ended {
                    return Err(IndexError::Truncated);
                }
            }
            self.refill()?;
        }
    }

    /// Reads on. The window at least doubles, so that a long record is not decoded over and over.
    fn refill(&mut self) -> Result<(), IndexError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let wanted = (self.buffer.len() * 2).clamp(READ_BYTES, RECORD_BYTES_MAX + READ_BYTES);
        let missing = (wanted - self.buffer.len()) as u64;
        let read = (&mut self.reader)
            .take(missing)
            .read_to_end(&mut self.buffer)
            .map_err(|source| IndexError::Io { source })?;
        self.ended = (read as u64) < missing;
        Ok(())
    }
}

/// Holds paths to byte order, and each to a folder that is listed.
#[derive(Debug, Default)]
struct Order {
    last: Option<EntryPath>,
    /// Folders that later paths may still lie in, the innermost last. Each begins with the one
    /// before it as a text (`a`, then `a-b`), though not always as a folder.
    folders: Vec<EntryPath>,
}

impl Order {
    fn check(&mut self, path: &EntryPath, folder: bool) -> Result<(), IndexError> {
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return Err(IndexError::Order { path: path.clone() });
        }
        // Nothing below a folder sorts at or after its name followed by the character after '/'.
        while self
            .folders
            .last()
            .is_some_and(|open| is_past(open.as_str(), path.as_str()))
        {
            self.folders.pop();
        }
        if let Some(parent) = path.parent()
            && !self.folders.iter().any(|open| open.as_str() == parent)
        {
            return Err(IndexError::Parent { path: path.clone() });
        }
        if folder {
            self.folders.push(path.clone());
        }
        self.last = Some(path.clone());
        Ok(())
    }
}

/// Whether everything below `folder` sorts before `path`.
fn is_past(folder: &str, path: &str) -> bool {
    match path.as_bytes().strip_prefix(folder.as_bytes()) {
        Some(rest) => rest.first().is_some_and(|&byte| byte > b'/'),
        None => true,
    }
}

/// Why an index cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The chunks of a file do not add up to it.
    #[error("index check failed: the chunks of {path} do not add up to its size")]
    Chunks {
        /// The file.
        path: EntryPath,
    },
    /// The reader failed.
    #[error("cannot read the index")]
    Io {
        /// Why.
        source: io::Error,
    },
    /// A hard link to a path that does not come before it.
    #[error("index check failed: {path} is a hard link to a path that does not come before it")]
    LinkOrder {
        /// The link.
        path: EntryPath,
    },
    /// A path that is not greater than the one before it.
    #[error("index check failed: {path} is not in order")]
    Order {
        /// The path.
        path: EntryPath,
    },
    /// A path whose folder is not listed.
    #[error("index check failed: {path} lies in no folder that is listed")]
    Parent {
        /// The path.
        path: EntryPath,
    },
    /// A record that is none.
    #[error("cannot use record {record} of the index")]
    Record {
        /// Which, counted from 0.
        record: u64,
        /// What is wrong with it.
        source: RecordError,
    },
    /// Further chunks without a file that waits for them.
    #[error("index check failed: record {record} continues no file")]
    Stray {
        /// Which, counted from 0.
        record: u64,
    },
    /// The last record is not whole.
    #[error("index check failed: it ends within a record")]
    Truncated,
}

/// How much is read at once: small beside a record's limit, large beside a usual record.
const READ_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests;
