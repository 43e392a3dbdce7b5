//! Building the new tree in the staging folder.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use content::index::{Entry, Kind};
use content::locator::Place;
use content::{Chunk, ChunkRef, EntryPath};
use rustix::fs;
use thiserror::Error;

use super::merge::journal::staged_name;
use super::write::{FileWriter, Shape, dress};
use crate::fetch::reader::{PackReader, ReadError};
use crate::plan::walk::{Content, Piece, Walk, WalkError};
use crate::plan::{self, Choice, New, Old, Plan};
use crate::progress::Progress;
use crate::steps::Steps;
use crate::tree::{self, Tree};

/// What building needs besides the revision.
pub(crate) struct Parts<'a> {
    /// The staging folder: there, and empty.
    pub(crate) staging: &'a Path,
    /// What is installed.
    pub(crate) old: Option<&'a Old>,
    /// What is to be done.
    pub(crate) plan: &'a Plan,
    /// Where fetched chunks come from.
    pub(crate) packs: PackReader,
    /// Who watches.
    pub(crate) progress: &'a Progress,
    /// Whether everything is staged in one folder, under names made of the paths.
    pub(crate) flat: bool,
    /// Where tests end the world.
    pub(crate) steps: &'a Steps,
}

/// Builds `new` in the staging folder. Says which files of the installed tree turned out not to be
/// what its index says: if there are any, the new tree is not whole and must be planned anew.
pub(crate) fn build(new: New<'_>, parts: Parts<'_>) -> Result<BTreeSet<String>, BuildError> {
    let staging = Tree::open(parts.staging).map_err(|source| BuildError::Staging { source })?;
    let old = parts.old.map(OldFiles::open).transpose();
    let mut builder = Builder {
        staging,
        old: old.map_err(|source| BuildError::Old { source })?,
        plan: parts.plan,
        packs: parts.packs,
        progress: parts.progress,
        flat: parts.flat,
        steps: parts.steps,
        folders: Vec::new(),
        file: None,
        damaged: BTreeSet::new(),
    };
    let mut walk = Walk::open(new.index, new.root, new.locator)?;
    let mut ordinal = 0;
    while let Some(piece) = walk.next()? {
        if let Some(entry) = &piece.entry {
            builder.begin_any(entry, piece.content, ordinal)?;
            ordinal += 1;
        }
        builder.fill(&piece)?;
    }
    builder.end_file()?;
    builder.close_folders(None)?;
    Ok(builder.damaged)
}

struct Builder<'a> {
    staging: Tree,
    old: Option<OldFiles>,
    plan: &'a Plan,
    packs: PackReader,
    progress: &'a Progress,
    flat: bool,
    steps: &'a Steps,
    /// Folders that later paths may still lie in, the innermost last: they get mode and time when
    /// they are full.
    folders: Vec<Entry>,
    file: Option<OpenFile>,
    damaged: BTreeSet<String>,
}

/// The file whose chunks come next.
struct OpenFile {
    path: EntryPath,
    /// Whether it is copied from the same path of the installed tree.
    kept: bool,
    writer: FileWriter,
}

impl Builder<'_> {
    /// Makes what `entry` says, if it is to be made.
    fn begin_any(
        &mut self,
        entry: &Entry,
        content: Option<Content>,
        ordinal: u64,
    ) -> Result<(), BuildError> {
        if self.plan.choice(ordinal) != Choice::Skip {
            return self.begin(entry, content, ordinal);
        }
        self.end_file()?;
        self.progress
            .written(content.map_or(0, |content| content.size));
        Ok(())
    }

    /// What `path` is called in the staging folder.
    fn staged<'p>(&self, path: &'p EntryPath) -> Cow<'p, EntryPath> {
        if self.flat {
            Cow::Owned(staged_name(path))
        } else {
            Cow::Borrowed(path)
        }
    }

    /// Makes another name of the file at `target`, which is staged or stays as it is installed.
    fn link(&mut self, path: &EntryPath, target: &EntryPath) -> io::Result<()> {
        // A damaged file was not made, so its other names cannot be either.
        if self.damaged.contains(target.as_str()) {
            self.damaged.insert(path.as_str().to_owned());
            return Ok(());
        }
        let (name, first) = (self.staged(path), self.staged(target));
        match (self.staging.create_hard_link(&name, &first), &mut self.old) {
            (Err(error), Some(old)) if self.flat && tree::is_absent(&error) => {
                self.staging.link_from(&mut old.tree, target, &name)
            }
            (linked, _) => linked,
        }
    }

    /// Makes what `entry` says, and leaves a file open to be filled.
    fn begin(
        &mut self,
        entry: &Entry,
        content: Option<Content>,
        ordinal: u64,
    ) -> Result<(), BuildError> {
        self.end_file()?;
        self.close_folders(Some(&entry.path))?;
        let path = &entry.path;
        let failed = |source| BuildError::Write {
            path: path.clone(),
            source,
        };
        self.steps.next().map_err(failed)?;
        let name = self.staged(path);
        match (&entry.kind, content) {
            (Kind::Folder, _) if self.flat => {
                // Its children come into it when it is in its place: until then it is open to us.
                let mode = entry.mode | OPEN_MODE;
                self.staging
                    .create_folder(&name)
                    .and_then(|()| self.staging.dress(&name, mode, Some(entry.mtime)))
                    .map_err(failed)
            }
            (Kind::Folder, _) => {
                self.staging.create_folder(&name).map_err(failed)?;
                self.folders.push(entry.clone());
                Ok(())
            }
            (Kind::Symlink { target }, _) => self
                .staging
                .create_link(&name, target, entry.mtime)
                .map_err(failed),
            (Kind::HardLink { target }, _) => self.link(path, target).map_err(failed),
            (Kind::File { .. }, Some(content)) => {
                self.begin_file(entry, content, ordinal).map_err(failed)
            }
            (Kind::File { .. }, None) => Ok(()),
        }
    }

    fn begin_file(&mut self, entry: &Entry, content: Content, ordinal: u64) -> io::Result<()> {
        let kept = self.plan.choice(ordinal) == Choice::Keep;
        let shape = Shape {
            size: content.size,
            digest: content.digest,
            mode: entry.mode,
            mtime: entry.mtime,
        };
        if kept && self.keep(entry, &shape)? {
            self.progress.written(content.size);
            return Ok(());
        }
        let file = self.staging.create_file(&self.staged(&entry.path))?;
        self.file = Some(OpenFile {
            path: entry.path.clone(),
            kept,
            writer: FileWriter::new(file, shape),
        });
        Ok(())
    }

    /// Takes over a whole file without reading it, if that is allowed and possible.
    fn keep(&mut self, entry: &Entry, shape: &Shape) -> io::Result<bool> {
        let name = self.staged(&entry.path);
        let Some(old) = &mut self.old else {
            return Ok(false);
        };
        // It may have changed since it was planned: then its copy will show that.
        let Ok(Some(stat)) = old.tree.stat(&entry.path) else {
            return Ok(false);
        };
        let same = tree::is_file(&stat) && tree::size(&stat) == shape.size;
        if same
            && plan::can_link(&stat, entry)
            && self
                .staging
                .link_from(&mut old.tree, &entry.path, &name)
                .is_ok()
        {
            return Ok(true);
        }
        if !same || old.no_clones {
            return Ok(false);
        }
        let Ok(source) = old.tree.open_file(&entry.path) else {
            return Ok(false);
        };
        let file = self.staging.create_file(&name)?;
        if fs::ioctl_ficlone(&file, &source).is_ok() {
            dress(&file, shape)?;
            return Ok(true);
        }
        // A file system that cannot once cannot ever: spare it the next million questions.
        old.no_clones = true;
        self.staging.remove_file(&name)?;
        Ok(false)
    }

    /// Adds the chunks of `piece` to the open file.
    fn fill(&mut self, piece: &Piece) -> Result<(), BuildError> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        for (&chunk, &place) in piece.chunks.iter().zip(&piece.places) {
            if file.writer.push_known(chunk.id) {
                self.progress.written(u64::from(chunk.length));
                continue;
            }
            let failed = |source| BuildError::Write {
                path: file.path.clone(),
                source,
            };
            self.steps.next().map_err(failed)?;
            if !self.put(&mut file, chunk, place)? {
                // The file is given up; the others go on, so that all the damage is found at once.
                drop(file);
                return Ok(());
            }
            self.progress.written(u64::from(chunk.length));
        }
        self.file = Some(file);
        Ok(())
    }

    /// Adds one chunk; false if the installed tree does not hold it though it should.
    fn put(
        &mut self,
        file: &mut OpenFile,
        wanted: ChunkRef,
        place: Place,
    ) -> Result<bool, BuildError> {
        let path = file.path.clone();
        let failed = |source| BuildError::Write { path, source };
        let spot = if file.kept {
            Some((file.path.clone(), file.writer.offset()))
        } else {
            let spot = self.plan.spot(wanted.id);
            spot.map(|(path, offset)| (path.clone(), offset))
        };
        let Some((source, offset)) = spot else {
            let chunk = self.packs.chunk(place, wanted)?;
            return file.writer.push(chunk).map(|()| true).map_err(failed);
        };
        let old = self.old.as_mut();
        match old.and_then(|old| old.chunk(&source, offset, wanted)) {
            Some(chunk) => file.writer.push(chunk).map(|()| true).map_err(failed),
            None => {
                self.damaged.insert(source.as_str().to_owned());
                self.damaged.insert(file.path.as_str().to_owned());
                Ok(false)
            }
        }
    }

    fn end_file(&mut self) -> Result<(), BuildError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let path = file.path;
        file.writer
            .finish()
            .map_err(|source| BuildError::Write { path, source })
    }

    /// Finishes the folders that nothing from `next` on lies in; all of them at the end.
    fn close_folders(&mut self, next: Option<&EntryPath>) -> Result<(), BuildError> {
        while let Some(folder) = self
            .folders
            .pop_if(|folder| next.is_none_or(|next| is_past(folder.path.as_str(), next.as_str())))
        {
            let shape = Shape {
                size: 0,
                digest: None,
                mode: folder.mode,
                mtime: folder.mtime,
            };
            let opened = self.staging.open_folder(Some(folder.path.as_str()));
            opened
                .and_then(|opened| dress(&File::from(opened), &shape))
                .map_err(|source| BuildError::Write {
                    path: folder.path,
                    source,
                })?;
        }
        Ok(())
    }
}

/// Whether everything below `folder` sorts before `path`.
pub(crate) fn is_past(folder: &str, path: &str) -> bool {
    match path.as_bytes().strip_prefix(folder.as_bytes()) {
        Some(rest) => rest.first().is_some_and(|&byte| byte > b'/'),
        None => true,
    }
}

/// Files of the installed tree, to take chunks from.
struct OldFiles {
    tree: Tree,
    open: Option<(EntryPath, File)>,
    buffer: Vec<u8>,
    /// Whether the file system has shown that it cannot clone.
    no_clones: bool,
}

impl OldFiles {
    fn open(old: &Old) -> io::Result<Self> {
        Ok(Self {
            tree: Tree::open(&old.tree)?,
            open: None,
            buffer: Vec::new(),
            no_clones: false,
        })
    }

    /// The chunk that should be in the file at `path`; none if anything else is there.
    fn chunk(&mut self, path: &EntryPath, offset: u64, wanted: ChunkRef) -> Option<Chunk<'_>> {
        let open = self.open.take().filter(|(open, _)| open == path);
        let open = match open {
            Some(open) => open,
            None => (path.clone(), self.tree.open_file(path).ok()?),
        };
        let file = &self.open.insert(open).1;
        self.buffer.resize(wanted.length as usize, 0);
        file.read_exact_at(&mut self.buffer, offset).ok()?;
        Chunk::verify(&self.buffer, wanted.id).ok()
    }
}

/// Why the new tree could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The installed tree cannot be opened.
    #[error("cannot open the installed tree")]
    Old {
        /// Why.
        source: io::Error,
    },
    /// A chunk cannot be had from the packs.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The staging folder cannot be opened.
    #[error("cannot open the staging folder")]
    Staging {
        /// Why.
        source: io::Error,
    },
    /// The index cannot be gone through.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A path cannot be made.
    #[error("cannot write {path}")]
    Write {
        /// The path.
        path: EntryPath,
        /// Why.
        source: io::Error,
    },
}

/// What a folder is open to while it is being filled: its owner.
pub(crate) const OPEN_MODE: u32 = 0o700;
