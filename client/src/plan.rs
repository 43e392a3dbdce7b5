//! What a pull has to do: which files stay, which chunks are at hand, which must be fetched.
//!
//! Memory is flat: the indexes are streamed and joined by path; what is kept is one bit for each
//! path, one for each needed chunk, and a bounded table of chunks that may lie in the installed
//! tree under another name.

pub(crate) mod bits;
pub(crate) mod walk;
mod wanted;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::index::{Entry, IndexRoot, Kind, Record};
use content::locator::{Locator, Place};
use content::plan::Needs;
use content::{ChunkId, ChunkRef, Digest, EntryPath};
use rustix::fs::Stat;

use crate::install::{room, stored};
use crate::tree::{self, Tree};
use bits::Bits;
use walk::{Content, Installed, Piece, Walk, WalkError};
use wanted::Wanted;

/// A revision that is to be installed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New<'a> {
    /// The file with its index.
    pub(crate) index: &'a Path,
    /// The root of the index.
    pub(crate) root: &'a IndexRoot,
    /// Where its chunks lie.
    pub(crate) locator: &'a Locator,
}

/// What is installed.
#[derive(Clone, Debug)]
pub(crate) struct Old {
    /// The file with its index.
    pub(crate) index: PathBuf,
    /// The tree.
    pub(crate) tree: PathBuf,
    /// Files of it that turned out not to be what the index says, though they look so.
    pub(crate) distrusted: BTreeSet<String>,
}

/// What has to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Regular files and hard links.
    pub(crate) files: u64,
    /// Paths of all kinds.
    pub(crate) entries: u64,
    /// Bytes that the installed tree already has, whole files or chunks.
    pub(crate) reused: u64,
    /// Bytes on disk that the new tree takes up beside the old one.
    pub(crate) new_bytes: u64,
    /// What is to be fetched.
    pub(crate) demand: Demand,
    keep: Bits,
    scope: Scope,
    wanted: Wanted,
}

/// What is to be fetched from each pack.
#[derive(Debug)]
pub(crate) struct Demand {
    needs: Needs,
    /// Packs of which the revision also names chunks that are not needed.
    partial: Bits,
    /// Plain bytes of the needed chunks, by pack.
    plain: Vec<u32>,
}

/// What of a revision is made, and how far the installed tree is believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// The paths that are made, by their number in the index; all if none are named.
    pub(crate) only: Option<Arc<Bits>>,
    /// Whether no file is believed by its look: its chunks are read before they are counted on.
    pub(crate) doubt: bool,
}

impl Scope {
    fn has(&self, ordinal: u64) -> bool {
        self.only.as_ref().is_none_or(|only| only.get(ordinal))
    }
}

/// What happens to one path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Choice {
    /// The file at the same path stays: its content is the same.
    Keep,
    /// It is put together out of chunks.
    Make,
    /// It is left out.
    Skip,
}

impl Plan {
    /// Compares `new` with what is installed, and the installed index with the installed tree.
    /// Only what is in `scope` will be made.
    pub(crate) fn make(new: New<'_>, old: Option<&Old>, scope: Scope) -> Result<Self, WalkError> {
        let mut plan = Self {
            bytes: 0,
            files: 0,
            entries: 0,
            reused: 0,
            new_bytes: 0,
            demand: Demand::nothing(new.locator.packs.len()),
            keep: Bits::default(),
            scope,
            wanted: Wanted::default(),
        };
        if let Some(old) = old {
            plan.compare(new, old)?;
            plan.wanted.seal();
            plan.look_elsewhere(old)?;
        }
        plan.count(new)?;
        Ok(plan)
    }

    /// What happens to the file that is path `ordinal` of the new index.
    pub(crate) fn choice(&self, ordinal: u64) -> Choice {
        if !self.scope.has(ordinal) {
            Choice::Skip
        } else if self.keep.get(ordinal) {
            Choice::Keep
        } else {
            Choice::Make
        }
    }

    /// Where in the installed tree the chunk called `id` lies, for files that are made.
    pub(crate) fn spot(&self, id: ChunkId) -> Option<(&EntryPath, u64)> {
        self.wanted.spot(id)
    }

    /// First walk: which files stay, and which chunks are wanted for the others.
    fn compare(&mut self, new: New<'_>, old: &Old) -> Result<(), WalkError> {
        let mut walk = Walk::open(new.index, new.root, new.locator)?;
        let mut installed = Installed::open(&old.index)?;
        let mut disk = Disk::open(old)?;
        let mut ordinal = 0;
        let mut making = false;
        while let Some(piece) = walk.next()? {
            if let Some(entry) = &piece.entry {
                let before = installed.find(&entry.path)?;
                let made = self.scope.has(ordinal);
                let kept = match (piece.content, before) {
                    (Some(content), Some(before))
                        if made
                            && !self.scope.doubt
                            && Content::of(&before.kind) == Some(content) =>
                    {
                        disk.stat(before)
                    }
                    (Some(_) | None, Some(_) | None) => None,
                };
                making = made && piece.content.is_some() && kept.is_none();
                if let Some(stat) = kept {
                    self.keep.set(ordinal);
                    self.new_bytes += cost_of_keeping(&stat, entry);
                }
                ordinal += 1;
            }
            if making {
                piece
                    .chunks
                    .iter()
                    .for_each(|chunk| self.wanted.want(chunk.id));
            }
        }
        Ok(())
    }

    /// Second walk: where in the installed tree the wanted chunks lie.
    fn look_elsewhere(&mut self, old: &Old) -> Result<(), WalkError> {
        let mut installed = Installed::open(&old.index)?;
        let mut disk = Disk::open(old)?;
        let mut file = None;
        while let Some(record) = installed.next_record()? {
            let chunks = match record {
                Record::Entry(mut entry) => match &mut entry.kind {
                    Kind::File { chunks, .. } => {
                        let chunks = std::mem::take(chunks);
                        file = Some(OldFile::new(entry));
                        chunks
                    }
                    Kind::Folder | Kind::HardLink { .. } | Kind::Symlink { .. } => continue,
                },
                Record::Chunks { chunks, more: _ } => chunks,
                Record::Head(_) => continue,
            };
            if let Some(file) = &mut file {
                file.find(&chunks, &mut self.wanted, &mut disk, self.scope.doubt);
            }
        }
        Ok(())
    }

    /// Third walk: what must be fetched, and the sums.
    fn count(&mut self, new: New<'_>) -> Result<(), WalkError> {
        let mut walk = Walk::open(new.index, new.root, new.locator)?;
        let zeros = zero_chunk();
        let mut ordinal = 0;
        let mut choice = Choice::Make;
        while let Some(piece) = walk.next()? {
            if let Some(entry) = &piece.entry {
                choice = self.choice(ordinal);
                ordinal += 1;
                self.add_up(entry, piece.content, choice);
            }
            match choice {
                Choice::Keep | Choice::Skip => piece
                    .places
                    .iter()
                    .for_each(|&place| self.demand.spare(place)),
                Choice::Make => self.add_chunks(&piece, zeros),
            }
        }
        self.entries = ordinal;
        Ok(())
    }

    fn add_up(&mut self, entry: &Entry, content: Option<Content>, choice: Choice) {
        match (&entry.kind, content) {
            (Kind::HardLink { .. }, _) => self.files += 1,
            (_, Some(content)) => {
                self.files += 1;
                self.bytes += content.size;
                match choice {
                    Choice::Keep | Choice::Skip => self.reused += content.size,
                    // Its last block is on the average half empty.
                    Choice::Make => self.new_bytes += room::blocks(1) / 2,
                }
            }
            (Kind::File { .. } | Kind::Folder | Kind::Symlink { .. }, None) => {
                if choice == Choice::Make {
                    self.new_bytes += room::blocks(1);
                }
            }
        }
    }

    fn add_chunks(&mut self, piece: &Piece, zeros: ChunkId) {
        for (chunk, &place) in piece.chunks.iter().zip(&piece.places) {
            if chunk.id != zeros {
                self.new_bytes += u64::from(chunk.length);
            }
            if self.wanted.spot(chunk.id).is_some() {
                self.reused += u64::from(chunk.length);
                self.demand.spare(place);
            } else {
                self.demand.add(place, *chunk);
            }
        }
    }
}

impl Demand {
    /// Nothing, of a locator with that many packs.
    pub(crate) fn nothing(packs: usize) -> Self {
        Self {
            needs: Needs::nothing(packs),
            partial: Bits::default(),
            plain: vec![0; packs],
        }
    }

    /// Needs `chunk`, which lies at `place`.
    pub(crate) fn add(&mut self, place: Place, chunk: ChunkRef) {
        if !self.needs.contains(place) {
            self.needs.add(place);
            // A pack has at most 8192 chunks of 256 KiB: 2 GiB.
            self.plain[place.pack as usize] += chunk.length;
        }
    }

    /// Takes note that the revision names the chunk at `place`, and that it is not needed.
    pub(crate) fn spare(&mut self, place: Place) {
        self.partial.set(u64::from(place.pack));
    }

    /// The chunks that are needed.
    pub(crate) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Whether all that the revision names of pack `pack` is needed.
    pub(crate) fn is_whole(&self, pack: u32) -> bool {
        !self.partial.get(u64::from(pack))
    }

    /// About how many bytes will be fetched: what is needed, unpacked, and at most the packs.
    pub(crate) fn bytes(&self, locator: &Locator) -> u64 {
        let packs = self.needs.packs().map(|pack| {
            let entry = &locator.packs[pack as usize];
            let plain = u64::from(self.plain[pack as usize]) + u64::from(entry.header_bytes);
            plain.min(u64::from(entry.total_bytes))
        });
        packs.sum()
    }
}

/// The tree beside its index.
struct Disk<'a> {
    old: &'a Old,
    tree: Tree,
    open: Option<(EntryPath, File)>,
    buffer: Vec<u8>,
}

impl<'a> Disk<'a> {
    fn open(old: &'a Old) -> Result<Self, WalkError> {
        let tree = Tree::open(&old.tree).map_err(|source| WalkError::Io { source })?;
        Ok(Self {
            old,
            tree,
            open: None,
            buffer: Vec::new(),
        })
    }

    /// What is on disk where `entry` was installed, if it still looks as it was left.
    fn stat(&mut self, entry: &Entry) -> Option<Stat> {
        if self.old.distrusted.contains(entry.path.as_str()) {
            return None;
        }
        let size = Content::of(&entry.kind)?.size;
        let stat = self.tree.stat(&entry.path).ok()??;
        let same =
            tree::is_file(&stat) && tree::size(&stat) == size && tree::mtime(&stat) == entry.mtime;
        same.then_some(stat)
    }

    /// Whether the file at `path` holds `chunk` at `offset`, whatever the file looks like.
    fn holds(&mut self, path: &EntryPath, offset: u64, chunk: ChunkRef) -> bool {
        if self.old.distrusted.contains(path.as_str()) {
            return false;
        }
        let open = self.open.take().filter(|(open, _)| open == path);
        let open = open.or_else(|| Some((path.clone(), self.tree.open_file(path).ok()?)));
        let Some(open) = open else {
            return false;
        };
        let file = &self.open.insert(open).1;
        stored::read(file, offset, chunk, &mut self.buffer).is_some()
    }
}

/// A file of the installed tree that may hold wanted chunks.
struct OldFile {
    entry: Entry,
    offset: u64,
    /// Which path it is among those that hold some: found out with the first hit.
    path: Option<Option<u32>>,
}

impl OldFile {
    fn new(entry: Entry) -> Self {
        Self {
            entry,
            offset: 0,
            path: None,
        }
    }

    fn find(&mut self, chunks: &[ChunkRef], wanted: &mut Wanted, disk: &mut Disk<'_>, doubt: bool) {
        for chunk in chunks {
            let offset = self.offset;
            self.offset += u64::from(chunk.length);
            if !wanted.is_missing(chunk.id) {
                continue;
            }
            let entry = &self.entry;
            if doubt && !disk.holds(&entry.path, offset, *chunk) {
                continue;
            }
            let path = *self.path.get_or_insert_with(|| {
                if !doubt {
                    disk.stat(entry)?;
                }
                wanted.add_path(&entry.path)
            });
            if let Some(path) = path {
                wanted.found(chunk.id, path, offset);
            }
        }
    }
}

/// Whether a kept file can stay the very same one on disk: only if everything about it is equal,
/// it belongs to us, and it bears no second name that somebody could be using.
pub(crate) fn can_link(stat: &Stat, entry: &Entry) -> bool {
    tree::mode(stat) == entry.mode
        && tree::mtime(stat) == entry.mtime
        && stat.st_nlink == 1
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_gid == rustix::process::getegid().as_raw()
}

fn cost_of_keeping(stat: &Stat, entry: &Entry) -> u64 {
    if can_link(stat, entry) {
        0
    } else {
        room::blocks(tree::size(stat))
    }
}

/// The chunk that long holes are made of.
fn zero_chunk() -> ChunkId {
    let bytes = vec![0; content::chunker::Profile::Content.bytes_max()];
    ChunkId(Digest::of(&bytes))
}
