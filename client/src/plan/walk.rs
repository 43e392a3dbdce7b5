//! Going through an index, with the place of each chunk beside it.

use std::fs::File;
use std::io;
use std::path::Path;

use content::index::{Entry, IndexError, IndexReader, IndexRoot, Kind, Record};
use content::locator::{Locator, Place};
use content::{ChunkId, ChunkRef, Digest, EntryPath};
use thiserror::Error;

/// One record of an index.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The path that begins here; none where the chunk list of the file before goes on. Its own
    /// chunk list has been moved to `chunks`.
    pub(crate) entry: Option<Entry>,
    /// The next chunks of the file.
    pub(crate) chunks: Vec<ChunkRef>,
    /// Where they lie, as many as there are chunks.
    pub(crate) places: Vec<Place>,
    /// What the file holds, where a file begins.
    pub(crate) content: Option<Content>,
}

/// What a file holds: two that are equal here are equal byte by byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Content {
    /// Bytes.
    pub(crate) size: u64,
    /// SHA-256 of the whole, where it has more than one chunk.
    pub(crate) digest: Option<Digest>,
    /// Its first chunk, if it has any.
    pub(crate) first: Option<ChunkId>,
}

impl Content {
    /// What `kind` holds, if it is a file.
    pub(crate) fn of(kind: &Kind) -> Option<Self> {
        match kind {
            Kind::File {
                size,
                digest,
                chunks,
                more: _,
            } => Some(Self {
                size: *size,
                digest: *digest,
                first: chunks.first().map(|chunk| chunk.id),
            }),
            Kind::Folder | Kind::HardLink { .. } | Kind::Symlink { .. } => None,
        }
    }
}

/// Goes through the index of a revision together with its locator, in memory bounded by a record.
pub(crate) struct Walk<'l> {
    index: IndexReader<File>,
    places: Box<dyn Iterator<Item = Place> + Send + 'l>,
    records: u64,
}

impl<'l> Walk<'l> {
    /// Starts at the head of the index at `path`.
    pub(crate) fn open(
        path: &Path,
        root: &IndexRoot,
        locator: &'l Locator,
    ) -> Result<Self, WalkError> {
        let file = File::open(path).map_err(|source| WalkError::Io { source })?;
        let index = IndexReader::new(file).map_err(|source| WalkError::Index { source })?;
        // The places of the index's own chunks come first.
        let places = locator.places().skip(root.chunks.len());
        Ok(Self {
            index,
            places: Box::new(places),
            records: root.records,
        })
    }

    /// The next record, none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, WalkError> {
        let record = self
            .index
            .next_record()
            .map_err(|source| WalkError::Index { source })?;
        let mut piece = match record {
            Some(Record::Entry(entry)) => begin(entry),
            Some(Record::Chunks { chunks, more: _ }) => Piece {
                entry: None,
                chunks,
                places: Vec::new(),
                content: None,
            },
            // The reader lets a head through only at the start.
            Some(Record::Head(_)) | None => return self.end().map(|()| None),
        };
        piece
            .places
            .extend(self.places.by_ref().take(piece.chunks.len()));
        if piece.places.len() == piece.chunks.len() {
            Ok(Some(piece))
        } else {
            Err(WalkError::Places)
        }
    }

    fn end(&mut self) -> Result<(), WalkError> {
        if self.places.next().is_some() {
            Err(WalkError::Places)
        } else if self.index.records() != self.records {
            Err(WalkError::Records)
        } else {
            Ok(())
        }
    }
}

fn begin(mut entry: Entry) -> Piece {
    let content = Content::of(&entry.kind);
    let chunks = match &mut entry.kind {
        Kind::File { chunks, .. } => std::mem::take(chunks),
        Kind::Folder | Kind::HardLink { .. } | Kind::Symlink { .. } => Vec::new(),
    };
    Piece {
        entry: Some(entry),
        chunks,
        places: Vec::new(),
        content,
    }
}

/// Goes through the index of what is installed, asked for paths in rising order.
pub(crate) struct Installed {
    index: IndexReader<File>,
    ahead: Option<Entry>,
}

impl Installed {
    /// Starts at the head of the index at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, WalkError> {
        let file = File::open(path).map_err(|source| WalkError::Io { source })?;
        let index = IndexReader::new(file).map_err(|source| WalkError::Index { source })?;
        let mut installed = Self { index, ahead: None };
        installed.advance()?;
        Ok(installed)
    }

    /// What was installed at `path`.
    pub(crate) fn find(&mut self, path: &EntryPath) -> Result<Option<&Entry>, WalkError> {
        while self.ahead.as_ref().is_some_and(|entry| entry.path < *path) {
            self.advance()?;
        }
        Ok(self.ahead.as_ref().filter(|entry| entry.path == *path))
    }

    /// The next record, in a walk through everything.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record>, WalkError> {
        match self.ahead.take() {
            Some(entry) => Ok(Some(Record::Entry(entry))),
            None => self
                .index
                .next_record()
                .map_err(|source| WalkError::Index { source }),
        }
    }

    fn advance(&mut self) -> Result<(), WalkError> {
        self.ahead = loop {
            let record = self
                .index
                .next_record()
                .map_err(|source| WalkError::Index { source })?;
            match record {
                Some(Record::Entry(entry)) => break Some(entry),
                Some(Record::Chunks { .. } | Record::Head(_)) => {}
                None => break None,
            }
        };
        Ok(())
    }
}

/// Why an index cannot be gone through.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The index breaks a rule.
    #[error("cannot use the index")]
    Index {
        /// Which.
        source: IndexError,
    },
    /// The file, or the tree beside it, cannot be read.
    #[error("cannot read the index, or what it describes")]
    Io {
        /// Why.
        source: io::Error,
    },
    /// The locator has more or fewer places than the index has chunks.
    #[error("locator check failed: it does not go along with the index")]
    Places,
    /// The index has more or fewer records than its root says.
    #[error("index check failed: its root says another number of records")]
    Records,
}
