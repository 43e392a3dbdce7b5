//! What an earlier run left: its files, and whether it ended in good order.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use content::Digest;
use content::durable::{self, Disk, RealDisk};
use tracing::{info, warn};

use super::uses::Uses;
use super::{OBJECTS, PACKS, PARTIAL, PRIVATE, QUARANTINE, TEMPORARY, create_folder};
use crate::cache::index::{Index, Key, Kind};

/// Reads the folders into `index`, says when what was last used, and removes what does not belong there.
pub(super) fn scan(folder: &Path, now: i64, index: &mut Index) -> io::Result<Uses> {
    create_folder(folder)?;
    keep_layout(folder)?;
    for name in [OBJECTS, PACKS, PARTIAL, PRIVATE, QUARANTINE, TEMPORARY] {
        create_folder(&folder.join(name))?;
    }
    let clean = take_marker(folder)?;
    let mut found = Vec::new();
    spread(&folder.join(OBJECTS), Kind::Object, &mut found)?;
    spread(&folder.join(PRIVATE), Kind::Private, &mut found)?;
    spread(&folder.join(PACKS), Kind::Pack, &mut found)?;
    files(&folder.join(PARTIAL), Kind::Partial, &mut found)?;
    files(&folder.join(QUARANTINE), Kind::Quarantined, &mut found)?;
    for entry in fs::read_dir(folder.join(TEMPORARY))? {
        fs::remove_file(entry?.path())?;
    }
    // In the order of their last use, as far as the file system has noted it.
    found.sort_unstable_by_key(|file| file.used);
    let mut uses = Uses::default();
    for file in found {
        if file.key.kind == Kind::Partial && is_old(file.written, now) {
            fs::remove_file(folder.join(PARTIAL).join(file.key.digest.hex()))?;
        } else {
            index.insert(file.key, file.bytes, clean, 0);
            uses.note(index.count(), file.used);
        }
    }
    info!(
        clean,
        packs = index.files(Kind::Pack),
        objects = index.files(Kind::Object),
        private = index.files(Kind::Private),
        partial = index.files(Kind::Partial),
        bytes = index.bytes(),
        "opened the cache"
    );
    Ok(uses)
}

/// Refuses a folder that is laid out in another way than this program does it, and writes down that
/// it is laid out in ours. One without a word about it is from before there was any.
fn keep_layout(folder: &Path) -> io::Result<()> {
    let path = folder.join(LAYOUT_FILE);
    match RealDisk.read(&path, 64)? {
        Some(layout) if layout == LAYOUT => Ok(()),
        Some(layout) => {
            let layout = String::from_utf8_lossy(&layout).trim().to_owned();
            Err(io::Error::other(format!(
                "it is laid out as {layout:?}, which this program does not know: use the program \
                 that wrote it, or remove the folder to begin with an empty cache"
            )))
        }
        None => durable::write(&RealDisk, &path, LAYOUT, 0o600),
    }
}

/// Makes all that was written safe, then says so.
pub(super) fn mark_clean(folder: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(folder)?)?;
    durable::write(&RealDisk, &folder.join(MARKER), MARK, 0o600)
}

/// Whether a fill that was last written then was broken off too long ago to be taken up again.
pub(super) fn is_stale(metadata: &Metadata, now: i64) -> bool {
    is_old(metadata.mtime(), now)
}

/// Whether the last run ended in good order. From now on this one has not.
fn take_marker(folder: &Path) -> io::Result<bool> {
    let path = folder.join(MARKER);
    let clean = RealDisk.read(&path, 64)?.is_some_and(|mark| mark == MARK);
    durable::remove(&RealDisk, &path)?;
    Ok(clean)
}

struct Leftover {
    key: Key,
    bytes: u64,
    used: i64,
    written: i64,
}

/// The files of 256 folders that are named by the first byte of what lies in them.
fn spread(root: &Path, kind: Kind, found: &mut Vec<Leftover>) -> io::Result<()> {
    for folder in fs::read_dir(root)? {
        let folder = folder?;
        if folder.file_type()?.is_dir() {
            files(&folder.path(), kind, found)?;
        }
    }
    Ok(())
}

fn files(folder: &Path, kind: Kind, found: &mut Vec<Leftover>) -> io::Result<()> {
    for file in fs::read_dir(folder)? {
        let file = file?;
        let metadata = file.metadata()?;
        let name = file.file_name();
        let digest = name.to_str().and_then(|name| Digest::from_hex(name).ok());
        let in_place = |digest: &Digest| match kind {
            Kind::Object | Kind::Private | Kind::Pack => folder.ends_with(&digest.hex()[..2]),
            Kind::Partial | Kind::Quarantined => true,
        };
        match digest.filter(in_place) {
            Some(digest) if metadata.is_file() && metadata.len() <= BYTES_MAX => {
                found.push(Leftover {
                    key: Key { kind, digest },
                    bytes: metadata.len(),
                    used: metadata.atime().max(metadata.mtime()),
                    written: metadata.mtime(),
                })
            }
            Some(_) | None => {
                warn!(path = %file.path().display(), "not a file of the cache: left alone");
            }
        }
    }
    Ok(())
}

fn is_old(written: i64, now: i64) -> bool {
    now.saturating_sub(written) > PARTIAL_AGE_MAX_SECONDS
}

/// After a day a revision has probably moved on, and the bytes are better spent on another.
const PARTIAL_AGE_MAX_SECONDS: i64 = 24 * 3600;

/// No file of ours is longer, and none that is can be counted.
const BYTES_MAX: u64 = u32::MAX as u64;
/// Says how the folders are laid out.
const LAYOUT_FILE: &str = "layout";
const LAYOUT: &[u8] = b"larder cache layout 1\n";
/// Says that all files of the cache were safe on disk when the last run ended.
const MARKER: &str = "clean";
/// The format's version is in it: another one means that everything is checked.
const MARK: &[u8] = b"larder cache 1\n";
