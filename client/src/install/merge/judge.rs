//! What is to become of one path of a shared folder.

use std::io;

use content::EntryPath;
use content::index::{Entry, Kind};
use content::statement::HealMode;
use rustix::fs::Stat;

use super::apply::is_folder;
use crate::install::intact::looks_like;
use crate::install::rules::Rules;
use crate::plan::walk::Content;
use crate::tree::{self, Tree};

/// What becomes of a path of the new revision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// What is there stays, by its rule.
    Leave,
    /// It is put there. With `force`, a folder goes with all that it holds.
    Put {
        /// Whether it does.
        force: bool,
    },
    /// Somebody else's is in the way.
    Refuse,
    /// It is there already.
    Same,
}

/// Who decides.
pub(crate) struct Judge<'a> {
    /// The shared folder.
    pub(crate) tree: Tree,
    /// What the filesets say of paths that differ.
    pub(crate) rules: &'a Rules,
    /// Whether what others put there may be lost.
    pub(crate) replace: bool,
}

const PUT: Verdict = Verdict::Put { force: false };

impl Judge<'_> {
    /// What becomes of `entry` of the new revision, if filesets of ours, this one among them, have
    /// installed `known` at its path. `first_is_put` is told of hard links: whether the file that
    /// it is another name of is put.
    pub(crate) fn judge(
        &mut self,
        entry: &Entry,
        known: &[Entry],
        first_is_put: bool,
    ) -> io::Result<Verdict> {
        let Some(stat) = self.tree.stat(&entry.path)? else {
            return Ok(PUT);
        };
        let wants_folder = entry.kind == Kind::Folder;
        if is_folder(&stat) {
            let ours = known.iter().any(|known| known.kind == Kind::Folder);
            return Ok(match (wants_folder, self.replace) {
                (true, _) => Verdict::Same,
                (false, true) => Verdict::Put { force: true },
                (false, false) if ours => PUT,
                (false, false) => Verdict::Refuse,
            });
        }
        let mut intact = false;
        for known in known {
            if !self.is_as(&stat, known)? {
                continue;
            }
            intact = true;
            if !first_is_put && is_same(known, entry) {
                return Ok(Verdict::Same);
            }
        }
        Ok(if intact || self.replace {
            PUT
        } else {
            self.differs(entry, &stat, !known.is_empty())
        })
    }

    /// What becomes of a path that looks as no fileset left it.
    fn differs(&self, entry: &Entry, stat: &Stat, ours: bool) -> Verdict {
        let older = tree::mtime(stat) < entry.mtime;
        // A folder that is refused its place would leave its files without one.
        let keeps = |verdict| {
            if entry.kind == Kind::Folder {
                Verdict::Refuse
            } else {
                verdict
            }
        };
        match self.rules.mode(&entry.path) {
            HealMode::SelfHeal if ours => PUT,
            HealMode::OverwriteIfOlder if older => PUT,
            HealMode::NeverOverwrite | HealMode::OverwriteIfOlder => keeps(Verdict::Leave),
            HealMode::IfMissing | HealMode::LeaveBehind if ours => keeps(Verdict::Leave),
            HealMode::SelfHeal | HealMode::IfMissing | HealMode::LeaveBehind => Verdict::Refuse,
        }
    }

    /// Whether what was installed as `entry`, and is in no revision any more, is to be removed.
    pub(crate) fn goes(&mut self, entry: &Entry) -> io::Result<bool> {
        let Some(stat) = self.tree.stat(&entry.path)? else {
            return Ok(false);
        };
        if (entry.kind == Kind::Folder) != is_folder(&stat) {
            return Ok(false);
        }
        if entry.kind == Kind::Folder {
            return Ok(true);
        }
        let intact = self.is_as(&stat, entry)?;
        Ok(match self.rules.mode(&entry.path) {
            HealMode::SelfHeal | HealMode::IfMissing => true,
            HealMode::LeaveBehind => false,
            HealMode::NeverOverwrite => intact,
            HealMode::OverwriteIfOlder => intact || tree::mtime(&stat) < entry.mtime,
        })
    }

    /// Whether what is there (`stat`) looks as `entry` was installed.
    pub(crate) fn is_as(&mut self, stat: &Stat, entry: &Entry) -> io::Result<bool> {
        if !looks_like(stat, entry) {
            return Ok(false);
        }
        Ok(match &entry.kind {
            Kind::Symlink { target } => self.says(&entry.path, target)?,
            Kind::HardLink { target } => {
                let first = self.tree.stat(target)?;
                first.is_some_and(|first| first.st_ino == stat.st_ino)
            }
            Kind::File { .. } | Kind::Folder => true,
        })
    }

    /// Whether the link at `path` says `target`.
    pub(crate) fn says(&mut self, path: &EntryPath, target: &str) -> io::Result<bool> {
        let got = self.tree.read_link(path)?;
        Ok(got.as_bytes() == target.as_bytes())
    }
}

/// Whether two entries for a path come to the same thing on disk.
pub(crate) fn is_same(one: &Entry, other: &Entry) -> bool {
    let dressed = one.mode == other.mode && one.mtime == other.mtime;
    match (&one.kind, &other.kind) {
        (Kind::File { .. }, Kind::File { .. }) => {
            dressed && Content::of(&one.kind) == Content::of(&other.kind)
        }
        (Kind::Symlink { target: one_says }, Kind::Symlink { target }) => {
            one_says == target && one.mtime == other.mtime
        }
        (Kind::HardLink { target: first }, Kind::HardLink { target }) => first == target,
        (one, other) => one == other && matches!(one, Kind::Folder),
    }
}
