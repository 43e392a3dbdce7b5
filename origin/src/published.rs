//! The highest number of each kind that ever left this origin, kept beside the database.
//!
//! A database that was restored from a backup does not know what was published after the backup.
//! This file does: it is written durably before a number is first served, and `restore` raises the
//! database above it. It holds one CBOR map from a counter's name to its value.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use content::durable::{self, Disk as _, RealDisk};
use minicbor::{Decoder, Encoder};
use thiserror::Error;

/// The marks. Cloning shares them.
#[derive(Clone)]
pub struct Published {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    marks: Mutex<BTreeMap<String, u64>>,
}

/// Why the marks cannot be kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishedError {
    /// The disk refused.
    #[error("cannot keep the published numbers in {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("cannot read the published numbers in {path}: malformed", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A handful of counters, and the ten thousand filesets that a snapshot may list, whose names have
/// at most 64 bytes: under 1 MB.
const FILE_BYTES_MAX: u64 = 2 << 20;

impl Published {
    /// Reads the marks in the data folder `data`. None yet is no error.
    ///
    /// # Errors
    ///
    /// Fails if the file is there and cannot be read.
    pub fn load(data: &Path) -> Result<Self, PublishedError> {
        let path = data.join("published.cbor");
        let read = RealDisk.read(&path, FILE_BYTES_MAX);
        let marks = match read.map_err(|source| PublishedError::Io {
            path: path.clone(),
            source,
        })? {
            Some(bytes) => {
                decode(&bytes).ok_or_else(|| PublishedError::Malformed { path: path.clone() })?
            }
            None => BTreeMap::new(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                marks: Mutex::new(marks),
            }),
        })
    }

    /// Notes that the counter `name` is about to be served at `value`. Durable when it returns.
    ///
    /// # Errors
    ///
    /// Fails if the disk does: then do not serve it.
    pub async fn raise(&self, name: &str, value: u64) -> Result<(), PublishedError> {
        self.raise_all(vec![(name.to_owned(), value)]).await
    }

    /// Notes that each counter of `values` is about to be served at its value, in one write.
    ///
    /// # Errors
    ///
    /// As [`Published::raise`].
    pub async fn raise_all(&self, values: Vec<(String, u64)>) -> Result<(), PublishedError> {
        let inner = Arc::clone(&self.inner);
        let path = self.inner.path.clone();
        tokio::task::spawn_blocking(move || inner.raise(values))
            .await
            .unwrap_or_else(|join| {
                Err(PublishedError::Io {
                    path,
                    source: io::Error::other(join),
                })
            })
    }

    /// Every mark.
    #[must_use]
    pub fn marks(&self) -> BTreeMap<String, u64> {
        self.inner
            .marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.marks()).finish()
    }
}

impl Inner {
    fn raise(&self, mut values: Vec<(String, u64)>) -> Result<(), PublishedError> {
        // Held while the disk writes: two files must not overtake each other.
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        values.retain(|(name, value)| marks.get(name).is_none_or(|mark| mark < value));
        if values.is_empty() {
            return Ok(());
        }
        let mut raised = marks.clone();
        for (name, value) in values {
            let mark = raised.entry(name).or_default();
            *mark = value.max(*mark);
        }
        durable::write(&RealDisk, &self.path, &encode(&raised), 0o600).map_err(|source| {
            PublishedError::Io {
                path: self.path.clone(),
                source,
            }
        })?;
        *marks = raised;
        Ok(())
    }
}

fn encode(marks: &BTreeMap<String, u64>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    let written = encoder.map(marks.len() as u64).and_then(|encoder| {
        marks.iter().try_for_each(|(name, value)| {
            encoder.str(name)?.u64(*value)?;
            Ok(())
        })
    });
    written.expect("memory takes all that is written to it");
    encoder.into_writer()
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<String, u64>> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.map().ok()??;
    let mut marks = BTreeMap::new();
    for _ in 0..count {
        marks.insert(decoder.str().ok()?.to_owned(), decoder.u64().ok()?);
    }
    (decoder.position() == bytes.len()).then_some(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn marks_only_rise_and_survive() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::load(folder.path()).unwrap();
        for (value, expected) in [(5, 5), (3, 5), (9, 9)] {
            published.raise("epoch", value).await.unwrap();
            assert_eq!(
                Published::load(folder.path()).unwrap().marks()["epoch"],
                expected
            );
        }
    }

    #[tokio::test]
    async fn many_marks_rise_together_and_none_falls() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::load(folder.path()).unwrap();
        let all = |epoch, version| vec![("epoch".to_owned(), epoch), ("b".to_owned(), version)];
        published.raise_all(all(2, 7)).await.unwrap();
        published.raise_all(all(1, 8)).await.unwrap();
        let marks = Published::load(folder.path()).unwrap().marks();
        assert_eq!((marks["epoch"], marks["b"]), (2, 8));
        // As many filesets as a snapshot may list, with the longest names.
        let full = (0..10_000).map(|at| (format!("fileset:{at:064}"), at));
        published.raise_all(full.collect()).await.unwrap();
        assert_eq!(
            Published::load(folder.path()).unwrap().marks().len(),
            10_002
        );
    }

    #[test]
    fn a_malformed_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [b"\xa1\x61a".as_slice(), b"\xa0\x00", b"", b"\xbf\xff"] {
            std::fs::write(folder.path().join("published.cbor"), bytes).unwrap();
            assert!(matches!(
                Published::load(folder.path()),
                Err(PublishedError::Malformed { .. })
            ));
        }
    }
}
