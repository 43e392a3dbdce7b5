//! Downloads for targets that nobody pulls any more.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tracing::info;

/// Removes what was downloaded for other targets than the one called `own`, below `downloads`,
/// and has not grown for [`STALE_SECONDS`]. Only what bears names that we give is touched; what
/// cannot be removed costs room and nothing else. Whoever calls holds the lock of the data folder.
pub(crate) fn remove_stale(downloads: &Path, own: &OsStr, now: i64) {
    for target in entries(downloads) {
        if target.file_name() == own || !is_ours(&target, TARGET_DIGITS, Metadata::is_dir) {
            continue;
        }
        for revision in entries(&target.path()) {
            let ours = is_ours(&revision, DIGEST_DIGITS, Metadata::is_dir);
            if ours && grown_at(&revision).is_ok_and(|at| now.saturating_sub(at) > STALE_SECONDS) {
                remove_revision(&revision.path());
            }
        }
        // Only if nothing is left in it.
        fs::remove_dir(target.path()).unwrap_or_default();
    }
}

/// When something was last written in the folder of a revision.
fn grown_at(revision: &DirEntry) -> io::Result<i64> {
    let mut at = revision.metadata()?.mtime();
    for pack in fs::read_dir(revision.path())? {
        at = at.max(pack?.metadata()?.mtime());
    }
    Ok(at)
}

fn remove_revision(folder: &Path) {
    let path = folder.display();
    info!(%path, "removing downloads for a target that is pulled no more");
    for pack in entries(folder) {
        if is_ours(&pack, DIGEST_DIGITS, Metadata::is_file) {
            fs::remove_file(pack.path()).unwrap_or_default();
        }
    }
    fs::remove_dir(folder).unwrap_or_default();
}

/// What a folder holds; nothing if it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

/// Whether an entry has a name of so many digits, and is itself, as a link is not, of `kind`.
fn is_ours(entry: &DirEntry, digits: usize, kind: fn(&Metadata) -> bool) -> bool {
    let name = entry.file_name();
    let name = name.as_encoded_bytes();
    let named = name.len() == digits
        && name
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    named && entry.metadata().is_ok_and(|metadata| kind(&metadata))
}

/// Thirty days. A device that comes back from a long leave goes on where it was; after that the
/// revision that was under way is hardly the current one any more.
const STALE_SECONDS: i64 = 30 * 86_400;
/// Of the folder of a target, as records of targets are called.
const TARGET_DIGITS: usize = 32;
/// Of a digest in hex: an index root, a pack.
const DIGEST_DIGITS: usize = 64;
