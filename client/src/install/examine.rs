//! Holding what is installed against its index, to the last byte.

mod pace;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use content::ChunkRef;
use content::index::{Entry, Kind, Record};
use content::statement::HealMode;
use rustix::fs::{FileType, Stat};
use serde::Serialize;

pub(crate) use pace::{Pace, Stop};

use super::merge::judge::{Judge, is_same};
use super::merge::others::{Holders, Others};
use super::merge::survey::PathSet;
use super::rules::Rules;
use super::stored;
use crate::plan::bits::Bits;
use crate::plan::walk::{Installed, WalkError};
use crate::tree::{self, Tree};

/// What is examined.
#[derive(Debug)]
pub(crate) struct Examination<'a> {
    /// The folder.
    pub(crate) target: &'a Path,
    /// The index of what is installed there.
    pub(crate) index: &'a Path,
    /// Whether others have files there too: then folders are only looked for.
    pub(crate) shared: bool,
    /// What other filesets have installed there.
    pub(crate) others: &'a Others,
    /// What is to become of paths that differ.
    pub(crate) rules: &'a Rules,
}

/// What an examination found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Paths that were looked at.
    pub(crate) checked: u64,
    /// Bytes that were read.
    pub(crate) bytes: u64,
    /// Paths that differ and by their rules should not.
    pub(crate) damaged: u64,
    /// Paths that differ and by their rules may.
    pub(crate) kept: u64,
    /// The first of both, in order.
    pub(crate) differences: Vec<Difference>,
    /// The paths that have to be put there anew, by their number in the index.
    pub(crate) make: Bits,
    /// Those that only get their mode and time back.
    pub(crate) dress: Bits,
}

/// A path that is not as it was installed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Difference {
    /// Where.
    pub path: String,
    /// How.
    pub kind: DifferenceKind,
    /// What has become of it.
    pub fate: Fate,
}

/// How a path differs from the index.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// The file holds something else.
    Content,
    /// The link leads elsewhere, or the hard link is another file.
    Link,
    /// Nothing is there.
    Missing,
    /// Its permissions are others.
    Mode,
    /// It was modified at another time, though it holds the same.
    Time,
    /// It is something else: a folder in the place of a file, for example.
    Type,
}

/// What has become of a path that differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is as it was installed again.
    Healed,
    /// Its rule keeps it.
    Kept,
    /// It is damage, and still there.
    Left,
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Content => "content",
            Self::Link => "link",
            Self::Missing => "missing",
            Self::Mode => "mode",
            Self::Time => "time",
            Self::Type => "type",
        })
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healed => "healed",
            Self::Kept => "kept",
            Self::Left => "damaged",
        })
    }
}

impl Examination<'_> {
    /// Examines every path, as fast as `pace` allows.
    pub(crate) fn run(&self, pace: &mut Pace) -> Result<Findings, WalkError> {
        let judge = Judge {
            tree: Tree::open(self.target).map_err(io_error)?,
            rules: self.rules,
            replace: false,
        };
        let mut examiner = Examiner {
            judge,
            shared: self.shared,
            findings: Findings::default(),
            made: PathSet::default(),
            reading: None,
            buffer: Vec::new(),
            pace,
        };
        let mut installed = Installed::open(self.index)?;
        let mut holders = self.others.open()?;
        let mut ordinal = 0;
        while let Some(record) = installed.next_record()? {
            match record {
                Record::Entry(mut entry) => {
                    examiner.end_file()?;
                    let chunks = take_chunks(&mut entry.kind);
                    examiner.look(ordinal, entry, &mut holders)?;
                    examiner.read(&chunks)?;
                    ordinal += 1;
                }
                Record::Chunks { chunks, .. } => examiner.read(&chunks)?,
                Record::Head(_) => {}
            }
        }
        examiner.end_file()?;
        examiner.findings.bytes = examiner.pace.bytes();
        Ok(examiner.findings)
    }
}

struct Examiner<'a> {
    judge: Judge<'a>,
    shared: bool,
    findings: Findings,
    made: PathSet,
    reading: Option<Reading>,
    buffer: Vec<u8>,
    pace: &'a mut Pace,
}

/// The file whose chunks come next.
struct Reading {
    ordinal: u64,
    entry: Entry,
    stat: Stat,
    file: Option<File>,
    offset: u64,
}

impl Examiner<'_> {
    fn look(&mut self, ordinal: u64, entry: Entry, holders: &mut Holders) -> Result<(), WalkError> {
        let theirs = holders.find(&entry.path)?;
        if self.judge.rules.mode(&entry.path) == HealMode::LeaveBehind {
            return Ok(());
        }
        self.findings.checked += 1;
        let stat = self.judge.tree.stat(&entry.path).map_err(io_error)?;
        let Some(stat) = stat else {
            return self.found(ordinal, &entry, None, DifferenceKind::Missing);
        };
        for theirs in &theirs {
            // Another fileset of ours has put its own there: that one looks after it.
            if !is_same(theirs, &entry) && self.judge.is_as(&stat, theirs).map_err(io_error)? {
                return Ok(());
            }
        }
        match self.compare(&entry, &stat).map_err(io_error)? {
            Some(kind) => self.found(ordinal, &entry, Some(&stat), kind),
            None if matches!(entry.kind, Kind::File { .. }) => {
                let file = self.judge.tree.open_file(&entry.path).ok();
                self.reading = Some(Reading {
                    ordinal,
                    entry,
                    stat,
                    file,
                    offset: 0,
                });
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// How what is there differs from `entry`, as far as that is seen without reading a file.
    fn compare(&mut self, entry: &Entry, stat: &Stat) -> io::Result<Option<DifferenceKind>> {
        let found = FileType::from_raw_mode(stat.st_mode);
        let wrong = |kind, is_wrong: bool| is_wrong.then_some(kind);
        Ok(match &entry.kind {
            Kind::File { .. } if found != FileType::RegularFile => Some(DifferenceKind::Type),
            Kind::File { size, .. } => wrong(DifferenceKind::Content, tree::size(stat) != *size),
            Kind::Folder if found != FileType::Directory => Some(DifferenceKind::Type),
            Kind::Folder => {
                let mode = tree::mode(stat) != entry.mode;
                wrong(DifferenceKind::Mode, mode && !self.shared)
            }
            Kind::Symlink { .. } if found != FileType::Symlink => Some(DifferenceKind::Type),
            Kind::Symlink { target } => {
                let says = self.judge.says(&entry.path, target)?;
                let dated = tree::mtime(stat) == entry.mtime;
                wrong(DifferenceKind::Link, !says).or_else(|| wrong(DifferenceKind::Time, !dated))
            }
            Kind::HardLink { .. } if found == FileType::Directory => Some(DifferenceKind::Type),
            Kind::HardLink { target } => {
                let first = self.judge.tree.stat(target)?;
                let same = first.is_some_and(|first| first.st_ino == stat.st_ino);
                wrong(DifferenceKind::Link, !same || self.made.contains(target))
            }
        })
    }

    /// Reads the next chunks of the open file, until one is wrong.
    fn read(&mut self, chunks: &[ChunkRef]) -> Result<(), WalkError> {
        let Some(mut reading) = self.reading.take() else {
            return Ok(());
        };
        for &chunk in chunks {
            let whole = reading.file.as_ref().is_some_and(|file| {
                stored::read(file, reading.offset, chunk, &mut self.buffer).is_some()
            });
            self.pace.read(u64::from(chunk.length)).map_err(io_error)?;
            if !whole {
                let Reading {
                    ordinal,
                    entry,
                    stat,
                    ..
                } = reading;
                return self.found(ordinal, &entry, Some(&stat), DifferenceKind::Content);
            }
            reading.offset += u64::from(chunk.length);
        }
        self.reading = Some(reading);
        Ok(())
    }

    /// The open file holds what it should: what is left is how it is dressed.
    fn end_file(&mut self) -> Result<(), WalkError> {
        let Some(reading) = self.reading.take() else {
            return Ok(());
        };
        if let Some(file) = &reading.file {
            self.pace.leave(file);
        }
        let (entry, stat) = (&reading.entry, &reading.stat);
        let kind = if tree::mode(stat) != entry.mode {
            DifferenceKind::Mode
        } else if tree::mtime(stat) != entry.mtime {
            DifferenceKind::Time
        } else {
            return Ok(());
        };
        self.found(reading.ordinal, entry, Some(stat), kind)
    }

    fn found(
        &mut self,
        ordinal: u64,
        entry: &Entry,
        stat: Option<&Stat>,
        kind: DifferenceKind,
    ) -> Result<(), WalkError> {
        let first_is_made =
            matches!(&entry.kind, Kind::HardLink { target } if self.made.contains(target));
        let heals = match self.judge.rules.mode(&entry.path) {
            HealMode::SelfHeal => true,
            HealMode::IfMissing | HealMode::NeverOverwrite => stat.is_none(),
            HealMode::OverwriteIfOlder => stat.is_none_or(|stat| tree::mtime(stat) < entry.mtime),
            HealMode::LeaveBehind => false,
        };
        let fate = if heals || first_is_made {
            self.findings.damaged += 1;
            let dressed = matches!(kind, DifferenceKind::Mode | DifferenceKind::Time);
            if dressed && !matches!(entry.kind, Kind::Symlink { .. }) {
                self.findings.dress.set(ordinal);
            } else {
                self.findings.make.set(ordinal);
                self.made.add(&entry.path);
            }
            Fate::Left
        } else {
            self.findings.kept += 1;
            Fate::Kept
        };
        if self.findings.differences.len() < DIFFERENCES_MAX {
            self.findings.differences.push(Difference {
                path: entry.path.as_str().to_owned(),
                kind,
                fate,
            });
        }
        Ok(())
    }
}

fn take_chunks(kind: &mut Kind) -> Vec<ChunkRef> {
    match kind {
        Kind::File { chunks, .. } => std::mem::take(chunks),
        Kind::Folder | Kind::HardLink { .. } | Kind::Symlink { .. } => Vec::new(),
    }
}

fn io_error(source: io::Error) -> WalkError {
    WalkError::Io { source }
}

/// As many as are told by name.
const DIFFERENCES_MAX: usize = 100;
