//! Files with several names: which of them was met first.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use content::EntryPath;

use super::PublishFailure;
use super::offenders::Offenders;

/// The most files with several names in a tree: the table of them takes 52 MiB then, and the next
/// one would double it.
const LINKED_FILES_MAX: usize = 1_800_000;

/// The first name of each file that has several. The names are kept in a scratch file.
#[derive(Debug)]
pub(super) struct Links {
    /// From device and inode to where the name begins.
    first: HashMap<(u64, u64), u64>,
    names: File,
    end: u64,
    most: usize,
}

impl Links {
    pub(super) fn new() -> Result<Self, PublishFailure> {
        Self::of_at_most(LINKED_FILES_MAX)
    }

    fn of_at_most(most: usize) -> Result<Self, PublishFailure> {
        Ok(Self {
            first: HashMap::new(),
            names: tempfile::tempfile().map_err(PublishFailure::Scratch)?,
            end: 0,
            most,
        })
    }

    /// The name under which the file at `path` was met before.
    pub(super) fn first_name(
        &mut self,
        path: &EntryPath,
        meta: &Metadata,
    ) -> Result<Option<EntryPath>, PublishFailure> {
        if meta.nlink() < 2 {
            return Ok(None);
        }
        let file = (meta.dev(), meta.ino());
        if let Some(&at) = self.first.get(&file) {
            return self.read(at).map(Some).map_err(PublishFailure::Scratch);
        }
        if self.first.len() >= self.most {
            let most = self.most;
            let why = format!("before it came {most} other files that have several names each");
            let mut offenders = Offenders::default();
            offenders.push(path.as_str(), why);
            return Err(offenders.into());
        }
        self.first.insert(file, self.end);
        self.write(path.as_str()).map_err(PublishFailure::Scratch)?;
        Ok(None)
    }

    fn write(&mut self, name: &str) -> io::Result<()> {
        let length = u32::try_from(name.len()).map_err(io::Error::other)?;
        let entry = [&length.to_be_bytes()[..], name.as_bytes()].concat();
        self.names.write_all_at(&entry, self.end)?;
        self.end += entry.len() as u64;
        Ok(())
    }

    fn read(&self, at: u64) -> io::Result<EntryPath> {
        let mut length = [0; 4];
        self.names.read_exact_at(&mut length, at)?;
        let mut name = vec![0; u32::from_be_bytes(length) as usize];
        self.names.read_exact_at(&mut name, at + 4)?;
        let name = String::from_utf8(name).map_err(io::Error::other)?;
        EntryPath::new(name).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_known_by_its_first_name_and_too_many_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(folder.path().join(name), name).unwrap();
            let other = folder.path().join(format!("{name}{name}"));
            fs::hard_link(folder.path().join(name), other).unwrap();
        }
        fs::write(folder.path().join("alone"), b"").unwrap();
        let mut links = Links::of_at_most(2).unwrap();
        let mut met = |name: &str| {
            let meta = fs::metadata(folder.path().join(name)).unwrap();
            let first = links.first_name(&EntryPath::new(name).unwrap(), &meta);
            first.map(|first| first.map(|path| path.to_string()))
        };
        for (name, first) in [
            ("a", None),
            ("alone", None),
            ("b", None),
            ("bb", Some("b")),
            ("aa", Some("a")),
        ] {
            assert_eq!(met(name).unwrap().as_deref(), first, "{name}");
        }
        let refused = met("c").unwrap_err().to_string();
        assert!(refused.contains("\"c\": before it came 2"), "{refused}");
    }
}
