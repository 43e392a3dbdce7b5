//! What a manifest, or the time, makes of the state: what each fileset is on its way to, and what
//! is to be told of it.

use content::statement::{Item, Manifest};
use content::{FilesetName, RevisionNumber};
use protocol::{FilesetResult, FilesetState};

use super::kept::Kept;
use super::state::{Aim, Going, Holding, Left, Reached, State, Trouble, shortened};
use super::step::{Act, Phase, What};

impl State {
    /// Brings the state in line with what `manifest` says at `now`. Done twice, it changes nothing
    /// the second time.
    pub(crate) fn settle(&mut self, manifest: &Manifest, now: i64) {
        for item in &manifest.items {
            let holding = self.filesets.entry(item.fileset.clone()).or_default();
            match Phase::at(&item.times, now) {
                Phase::Gone => holding.go(),
                Phase::Over => {
                    holding.aim_at(item);
                    holding.stop();
                }
                Phase::Early | Phase::Ahead | Phase::Active => {
                    holding.stay();
                    holding.aim_at(item);
                }
            }
        }
        for (name, holding) in &mut self.filesets {
            if manifest.item(name).is_none() {
                holding.go();
            }
        }
        self.review(manifest, now);
        self.filesets
            .retain(|name, holding| !holding.is_nothing(manifest.item(name).is_some()));
        self.forget_settings();
        self.end_commands();
    }

    /// Notes what is to be told of each fileset, where that has changed.
    fn review(&mut self, manifest: &Manifest, now: i64) {
        let mut news = Vec::new();
        for (name, holding) in &mut self.filesets {
            let doing = self.doing.as_ref().filter(|act| act.fileset == *name);
            let view = holding.view(manifest.item(name), now, doing);
            let Some(result) = view.map(|view| view.result(name, holding, now)) else {
                continue;
            };
            if holding
                .last
                .as_ref()
                .is_none_or(|last| !says_same(last, &result))
            {
                holding.last = Some(result.clone());
                news.push(result);
            }
        }
        news.into_iter().for_each(|result| self.tell(result));
    }

    /// A verify that an operator asked for is done once nothing is left to be looked at.
    fn end_commands(&mut self) {
        if self.filesets.values().any(|holding| holding.check) {
            return;
        }
        let verify =
            |(id, kind): (&u64, &_)| (*kind == protocol::CommandKind::Verify).then_some(*id);
        let ended: Vec<u64> = self.commands.iter().filter_map(verify).collect();
        ended.into_iter().for_each(|id| self.command_done(id));
    }
}

/// How a fileset stands, in a word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct View {
    /// The word.
    pub(crate) state: FilesetState,
    /// Of which revision.
    pub(crate) revision: RevisionNumber,
    /// Why.
    pub(crate) note: String,
}

impl View {
    fn new(state: FilesetState, item: &Item, note: &str) -> Self {
        Self {
            state,
            revision: item.revision,
            note: shortened(note),
        }
    }

    fn result(self, name: &FilesetName, holding: &Holding, now: i64) -> FilesetResult {
        let sources = holding.aim.as_ref().map(|aim| aim.sources.clone());
        let last = holding.last.as_ref().map(|last| last.at);
        FilesetResult {
            fileset: name.clone(),
            revision: self.revision.0,
            state: self.state,
            at: last.map_or(now, |last| now.max(last + 1)),
            note: self.note,
            sources: sources.unwrap_or_default(),
        }
    }
}

impl Holding {
    /// Makes `item` what it is on its way to.
    fn aim_at(&mut self, item: &Item) {
        if let Some(aim) = &mut self.aim
            && aim.item.is_same_work(item)
        {
            if *aim.item != *item {
                aim.item = Kept::from(item);
                aim.trouble = Trouble::default();
                if aim.reached == Reached::Done {
                    self.active = Some(Kept::from(item));
                }
            }
            return;
        }
        // What was under way and has not been confirmed is given up.
        self.undo = self.unconfirmed;
        self.aim = Some(Aim {
            item: Kept::from(item),
            reached: Reached::Begun,
            trouble: Trouble::default(),
            skipped: false,
            trials: 0,
            sources: Vec::new(),
        });
    }

    /// It should be there, whatever was begun to take it away.
    fn stay(&mut self) {
        let Some(going) = self.going.take() else {
            return;
        };
        self.undo = self.unconfirmed;
        if let Some(aim) = &mut self.aim {
            // Its scripts have been told that it goes, or it has gone.
            if going.left > Left::Begun && aim.reached > Reached::Required {
                aim.reached = Reached::Required;
            }
            aim.skipped = false;
        }
    }

    /// It should not be active any more.
    fn stop(&mut self) {
        if self.going.is_none() && (self.active.is_some() || self.outgoing.is_some()) {
            self.leave();
        }
    }

    /// Nothing of it should be there any more.
    fn go(&mut self) {
        self.aim = None;
        if self.going.is_none() {
            self.leave();
        }
    }

    fn leave(&mut self) {
        (self.undo, self.check) = (false, false);
        self.going = Some(Going {
            item: self.active.clone(),
            left: Left::Begun,
            trouble: Trouble::default(),
        });
    }

    /// Whether there is nothing to be kept of it any more.
    fn is_nothing(&self, is_wanted: bool) -> bool {
        !is_wanted
            && self.active.is_none()
            && self.outgoing.is_none()
            && self.is_left()
            && self.ahead.is_none()
    }

    /// Whether all has been done to take it away.
    fn is_left(&self) -> bool {
        self.going.as_ref().is_none_or(|going| {
            let silent = going.item.as_ref().is_none_or(|item| {
                !super::step::has_scripts(item, content::statement::Stage::PostUninstall)
            });
            going.left == Left::Followed || silent
        })
    }

    /// How it stands; none if there is nothing to tell.
    pub(crate) fn view(&self, item: Option<&Item>, now: i64, doing: Option<&Act>) -> Option<View> {
        if let Some(going) = &self.going {
            return self.leaving_view(going, item);
        }
        let aim = self.aim.as_ref()?;
        let item = item?;
        let note = aim.trouble.note.as_str();
        let has_failed = !note.is_empty();
        let state = if aim.skipped {
            return Some(View::new(FilesetState::Active, item, SKIPPED));
        } else if aim.reached == Reached::Done {
            return Some(match &self.damaged {
                Some(damage) => View::new(FilesetState::Damaged, item, damage),
                None => View::new(FilesetState::Active, item, note),
            });
        } else if Phase::at(&item.times, now) == Phase::Over {
            FilesetState::Inactive
        } else if self.undo || (has_failed && aim.reached >= Reached::Downloaded) {
            FilesetState::Failed
        } else if aim.reached >= Reached::Downloaded {
            FilesetState::Downloaded
        } else if doing.is_some_and(|act| act.what == What::Download)
            || (has_failed && aim.reached == Reached::Required)
        {
            FilesetState::Downloading
        } else if aim.trouble.never {
            FilesetState::Failed
        } else {
            FilesetState::Waiting
        };
        Some(View::new(state, item, note))
    }

    fn leaving_view(&self, going: &Going, item: Option<&Item>) -> Option<View> {
        let was = going.item.as_deref().or(item);
        let note = going.trouble.note.as_str();
        let is_over = self.active.is_none() && self.outgoing.is_none();
        let state = match (is_over, item) {
            (false, _) if note.is_empty() => FilesetState::Active,
            (false, _) => FilesetState::Failed,
            (true, Some(_)) if self.aim.is_some() => FilesetState::Inactive,
            (true, _) => FilesetState::Removed,
        };
        match was {
            Some(was) => Some(View::new(state, was, note)),
            // Never installed, and told of: its last word is that it is gone.
            None => self.last.as_ref().map(|last| View {
                state,
                revision: RevisionNumber(last.revision),
                note: String::new(),
            }),
        }
    }
}

/// Whether two results differ in their times and their bytes alone.
fn says_same(one: &FilesetResult, other: &FilesetResult) -> bool {
    one.revision == other.revision && one.state == other.state && one.note == other.note
}

/// What is told of a fileset that a script has found to be of no use here.
const SKIPPED: &str = "a script says that it counts as installed";
