//! The agent's line to the origin: what is told, what is heard, and the manifest.

use std::sync::Arc;

use content::Digest;
use content::statement::{Manifest, Payload as _, Statement, StatementError};
use protocol::{CheckIn, CheckInAnswer, CurrentManifest, Held};
use thiserror::Error;
use transport::{CallError, ContentJudge, Source};

use super::files::{Files, FilesError};
use super::state::{InForce, State};
use crate::fetch::off_the_runtime;

/// What a check-in needs.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The origin.
    pub(crate) origin: Arc<Source>,
    /// Who decides whether a manifest is the origin's.
    pub(crate) judge: ContentJudge,
    /// Where the manifest is kept.
    pub(crate) files: Files,
    /// What this device is called.
    pub(crate) device: String,
}

/// What came of a check-in.
#[derive(Debug)]
pub(crate) struct Heard {
    /// What the origin said; none if nothing has changed.
    pub(crate) answer: Option<CheckInAnswer>,
    /// The manifest to go by from now on, if it is a new one; it is kept already.
    pub(crate) manifest: Option<Statement<Manifest>>,
}

/// What a device that knows `state` and has the manifest `in_force` at hand has to tell.
pub(crate) fn held(state: &State, in_force: Option<&InForce>) -> Held {
    let results = state.results.values().take(Held::RESULTS_MAX).cloned();
    Held {
        model: in_force.map_or(0, |manifest| manifest.model),
        manifest: in_force.map(|manifest| manifest.digest),
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        results: results.collect(),
        done: state.done.iter().take(Held::DONE_MAX).copied().collect(),
        // The agent says it, which has it.
        inventory: None,
    }
}

impl Line {
    /// Checks in with `held`, and gets the manifest that it hears of, if that is another one than
    /// is held already. One with a lower number than `least` is refused.
    pub(crate) async fn check_in(self, held: Held, least: u64) -> Result<Heard, CheckInError> {
        let has = held.manifest;
        let check_in = CheckIn {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            booster: None,
            held: Some(held),
        };
        let answered = self.origin.check_in(&check_in).await;
        let answer = answered.map_err(|source| CheckInError::Call { source })?;
        let current = answer.as_ref().and_then(|answer| answer.manifest.as_ref());
        let manifest = match current {
            Some(current) if has != Some(current.digest) => {
                check_number(current, has.is_some(), least)?;
                Some(self.manifest(current).await?)
            }
            Some(_) | None => None,
        };
        Ok(Heard { answer, manifest })
    }

    /// Waits until something changes for a device that goes by `manifest`, made from `model`. None
    /// if nothing did.
    pub(crate) async fn wait(
        self,
        model: u64,
        manifest: Option<Digest>,
    ) -> Result<Option<CheckInAnswer>, CallError> {
        self.origin.wait(model, manifest.as_ref()).await
    }

    /// Fetches, verifies and keeps a manifest.
    async fn manifest(
        &self,
        current: &CurrentManifest,
    ) -> Result<Statement<Manifest>, CheckInError> {
        let (digest, most) = (current.digest, Manifest::ENVELOPE_BYTES_MAX);
        let fetched = self.origin.statement(&digest, most).await;
        let envelope = fetched.map_err(|source| CheckInError::Fetch { source })?;
        // A manifest is judged at its own time.
        let manifest = Statement::<Manifest>::open_named(&envelope, digest, &self.judge, 0)
            .map_err(|source| CheckInError::Manifest { source })?;
        if manifest.device != self.device {
            let device = manifest.device.clone();
            return Err(CheckInError::Other { device });
        }
        if manifest.number != current.number {
            let (told, number) = (current.number, manifest.number);
            return Err(CheckInError::Number { told, number });
        }
        let files = self.files.clone();
        let kept = off_the_runtime(move || files.put_manifest(&envelope)).await;
        kept.map_err(|_| CheckInError::Stopped)??;
        Ok(manifest)
    }
}

/// Refuses a manifest that is older than the one that the device goes by: it has that one at hand,
/// or only remembers its number.
fn check_number(current: &CurrentManifest, at_hand: bool, known: u64) -> Result<(), CheckInError> {
    let told = current.number;
    if told > known || (told == known && !at_hand) {
        Ok(())
    } else {
        Err(CheckInError::Old { told, known })
    }
}

/// Why a check-in came to nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckInError {
    /// The origin did not answer, or refused.
    #[error("cannot check in")]
    Call {
        /// Why.
        source: CallError,
    },
    /// The manifest cannot be had.
    #[error("cannot fetch the manifest")]
    Fetch {
        /// Why.
        source: CallError,
    },
    /// It cannot be kept.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// It is not the origin's word.
    #[error("cannot trust the manifest")]
    Manifest {
        /// Why.
        source: StatementError,
    },
    /// It is not the one that was told of.
    #[error("cannot go by the manifest: it has number {number}, and {told} was told of")]
    Number {
        /// What the answer said.
        told: u64,
        /// What it says.
        number: u64,
    },
    /// It is older than the one that the device goes by.
    #[error("cannot go back from manifest {known} to {told}")]
    Old {
        /// The one told of.
        told: u64,
        /// The one in force.
        known: u64,
    },
    /// It is for somebody else.
    #[error("cannot go by the manifest of another device: it is for {device}")]
    Other {
        /// For whom.
        device: String,
    },
    /// The program is ending.
    #[error("cannot keep the manifest: the program is ending")]
    Stopped,
}

impl CheckInError {
    /// How long the origin asks to be left alone, in seconds.
    pub(crate) fn busy(&self) -> Option<i64> {
        let (Self::Call { source } | Self::Fetch { source }) = self else {
            return None;
        };
        let wait = source.when_less_busy()?;
        i64::try_from(wait.as_secs()).ok()
    }
}

/// What this agent understands beyond the protocol's version.
const CAPABILITIES: [&str; 3] = ["merge", "scripts", "tree"];
