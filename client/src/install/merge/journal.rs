//! The journal of a merge: what is to be done to a shared folder, one line of JSON for each.
//!
//! It is written as a whole before the first of its steps is done, so it can be carried out to its
//! end or taken back, whatever happens on the way. Its format is in `docs/formats.md`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use content::durable::{Disk as _, RealDisk};
use content::{Digest, EntryPath};
use serde::{Deserialize, Serialize};

/// One step. Each says enough to be done, done again, and taken back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub(crate) enum Op {
    /// Nothing more follows; so many came before.
    End(u64),
    /// A folder that stays gets another mode.
    Mode {
        /// Which.
        path: String,
        /// Its permission bits until then.
        before: u32,
        /// And after.
        after: u32,
    },
    /// What is staged for a path gets its name, and what bore it is kept in the staged one's place.
    Put {
        /// Which path.
        path: String,
        /// The inode of what is staged: whether it is still there tells whether this was done.
        inode: u64,
        /// Whether something bore the path's name.
        displaces: bool,
        /// Whether that may be a folder that is not empty.
        force: bool,
    },
    /// What bears the name is kept in the staging folder.
    Remove {
        /// Which path.
        path: String,
    },
    /// A folder is removed, if it is empty.
    Rmdir {
        /// Which.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
}

impl Op {
    /// The path that it is about; none at the end.
    pub(crate) fn path(&self) -> Option<EntryPath> {
        match self {
            Self::Mode { path, .. }
            | Self::Put { path, .. }
            | Self::Remove { path }
            | Self::Rmdir { path, .. } => EntryPath::new(path.as_str()).ok(),
            Self::End(_) => None,
        }
    }
}

/// What is staged for `path`, or kept of it, is called in the staging folder: half of the path's
/// digest, so that one flat folder holds all of them.
pub(crate) fn staged_name(path: &EntryPath) -> EntryPath {
    let hex = Digest::of(path.as_str().as_bytes()).hex();
    EntryPath::new(&hex[..32]).expect("hexadecimal digits are a name")
}

/// Writes a journal.
#[derive(Debug)]
pub(crate) struct JournalWriter {
    file: BufWriter<File>,
    path: PathBuf,
    count: u64,
}

impl JournalWriter {
    /// Starts one that will be at `path`.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary(path))?;
        Ok(Self {
            file: BufWriter::new(file),
            path: path.to_owned(),
            count: 0,
        })
    }

    /// Adds a step.
    pub(crate) fn push(&mut self, op: &Op) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, op)?;
        self.file.write_all(b"\n")?;
        self.count += 1;
        Ok(())
    }

    /// Ends it, and makes it safe under its name.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let count = self.count;
        self.push(&Op::End(count))?;
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        // As content::durable does it for what fits into memory.
        RealDisk.rename(&temporary(&self.path), &self.path)?;
        RealDisk.sync_folder(self.path.parent().unwrap_or_else(|| Path::new(".")))
    }
}

/// A whole journal, to be read in either direction: 8 bytes of memory for each step.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Where each step begins, and where the last ends.
    offsets: Vec<u64>,
}

impl Journal {
    /// Opens the one at `path`, if it is whole.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut lines = BufReader::new(&file);
        let (mut offsets, mut at, mut line) = (vec![0], 0, Vec::new());
        let last = loop {
            line.clear();
            let read = (&mut lines)
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Err(broken());
            }
            if line.starts_with(END) {
                break line;
            }
            at += read as u64;
            offsets.push(at);
        };
        let count = offsets.len() as u64 - 1;
        match serde_json::from_slice(&last) {
            Ok(Op::End(said)) if said == count => Ok(Self { file, offsets }),
            Ok(_) | Err(_) => Err(broken()),
        }
    }

    /// How many steps it has.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Step number `at`, counted from 0.
    pub(crate) fn op(&self, at: usize) -> io::Result<Op> {
        let (start, end) = (self.offsets[at], self.offsets[at + 1]);
        let mut line = vec![0; (end - start) as usize];
        self.file.read_exact_at(&mut line, start)?;
        Ok(serde_json::from_slice(&line)?)
    }
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the journal is not one that we have written",
    )
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// How the last line begins.
const END: &[u8] = b"{\"end\":";
/// A path of 4095 bytes, each escaped as six, and the rest of the longest step.
const LINE_BYTES_MAX: u64 = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Op> {
        vec![
            Op::Remove {
                path: "a/\u{1}".repeat(1000).trim_end_matches('/').to_owned(),
            },
            Op::Rmdir {
                path: "b".to_owned(),
                mode: 0o755,
            },
            Op::Put {
                path: "ä/\"".to_owned(),
                inode: u64::MAX,
                displaces: true,
                force: false,
            },
        ]
    }

    #[test]
    fn a_journal_is_read_as_it_was_written_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut writer = JournalWriter::create(&path).unwrap();
        some().iter().for_each(|op| writer.push(op).unwrap());
        assert!(!path.exists(), "it had its name before it was whole");
        writer.finish().unwrap();
        let journal = Journal::open(&path).unwrap();
        let read: Vec<Op> = (0..journal.len())
            .map(|at| journal.op(at).unwrap())
            .collect();
        assert_eq!(read, some());
        let whole = std::fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..length]).unwrap();
            Journal::open(&path).unwrap_err();
        }
    }

    #[test]
    fn the_bytes_of_a_journal_are_those_of_the_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut writer = JournalWriter::create(&path).unwrap();
        let put = Op::Put {
            path: "etc/a".to_owned(),
            inode: 12,
            displaces: false,
            force: false,
        };
        let mode = Op::Mode {
            path: "etc".to_owned(),
            before: 0o755,
            after: 0o700,
        };
        writer.push(&put).unwrap();
        writer.push(&mode).unwrap();
        writer.finish().unwrap();
        expect_test::expect![[r#"
            {"put":{"path":"etc/a","inode":12,"displaces":false,"force":false}}
            {"mode":{"path":"etc","before":493,"after":448}}
            {"end":2}
        "#]]
        .assert_eq(&std::fs::read_to_string(&path).unwrap());
        let name = staged_name(&EntryPath::new("etc/a").unwrap());
        assert_eq!(name.as_str().len(), 32);
    }
}
