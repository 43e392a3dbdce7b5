//! Looking over a shared folder: what a new revision puts there, and what goes.
//!
//! Once before anything is fetched, to know what is wanted and who is in the way; and once when
//! everything is staged, to write the journal. The indexes are streamed and joined by path.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use content::EntryPath;
use content::index::{Entry, Kind, Record};

use super::apply::is_folder;
use super::journal::{JournalWriter, Op, staged_name};
use super::judge::{Judge, Verdict};
use super::others::{Holders, Others};
use crate::install::build::{OPEN_MODE, is_past};
use crate::install::foreign::Foreign;
use crate::install::rules::Rules;
use crate::plan::bits::Bits;
use crate::plan::walk::{Installed, WalkError};
use crate::tree::{self, Tree};

/// A shared folder, what is installed in it and what is to be.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// The folder.
    pub(crate) target: &'a Path,
    /// The new revision's index; none if everything goes.
    pub(crate) new: Option<&'a Path>,
    /// The index of what is installed.
    pub(crate) old: Option<PathBuf>,
    /// What other filesets have installed there.
    pub(crate) others: &'a Others,
    /// What is said of paths that differ.
    pub(crate) rules: &'a Rules,
    /// Whether what others put there may be lost.
    pub(crate) replace: bool,
}

/// What a first look finds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The paths that are put, by their number in the new index.
    pub(crate) put: Bits,
    /// What is in the way.
    pub(crate) refused: Foreign,
}

impl Scene<'_> {
    /// Looks before anything is fetched.
    pub(crate) fn survey(&self) -> Result<Survey, WalkError> {
        let mut survey = Survey::default();
        self.walk_new(|ordinal, entry, verdict, _| {
            match verdict {
                Verdict::Put { .. } => survey.put.set(ordinal),
                Verdict::Refuse => survey.refused.add(entry.path.as_str().to_owned()),
                Verdict::Leave | Verdict::Same => {}
            }
            Ok(())
        })?;
        Ok(survey)
    }

    /// Writes the journal to `path`, of what lies ready in `staging` and of what goes. What has
    /// come into the way since is given back; then the journal is not finished.
    pub(crate) fn write(&self, staging: &Path, path: &Path) -> Result<Foreign, WalkError> {
        let mut writer = JournalWriter::create(path).map_err(io_error)?;
        let mut emptied = PathSet::default();
        self.walk_gone(|op, path| {
            if matches!(op, Op::Rmdir { .. }) {
                emptied.add(path);
            }
            writer.push(&op).map_err(io_error)
        })?;
        let mut staged = Tree::open(staging).map_err(io_error)?;
        let mut refused = Foreign::default();
        let mut closing = Closing::default();
        self.walk_new(|_, entry, verdict, judge| {
            closing.close(Some(&entry.path), &mut writer)?;
            match verdict {
                Verdict::Put { force } => {
                    let found = staged.stat(&staged_name(&entry.path)).map_err(io_error)?;
                    // It was not wanted at the first look: what has gone since is for healing.
                    let Some(found) = found else { return Ok(()) };
                    let before = judge.tree.stat(&entry.path).map_err(io_error)?;
                    closing.open(entry);
                    writer
                        .push(&Op::Put {
                            path: entry.path.as_str().to_owned(),
                            inode: found.st_ino,
                            // What stands there now may be removed by a step before.
                            displaces: before.is_some() && !emptied.contains(&entry.path),
                            force,
                        })
                        .map_err(io_error)
                }
                Verdict::Refuse => {
                    refused.add(entry.path.as_str().to_owned());
                    Ok(())
                }
                Verdict::Leave | Verdict::Same => Ok(()),
            }
        })?;
        closing.close(None, &mut writer)?;
        self.walk_modes(|op| writer.push(&op).map_err(io_error))?;
        if refused.count == 0 {
            writer.finish().map_err(io_error)?;
        }
        Ok(refused)
    }

    fn judge(&self) -> Result<Judge<'_>, WalkError> {
        Ok(Judge {
            tree: Tree::open(self.target).map_err(io_error)?,
            rules: self.rules,
            replace: self.replace,
        })
    }

    /// Goes through the new revision with what is to become of each path.
    fn walk_new(
        &self,
        mut each: impl FnMut(u64, &Entry, Verdict, &mut Judge<'_>) -> Result<(), WalkError>,
    ) -> Result<(), WalkError> {
        let Some(new) = self.new else { return Ok(()) };
        let mut judge = self.judge()?;
        let mut index = Installed::open(new)?;
        let mut old = self.old.as_deref().map(Installed::open).transpose()?;
        let mut holders = self.others.open()?;
        let mut put = PathSet::default();
        let mut ordinal = 0;
        while let Some(record) = index.next_record()? {
            let Record::Entry(entry) = record else {
                continue;
            };
            if entry.path.as_str().starts_with(OURS) {
                return Err(io_error(io::Error::other(format!(
                    "a revision with a path {OURS}… cannot be merged: the name is ours"
                ))));
            }
            let mut known = holders.find(&entry.path)?;
            if let Some(old) = &mut old {
                known.extend(old.find(&entry.path)?.cloned());
            }
            let first_is_put =
                matches!(&entry.kind, Kind::HardLink { target } if put.contains(target));
            let verdict = judge
                .judge(&entry, &known, first_is_put)
                .map_err(io_error)?;
            if matches!(verdict, Verdict::Put { .. }) {
                put.add(&entry.path);
            }
            each(ordinal, &entry, verdict, &mut judge)?;
            ordinal += 1;
        }
        Ok(())
    }

    /// Goes through what the new revision lacks and no other fileset has, folders after what they
    /// hold.
    fn walk_gone(
        &self,
        mut each: impl FnMut(Op, &EntryPath) -> Result<(), WalkError>,
    ) -> Result<(), WalkError> {
        let Some(old) = self.old.as_deref() else {
            return Ok(());
        };
        let mut judge = self.judge()?;
        let mut old = Installed::open(old)?;
        let mut new = self.new.map(Installed::open).transpose()?;
        let mut holders = self.others.open()?;
        let mut folders: Vec<(EntryPath, Op)> = Vec::new();
        while let Some(record) = old.next_record()? {
            let Record::Entry(entry) = record else {
                continue;
            };
            while let Some((path, op)) =
                folders.pop_if(|(folder, _)| is_past(folder.as_str(), entry.path.as_str()))
            {
                each(op, &path)?;
            }
            if let Some(op) = gone(&entry, new.as_mut(), &mut holders, &mut judge)? {
                match op {
                    Op::Rmdir { .. } => folders.push((entry.path, op)),
                    op @ (Op::End(_) | Op::Mode { .. } | Op::Put { .. } | Op::Remove { .. }) => {
                        each(op, &entry.path)?;
                    }
                }
            }
        }
        while let Some((path, op)) = folders.pop() {
            each(op, &path)?;
        }
        Ok(())
    }

    /// Goes through the folders that both revisions have and that stand as the old one left them,
    /// where the new one gives them another mode.
    fn walk_modes(
        &self,
        mut each: impl FnMut(Op) -> Result<(), WalkError>,
    ) -> Result<(), WalkError> {
        let (Some(new), Some(old)) = (self.new, self.old.as_deref()) else {
            return Ok(());
        };
        let mut tree = Tree::open(self.target).map_err(io_error)?;
        let (mut new, mut old) = (Installed::open(new)?, Installed::open(old)?);
        while let Some(record) = new.next_record()? {
            let Record::Entry(entry) = record else {
                continue;
            };
            if entry.kind != Kind::Folder {
                continue;
            }
            let before = old.find(&entry.path)?;
            let before = before.filter(|before| before.kind == Kind::Folder);
            let Some(before) = before.filter(|before| before.mode != entry.mode) else {
                continue;
            };
            let stat = tree.stat(&entry.path).map_err(io_error)?;
            if stat.is_some_and(|stat| is_folder(&stat) && tree::mode(&stat) == before.mode) {
                each(Op::Mode {
                    path: entry.path.as_str().to_owned(),
                    before: before.mode,
                    after: entry.mode,
                })?;
            }
        }
        Ok(())
    }
}

/// How what was installed as `entry` goes, if it does.
fn gone(
    entry: &Entry,
    new: Option<&mut Installed>,
    holders: &mut Holders,
    judge: &mut Judge<'_>,
) -> Result<Option<Op>, WalkError> {
    let folder = entry.kind == Kind::Folder;
    if let Some(new) = new
        && let Some(stays) = new.find(&entry.path)?
        && (!folder || stays.kind == Kind::Folder)
    {
        return Ok(None);
    }
    if !holders.find(&entry.path)?.is_empty() || !judge.goes(entry).map_err(io_error)? {
        return Ok(None);
    }
    let path = entry.path.as_str().to_owned();
    Ok(Some(if folder {
        Op::Rmdir {
            path,
            mode: entry.mode,
        }
    } else {
        Op::Remove { path }
    }))
}

/// Folders that are put and still open to us: they get their mode when they are full.
#[derive(Debug, Default)]
struct Closing(Vec<(EntryPath, u32)>);

impl Closing {
    fn open(&mut self, entry: &Entry) {
        if entry.kind == Kind::Folder && entry.mode & OPEN_MODE != OPEN_MODE {
            self.0.push((entry.path.clone(), entry.mode));
        }
    }

    fn close(
        &mut self,
        next: Option<&EntryPath>,
        writer: &mut JournalWriter,
    ) -> Result<(), WalkError> {
        while let Some((path, mode)) = self
            .0
            .pop_if(|(folder, _)| next.is_none_or(|next| is_past(folder.as_str(), next.as_str())))
        {
            let op = Op::Mode {
                path: path.as_str().to_owned(),
                before: mode | OPEN_MODE,
                after: mode,
            };
            writer.push(&op).map_err(io_error)?;
        }
        Ok(())
    }
}

/// A set of paths, as hashes under a random key: two that collide cannot be found on purpose, and
/// would cost one needless copy.
#[derive(Debug, Default)]
pub(crate) struct PathSet {
    hashes: HashSet<u64>,
    key: RandomState,
}

impl PathSet {
    /// Adds `path`.
    pub(crate) fn add(&mut self, path: &EntryPath) {
        self.hashes.insert(self.key.hash_one(path.as_str()));
    }

    /// Whether `path` is in it.
    pub(crate) fn contains(&self, path: &EntryPath) -> bool {
        self.contains_text(path.as_str())
    }

    /// Whether the path `text` is in it.
    pub(crate) fn contains_text(&self, text: &str) -> bool {
        self.hashes.contains(&self.key.hash_one(text))
    }
}

fn io_error(source: io::Error) -> WalkError {
    WalkError::Io { source }
}

/// How the names of our own folders in a shared folder begin.
pub(crate) const OURS: &str = ".larder-";
