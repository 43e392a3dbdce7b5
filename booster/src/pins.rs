//! Pins: which filesets an operator wants to have here, whoever uses them.
//!
//! Kept in a file of the state folder, so that they outlive the booster's run; the cache learns
//! from the catalogue which packs they mean.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use content::durable::{self, Disk as _, RealDisk};
use content::{FilesetName, ParseNameError, RevisionNumber};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use tracing::warn;

use crate::cache::off_runtime;

/// One pin. As text `NAME`, which follows the latest revision, or `NAME@N`.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin {
    /// Of which fileset.
    pub fileset: FilesetName,
    /// Of which revision.
    pub at: At,
}

/// Which revision of a fileset is meant.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum At {
    /// Whichever is the latest.
    Latest,
    /// That one.
    Revision(RevisionNumber),
}

/// A text that names no revision.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParsePinError {
    /// What stands before the `@`.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// What stands after the `@`.
    #[error("not a revision: {got:?}; want a number from 1 on, or `latest`")]
    Revision {
        /// What stands there.
        got: String,
    },
}

/// What is pinned. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pins {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Why the file cannot be used, if it cannot: then it is not written either.
    unusable: Option<String>,
    wanted: watch::Sender<BTreeSet<Pin>>,
    /// Held while the file and the set change together.
    writing: Mutex<()>,
}

/// Why a pin cannot be set or taken away.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PinError {
    /// The file cannot be written.
    #[error("cannot keep {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The booster is stopping.
    #[error("the booster is stopping")]
    Stopping,
    /// There are as many as there may be.
    #[error("cannot keep more than {PINS_MAX} pins: take some away first (cache unpin)")]
    TooMany,
    /// What the last run left cannot be used.
    #[error(
        "cannot change the pins: {path} cannot be used ({why}); stop the booster, put that file \
         right or remove it, and pin anew",
        path = path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Pins {
    /// What the last run left in the folder `state`. If that cannot be used, nothing is pinned, and
    /// nothing can be until somebody has looked: a release that does not know the file's version
    /// must not lose what it says. Touches the disk.
    pub(crate) fn open(state: &Path) -> Self {
        let path = state.join(FILE);
        let (wanted, unusable) = match load(&path) {
            Ok(wanted) => (wanted, None),
            Err(why) => {
                warn!(path = %path.display(), why, "cannot use the pins: nothing is pinned");
                (BTreeSet::new(), Some(why))
            }
        };
        Self {
            shared: Arc::new(Shared {
                path,
                unusable,
                wanted: watch::Sender::new(wanted),
                writing: Mutex::default(),
            }),
        }
    }

    /// What is wanted here, by fileset and revision: what may not be given up, and what a prefetch
    /// should see to.
    #[must_use]
    pub fn wanted(&self) -> BTreeSet<Pin> {
        self.shared.wanted.borrow().clone()
    }

    /// The same, now and as it changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<BTreeSet<Pin>> {
        self.shared.wanted.subscribe()
    }

    /// Why nothing can be pinned, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.shared.unusable.as_deref()
    }

    /// Sets a pin, durably. False if it was set already.
    ///
    /// # Errors
    ///
    /// Fails if there are too many, or as the disk does; then nothing has changed.
    pub(crate) async fn add(&self, pin: Pin) -> Result<bool, PinError> {
        self.change(move |wanted| {
            if wanted.len() >= PINS_MAX && !wanted.contains(&pin) {
                return Err(PinError::TooMany);
            }
            Ok(wanted.insert(pin))
        })
        .await
    }

    /// Takes a pin away, durably. False if there was none.
    ///
    /// # Errors
    ///
    /// Fails as the disk does; then nothing has changed.
    pub(crate) async fn remove(&self, pin: Pin) -> Result<bool, PinError> {
        self.change(move |wanted| Ok(wanted.remove(&pin))).await
    }

    async fn change(
        &self,
        change: impl FnOnce(&mut BTreeSet<Pin>) -> Result<bool, PinError> + Send + 'static,
    ) -> Result<bool, PinError> {
        let shared = Arc::clone(&self.shared);
        let changed = off_runtime(move || shared.change(change));
        changed.await.unwrap_or(Err(PinError::Stopping))
    }
}

impl Shared {
    fn change(
        &self,
        change: impl FnOnce(&mut BTreeSet<Pin>) -> Result<bool, PinError>,
    ) -> Result<bool, PinError> {
        let path = self.path.clone();
        if let Some(why) = self.unusable.clone() {
            return Err(PinError::Unusable { path, why });
        }
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = self.wanted.borrow().clone();
        if !change(&mut wanted)? {
            return Ok(false);
        }
        let bytes = encode(&wanted);
        durable::write(&RealDisk, &path, &bytes, 0o600)
            .map_err(|source| PinError::Io { path, source })?;
        self.wanted.send_replace(wanted);
        Ok(true)
    }
}

/// The file, as JSON.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    pins: BTreeSet<Pin>,
}

fn load(path: &Path) -> Result<BTreeSet<Pin>, String> {
    let read = RealDisk.read(path, FILE_BYTES_MAX);
    let Some(bytes) = read.map_err(|error| error.to_string())? else {
        return Ok(BTreeSet::new());
    };
    /// What every version begins with.
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let head: Head = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if head.version != VERSION {
        let version = head.version;
        return Err(format!(
            "its version is {version}, and this release knows {VERSION}"
        ));
    }
    let file: File = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Ok(file.pins)
}

fn encode(wanted: &BTreeSet<Pin>) -> Vec<u8> {
    let file = File {
        version: VERSION,
        pins: wanted.clone(),
    };
    serde_json::to_vec(&file).expect("strings and numbers always encode")
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Latest => self.fileset.fmt(f),
            At::Revision(number) => write!(f, "{}@{number}", self.fileset),
        }
    }
}

impl FromStr for Pin {
    type Err = ParsePinError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, at) = text.split_once('@').unwrap_or((text, LATEST));
        let fileset = name.parse()?;
        let number = || at.parse().ok().filter(|number| *number > 0);
        let at = match at {
            LATEST => At::Latest,
            _ => At::Revision(RevisionNumber(
                number().ok_or_else(|| ParsePinError::Revision { got: at.to_owned() })?,
            )),
        };
        Ok(Self { fileset, at })
    }
}

impl TryFrom<String> for Pin {
    type Error = ParsePinError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.to_string()
    }
}

const LATEST: &str = "latest";
const FILE: &str = "pins.json";
const VERSION: u32 = 1;
/// More than a branch has filesets that matter to it.
const PINS_MAX: usize = 1000;
/// So many of the longest.
const FILE_BYTES_MAX: u64 = (PINS_MAX * (FilesetName::BYTES_MAX + 32) + 64) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> Pin {
        text.parse().unwrap()
    }

    #[test]
    fn a_pin_has_one_text_and_a_wrong_one_is_named() {
        for (text, shown) in [("docs", "docs"), ("docs@latest", "docs"), ("a@7", "a@7")] {
            assert_eq!(pin(text).to_string(), shown);
        }
        for (text, told) in [
            ("docs@0", "not a revision: \"0\""),
            ("docs@", "not a revision: \"\""),
            ("docs@x", "not a revision: \"x\""),
            ("Docs", "not a fileset name: \"Docs\""),
            ("", "not a fileset name"),
        ] {
            let error = text.parse::<Pin>().unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }

    #[tokio::test]
    async fn pins_outlive_a_run_and_are_told_as_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins::open(folder.path());
        let mut changes = pins.changes();
        assert!(pins.add(pin("docs")).await.unwrap());
        assert!(!pins.add(pin("docs@latest")).await.unwrap());
        assert!(pins.add(pin("docs@3")).await.unwrap());
        assert!(pins.add(pin("maps")).await.unwrap());
        assert!(pins.remove(pin("maps")).await.unwrap());
        assert!(!pins.remove(pin("maps")).await.unwrap());
        assert!(changes.has_changed().unwrap());
        let both = BTreeSet::from([pin("docs"), pin("docs@3")]);
        assert_eq!(*changes.borrow_and_update(), both);
        assert_eq!(Pins::open(folder.path()).wanted(), both);
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(text, r#"{"version":1,"pins":["docs","docs@3"]}"#);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_neither_believed_nor_overwritten() {
        for (left, why) in [
            (r#"{"version":2,"pins":{}}"#, "its version is 2"),
            (r#"{"version":1,"pins":["A"]}"#, "not a fileset name"),
            ("", "EOF"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(FILE);
            std::fs::write(&path, left).unwrap();
            let pins = Pins::open(folder.path());
            assert!(pins.wanted().is_empty());
            assert!(pins.trouble().is_some_and(|it| it.contains(why)));
            let refused = pins.add(pin("docs")).await.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left);
        }
    }

    #[tokio::test]
    async fn there_is_an_end_to_how_many_there_are_and_the_longest_fit_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let name = |number| format!("{}{number:04}@{}", "x".repeat(60), u64::MAX);
        let all: BTreeSet<Pin> = (0..PINS_MAX).map(|number| pin(&name(number))).collect();
        std::fs::write(folder.path().join(FILE), encode(&all)).unwrap();
        let pins = Pins::open(folder.path());
        assert_eq!(pins.wanted().len(), PINS_MAX);
        let refused = pins.add(pin("docs")).await;
        assert!(matches!(refused, Err(PinError::TooMany)));
        assert!(!pins.add(pin(&name(0))).await.unwrap());
    }
}
