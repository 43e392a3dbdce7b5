//! How far a round has come, kept across restarts.

use std::path::Path;

use content::Digest;
use content::durable::{self, Disk as _, RealDisk};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// How far a round has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Position {
    /// The last that was looked at, in the order of digests; none at the beginning.
    pub(crate) after: Option<Digest>,
    /// When the round began, in Unix seconds.
    pub(crate) began: i64,
    /// Whether it has come to its end.
    pub(crate) done: bool,
    /// When the last whole round ended, in Unix seconds; none if there has been none.
    pub(crate) finished: Option<i64>,
}

/// The file, as JSON.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    after: Option<String>,
    began: i64,
    done: bool,
    finished: Option<i64>,
}

impl Position {
    /// Where the last run left off; a new round at `now` if there is nothing to be known of that,
    /// or if it would have begun in the future. Touches the disk.
    pub(crate) fn load(path: &Path, now: i64) -> Self {
        let fresh = Self {
            began: now,
            ..Self::default()
        };
        let read = RealDisk.read(path, FILE_BYTES_MAX);
        let Some(bytes) = read.ok().flatten() else {
            return fresh;
        };
        let file = serde_json::from_slice::<File>(&bytes).ok();
        let file = file.filter(|file| file.version == VERSION && file.began <= now);
        file.map_or(fresh, |file| Self {
            after: file.after.and_then(|hex| Digest::from_hex(&hex).ok()),
            began: file.began,
            done: file.done,
            finished: file.finished,
        })
    }

    /// Keeps it for the next run. If the disk refuses, some of the round is done again. Touches the
    /// disk.
    pub(crate) fn store(&self, path: &Path) {
        let file = File {
            version: VERSION,
            after: self.after.map(|digest| digest.hex()),
            began: self.began,
            done: self.done,
            finished: self.finished,
        };
        let bytes = serde_json::to_vec(&file).expect("strings and numbers always encode");
        if let Err(error) = durable::write(&RealDisk, path, &bytes, 0o600) {
            warn!(%error, "cannot keep how far the scrub has come");
        }
    }
}

/// What part of all digests comes before this one, in 65536ths.
pub(crate) fn share(digest: &Digest) -> u32 {
    let [first, second, ..] = *digest.as_raw();
    u32::from(u16::from_be_bytes([first, second]))
}

const VERSION: u32 = 1;
const FILE_BYTES_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_unless_it_makes_no_sense() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scrub");
        let fresh = |now| Position {
            began: now,
            ..Position::default()
        };
        assert_eq!(Position::load(&path, 7), fresh(7));
        let position = Position {
            after: Some(Digest::of(b"bread")),
            began: 100,
            done: false,
            finished: Some(90),
        };
        position.store(&path);
        assert_eq!(Position::load(&path, 100), position);
        assert_eq!(Position::load(&path, 99), fresh(99), "from the future");
        let left = std::fs::read_to_string(&path).unwrap();
        for damaged in [
            left.replace(":1,", ":2,"),
            left[1..].to_owned(),
            String::new(),
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Position::load(&path, 200), fresh(200));
        }
    }
}
