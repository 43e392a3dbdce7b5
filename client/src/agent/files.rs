//! What the agent keeps on disk, below `agent/` in the data folder:
//!
//! ```text
//! state.json       all that it knows           manifest.json   the envelope of its manifest
//! ahead/NAME       locators of what is downloaded              scripts/DIGEST   programs
//! logs/NAME.STAGE  the last that scripts said                  running         the script under way
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use content::durable::{self, Disk as _, RealDisk};
use content::locator::Locator;
use content::statement::{Judge, Manifest, Payload as _, Stage, Statement};
use content::{Digest, FilesetName};
use thiserror::Error;

use super::state::State;

/// The folder of the agent.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    /// Those of the device with the data folder `data`.
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            root: data.join("agent"),
        }
    }

    /// Makes the folders, which nobody else may enter.
    pub(crate) fn create(&self) -> Result<(), FilesError> {
        for folder in [
            self.root.clone(),
            self.root.join("ahead"),
            self.root.join("logs"),
            self.root.join("scripts"),
        ] {
            let made = durable::create_folder(&RealDisk, &folder, 0o700);
            made.map_err(|source| FilesError::new(&folder, source))?;
        }
        Ok(())
    }

    /// What is known; nothing before the first time.
    pub(crate) fn state(&self) -> Result<State, FilesError> {
        let path = self.root.join("state.json");
        let Some(bytes) = read(&path, STATE_BYTES_MAX)? else {
            return Ok(State::default());
        };
        serde_json::from_slice(&bytes).map_err(|source| FilesError::new(&path, source.into()))
    }

    /// Keeps what is known.
    pub(crate) fn put_state(&self, state: &State) -> Result<(), FilesError> {
        let path = self.root.join("state.json");
        let bytes = serde_json::to_vec(state).expect("texts and numbers always encode");
        write(&path, &bytes, 0o600)
    }

    /// The manifest that was kept last, if it still counts at `now` (Unix seconds).
    pub(crate) fn manifest(&self, judge: &impl Judge, now: i64) -> Option<Statement<Manifest>> {
        let path = self.root.join("manifest.json");
        let bytes = read(&path, Manifest::ENVELOPE_BYTES_MAX as u64).ok()??;
        Statement::open(&bytes, judge, now).ok()
    }

    /// Keeps a manifest that has been verified.
    pub(crate) fn put_manifest(&self, envelope: &[u8]) -> Result<(), FilesError> {
        write(&self.root.join("manifest.json"), envelope, 0o600)
    }

    /// The locator of what is downloaded of a fileset, if it is the one with that digest.
    pub(crate) fn locator(&self, fileset: &FilesetName, digest: Digest) -> Option<Locator> {
        let bytes = read(&self.ahead(fileset), Locator::BYTES_MAX as u64).ok()??;
        let same = Digest::of(&bytes) == digest;
        same.then(|| Locator::decode(&bytes).ok())?
    }

    /// Keeps the locator of what is downloaded of a fileset; gives back its digest.
    pub(crate) fn put_locator(&self, locator: &Locator) -> Result<Digest, FilesError> {
        let bytes = locator.encode();
        write(&self.ahead(&locator.fileset), &bytes, 0o600)?;
        Ok(Digest::of(&bytes))
    }

    /// Forgets what was downloaded of a fileset.
    pub(crate) fn remove_locator(&self, fileset: &FilesetName) -> Result<(), FilesError> {
        let path = self.ahead(fileset);
        durable::remove(&RealDisk, &path).map_err(|source| FilesError::new(&path, source))
    }

    /// Where the script with that digest is, or would be.
    pub(crate) fn script(&self, digest: Digest) -> PathBuf {
        self.root.join("scripts").join(digest.hex())
    }

    /// Whether the script is there, to its last byte.
    pub(crate) fn has_script(&self, digest: Digest) -> bool {
        let kept = read(&self.script(digest), Manifest::SCRIPT_BYTES_MAX);
        let kept = kept.ok().flatten();
        kept.is_some_and(|bytes| Digest::of(&bytes) == digest)
    }

    /// Keeps a script whose digest has been verified, to be run by us alone.
    pub(crate) fn put_script(&self, digest: Digest, bytes: &[u8]) -> Result<(), FilesError> {
        write(&self.script(digest), bytes, 0o700)
    }

    /// Where a script is noted while it runs.
    pub(crate) fn running(&self) -> PathBuf {
        self.root.join("running")
    }

    /// Removes scripts that are not among `wanted`.
    pub(crate) fn tidy_scripts(&self, wanted: &BTreeSet<Digest>) {
        let names: BTreeSet<String> = wanted.iter().map(|digest| digest.hex()).collect();
        let kept = fs::read_dir(self.root.join("scripts"));
        for file in kept.into_iter().flatten().flatten() {
            let name = file.file_name();
            if name.to_str().is_none_or(|name| !names.contains(name)) {
                // What is left over costs room and nothing else: the next run tries again.
                fs::remove_file(file.path()).unwrap_or_default();
            }
        }
    }

    /// Keeps what scripts of a stage said last. That it cannot be kept is no failure.
    pub(crate) fn put_log(&self, fileset: &FilesetName, stage: Stage, text: &[u8]) {
        let path = self.log(fileset, stage);
        // Not durably: it is for whoever wants to know why something went wrong.
        if let Err(error) = fs::write(&path, text) {
            tracing::warn!(path = %path.display(), %error, "cannot keep what a script said");
        }
    }

    /// Where what scripts of a stage said is kept.
    pub(crate) fn log(&self, fileset: &FilesetName, stage: Stage) -> PathBuf {
        self.root.join("logs").join(format!("{fileset}.{stage}"))
    }

    fn ahead(&self, fileset: &FilesetName) -> PathBuf {
        self.root.join("ahead").join(fileset.as_str())
    }
}

fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, FilesError> {
    let read = RealDisk.read(path, bytes_max);
    read.map_err(|source| FilesError::new(path, source))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FilesError> {
    let written = durable::write(&RealDisk, path, bytes, mode);
    written.map_err(|source| FilesError::new(path, source))
}

/// A file of the agent cannot be read, used or written.
#[derive(Debug, Error)]
#[error("cannot keep what the agent knows in {path}", path = path.display())]
pub struct FilesError {
    path: PathBuf,
    source: io::Error,
}

impl FilesError {
    fn new(path: &Path, source: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }
}

/// 1,024 filesets, each in a manifest, at its target and about to go, and room to spare.
const STATE_BYTES_MAX: u64 = 64 << 20;
