//! What the end of an act makes of the state.

use content::Digest;
use content::statement::{Manifest, Stage};
use protocol::{FilesetResult, SourceBytes};

use super::kept::Kept;
use super::state::{Ahead, Holding, Left, Reached, State, Trouble};
use super::step::{Act, What};

/// How an act ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// As it should.
    Done,
    /// A script ended with a code of its own; none if it was killed or could not be run.
    Exit {
        /// The code.
        code: Option<i32>,
        /// Which, and what it said.
        note: String,
    },
    /// All bytes are there.
    Downloaded {
        /// The digest of the locator that was kept.
        locator: Digest,
        /// Where they came from.
        sources: Vec<SourceBytes>,
    },
    /// It is at its target.
    Installed {
        /// Where the bytes came from that were not there yet.
        sources: Vec<SourceBytes>,
    },
    /// What is at the target, by its revision's number, after it was put back.
    WentBack {
        /// None if nothing is.
        to: Option<u64>,
    },
    /// Some files are not as they should be, and cannot be healed.
    Damaged {
        /// Which.
        note: String,
    },
    /// The settings that it brings are these.
    Adopted {
        /// What the file says.
        text: String,
    },
    /// It is of no use, however often it is tried.
    Unusable {
        /// Why.
        note: String,
    },
    /// It could not be done.
    Failed {
        /// Why.
        note: String,
    },
    /// It was broken off, and is to be taken up again.
    BrokenOff,
}

impl State {
    /// Writes down that `act` begins.
    pub(crate) fn begin(&mut self, act: &Act, manifest: &Manifest, now: i64) {
        self.doing = Some(act.clone());
        if let Some(holding) = self.filesets.get_mut(&act.fileset)
            && act.what == What::Install
        {
            holding.installing = holding.aim.as_ref().map(|aim| aim.item.clone());
        }
        self.settle(manifest, now);
    }

    /// Takes note of how `act` has ended at `now`. By `random` (0 to 1), not all devices try again
    /// at once what has failed for all of them.
    pub(crate) fn end(
        &mut self,
        act: &Act,
        outcome: Outcome,
        manifest: &Manifest,
        now: i64,
        random: f64,
    ) {
        self.doing = None;
        if let Some(holding) = self.filesets.get_mut(&act.fileset) {
            let read = if let Outcome::Adopted { text } = &outcome {
                holding.active.clone().zip(Some(text.clone()))
            } else {
                None
            };
            let cannot_go = act.what == What::GoBack && matches!(outcome, Outcome::Failed { .. });
            holding.end(act.what, outcome, now, random);
            let left = holding.active.clone().filter(|_| cannot_go);
            if let Some((item, text)) = read {
                self.adopt(&item, text);
            }
            // What has been turned down is not in force because it cannot be put away.
            if let Some(item) = left {
                self.disown(&item);
            }
        }
        self.settle(manifest, now);
    }
}

impl Holding {
    fn end(&mut self, what: What, outcome: Outcome, now: i64, random: f64) {
        self.installing = None;
        match outcome {
            Outcome::BrokenOff => {}
            Outcome::Done | Outcome::Adopted { .. } => self.done(what),
            Outcome::Unusable { note } => self.failed(what, &note, now, None),
            Outcome::Downloaded { locator, sources } => self.downloaded(locator, sources),
            Outcome::Installed { sources } => {
                if let Some(aim) = &mut self.aim {
                    add(&mut aim.sources, sources);
                }
                self.done(What::Install);
            }
            Outcome::WentBack { to } => self.went_back(to),
            Outcome::Damaged { note } => {
                (self.check, self.damaged) = (false, Some(note));
            }
            Outcome::Exit {
                code: Some(SKIP), ..
            } => self.skip(what),
            Outcome::Exit { code, note } => {
                let ever = code != Some(NEVER);
                self.failed(what, &note, now, ever.then(|| self.script_pause(what)));
            }
            Outcome::Failed { note } => {
                let pause = self.pause(what, random);
                self.failed(what, &note, now, Some(pause));
            }
        }
    }

    fn done(&mut self, what: What) {
        match what {
            What::Run(stage) => self.has_run(stage),
            // The outcome of a download is another one; all the same, it is done.
            What::Download => self.reach(Reached::Downloaded),
            What::Install => self.installed(),
            What::Adopt => {
                self.reach(Reached::Adopted);
                self.aim.iter_mut().for_each(|aim| aim.trials = 0);
            }
            What::Confirm => {
                self.reach(Reached::Done);
                self.confirmed();
            }
            What::GoBack => {
                let to = self.previous.as_ref().map(|kept| kept.revision.0);
                return self.went_back(to);
            }
            // What stands in the way of its own next place goes first.
            What::TakeAway if self.outgoing.is_none() => self.active = None,
            What::TakeAway => self.outgoing = None,
            What::Uninstall => {
                self.taken_away();
                self.leave_to(Left::Gone);
                if let Some(aim) = &mut self.aim {
                    aim.reached = aim.reached.min(Reached::Required);
                }
            }
            What::Discard => self.ahead = None,
            What::Verify => (self.check, self.damaged) = (false, None),
        }
        self.calm();
    }

    fn has_run(&mut self, stage: Stage) {
        match stage {
            Stage::Requirement => self.reach(Reached::Required),
            Stage::Preflight => self.reach(Reached::Prepared),
            Stage::Activation => self.reach(Reached::Activated),
            Stage::Postflight => self.reach(Reached::Followed),
            Stage::Verification => self.reach(Reached::Verified),
            Stage::PreUninstall => self.leave_to(Left::Prepared),
            Stage::PostUninstall => self.leave_to(Left::Followed),
        }
    }

    fn reach(&mut self, reached: Reached) {
        if let Some(aim) = &mut self.aim {
            aim.reached = reached;
        }
    }

    fn leave_to(&mut self, left: Left) {
        if let Some(going) = &mut self.going {
            going.left = left;
        }
    }

    /// What was tried went well: earlier trouble is forgotten.
    fn calm(&mut self) {
        if let Some(aim) = &mut self.aim {
            // That it was installed and failed makes it wait longer if it does so again.
            let is_between = aim.reached > Reached::Downloaded && aim.reached < Reached::Done;
            let failures = if is_between { aim.trouble.failures } else { 0 };
            aim.trouble = Trouble {
                failures,
                ..Trouble::default()
            };
        }
        if let Some(going) = &mut self.going {
            going.trouble = Trouble::default();
        }
    }

    fn downloaded(&mut self, locator: Digest, sources: Vec<SourceBytes>) {
        if let Some(aim) = &mut self.aim {
            let item = aim.item.clone();
            self.ahead = Some(Ahead { item, locator });
            add(&mut aim.sources, sources);
        }
        self.done(What::Download);
    }

    fn installed(&mut self) {
        if let Some(aim) = &self.aim {
            self.place(aim.item.clone());
            self.damaged = None;
            self.reach(Reached::Installed);
        }
    }

    fn confirmed(&mut self) {
        self.unconfirmed = false;
        self.ahead = None;
        let previous = self.previous.take();
        if let (Some(active), Some(previous)) = (&self.active, previous)
            && !active.is_same_place(&previous)
        {
            self.outgoing = Some(previous);
        }
    }

    /// Nothing is at the target, and nothing is kept of what was there before.
    fn taken_away(&mut self) {
        let (active, previous) = (self.active.take(), self.previous.take());
        (self.unconfirmed, self.damaged) = (false, None);
        if let (Some(active), Some(previous)) = (active, previous)
            && !active.is_same_place(&previous)
        {
            self.outgoing.get_or_insert(previous);
        }
    }

    /// `to` is what the target of what failed bears now.
    fn went_back(&mut self, to: Option<u64>) {
        let (failed, previous) = (self.active.take(), self.previous.take());
        (self.undo, self.unconfirmed) = (false, false);
        let is_there = |kept: &Kept| to == Some(kept.revision.0);
        // Something else that was there once: it lies where the one that failed lay.
        let unknown = || {
            failed
                .as_ref()
                .zip(to)
                .map(|(kept, to)| kept.of_revision(to))
        };
        let is_elsewhere = |kept: &Kept| failed.as_ref().is_none_or(|at| !kept.is_same_place(at));
        match previous {
            Some(previous) if is_elsewhere(&previous) => {
                if let Some(there) = unknown() {
                    self.active = Some(there);
                    self.outgoing.get_or_insert(previous);
                } else {
                    self.active = Some(previous);
                }
            }
            previous => self.active = previous.filter(is_there).or_else(unknown),
        }
        if let Some(aim) = &mut self.aim
            && aim.reached > Reached::Required
        {
            let ahead = self.ahead.as_ref();
            let is_ahead = ahead.is_some_and(|ahead| ahead.item.is_same_content(&aim.item));
            aim.reached = if is_ahead {
                Reached::Downloaded
            } else {
                Reached::Required
            };
        }
    }

    /// A script has said that nothing more need be done.
    fn skip(&mut self, what: What) {
        match what {
            // Nothing is installed yet, and nothing will be.
            What::Run(Stage::Requirement | Stage::Preflight) => {
                if let Some(aim) = &mut self.aim {
                    (aim.skipped, aim.trouble) = (true, Trouble::default());
                }
            }
            // It is installed: the scripts that are left need not run.
            What::Run(Stage::Activation | Stage::Postflight | Stage::Verification)
                if self.unconfirmed =>
            {
                self.reach(Reached::Verified);
                self.calm();
            }
            What::Run(_)
            | What::Download
            | What::Install
            | What::Adopt
            | What::Confirm
            | What::GoBack
            | What::TakeAway
            | What::Uninstall
            | What::Discard
            | What::Verify => self.done(what),
        }
    }

    fn failed(&mut self, what: What, note: &str, now: i64, pause: Option<i64>) {
        match what {
            What::Run(Stage::Activation | Stage::Postflight | Stage::Verification)
            | What::Adopt => self.undo = self.unconfirmed,
            // Nothing is there to be put back: it has gone already.
            What::Run(Stage::PostUninstall) => {
                self.leave_to(Left::Followed);
                return;
            }
            // What an operator has taken away does not stay for the sake of a script.
            What::Run(Stage::PreUninstall) if pause.is_none() || self.failures() >= PLEAS_MAX => {
                self.leave_to(Left::Prepared);
                return self.calm();
            }
            What::Verify => {
                (self.check, self.damaged) = (false, Some(super::state::shortened(note)));
                return;
            }
            What::GoBack => {
                // What was there before cannot be put back: what is there is all there is.
                (self.undo, self.unconfirmed, self.previous) = (false, false, None);
                if let Some(aim) = &mut self.aim {
                    aim.reached = aim.reached.min(Reached::Required);
                }
            }
            What::Run(_)
            | What::Download
            | What::Install
            | What::Confirm
            | What::TakeAway
            | What::Uninstall
            | What::Discard => {}
        }
        let going = self.going.as_mut().map(|going| &mut going.trouble);
        let aim = self.aim.as_mut().map(|aim| &mut aim.trouble);
        if let Some(trouble) = going.or(aim) {
            trouble.failed(note, now, pause);
        }
    }

    /// What was installed does not do: it makes way, and is tried again later.
    pub(super) fn turned_down(&mut self, what: What, note: &str, now: i64) {
        let pause = self.script_pause(what);
        self.failed(what, note, now, Some(pause));
    }

    /// How long to wait after a script has failed, in seconds.
    fn script_pause(&self, what: What) -> i64 {
        match what {
            // The device goes to and fro between two revisions each time.
            What::Run(Stage::Activation | Stage::Postflight | Stage::Verification)
            | What::Adopt => doubled(SCRIPT_PAUSE, self.failures()),
            What::Run(_)
            | What::Download
            | What::Install
            | What::Confirm
            | What::GoBack
            | What::TakeAway
            | What::Uninstall
            | What::Discard
            | What::Verify => SCRIPT_PAUSE,
        }
    }

    /// How long to wait after something else has failed, in seconds.
    fn pause(&self, what: What, random: f64) -> i64 {
        let first = if what == What::Download {
            DOWNLOAD_PAUSE
        } else {
            SCRIPT_PAUSE
        };
        let pause = doubled(first, self.failures());
        (pause as f64 * (0.5 + random.clamp(0.0, 1.0) / 2.0)) as i64
    }

    fn failures(&self) -> u32 {
        let going = self.going.as_ref().map(|going| going.trouble.failures);
        let aim = self.aim.as_ref().map(|aim| aim.trouble.failures);
        going.or(aim).unwrap_or_default()
    }
}

/// Adds up what came from whom.
fn add(sources: &mut Vec<SourceBytes>, more: Vec<SourceBytes>) {
    for SourceBytes { id, bytes } in more {
        if let Some(source) = sources.iter_mut().find(|source| source.id == id) {
            source.bytes += bytes;
        } else if sources.len() < FilesetResult::SOURCES_MAX {
            sources.push(SourceBytes { id, bytes });
        }
    }
}

/// `first` after no failure, twice as much after each, an hour at most.
fn doubled(first: i64, failures: u32) -> i64 {
    (first << failures.min(10)).min(PAUSE_MAX)
}

/// A script's code: it counts as installed (FileWave's).
const SKIP: i32 = 210;
/// A script's code: it has failed, and is not to be tried again by itself (FileWave's).
const NEVER: i32 = 220;
/// After how many seconds a script is run again (FileWave's two minutes).
const SCRIPT_PAUSE: i64 = 120;
/// How often a script may ask that a fileset stay: for an hour.
const PLEAS_MAX: u32 = 30;
/// After how many seconds a download is tried again for the first time.
const DOWNLOAD_PAUSE: i64 = 60;
/// After how many seconds anything is tried again at the latest.
const PAUSE_MAX: i64 = 3600;
