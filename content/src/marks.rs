//! High-water marks: the newest that was ever verified, so that nobody can turn time back.
//!
//! The rules are those that TUF's list of attacks asks for: no rollback, no freeze beyond the
//! timestamp's end, no fast forward without an epoch, no mix of parts that never were together.
//! Marks are kept durably, and raised only after every check has passed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use thiserror::Error;

use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::digest::Digest;
use crate::durable::{self, Disk};
use crate::locator::read_name;
use crate::name::{FilesetName, RevisionNumber};
use crate::statement::{Snapshot, Timestamp};

/// The highest that has been seen and verified.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Marks {
    epoch: u64,
    version: u64,
    snapshot: Option<Digest>,
    issued: i64,
    filesets: BTreeMap<FilesetName, RevisionNumber>,
}

impl Marks {
    /// The most bytes of the file that holds marks.
    pub const BYTES_MAX: u64 = 2 << 20;

    /// Whether `timestamp` may be used at `now` (Unix seconds).
    ///
    /// # Errors
    ///
    /// Names the attack that it would be, or the clock that would make it one.
    pub fn check(&self, timestamp: &Timestamp, now: i64) -> Result<(), MarksError> {
        let seen = (self.epoch, self.version);
        let got = (timestamp.epoch, timestamp.version);
        if got < seen {
            return Err(MarksError::Rollback { seen, got });
        }
        if got == seen
            && self
                .snapshot
                .is_some_and(|snapshot| snapshot != timestamp.snapshot)
        {
            return Err(MarksError::Fork { version: got.1 });
        }
        // The two may be as far apart as 64 bits allow, and further than 63 do.
        let lifetime = timestamp.expires.checked_sub(timestamp.issued);
        if !lifetime.is_some_and(|lifetime| (1..=LIFETIME_SECONDS_MAX).contains(&lifetime)) {
            return Err(MarksError::Lifetime);
        }
        if timestamp.issued > now + SKEW_SECONDS_MAX {
            return Err(MarksError::Future {
                issued: timestamp.issued,
                now,
            });
        }
        if now >= timestamp.expires {
            return Err(MarksError::Expired {
                expires: timestamp.expires,
                now,
            });
        }
        Ok(())
    }

    /// Whether `snapshot`, which `timestamp` names and [`Marks::check`] has passed, takes back no
    /// revision. In a higher epoch than the one seen it may: the origin says then that it was
    /// restored from a backup, and what it published since may be lost.
    ///
    /// # Errors
    ///
    /// Names the fileset that would go back.
    pub fn check_snapshot(
        &self,
        timestamp: &Timestamp,
        snapshot: &Snapshot,
    ) -> Result<(), MarksError> {
        if timestamp.epoch > self.epoch {
            return Ok(());
        }
        for fileset in &snapshot.filesets {
            if let Some(&seen) = self.filesets.get(&fileset.name)
                && fileset.current < seen
            {
                let name = fileset.name.clone();
                return Err(MarksError::FilesetRollback {
                    name,
                    seen,
                    got: fileset.current,
                });
            }
        }
        Ok(())
    }

    /// The marks after `timestamp` and its `snapshot`, both of which have been checked.
    #[must_use]
    pub fn raised(&self, timestamp: &Timestamp, snapshot: &Snapshot) -> Self {
        // A fileset that is no longer listed keeps its mark: it may come back, but not backwards.
        // One that is listed below its mark has passed `check_snapshot`: a new epoch began.
        let mut filesets = self.filesets.clone();
        for fileset in &snapshot.filesets {
            filesets.insert(fileset.name.clone(), fileset.current);
        }
        Self {
            epoch: timestamp.epoch,
            version: timestamp.version,
            snapshot: Some(timestamp.snapshot),
            issued: self.issued.max(timestamp.issued),
            filesets,
        }
    }

    /// The latest time that the origin has ever stated, in Unix seconds; 0 if none. It is a floor
    /// for this machine's clock.
    #[must_use]
    pub fn issued(&self) -> i64 {
        self.issued
    }

    /// The highest revision of `name` that has been seen as current in this epoch, or in an older
    /// one if this one has not listed it yet.
    #[must_use]
    pub fn fileset(&self, name: &FilesetName) -> Option<RevisionNumber> {
        self.filesets.get(name).copied()
    }

    /// Reads marks; none if nothing was ever written.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is damaged: then a person must look, since to go on
    /// without marks is to allow a rollback.
    pub fn load(disk: &impl Disk, path: &Path) -> Result<Self, LoadMarksError> {
        let bytes = disk
            .read(path, Self::BYTES_MAX)
            .map_err(|source| LoadMarksError::Io { source })?;
        match bytes {
            None => Ok(Self::default()),
            Some(bytes) => {
                Self::decode(&bytes).map_err(|source| LoadMarksError::Damaged { source })
            }
        }
    }

    /// Writes the marks durably.
    ///
    /// # Errors
    ///
    /// Fails as the disk fails; then the marks on disk are as they were.
    pub fn store(&self, disk: &impl Disk, path: &Path) -> io::Result<()> {
        durable::write(disk, path, &self.encode(), 0o600)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(4 + u64::from(self.snapshot.is_some()));
        writer.u64(EPOCH).u64(self.epoch);
        writer.u64(VERSION).u64(self.version);
        writer.u64(ISSUED).i64(self.issued);
        writer.u64(FILESETS).array(self.filesets.len() * 2);
        for (name, number) in &self.filesets {
            writer.text(name.as_str()).u64(number.0);
        }
        if let Some(snapshot) = &self.snapshot {
            writer.u64(SNAPSHOT).digest(snapshot);
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut epoch, mut version, mut issued) = (None, None, None);
        let (mut filesets, mut snapshot) = (None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                EPOCH => epoch = Some(fields.u64()?),
                VERSION => version = Some(fields.u64()?),
                ISSUED => issued = Some(fields.i64()?),
                FILESETS => {
                    let items = fields.array(20_000)?;
                    let mut read = BTreeMap::new();
                    for _ in 0..items / 2 {
                        read.insert(read_name(&mut fields)?, RevisionNumber(fields.u64()?));
                    }
                    filesets = Some(read);
                }
                SNAPSHOT => snapshot = Some(fields.digest()?),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let marks = Self {
            epoch: need(epoch, EPOCH)?,
            version: need(version, VERSION)?,
            snapshot,
            issued: need(issued, ISSUED)?,
            filesets: need(filesets, FILESETS)?,
        };
        cbor::same(bytes, &marks.encode())?;
        Ok(marks)
    }
}

/// Why a timestamp or a snapshot is not to be used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MarksError {
    /// Freeze: the timestamp has ended.
    #[error("timestamp check failed: it ended at {expires}, and it is {now}")]
    Expired {
        /// When it ended.
        expires: i64,
        /// The time now.
        now: i64,
    },
    /// Rollback of one fileset.
    #[error("snapshot check failed: {name} would go back from revision {seen} to {got}")]
    FilesetRollback {
        /// The fileset.
        name: FilesetName,
        /// The highest seen.
        seen: RevisionNumber,
        /// What it says.
        got: RevisionNumber,
    },
    /// Two timestamps of one version.
    #[error("timestamp check failed: version {version} was seen with another snapshot")]
    Fork {
        /// The version.
        version: u64,
    },
    /// It was made in the future.
    #[error("timestamp check failed: it was made at {issued}, and it is only {now}")]
    Future {
        /// When it was made.
        issued: i64,
        /// The time now.
        now: i64,
    },
    /// It would hold for longer than any timestamp should.
    #[error("timestamp check failed: it would hold for longer than seven days")]
    Lifetime,
    /// Rollback: older than one seen.
    #[error("timestamp check failed: epoch and version {got:?} are below {seen:?}, seen before")]
    Rollback {
        /// The highest seen.
        seen: (u64, u64),
        /// What it says.
        got: (u64, u64),
    },
}

/// Why marks cannot be read.
#[derive(Debug, Error)]
pub enum LoadMarksError {
    /// The file is damaged.
    #[error("cannot use the marks: the file is damaged; remove it only if this machine is new")]
    Damaged {
        /// How.
        source: CborError,
    },
    /// The file cannot be read.
    #[error("cannot read the marks")]
    Io {
        /// Why.
        source: io::Error,
    },
}

/// Clocks of one deployment may differ by this much.
const SKEW_SECONDS_MAX: i64 = 600;
/// No timestamp holds for longer, whatever it says: a freeze must end.
const LIFETIME_SECONDS_MAX: i64 = 7 * 24 * 3600;

const EPOCH: u64 = 0;
const VERSION: u64 = 1;
const ISSUED: u64 = 2;
const FILESETS: u64 = 3;
const SNAPSHOT: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::model::ModelDisk;
    use crate::statement::{FilesetEntry, RevisionEntry};

    const NOW: i64 = 1_700_000_000;

    fn timestamp(epoch: u64, version: u64) -> Timestamp {
        Timestamp {
            deployment: "d1".to_owned(),
            epoch,
            version,
            issued: NOW,
            expires: NOW + 86_400,
            snapshot: Digest::of(b"snapshot"),
            deployment_document: Digest::of(b"document"),
            crl_minimums: Vec::new(),
        }
    }

    fn snapshot(number: u64) -> Snapshot {
        let number = RevisionNumber(number);
        let digest = Digest::of(b"s");
        Snapshot {
            deployment: "d1".to_owned(),
            created: NOW,
            filesets: vec![FilesetEntry {
                name: "tools".parse().unwrap(),
                current: number,
                retained: vec![RevisionEntry {
                    number,
                    statement: digest,
                    locator: digest,
                }],
            }],
        }
    }

    fn seen() -> Marks {
        Marks::default().raised(&timestamp(2, 5), &snapshot(3))
    }

    fn check(timestamp: &Timestamp, now: i64, expected: &str) {
        let got = match seen().check(timestamp, now) {
            Ok(()) => "fine".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert!(got.starts_with(expected), "want {expected}, got {got}");
    }

    #[test]
    fn each_attack_is_refused_by_its_name() {
        check(&timestamp(2, 5), NOW, "fine");
        check(&timestamp(2, 6), NOW, "fine");
        check(&timestamp(3, 1), NOW, "fine");
        check(&timestamp(2, 4), NOW, "Rollback");
        check(&timestamp(1, 900), NOW, "Rollback");
        check(
            &Timestamp {
                snapshot: Digest::of(b"x"),
                ..timestamp(2, 5)
            },
            NOW,
            "Fork",
        );
        check(&timestamp(2, 6), NOW + 86_399, "fine");
        check(&timestamp(2, 6), NOW + 86_400, "Expired");
        check(&timestamp(2, 6), NOW - 600, "fine");
        check(&timestamp(2, 6), NOW - 601, "Future");
        check(
            &Timestamp {
                expires: NOW + 8 * 86_400,
                ..timestamp(2, 6)
            },
            NOW,
            "Lifetime",
        );
        check(
            &Timestamp {
                issued: i64::MIN,
                expires: i64::MAX,
                ..timestamp(2, 6)
            },
            NOW,
            "Lifetime",
        );
    }

    #[test]
    fn no_fileset_goes_back() {
        let later = timestamp(2, 6);
        assert_eq!(seen().check_snapshot(&later, &snapshot(3)), Ok(()));
        assert_eq!(seen().check_snapshot(&later, &snapshot(4)), Ok(()));
        let error = seen().check_snapshot(&later, &snapshot(2)).unwrap_err();
        assert!(
            matches!(error, MarksError::FilesetRollback { .. }),
            "{error}"
        );
        // Gone for a while, and back: still not backwards.
        let empty = Snapshot {
            filesets: Vec::new(),
            ..snapshot(3)
        };
        let marks = seen().raised(&later, &empty);
        assert!(
            marks
                .check_snapshot(&timestamp(2, 7), &snapshot(2))
                .is_err()
        );
    }

    #[test]
    fn a_restored_origin_may_go_back_once_and_not_within_its_new_epoch() {
        let restored = timestamp(3, 6);
        assert_eq!(seen().check(&restored, NOW), Ok(()));
        assert_eq!(seen().check_snapshot(&restored, &snapshot(1)), Ok(()));
        let marks = seen().raised(&restored, &snapshot(1));
        let name = "tools".parse().unwrap();
        assert_eq!(marks.fileset(&name), Some(RevisionNumber(1)));
        let next = timestamp(3, 7);
        assert_eq!(marks.check_snapshot(&next, &snapshot(1)), Ok(()));
        let marks = marks.raised(&next, &snapshot(2));
        assert!(
            marks
                .check_snapshot(&timestamp(3, 8), &snapshot(1))
                .is_err()
        );
        // An old epoch's word counts no more, whatever its snapshot says.
        assert!(marks.check(&timestamp(2, 900), NOW).is_err());
        // What the new epoch does not list keeps its mark from the old one.
        let empty = Snapshot {
            filesets: Vec::new(),
            ..snapshot(1)
        };
        let marks = seen().raised(&restored, &empty);
        assert_eq!(marks.fileset(&name), Some(RevisionNumber(3)));
    }

    /// cas.md 17: whoever had the key for a while can run the numbers up, and is undone by a new
    /// epoch under the next key.
    #[test]
    fn b17_numbers_that_a_thief_ran_up_end_with_his_epoch() {
        let (ahead, far) = (timestamp(2, u64::MAX), snapshot(u64::MAX));
        assert_eq!(seen().check(&ahead, NOW), Ok(()));
        assert_eq!(seen().check_snapshot(&ahead, &far), Ok(()));
        let marks = seen().raised(&ahead, &far);
        // Within it nobody who is honest is heard any more.
        assert!(marks.check(&timestamp(2, 6), NOW).is_err());
        let anew = timestamp(3, 1);
        assert_eq!(marks.check(&anew, NOW), Ok(()));
        assert_eq!(marks.check_snapshot(&anew, &snapshot(4)), Ok(()));
        let marks = marks.raised(&anew, &snapshot(4));
        assert_eq!(
            marks.fileset(&"tools".parse().unwrap()),
            Some(RevisionNumber(4))
        );
        // What he signed is not heard again.
        assert!(marks.check(&ahead, NOW).is_err());
        assert_eq!(marks.check(&timestamp(3, 2), NOW), Ok(()));
    }

    #[test]
    fn marks_survive_every_crash_and_never_fall() {
        let path = Path::new("state/marks");
        let disk = ModelDisk::default();
        seen().store(&disk, path).unwrap();
        let disk = ModelDisk::after(&disk);
        let higher = seen().raised(&timestamp(2, 6), &snapshot(4));
        higher.store(&disk, path).unwrap();
        for crash in disk.crashes() {
            let found = Marks::load(&crash, path).unwrap();
            assert!(found == seen() || found == higher, "{found:?}");
        }
    }

    #[test]
    fn damaged_marks_are_an_error_and_not_a_fresh_start() {
        let path = Path::new("state/marks");
        let disk = ModelDisk::default();
        assert_eq!(Marks::load(&disk, path).unwrap(), Marks::default());
        disk.create(path, b"\xa1\x00", 0o600).unwrap();
        assert!(matches!(
            Marks::load(&disk, path),
            Err(LoadMarksError::Damaged { .. })
        ));
    }
}
