//! Packs as files: a folder of them, and reading single chunks out of one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{HeaderError, PACK_HEADER_BYTES_MAX, PackHeader};
use crate::digest::{Digest, PackId};
use crate::durable::{self, Disk};
use crate::frame::{Frame, FrameError};

/// A folder of packs, spread over 256 folders by the first byte of their names.
#[derive(Clone, Debug)]
pub struct PackDir {
    root: PathBuf,
}

impl PackDir {
    /// The packs below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the pack called `id` is, or would be.
    #[must_use]
    pub fn path(&self, id: PackId) -> PathBuf {
        let hex = id.0.hex();
        self.root.join(&hex[..2]).join(hex)
    }

    /// Writes a pack so that it survives a crash from the moment that this returns.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails; then no pack of that name has appeared.
    pub fn put(&self, disk: &impl Disk, id: PackId, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(id);
        let folder = path.parent().expect("a pack lies in a folder");
        durable::create_folder(disk, &self.root, 0o700)?;
        durable::create_folder(disk, folder, 0o700)?;
        durable::write(disk, &path, bytes, 0o600)
    }

    /// The names of all packs here, as far as files are named like packs.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read. A folder that does not exist holds none.
    pub fn list(&self) -> io::Result<Vec<PackId>> {
        let mut ids = Vec::new();
        let folders = match std::fs::read_dir(&self.root) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
            Err(error) => return Err(error),
        };
        for folder in folders {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(folder.path())? {
                let name = file?.file_name();
                if let Some(id) = name.to_str().and_then(|name| Digest::from_hex(name).ok()) {
                    ids.push(PackId(id));
                }
            }
        }
        Ok(ids)
    }
}

/// An open pack whose header has been verified.
#[derive(Debug)]
pub struct PackFile {
    file: File,
    header: PackHeader,
}

impl PackFile {
    /// Opens the file at `path` as the pack called `id`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read, is not that pack, or has another length than its header says.
    pub fn open(path: &Path, id: PackId) -> Result<Self, ReadPackError> {
        let file = File::open(path).map_err(|source| ReadPackError::Io { source })?;
        Self::of(file, id)
    }

    /// Takes an open file as the pack called `id`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read, is not that pack, or has another length than its header says.
    pub fn of(file: File, id: PackId) -> Result<Self, ReadPackError> {
        let header = read_header(&file, id)?;
        let length = file
            .metadata()
            .map_err(|source| ReadPackError::Io { source })?
            .len();
        if length == u64::from(header.total_bytes()) {
            Ok(Self { file, header })
        } else {
            Err(ReadPackError::Length {
                wanted: header.total_bytes(),
                got: length,
            })
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &PackHeader {
        &self.header
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file itself back.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    /// Reads frame `frame`, verifies it and unpacks it into `plain`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read or is not what the header says.
    ///
    /// # Panics
    ///
    /// Panics if the pack has no such frame.
    pub fn unpack(&self, frame: usize, plain: &mut Vec<u8>) -> Result<(), ReadPackError> {
        let stored = self.stored(frame)?;
        let info = &self.header.frames()[frame];
        Frame::verify(info, &stored)
            .and_then(|frame| frame.unpack(plain))
            .map_err(|source| ReadPackError::Frame { frame, source })
    }

    /// Checks every frame against the header.
    ///
    /// # Errors
    ///
    /// Names the first frame that is not what the header says.
    pub fn verify(&self) -> Result<(), ReadPackError> {
        for (frame, info) in self.header.frames().iter().enumerate() {
            let stored = self.stored(frame)?;
            Frame::verify(info, &stored)
                .map_err(|source| ReadPackError::Frame { frame, source })?;
        }
        Ok(())
    }

    fn stored(&self, frame: usize) -> Result<Vec<u8>, ReadPackError> {
        let range = self.header.frame_range(frame);
        let mut stored = vec![0; (range.end - range.start) as usize];
        self.file
            .read_exact_at(&mut stored, range.start)
            .map_err(|source| ReadPackError::Io { source })?;
        Ok(stored)
    }
}

/// Reads and verifies the header of the pack called `id` at the start of `file`.
fn read_header(file: &File, id: PackId) -> Result<PackHeader, ReadPackError> {
    let io = |source| ReadPackError::Io { source };
    let mut bytes = vec![0; 64];
    file.read_exact_at(&mut bytes, 0).map_err(io)?;
    let length = PackHeader::length(&bytes).map_err(|source| ReadPackError::Header { source })?;
    let length = length
        .expect("64 bytes hold the prelude")
        .min(PACK_HEADER_BYTES_MAX);
    bytes.resize(length, 0);
    file.read_exact_at(&mut bytes, 0).map_err(io)?;
    PackHeader::verify(&bytes, id).map_err(|source| ReadPackError::Header { source })
}

/// Why a file is not a pack that can be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadPackError {
    /// A frame is not what the header says.
    #[error("cannot use frame {frame} of the pack")]
    Frame {
        /// Which frame.
        frame: usize,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The header is not the one that the pack's name names.
    #[error("cannot use the pack's header")]
    Header {
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The file could not be read.
    #[error("cannot read the pack")]
    Io {
        /// What the system says.
        source: io::Error,
    },
    /// The file is shorter or longer than the header says.
    #[error("cannot use the pack: want {wanted} bytes, got {got}")]
    Length {
        /// Bytes by the header.
        wanted: u32,
        /// Bytes of the file.
        got: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::super::PackBuilder;
    use super::*;
    use crate::chunk::Chunk;
    use crate::digest::ChunkId;
    use crate::durable::RealDisk;
    use crate::durable::model::ModelDisk;
    use crate::frame::PlainFrame;

    #[test]
    fn a_pack_comes_back_from_disk_and_a_flipped_bit_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let packs = PackDir::new(folder.path().join("packs"));
        assert_eq!(packs.list().unwrap(), []);
        let mut plain = PlainFrame::default();
        plain.push(Chunk::verify(b"bread", ChunkId(Digest::of(b"bread"))).unwrap());
        let mut builder = PackBuilder::default();
        builder.push(plain.pack(3).unwrap());
        let pack = builder.finish().unwrap();
        let id = pack.header.id();
        packs.put(&RealDisk, id, &pack.bytes).unwrap();

        assert_eq!(packs.list().unwrap(), [id]);
        let file = PackFile::open(&packs.path(id), id).unwrap();
        let mut bytes = Vec::new();
        file.unpack(0, &mut bytes).unwrap();
        assert_eq!(bytes, b"bread");
        file.verify().unwrap();

        let mut bad = pack.bytes;
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(packs.path(id), &bad).unwrap();
        let error = PackFile::open(&packs.path(id), id)
            .unwrap()
            .verify()
            .unwrap_err();
        assert!(
            matches!(error, ReadPackError::Frame { frame: 0, .. }),
            "{error}"
        );
        std::fs::write(packs.path(id), &bad[..bad.len() - 1]).unwrap();
        let error = PackFile::open(&packs.path(id), id).unwrap_err();
        assert!(matches!(error, ReadPackError::Length { .. }), "{error}");
    }

    #[test]
    fn a_pack_is_there_whole_or_not_at_all_after_every_crash() {
        let packs = PackDir::new("packs");
        let mut plain = PlainFrame::default();
        plain.push(Chunk::name(b"bread"));
        let mut builder = PackBuilder::default();
        builder.push(plain.pack(3).unwrap());
        let pack = builder.finish().unwrap();
        let id = pack.header.id();
        let disk = ModelDisk::default();
        packs.put(&disk, id, &pack.bytes).unwrap();
        for crash in disk.crashes() {
            let found = crash.read(&packs.path(id), 1 << 20).unwrap();
            assert!(found.is_none_or(|found| found == pack.bytes));
        }
        let later = ModelDisk::after(&disk);
        let found = later
            .crashes()
            .remove(0)
            .read(&packs.path(id), 1 << 20)
            .unwrap();
        assert_eq!(found, Some(pack.bytes));
    }
}
