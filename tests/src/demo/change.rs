//! The second revision: a copy of the first with the changes of a usual release.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// What was done to the copy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// Files replaced by other real files.
    pub(super) replaced: usize,
    /// Files edited in the middle.
    pub(super) edited: usize,
    /// Files renamed.
    pub(super) renamed: usize,
    /// Files deleted.
    pub(super) deleted: usize,
}

/// Changes the copy in `tree`: replaces 1 % of its files by files from elsewhere, edits one of at
/// least 1 MiB in the middle, renames 20 and deletes 20.
///
/// # Errors
///
/// Fails if the tree is too small for that, or if there are no other real files at hand.
pub(super) fn change(tree: &Path) -> anyhow::Result<Changes> {
    let files = files_of(tree)?;
    ensure!(
        files.len() >= 200,
        "the folder has fewer than 200 files, which is too few to show changes"
    );
    let large = files
        .iter()
        .filter(|(_, size)| *size >= 1 << 20)
        .max_by_key(|(_, size)| *size)
        .context("the folder has no file of 1 MiB or more to edit")?;
    let mut rest = files
        .iter()
        .filter(|file| *file != large)
        .map(|(path, _)| path);
    // Spread over the tree, the same at every run.
    let step = (rest.clone().count() / (files.len() / 100 + 40)).max(1);
    let mut next = || rest.nth(step - 1).context("the folder has too few files");
    let wanted = (files.len() / 100).max(1);
    let others = other_files(wanted)?;
    for other in &others {
        fs::copy(other, next()?)?;
    }
    edit(&large.0)?;
    for _ in 0..CHANGED {
        rename(next()?)?;
    }
    for _ in 0..CHANGED {
        fs::remove_file(next()?)?;
    }
    Ok(Changes {
        replaced: others.len(),
        edited: 1,
        renamed: CHANGED,
        deleted: CHANGED,
    })
}

/// Renames 20 files, and does nothing else.
///
/// # Errors
///
/// Fails if the tree has fewer files.
pub(super) fn rename_only(tree: &Path) -> anyhow::Result<()> {
    let files = files_of(tree)?;
    ensure!(
        files.len() > CHANGED * 2,
        "the folder has too few files to rename"
    );
    let step = files.len() / CHANGED;
    files
        .iter()
        .step_by(step)
        .take(CHANGED)
        .try_for_each(|(path, _)| rename(path))
}

fn rename(path: &Path) -> anyhow::Result<()> {
    let mut name = path.file_name().context("a file has a name")?.to_owned();
    name.push(".renamed");
    Ok(fs::rename(path, path.with_file_name(name))?)
}

/// Puts a few bytes into the middle of a file, which moves all that follow.
fn edit(path: &Path) -> anyhow::Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes.splice(middle..middle, *b"a line that was not there before\n");
    Ok(fs::File::create(path)?.write_all(&bytes)?)
}

/// Real files that are not in the tree: sources of the crates that Larder is built from, and the
/// toolchain's own files.
fn other_files(wanted: usize) -> anyhow::Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for root in [
        cargo_home().join("registry/src"),
        super::source::sysroot()?.join("lib"),
    ] {
        if root.is_dir() && others.len() < wanted {
            others.extend(
                files_of(&root)?
                    .into_iter()
                    .filter(|(_, size)| *size < 4 << 20),
            );
        }
    }
    ensure!(
        !others.is_empty(),
        "there are no other real files to replace some with"
    );
    let step = (others.len() / wanted).max(1);
    Ok(others
        .into_iter()
        .map(|(path, _)| path)
        .step_by(step)
        .take(wanted)
        .collect())
}

fn cargo_home() -> PathBuf {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let home = std::env::var_os("HOME")
            .map(PathBuf::from)
            .unwrap_or_default();
        home.join(".cargo")
    })
}

/// The regular files below `root` with their sizes, in order.
fn files_of(root: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.is_file() {
                files.push((entry.path(), meta.len()));
            }
        }
    }
    files.sort();
    Ok(files)
}

const CHANGED: usize = 20;
