//! A disk that forgets what was not made safe: for tests of everything that must survive a crash.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::Disk;

/// A disk in memory that remembers every step, so that [`ModelDisk::crashes`] can tell what a
/// machine could find after losing power at any point.
///
/// Pessimistic where POSIX is silent: bytes not synced may be there whole, in part or not at all,
/// and each change of a name not synced may have happened or not, whatever came after it.
#[derive(Clone, Debug, Default)]
pub struct ModelDisk {
    now: RefCell<Names>,
    steps: RefCell<Vec<Step>>,
    safe: Names,
}

impl ModelDisk {
    /// A disk that already holds what `disk` holds after a crash, all of it safe.
    #[must_use]
    pub fn after(crash: &Self) -> Self {
        let safe = crash.now.borrow().clone();
        Self {
            now: RefCell::new(safe.clone()),
            steps: RefCell::default(),
            safe,
        }
    }

    /// Every disk that a crash during the steps so far could leave behind.
    #[must_use]
    pub fn crashes(&self) -> Vec<Self> {
        let steps = self.steps.borrow();
        (0..=steps.len())
            .flat_map(|end| self.leftovers(&steps[..end]))
            .collect()
    }

    /// The files that are there now.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.now.borrow().clone()
    }

    /// What may be left after `steps`: one disk for each way in which the unsafe ones can fall.
    fn leftovers(&self, steps: &[Step]) -> Vec<Self> {
        let mut disks = vec![Leftover {
            names: self.safe.clone(),
            unsafe_bytes: BTreeMap::new(),
        }];
        for (at, step) in steps.iter().enumerate() {
            let settled = step.is_settled_by(&steps[at + 1..]);
            disks = disks
                .into_iter()
                .flat_map(|disk| disk.after(step, settled))
                .collect();
            // Ways multiply; equal ones are one.
            disks.sort();
            disks.dedup();
        }
        disks
            .into_iter()
            .flat_map(Leftover::torn)
            .map(Self::holding)
            .collect()
    }

    fn holding(names: Names) -> Self {
        Self {
            now: RefCell::new(names),
            ..Self::default()
        }
    }

    fn log(&self, step: Step) {
        self.steps.borrow_mut().push(step);
    }
}

impl Disk for ModelDisk {
    fn create(&self, path: &Path, bytes: &[u8], _mode: u32) -> io::Result<()> {
        self.now
            .borrow_mut()
            .insert(path.to_owned(), bytes.to_owned());
        self.log(Step::Create {
            path: path.to_owned(),
            bytes: bytes.to_owned(),
        });
        Ok(())
    }

    fn create_folder(&self, _path: &Path, _mode: u32) -> io::Result<()> {
        // Folders carry nothing that could be torn; files stand for their whole path here.
        Ok(())
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let bytes = self.now.borrow().get(path).cloned();
        match bytes {
            Some(bytes) if bytes.len() as u64 > bytes_max => Err(io::Error::other("too large")),
            other => Ok(other),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.now.borrow_mut().remove(path);
        self.log(Step::Remove {
            path: path.to_owned(),
        });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut now = self.now.borrow_mut();
        let bytes = now.remove(from).ok_or(io::ErrorKind::NotFound)?;
        now.insert(to.to_owned(), bytes);
        self.log(Step::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.log(Step::Sync {
            path: path.to_owned(),
        });
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.log(Step::SyncFolder {
            path: path.to_owned(),
        });
        Ok(())
    }
}

type Names = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Create { path: PathBuf, bytes: Vec<u8> },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Sync { path: PathBuf },
    SyncFolder { path: PathBuf },
}

impl Step {
    /// Whether a later sync of its folder made this change of a name safe.
    fn is_settled_by(&self, later: &[Self]) -> bool {
        let (Self::Create { path, .. } | Self::Remove { path } | Self::Rename { to: path, .. }) =
            self
        else {
            return true;
        };
        later.iter().any(|step| match step {
            Self::SyncFolder { path: folder } => path.parent() == Some(folder),
            Self::Create { .. } | Self::Remove { .. } | Self::Rename { .. } | Self::Sync { .. } => {
                false
            }
        })
    }
}

/// One way in which things may stand, and which files' bytes are not safe in it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Leftover {
    names: Names,
    unsafe_bytes: BTreeMap<PathBuf, ()>,
}

impl Leftover {
    fn after(self, step: &Step, settled: bool) -> Vec<Self> {
        let mut done = self.clone();
        match step {
            Step::Create { path, bytes } => {
                done.names.insert(path.clone(), bytes.clone());
                done.unsafe_bytes.insert(path.clone(), ());
            }
            Step::Remove { path } => {
                done.names.remove(path);
                done.unsafe_bytes.remove(path);
            }
            Step::Rename { from, to } => done.rename(from, to),
            Step::Sync { path } => {
                done.unsafe_bytes.remove(path);
            }
            Step::SyncFolder { .. } => {}
        }
        if settled {
            vec![done]
        } else {
            vec![self, done]
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        if let Some(bytes) = self.names.remove(from) {
            self.names.insert(to.to_owned(), bytes);
            if self.unsafe_bytes.remove(from).is_some() {
                self.unsafe_bytes.insert(to.to_owned(), ());
            } else {
                self.unsafe_bytes.remove(to);
            }
        }
    }

    /// The ways in which the bytes that are not safe may be torn.
    fn torn(self) -> Vec<Names> {
        let mut ways = vec![self.names.clone()];
        for path in self.unsafe_bytes.keys() {
            let Some(bytes) = self.names.get(path) else {
                continue;
            };
            for length in [0, bytes.len() / 2] {
                let torn = ways.iter().map(|names| {
                    let mut names = names.clone();
                    names.insert(path.clone(), bytes[..length].to_owned());
                    names
                });
                ways.extend(torn.collect::<Vec<_>>());
            }
        }
        ways
    }
}

#[cfg(test)]
mod tests {
    use super::super::write;
    use super::*;

    const PATH: &str = "state/marks";

    fn found(disk: &ModelDisk) -> Vec<Option<Vec<u8>>> {
        let read = |disk: ModelDisk| disk.read(Path::new(PATH), 100).unwrap();
        let mut found: Vec<_> = disk.crashes().into_iter().map(read).collect();
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn a_durable_write_leaves_the_old_bytes_or_the_new_ones() {
        let disk = ModelDisk::default();
        write(&disk, Path::new(PATH), b"old bytes", 0o600).unwrap();
        assert_eq!(found(&disk), [None, Some(b"old bytes".to_vec())]);

        let disk = ModelDisk::after(&disk);
        write(&disk, Path::new(PATH), b"new bytes", 0o600).unwrap();
        assert_eq!(
            found(&disk),
            [Some(b"new bytes".to_vec()), Some(b"old bytes".to_vec())]
        );
    }

    #[test]
    fn the_model_finds_a_write_that_forgets_to_sync() {
        let disk = ModelDisk::default();
        disk.create(Path::new("state/tmp"), b"bytes", 0o600)
            .unwrap();
        disk.rename(Path::new("state/tmp"), Path::new(PATH))
            .unwrap();
        disk.sync_folder(Path::new("state")).unwrap();
        assert!(
            found(&disk).contains(&Some(b"by".to_vec())),
            "a torn file was not found"
        );
    }

    #[test]
    fn a_finished_write_is_there_after_every_later_crash() {
        let disk = ModelDisk::default();
        write(&disk, Path::new(PATH), b"bytes", 0o600).unwrap();
        let disk = ModelDisk::after(&disk);
        write(&disk, Path::new("state/other"), b"more", 0o600).unwrap();
        assert_eq!(found(&disk), [Some(b"bytes".to_vec())]);
    }
}
