//! Carrying out the steps of a journal in a shared folder, and taking them back.
//!
//! A staged item and what it displaces change places: afterwards the staging folder holds what
//! was there before, until it is confirmed. Whether a step was done is told by what bears the
//! staged name, never by what stands at the path, which others may change at any time.

use std::io;
use std::path::Path;

use content::EntryPath;
use rustix::fs::{FileType, RenameFlags, Stat};
use rustix::io::Errno;
use tracing::warn;

use super::journal::{Journal, Op, staged_name};
use crate::steps::Steps;
use crate::tree::{self, Tree};

/// A shared folder and the staging folder that goes with it.
#[derive(Debug)]
pub(crate) struct Site<'s> {
    /// The shared folder.
    pub(crate) tree: Tree,
    /// The staging folder.
    pub(crate) staging: Tree,
    steps: &'s Steps,
}

/// A step that could not be done.
#[derive(Debug)]
pub(crate) struct Stuck {
    /// At which path.
    pub(crate) path: String,
    /// Why.
    pub(crate) source: io::Error,
}

impl<'s> Site<'s> {
    /// Opens both folders.
    pub(crate) fn open(target: &Path, staging: &Path, steps: &'s Steps) -> io::Result<Self> {
        Ok(Self {
            tree: Tree::open(target)?,
            staging: Tree::open(staging)?,
            steps,
        })
    }

    /// Carries out all of `journal`; steps that were done before are not done again.
    pub(crate) fn forward_all(&mut self, journal: &Journal) -> Result<(), Stuck> {
        (0..journal.len()).try_for_each(|at| self.step(journal, at, Self::forward))
    }

    /// Takes back all of `journal`, the last step first; those that were never done are left.
    pub(crate) fn undo_all(&mut self, journal: &Journal) -> Result<(), Stuck> {
        let undo = |site: &mut Self, op: &Op, path: &EntryPath| match site.undo(op, path) {
            // Others have removed what lay around it: there is no place to put it back to.
            Err(error) if tree::is_absent(&error) => {
                warn!(%path, "cannot take back a change: its folder is gone");
                Ok(())
            }
            undone => undone,
        };
        (0..journal.len())
            .rev()
            .try_for_each(|at| self.step(journal, at, undo))
    }

    fn step(
        &mut self,
        journal: &Journal,
        at: usize,
        run: impl Fn(&mut Self, &Op, &EntryPath) -> io::Result<()>,
    ) -> Result<(), Stuck> {
        let failed = |path: &str, source| Stuck {
            path: path.to_owned(),
            source,
        };
        let op = journal.op(at).map_err(|error| failed(".", error))?;
        let Some(path) = op.path() else {
            return Ok(());
        };
        run(self, &op, &path).map_err(|error| failed(path.as_str(), error))
    }

    fn forward(&mut self, op: &Op, path: &EntryPath) -> io::Result<()> {
        match op {
            Op::Put { inode, force, .. } => self.put(path, *inode, *force),
            Op::Remove { .. } => {
                let name = staged_name(path);
                if self.staging.stat(&name)?.is_some() || self.tree.stat(path)?.is_none() {
                    return Ok(());
                }
                self.steps.next()?;
                let flags = RenameFlags::NOREPLACE;
                self.tree.rename_to(path, &mut self.staging, &name, flags)
            }
            Op::Rmdir { .. } => {
                self.steps.next()?;
                self.remove_empty(path)
            }
            Op::Mode { after, .. } => self.chmod(path, *after),
            Op::End(_) => Ok(()),
        }
    }

    fn undo(&mut self, op: &Op, path: &EntryPath) -> io::Result<()> {
        match op {
            Op::Put {
                inode, displaces, ..
            } => self.take_back(path, *inode, *displaces),
            Op::Remove { .. } => {
                let name = staged_name(path);
                if self.staging.stat(&name)?.is_none() {
                    return Ok(());
                }
                self.steps.next()?;
                let flags = RenameFlags::NOREPLACE;
                match self.staging.rename_to(&name, &mut self.tree, path, flags) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        warn!(%path, "cannot put back a file: there is another by now");
                        Ok(())
                    }
                    renamed => renamed,
                }
            }
            Op::Rmdir { mode, .. } => {
                if self.tree.stat(path)?.is_some() {
                    return Ok(());
                }
                self.steps.next()?;
                self.tree.create_folder(path)?;
                self.tree.dress(path, *mode, None)
            }
            Op::Mode { before, .. } => self.chmod(path, *before),
            Op::End(_) => Ok(()),
        }
    }

    /// Puts what is staged for `path` in its place. What bore the name is staged afterwards; a
    /// folder with something in it is in the way, unless `force` says otherwise.
    pub(crate) fn put(&mut self, path: &EntryPath, inode: u64, force: bool) -> io::Result<()> {
        let name = staged_name(path);
        let staged = self.staging.stat(&name)?;
        if staged.is_none_or(|staged| staged.st_ino != inode) {
            return Ok(());
        }
        let flags = match self.tree.stat(path)? {
            None => RenameFlags::NOREPLACE,
            Some(there) => {
                if is_folder(&there) && !force && !self.tree.is_empty_folder(path)? {
                    return Err(io::Error::other(
                        "a folder with files of others is in the way",
                    ));
                }
                RenameFlags::EXCHANGE
            }
        };
        self.steps.next()?;
        self.staging.rename_to(&name, &mut self.tree, path, flags)?;
        self.tree.forget();
        Ok(())
    }

    /// Takes back what [`Self::put`] did, even if what it put there has been replaced since.
    fn take_back(&mut self, path: &EntryPath, inode: u64, displaces: bool) -> io::Result<()> {
        let name = staged_name(path);
        match self.staging.stat(&name)? {
            Some(staged) if staged.st_ino == inode => return Ok(()),
            Some(_) => {
                let there = self.tree.stat(path)?;
                self.steps.next()?;
                let flags = match there {
                    Some(there) if there.st_ino == inode => RenameFlags::EXCHANGE,
                    Some(there) => {
                        self.remove(path, &there)?;
                        self.steps.next()?;
                        RenameFlags::NOREPLACE
                    }
                    None => RenameFlags::NOREPLACE,
                };
                self.staging.rename_to(&name, &mut self.tree, path, flags)?;
            }
            // It is back already.
            None if displaces => {}
            None => {
                if let Some(there) = self.tree.stat(path)? {
                    self.steps.next()?;
                    self.remove(path, &there)?;
                }
            }
        }
        self.tree.forget();
        Ok(())
    }

    /// Removes what is at `path`, a folder only if it is empty.
    fn remove(&mut self, path: &EntryPath, there: &Stat) -> io::Result<()> {
        if is_folder(there) {
            self.remove_empty(path)
        } else {
            self.tree.remove_file(path)
        }
    }

    /// Removes the folder at `path`, if it is one, and empty.
    fn remove_empty(&mut self, path: &EntryPath) -> io::Result<()> {
        match self.tree.remove_folder(path) {
            Err(error) if tree::is_absent(&error) || is(&error, Errno::NOTEMPTY) => {}
            removed => removed?,
        }
        self.tree.forget();
        Ok(())
    }

    fn chmod(&mut self, path: &EntryPath, mode: u32) -> io::Result<()> {
        self.steps.next()?;
        match self.tree.dress(path, mode, None) {
            Err(error) if tree::is_absent(&error) => Ok(()),
            dressed => dressed,
        }
    }
}

/// Whether it is a folder.
pub(crate) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
