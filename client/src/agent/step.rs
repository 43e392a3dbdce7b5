//! What to do next: a pure function of what the agent knows, the manifest and the time.
//!
//! ```text
//!  comes:  requirement ─ download ─ preflight ─ install ─ activation ─ postflight
//!          ─ verification ─ confirm; what fails once installed: go back, again later
//!          (what brings settings: verification ─ adopt ─ a check-in ─ confirm)
//!  goes:   pre-uninstall ─ uninstall ─ post-uninstall ─ discard
//! ```
//!
//! What comes waits for what it depends on. What goes waits for what comes to the same places, so
//! that no file that both have is ever missing, and for what depends on it and goes as well.

mod order;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use content::FilesetName;
use content::statement::{Item, Manifest, Stage, Times};
use serde::{Deserialize, Serialize};

use super::state::{Aim, Holding, Left, Reached, State};
use order::Handover;

/// Something to be done for one fileset.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    /// Which fileset.
    #[serde(with = "super::state::text")]
    pub(crate) fileset: FilesetName,
    /// What.
    pub(crate) what: What,
}

/// What can be done for a fileset.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// Run its scripts of a stage.
    Run(#[serde(with = "stage")] Stage),
    /// Fetch what is missing of it. May be broken off and taken up again at any moment.
    Download,
    /// Put it in its place, and keep what was there.
    Install,
    /// Read the settings that it brings, which are in force from then on.
    Adopt,
    /// Let go of what was there before.
    Confirm,
    /// Put back what was there before.
    GoBack,
    /// Take it from a place where it should be no more.
    TakeAway,
    /// Take it from its target.
    Uninstall,
    /// Remove what was downloaded.
    Discard,
    /// Look at every file of it, and heal.
    Verify,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Run(stage) => return write!(f, "{stage} scripts of {}", self.fileset),
            What::Download => "download",
            What::Install => "install",
            What::Adopt => "adopt the settings of",
            What::Confirm => "confirm",
            What::GoBack => "go back with",
            What::TakeAway => "move",
            What::Uninstall => "uninstall",
            What::Discard => "discard",
            What::Verify => "verify",
        };
        write!(f, "{what} {}", self.fileset)
    }
}

/// What to do now, if anything, and when to ask again at the latest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Next {
    /// What to do.
    pub(crate) act: Option<Act>,
    /// When something falls due without anything being done; none if nothing does.
    pub(crate) look_again_at: Option<i64>,
}

/// What the times of an item ask for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// Nothing yet.
    Early,
    /// Its bytes.
    Ahead,
    /// That it is active.
    Active,
    /// That it is not active any more.
    Over,
    /// That nothing is left of it.
    Gone,
}

impl Phase {
    /// What `times` ask for at `now`.
    pub(crate) fn at(times: &Times, now: i64) -> Self {
        let past = |time: Option<i64>| time.is_some_and(|at| at <= now);
        let future = |time: Option<i64>| time.is_some_and(|at| at > now);
        if past(times.delete_at) {
            Self::Gone
        } else if past(times.deactivate_at) {
            Self::Over
        } else if future(times.download_from) {
            Self::Early
        } else if future(times.activate_from) {
            Self::Ahead
        } else {
            Self::Active
        }
    }
}

/// What to do at `now`, for a state that has been settled with the same manifest and time.
pub(crate) fn next(state: &State, manifest: &Manifest, now: i64) -> Next {
    let look = Look {
        state,
        manifest,
        now,
    };
    let mut best: Option<(u8, Act)> = None;
    let mut again = look.times();
    for (name, holding) in &state.filesets {
        let (what, until) = look.of(name, holding);
        again = earlier(again, until);
        let Some(what) = what else { continue };
        let rank = rank(what, holding);
        if best.as_ref().is_none_or(|(best, _)| rank < *best) {
            let fileset = name.clone();
            best = Some((rank, Act { fileset, what }));
        }
    }
    Next {
        act: best.map(|(_, act)| act),
        look_again_at: again,
    }
}

/// What comes first. Nobody waits for a download who need not.
fn rank(what: What, holding: &Holding) -> u8 {
    let installed = holding
        .aim
        .as_ref()
        .is_some_and(|aim| aim.reached >= Reached::Installed);
    match what {
        What::GoBack | What::Adopt | What::Confirm => 0,
        What::Run(Stage::Activation | Stage::Postflight | Stage::Verification) if installed => 0,
        What::Install => 1,
        What::Run(Stage::Requirement) => 4,
        What::Run(Stage::PreUninstall | Stage::PostUninstall) => 3,
        What::Run(_) => 2,
        What::TakeAway | What::Uninstall | What::Discard => 3,
        What::Verify => 5,
        What::Download => 6,
    }
}

/// Everything that is looked at.
#[derive(Clone, Copy)]
struct Look<'a> {
    state: &'a State,
    manifest: &'a Manifest,
    now: i64,
}

/// What to do for one fileset, and until when there is nothing to do.
type Step = (Option<What>, Option<i64>);

const NOTHING: Step = (None, None);

impl Look<'_> {
    /// When the next of all times falls due.
    fn times(self) -> Option<i64> {
        let times = self.manifest.items.iter().flat_map(|item| item.times.all());
        let times = times.flatten().chain(self.state.verify_at);
        times.filter(|at| *at > self.now).min()
    }

    fn of(self, name: &FilesetName, holding: &Holding) -> Step {
        if holding.undo {
            return (Some(What::GoBack), None);
        }
        if holding.going.is_some() {
            return self.going(name, holding);
        }
        let (Some(item), Some(aim)) = (self.manifest.item(name), &holding.aim) else {
            return NOTHING;
        };
        let step = self.coming(item, holding, aim);
        if step.0.is_some() || !aim.is_settled() {
            return step;
        }
        if holding.outgoing.is_some() {
            return match aim.trouble.until(self.now) {
                Some(at) => (None, Some(at)),
                None => (Some(What::TakeAway), None),
            };
        }
        let checks = holding.check && holding.active.is_some();
        (checks.then_some(What::Verify), step.1)
    }

    /// What to do for a fileset that should be there.
    fn coming(self, item: &Item, holding: &Holding, aim: &Aim) -> Step {
        if aim.is_settled() {
            return NOTHING;
        }
        let phase = Phase::at(&item.times, self.now);
        // What has begun is brought to its end, whatever the time has become.
        let has_begun = aim.reached >= Reached::Installed;
        if !has_begun && !matches!(phase, Phase::Ahead | Phase::Active) {
            return NOTHING;
        }
        if let Some(at) = aim.trouble.until(self.now) {
            return (None, Some(at).filter(|at| *at != i64::MAX));
        }
        if aim.reached == Reached::Adopted {
            // The next check-in decides.
            return NOTHING;
        }
        let what = self.after(aim);
        let may = match what {
            What::Download => !self.has_unasked_dependants(item),
            What::Run(Stage::Preflight) | What::Install => {
                phase == Phase::Active && self.blocker(item).is_none()
            }
            What::Run(_)
            | What::Adopt
            | What::Confirm
            | What::GoBack
            | What::TakeAway
            | What::Uninstall
            | What::Discard
            | What::Verify => true,
        };
        if !may {
            return NOTHING;
        }
        let moves = matches!(what, What::Run(Stage::Preflight) | What::Install);
        if moves && (holding.outgoing.is_some() || is_in_its_own_way(holding, item)) {
            return (Some(What::TakeAway), None);
        }
        (Some(what), None)
    }

    /// What comes after what was reached; stages without scripts are passed over.
    fn after(self, aim: &Aim) -> What {
        let steps = [
            (Reached::Begun, What::Run(Stage::Requirement)),
            (Reached::Required, What::Download),
            (Reached::Downloaded, What::Run(Stage::Preflight)),
            (Reached::Prepared, What::Install),
            (Reached::Installed, What::Run(Stage::Activation)),
            (Reached::Activated, What::Run(Stage::Postflight)),
            (Reached::Followed, What::Run(Stage::Verification)),
            (Reached::Verified, What::Adopt),
        ];
        let has = |what: What| match what {
            What::Run(stage) => has_scripts(&aim.item, stage),
            What::Adopt => self.state.is_settings(&aim.item),
            What::Download
            | What::Install
            | What::Confirm
            | What::GoBack
            | What::TakeAway
            | What::Uninstall
            | What::Discard
            | What::Verify => true,
        };
        let mut left = steps
            .into_iter()
            .filter(|(reached, _)| *reached >= aim.reached);
        let next = left.find(|(_, what)| has(*what));
        next.map_or(What::Confirm, |(_, what)| what)
    }

    /// What to do for a fileset that should be there no more.
    fn going(self, name: &FilesetName, holding: &Holding) -> Step {
        let Some(going) = &holding.going else {
            return NOTHING;
        };
        if let Some(at) = going.trouble.until(self.now) {
            return (None, Some(at).filter(|at| *at != i64::MAX));
        }
        let has = |stage| {
            let item = going.item.as_ref();
            item.is_some_and(|item| has_scripts(item, stage))
        };
        if holding.active.is_some() && self.has_to_stay(name) {
            return NOTHING;
        }
        let what = match going.left {
            Left::Begun if has(Stage::PreUninstall) => What::Run(Stage::PreUninstall),
            Left::Begun | Left::Prepared if holding.active.is_some() => What::Uninstall,
            Left::Begun | Left::Prepared | Left::Gone if has(Stage::PostUninstall) => {
                What::Run(Stage::PostUninstall)
            }
            Left::Begun | Left::Prepared | Left::Gone | Left::Followed => {
                if holding.outgoing.is_some() {
                    What::TakeAway
                } else if holding.ahead.is_some() && holding.aim.is_none() {
                    What::Discard
                } else {
                    return NOTHING;
                }
            }
        };
        (Some(what), None)
    }
}

impl Aim {
    /// Whether nothing is left to be done for it.
    pub(crate) fn is_settled(&self) -> bool {
        self.skipped || self.reached == Reached::Done
    }
}

/// Whether what is active lies where it leaves no room for `item`.
fn is_in_its_own_way(holding: &Holding, item: &Item) -> bool {
    let old = holding
        .active
        .as_ref()
        .filter(|old| !old.is_same_place(item));
    old.is_some_and(|old| Handover::between(old, item) == Handover::GoingFirst)
}

/// Whether something is to be run for `item` at `stage`.
pub(crate) fn has_scripts(item: &Item, stage: Stage) -> bool {
    item.scripts.iter().any(|script| script.stage == stage)
}

/// The earlier of two times, of which each may be none.
pub(crate) fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

/// Stages are kept as their words.
mod stage {
    use content::statement::Stage;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(stage: &Stage, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(stage.word())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Stage, D::Error> {
        let word = String::deserialize(from)?;
        let stage = Stage::from_word(&word);
        stage.ok_or_else(|| serde::de::Error::custom(format!("no stage is called {word:?}")))
    }
}
