//! Packs on their way: each a file with room for all of the pack, of which some frames are there.
//!
//! No list says which: after a restart, what is on disk is verified frame by frame, so a crash can
//! leave nothing behind that would be believed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use content::frame::{Frame, FrameError};
use content::locator::PackEntry;
use content::pack::{HeaderError, PackHeader};
use content::{Digest, PackId};
use thiserror::Error;

/// The folder of one revision's packs on their way.
#[derive(Clone, Debug)]
pub(crate) struct Downloads {
    folder: PathBuf,
}

impl Downloads {
    /// The downloads of the revision with index root `root`, below `data`. Those of other
    /// revisions are left behind by pulls that were given up: they are removed.
    pub(crate) fn open(data: &Path, root: Digest) -> Result<Self, PartError> {
        let folder = data.join(root.hex());
        let failed = |source| PartError::Io {
            path: folder.clone(),
            source,
        };
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).recursive(true);
        builder.create(&folder).map_err(failed)?;
        for other in fs::read_dir(data).map_err(failed)?.flatten() {
            if other.path() != folder {
                // It costs room and nothing else: the next pull tries again.
                fs::remove_dir_all(other.path()).unwrap_or_default();
            }
        }
        Ok(Self { folder })
    }

    /// Removes them all: what they were for is installed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes those of all revisions of one target, below `data`: they are needed no more. What
    /// cannot be removed costs room and nothing else.
    pub(crate) fn forget(data: &Path) {
        fs::remove_dir_all(data).unwrap_or_default();
    }

    /// Takes up the pack of `entry` where it was left, or starts it.
    pub(crate) fn part(&self, entry: &PackEntry) -> Result<Part, PartError> {
        let path = self.path(entry.id);
        let failed = |source| PartError::Io {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.set_len(u64::from(entry.total_bytes)).map_err(failed)?;
        let mut part = Part {
            file,
            entry: *entry,
            header: None,
            have: Vec::new(),
            path,
        };
        let mut bytes = vec![0; entry.header_bytes as usize];
        part.file
            .read_exact_at(&mut bytes, 0)
            .map_err(|source| part.failed(source))?;
        if let Ok(header) = check_header(&bytes, entry) {
            part.have = vec![false; header.frames().len()];
            part.header = Some(header);
        }
        Ok(part)
    }

    /// Opens the pack of `entry` to read from it.
    pub(crate) fn read(&self, entry: &PackEntry) -> Result<(File, PackHeader), PartError> {
        let path = self.path(entry.id);
        let failed = |source| PartError::Io {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(failed)?;
        let mut bytes = vec![0; entry.header_bytes as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let header = check_header(&bytes, entry).map_err(|source| PartError::Header { source })?;
        Ok((file, header))
    }

    fn path(&self, id: PackId) -> PathBuf {
        self.folder.join(id.0.hex())
    }
}

/// A pack on its way.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    entry: PackEntry,
    header: Option<PackHeader>,
    have: Vec<bool>,
    path: PathBuf,
}

impl Part {
    /// The header, if it has come.
    pub(crate) fn header(&self) -> Option<&PackHeader> {
        self.header.as_ref()
    }

    /// What the locator says of the pack.
    pub(crate) fn entry(&self) -> &PackEntry {
        &self.entry
    }

    /// Whether frame `frame` has come.
    pub(crate) fn has(&self, frame: usize) -> bool {
        self.have[frame]
    }

    /// Looks which of `frames` are on disk already, and whole.
    pub(crate) fn look(&mut self, frames: &[usize]) {
        let Some(header) = &self.header else {
            return;
        };
        for &frame in frames {
            let stored = read_frame(&self.file, header, frame);
            self.have[frame] =
                stored.is_ok_and(|stored| verify_frame(header, frame, &stored).is_ok());
        }
    }

    /// Takes the header, once it is found to be the pack's.
    pub(crate) fn put_header(&mut self, bytes: &[u8]) -> Result<(), PartError> {
        let header =
            check_header(bytes, &self.entry).map_err(|source| PartError::Header { source })?;
        self.file
            .write_all_at(bytes, 0)
            .map_err(|source| self.failed(source))?;
        self.have = vec![false; header.frames().len()];
        self.header = Some(header);
        Ok(())
    }

    /// Takes the stored bytes of frame `frame`, once they are found to be right.
    pub(crate) fn put_frame(&mut self, frame: usize, stored: &[u8]) -> Result<(), PartError> {
        let Some(header) = &self.header else {
            return Err(self.failed(io::Error::other("a frame came before the header")));
        };
        verify_frame(header, frame, stored)?;
        self.file
            .write_all_at(stored, header.frame_range(frame).start)
            .map_err(|source| self.failed(source))?;
        self.have[frame] = true;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> PartError {
        PartError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// The stored bytes of a frame, not verified.
pub(crate) fn read_frame(
    file: &File,
    header: &PackHeader,
    frame: usize,
) -> Result<Vec<u8>, PartError> {
    let range = header.frame_range(frame);
    let mut stored = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut stored, range.start)
        .map_err(|source| PartError::Io {
            path: PathBuf::from(header.id().0.hex()),
            source,
        })?;
    Ok(stored)
}

/// The frame that `stored` is, if it is right.
pub(crate) fn verify_frame<'a>(
    header: &'a PackHeader,
    frame: usize,
    stored: &'a [u8],
) -> Result<Frame<'a>, PartError> {
    Frame::verify(&header.frames()[frame], stored)
        .map_err(|source| PartError::Frame { frame, source })
}

/// The header that `bytes` are, if it is the one of `entry` and of the lengths that it says.
fn check_header(bytes: &[u8], entry: &PackEntry) -> Result<PackHeader, HeaderError> {
    let header = PackHeader::verify(bytes, entry.id)?;
    if header.total_bytes() == entry.total_bytes {
        Ok(header)
    } else {
        Err(HeaderError::Length {
            wanted: entry.total_bytes,
            got: header.total_bytes() as usize,
        })
    }
}

/// Why a pack on its way cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PartError {
    /// A frame is not what the header says.
    #[error("frame {frame} is not what the pack's header says")]
    Frame {
        /// Which frame.
        frame: usize,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The header is not the pack's.
    #[error("the header is not the pack's")]
    Header {
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The disk fails.
    #[error("cannot keep the download {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
