//! Trees on disk, looked at without any help of Larder's own: walked, compared, copied.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use sha2::{Digest as _, Sha256};

/// What an independent walk finds at one path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// `file`, `folder` or `symlink`.
    pub kind: &'static str,
    /// Permission bits; none of a symlink, which has none of its own.
    pub mode: Option<u32>,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// A file's digest, a symlink's target.
    pub held: Vec<u8>,
    /// Bytes of a file.
    pub size: u64,
    /// The first path that is the same file; itself unless it is a hard link.
    pub same_as: PathBuf,
}

/// Every path below `root`, in order, with what is there.
///
/// # Errors
///
/// Fails if anything cannot be read.
pub fn walk(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, Found>> {
    let mut paths = Vec::new();
    list(root, Path::new(""), &mut paths)?;
    // First names are those that come first in the byte order of paths.
    paths.sort_by(|a, b| {
        a.as_os_str()
            .as_encoded_bytes()
            .cmp(b.as_os_str().as_encoded_bytes())
    });
    let mut links = HashMap::new();
    let mut tree = BTreeMap::new();
    for path in paths {
        let found = look(root, &path, &mut links)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        tree.insert(path, found);
    }
    Ok(tree)
}

/// Whether both trees hold the same: type, mode, mtime, link target and SHA-256 of every path.
///
/// # Errors
///
/// Names the first paths that differ.
pub fn compare(wanted: &Path, got: &Path) -> anyhow::Result<()> {
    let (wanted, got) = (walk(wanted)?, walk(got)?);
    let mut differing: Vec<String> = Vec::new();
    for path in wanted
        .keys()
        .chain(got.keys().filter(|path| !wanted.contains_key(*path)))
    {
        if wanted.get(path) != got.get(path) {
            differing.push(format!(
                "{}: want {:?}, got {:?}",
                path.display(),
                wanted.get(path).map(brief),
                got.get(path).map(brief),
            ));
        }
    }
    ensure!(
        differing.is_empty(),
        "{} of {} paths differ:\n{}",
        differing.len(),
        wanted.len(),
        differing[..differing.len().min(10)].join("\n")
    );
    Ok(())
}

/// Files and bytes of the tree below `root`.
///
/// # Errors
///
/// Fails if anything cannot be read.
pub fn size(root: &Path) -> anyhow::Result<(u64, u64)> {
    let mut paths = Vec::new();
    list(root, Path::new(""), &mut paths)?;
    let (mut files, mut bytes) = (0, 0);
    for path in paths {
        let meta = root.join(path).symlink_metadata()?;
        if meta.is_file() {
            files += 1;
            bytes += meta.len();
        }
    }
    Ok((files, bytes))
}

/// Copies a tree with modes, times, symlinks and hard links. `to` must not exist.
///
/// # Errors
///
/// Fails if anything cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    let mut paths = Vec::new();
    list(from, Path::new(""), &mut paths)?;
    paths.sort();
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for path in &paths {
        let (source, target) = (from.join(path), to.join(path));
        let meta = source.symlink_metadata()?;
        if meta.is_dir() {
            fs::create_dir(&target)?;
        } else if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if let Some(first) = links
            .get(&(meta.dev(), meta.ino()))
            .filter(|_| meta.nlink() > 1)
        {
            fs::hard_link(to.join(first), &target)?;
        } else {
            ensure!(
                meta.is_file(),
                "{} is neither file, folder nor symlink",
                source.display()
            );
            fs::copy(&source, &target)?;
            links.insert((meta.dev(), meta.ino()), path.clone());
        }
    }
    // Folders last and from within: what is written into a folder changes its time.
    for path in paths.iter().rev() {
        stamp(&from.join(path), &to.join(path))?;
    }
    stamp(from, to)
}

/// Gives `to` the mode and time of `from`.
fn stamp(from: &Path, to: &Path) -> anyhow::Result<()> {
    let meta = from.symlink_metadata()?;
    if !meta.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    let time = Timespec {
        tv_sec: meta.mtime(),
        tv_nsec: meta.mtime_nsec() as _,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Every path below `folder`, as it is called from `root`.
fn list(root: &Path, folder: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let full = root.join(folder);
    for entry in fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, paths)?;
        }
        paths.push(path);
    }
    Ok(())
}

fn look(
    root: &Path,
    path: &Path,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> anyhow::Result<Found> {
    let full = root.join(path);
    let meta = full.symlink_metadata()?;
    let mode = (!meta.is_symlink()).then_some(meta.mode() & 0o7777);
    let mut found = Found {
        kind: "folder",
        mode,
        mtime: (meta.mtime(), meta.mtime_nsec()),
        held: Vec::new(),
        size: 0,
        same_as: path.to_owned(),
    };
    if meta.is_symlink() {
        found.kind = "symlink";
        found.held = fs::read_link(&full)?.into_os_string().into_encoded_bytes();
    } else if meta.is_file() {
        found.kind = "file";
        found.size = meta.len();
        found.held = sha256(&full)?;
        let first = links
            .entry((meta.dev(), meta.ino()))
            .or_insert_with(|| path.to_owned());
        found.same_as = first.clone();
    } else if !meta.is_dir() {
        bail!("it is neither file, folder nor symlink");
    }
    Ok(found)
}

fn sha256(path: &Path) -> anyhow::Result<Vec<u8>> {
    struct Sink(Sha256);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(Sha256::new());
    io::copy(&mut File::open(path)?, &mut sink)?;
    Ok(sink.0.finalize().to_vec())
}

/// What a person needs to see of a difference.
fn brief(found: &Found) -> String {
    let mode = found.mode.unwrap_or(0);
    let held: String = found
        .held
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let Found {
        kind,
        mtime,
        size,
        same_as,
        ..
    } = found;
    format!(
        "{kind} {mode:o} {mtime:?} {size} bytes {held} = {}",
        same_as.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_compares_equal_and_every_kind_of_difference_shows() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("a/deep")).unwrap();
        fs::write(at("a/file"), b"bytes").unwrap();
        fs::hard_link(at("a/file"), at("a/other")).unwrap();
        symlink("file", at("a/link")).unwrap();
        copy(&at("a"), &at("b")).unwrap();
        compare(&at("a"), &at("b")).unwrap();
        let differs = |change: &dyn Fn(&Path)| {
            let changed = at("c");
            copy(&at("a"), &changed).unwrap();
            change(&changed);
            assert!(compare(&at("a"), &changed).is_err());
            fs::remove_dir_all(changed).unwrap();
        };
        differs(&|tree| fs::write(tree.join("file"), b"bytez").unwrap());
        differs(&|tree| fs::remove_file(tree.join("link")).unwrap());
        differs(&|tree| fs::write(tree.join("new"), b"").unwrap());
        differs(&|tree| {
            fs::set_permissions(tree.join("deep"), fs::Permissions::from_mode(0o700)).unwrap()
        });
        differs(&|tree| {
            fs::remove_file(tree.join("other")).unwrap();
            fs::copy(at("a/file"), tree.join("other")).unwrap();
            stamp(&at("a/file"), &tree.join("other")).unwrap();
            stamp(&at("a"), tree).unwrap();
        });
    }
}
