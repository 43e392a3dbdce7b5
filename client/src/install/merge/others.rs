//! What other filesets have installed in folders that overlap with this one.

use std::path::{Path, PathBuf};

use content::EntryPath;
use content::index::Entry;

use crate::install::record::{Record, RecordError, Revision};
use crate::plan::walk::{Installed, WalkError};

/// The indexes of other filesets that share paths with a target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others(Vec<(PathBuf, Lie)>);

/// How their folder lies to ours.
#[derive(Clone, Debug)]
enum Lie {
    /// It is the same.
    Same,
    /// It is this one of ours.
    Below(String),
    /// It is above, and ours is this one of it.
    Above(String),
}

impl Others {
    /// Finds them among the records below `installed`: all that share a folder and that is
    /// not `own`.
    pub(crate) fn find(installed: &Path, own: &Record) -> Result<Self, RecordError> {
        let mut found = Vec::new();
        for record in Record::list(installed)? {
            let root = record.installed().and_then(Revision::root);
            if !record.is_shared() || record.id() == own.id() {
                continue;
            }
            if let (Some(root), Some(lie)) = (root, lie(own.target(), record.target())) {
                found.push((record.index_path(root), lie));
            }
        }
        Ok(Self(found))
    }

    /// Starts a walk through them.
    pub(crate) fn open(&self) -> Result<Holders, WalkError> {
        let open = |(index, lie): &(PathBuf, Lie)| Ok((Installed::open(index)?, lie.clone()));
        self.0
            .iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map(Holders)
    }
}

/// A walk through the indexes of others, asked for paths in rising order.
pub(crate) struct Holders(Vec<(Installed, Lie)>);

impl Holders {
    /// What others have installed at `path`.
    pub(crate) fn find(&mut self, path: &EntryPath) -> Result<Vec<Entry>, WalkError> {
        let mut found = Vec::new();
        for (installed, lie) in &mut self.0 {
            // A prefix that is added or taken away leaves the order as it is.
            if let Some(theirs) = lie.theirs(path)
                && let Some(entry) = installed.find(&theirs)?
            {
                found.push(entry.clone());
            }
        }
        Ok(found)
    }
}

impl Lie {
    fn theirs(&self, path: &EntryPath) -> Option<EntryPath> {
        match self {
            Self::Same => Some(path.clone()),
            Self::Below(folder) => {
                let rest = path.as_str().strip_prefix(folder.as_str())?;
                EntryPath::new(rest.strip_prefix('/')?).ok()
            }
            Self::Above(folder) => EntryPath::new(format!("{folder}/{path}")).ok(),
        }
    }
}

/// Whether one of two folders is the other, or lies in it.
pub(crate) fn overlap(one: &Path, other: &Path) -> bool {
    lie(one, other).is_some()
}

fn lie(ours: &Path, theirs: &Path) -> Option<Lie> {
    if ours == theirs {
        return Some(Lie::Same);
    }
    let text = |path: &Path| path.to_str().map(str::to_owned);
    match (theirs.strip_prefix(ours), ours.strip_prefix(theirs)) {
        (Ok(below), _) => text(below).map(Lie::Below),
        (_, Ok(above)) => text(above).map(Lie::Above),
        (Err(_), Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ours: &str, theirs: &str, path: &str, wanted: Option<&str>) {
        let lie = lie(Path::new(ours), Path::new(theirs));
        let path = EntryPath::new(path).unwrap();
        let got = lie.and_then(|lie| lie.theirs(&path));
        let got = got.as_ref().map(EntryPath::as_str);
        assert_eq!(got, wanted, "{path} of {ours} in {theirs}");
    }

    #[test]
    fn a_path_is_found_in_folders_that_lie_above_and_below() {
        check("/opt", "/opt", "a/b", Some("a/b"));
        check("/", "/opt", "opt/a", Some("a"));
        check("/", "/opt", "opt", None);
        check("/", "/opt", "opt-x/a", None);
        check("/opt", "/", "a", Some("opt/a"));
        check("/opt/in", "/opt", "a", Some("in/a"));
        check("/opt", "/srv", "a", None);
        check("/opt", "/opt-x", "a", None);
    }
}
