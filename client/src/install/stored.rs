//! Indexes on disk, held against their roots: a disk may be unkind to what nobody looks at.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use content::durable::{Disk as _, RealDisk};
use content::index::{IndexRoot, ROOT_BYTES_MAX};
use content::{Chunk, ChunkRef, Digest};

/// The root of the index at `index`, which lies beside it and has its name.
pub(crate) fn root_of(index: &Path) -> Option<IndexRoot> {
    let wanted = Digest::from_hex(index.file_stem()?.to_str()?).ok()?;
    let path = index.with_extension("root");
    let bytes = RealDisk.read(&path, ROOT_BYTES_MAX as u64).ok()??;
    IndexRoot::verify(&bytes, wanted).ok()
}

/// Whether the file at `index` is what `root` says, byte by byte.
pub(crate) fn is_whole(index: &Path, root: &IndexRoot) -> bool {
    let Ok(file) = File::open(index) else {
        return false;
    };
    let long = file.metadata().is_ok_and(|stat| stat.len() == root.bytes);
    let (mut offset, mut buffer) = (0, Vec::new());
    long && root.chunks.iter().all(|&chunk| {
        let at = offset;
        offset += u64::from(chunk.length);
        read(&file, at, chunk, &mut buffer).is_some()
    })
}

/// The chunk `wanted`, if it is what lies at `offset`.
pub(crate) fn read<'b>(
    file: &File,
    offset: u64,
    wanted: ChunkRef,
    buffer: &'b mut Vec<u8>,
) -> Option<Chunk<'b>> {
    buffer.resize(wanted.length as usize, 0);
    file.read_exact_at(buffer, offset).ok()?;
    Chunk::verify(buffer, wanted.id).ok()
}
