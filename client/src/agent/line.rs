//! The agent's line to the origin: what is told, what is heard, and the manifest.

use std::sync::Arc;
use std::time::Duration;

use content::Digest;
use content::statement::{Manifest, Payload as _, Statement, StatementError};
use protocol::{CheckIn, CheckInAnswer, CurrentManifest, Held};
use service::Report;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};
use transport::{CallError, ContentJudge, Source};

use super::files::{Files, FilesError};
use super::state::{InForce, State};
use super::through::{Booster, Doubt, Through};
use super::wake::WHOLE;
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
    /// The boosters that are asked before the origin.
    pub(crate) through: Through,
}

/// What came of a check-in.
#[derive(Debug)]
pub(crate) struct Heard {
    /// What the origin said; none if nothing has changed.
    pub(crate) answer: Option<CheckInAnswer>,
    /// The manifest to go by from now on, if it is a new one; it is kept already.
    pub(crate) manifest: Option<Statement<Manifest>>,
    /// A booster has answered, out of a roster, which names no boosters, or for the origin.
    pub(crate) through: bool,
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
        let (trusted, shunned) = self.through.boosters();
        for booster in &trusted {
            match self.check_in_through(booster, &check_in, has, least).await {
                Ok(heard) => return Ok(heard),
                Err(Doubt::Call(source)) => {
                    if let Some(most) = self.through.puts_off(&source) {
                        return Err(CheckInError::PutOff { source, most });
                    }
                }
                Err(_) => {}
            }
        }
        let failure = match self.check_in_at_origin(&check_in, has, least).await {
            Err(failure) if failure.is_out_of_reach() => failure,
            checked => return checked,
        };
        // Better somebody who failed us lately than nobody: what holds is proved in any case.
        for booster in &shunned {
            let heard = self.check_in_through(booster, &check_in, has, least).await;
            if let Ok(heard) = heard {
                return Ok(heard);
            }
        }
        Err(failure)
    }

    async fn check_in_at_origin(
        &self,
        check_in: &CheckIn,
        has: Option<Digest>,
        least: u64,
    ) -> Result<Heard, CheckInError> {
        self.through.answered_by(None);
        let answered = self.origin.check_in(check_in).await;
        let answer = answered.map_err(|source| CheckInError::Call { source })?;
        self.through.heard();
        let current = answer.as_ref().and_then(|answer| answer.manifest.as_ref());
        let manifest = match current {
            Some(current) if has != Some(current.digest) => {
                check_number(current, has.is_some(), least)?;
                Some(self.manifest(&self.origin, current).await?)
            }
            Some(_) | None => None,
        };
        Ok(Heard {
            answer,
            manifest,
            through: false,
        })
    }

    /// The same through `booster`, which is left alone for a while if it should be.
    async fn check_in_through(
        &self,
        booster: &Booster,
        check_in: &CheckIn,
        has: Option<Digest>,
        least: u64,
    ) -> Result<Heard, Doubt> {
        let checked = self.check_in_at(booster, check_in, has, least).await;
        match &checked {
            Ok(_) => {
                self.through.answered_by(Some(&booster.source));
                self.through.heard();
                booster.forgive();
            }
            Err(doubt) => {
                info!(booster = %booster.id, error = %Report(doubt), "goes round a booster");
                if doubt.lasts() {
                    booster.shun();
                }
            }
        }
        checked
    }

    /// What it says of our manifest counts as far as it is proved; a newer one proves itself.
    async fn check_in_at(
        &self,
        booster: &Booster,
        check_in: &CheckIn,
        has: Option<Digest>,
        least: u64,
    ) -> Result<Heard, Doubt> {
        let sealed = self.through.seal(check_in.encode())?;
        let mut answer = booster.source.speak(sealed).await?;
        let proved = self.through.proved(booster, &self.judge, least).await?;
        if let Some(answer) = &mut answer {
            answer.next_seconds = answer.next_seconds.min(proved.longest());
        }
        let told = answer.as_ref().and_then(|answer| answer.manifest.clone());
        let newer = told.filter(|told| told.number > proved.entry.number);
        let mut manifest = match newer {
            Some(newer) => self.newer(booster, &newer).await,
            None => None,
        };
        if manifest.is_none()
            && let Some(digest) = proved.entry.manifest
            && has != Some(digest)
        {
            let current = CurrentManifest {
                model: proved.entry.model,
                number: proved.entry.number,
                digest,
            };
            check_number(&current, has.is_some(), least)?;
            let got = timeout(PROVED_MAX, self.manifest(&booster.source, &current)).await;
            manifest = Some(got.map_err(|_| Doubt::Slow)??);
        }
        Ok(Heard {
            answer,
            manifest,
            through: true,
        })
    }

    /// A manifest that is newer than the one on the roster, if `booster` has it: nobody has proved
    /// that there is one, so nobody else is asked, nor is it waited for long.
    async fn newer(
        &self,
        booster: &Booster,
        newer: &CurrentManifest,
    ) -> Option<Statement<Manifest>> {
        let got = timeout(NEWER_MAX, self.manifest(&booster.source, newer)).await;
        let why = match got {
            Ok(Ok(manifest)) => return Some(manifest),
            Ok(Err(failure)) => Report(&failure).to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        info!(booster = %booster.id, why, "cannot get the newer manifest that a booster tells of");
        None
    }

    /// Waits until something changes for a device that goes by `manifest`, made from `model`: where
    /// the last check-in was answered, and at the origin if that booster stops. None if nothing did.
    pub(crate) async fn wait(
        self,
        model: u64,
        manifest: Option<Digest>,
    ) -> Result<Option<CheckInAnswer>, CallError> {
        if let Some(booster) = self.through.last() {
            let begun = Instant::now();
            match booster.wait(model, manifest.as_ref()).await {
                Ok(None) if begun.elapsed() < WHOLE => debug!("a booster lets nobody wait"),
                Err(error) => debug!(error = %Report(&error), "cannot wait at a booster"),
                ended => return ended,
            }
            // Until the next check-in, which finds out who answers for us now.
            sleep(LEAVE_MAX.mul_f64(fastrand::f64())).await;
        }
        self.origin.wait(model, manifest.as_ref()).await
    }

    /// Fetches, verifies and keeps a manifest.
    async fn manifest(
        &self,
        source: &Source,
        current: &CurrentManifest,
    ) -> Result<Statement<Manifest>, CheckInError> {
        let (digest, most) = (current.digest, Manifest::ENVELOPE_BYTES_MAX);
        let fetched = source.statement(&digest, most).await;
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
    /// A booster asks to be left alone for a while.
    #[error("cannot check in yet: the booster asks to come later")]
    PutOff {
        /// How it said so.
        source: CallError,
        /// For how long that counts at most.
        most: Duration,
    },
    /// The program is ending.
    #[error("cannot keep the manifest: the program is ending")]
    Stopped,
}

impl CheckInError {
    /// Whether somebody else may know better: nothing was heard from whom was asked.
    fn is_out_of_reach(&self) -> bool {
        let (Self::Call { source } | Self::Fetch { source }) = self else {
            return false;
        };
        !matches!(source, CallError::Fault { .. })
    }

    /// How long the origin, or a booster, asks to be left alone, in seconds.
    pub(crate) fn busy(&self) -> Option<i64> {
        let (source, most) = match self {
            Self::Call { source } | Self::Fetch { source } => (source, Duration::MAX),
            Self::PutOff { source, most } => (source, *most),
            Self::Files(_)
            | Self::Manifest { .. }
            | Self::Number { .. }
            | Self::Old { .. }
            | Self::Other { .. }
            | Self::Stopped => return None,
        };
        let wait = source.when_less_busy()?.min(most);
        i64::try_from(wait.as_secs()).ok()
    }
}

/// How long a booster may take for a manifest that only it speaks of, and for one that it has proved,
/// which may be a few megabytes and have to cross its line first.
const NEWER_MAX: Duration = Duration::from_secs(30);
const PROVED_MAX: Duration = Duration::from_secs(300);
/// How long those who waited at a booster that has stopped take to come to the origin.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// What this agent understands beyond the protocol's version.
const CAPABILITIES: [&str; 3] = ["merge", "scripts", "tree"];
