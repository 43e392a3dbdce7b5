//! What the agent knows, as it is kept on disk.

use std::collections::{BTreeMap, BTreeSet};

use content::{Digest, FilesetName};
use protocol::{Command, CommandKind, FilesetHeld, FilesetResult, FilesetState, SourceBytes};
use serde::{Deserialize, Serialize};

use super::adopt::Adopted;
use super::kept::Kept;
use super::step::Act;
use crate::guide::Guide;

/// All that the agent knows.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// The manifest that it goes by; none before the first.
    pub(crate) manifest: Option<InForce>,
    /// When the origin wants it to come, in seconds; none before it has said so.
    pub(crate) interval: Option<u32>,
    /// What is known of sources.
    #[serde(default)]
    pub(crate) guide: Guide,
    /// When everything is looked at next.
    pub(crate) verify_at: Option<i64>,
    /// Commands that are under way, by their ids.
    #[serde(default)]
    pub(crate) commands: BTreeMap<u64, CommandKind>,
    /// Commands that are done, and of which the origin has not heard.
    #[serde(default)]
    pub(crate) done: BTreeSet<u64>,
    /// The last commands that were done: one that is told again is not done again.
    #[serde(default)]
    pub(crate) recent: BTreeSet<u64>,
    /// What the origin has not heard: the last of each fileset.
    #[serde(default, with = "by_name")]
    pub(crate) results: BTreeMap<FilesetName, FilesetResult>,
    /// The filesets that are here, or under way.
    #[serde(default, with = "by_name")]
    pub(crate) filesets: BTreeMap<FilesetName, Holding>,
    /// What has been begun and may not have ended.
    pub(crate) doing: Option<Act>,
    /// The target of filesets that bring settings, as the device has it; none if none may.
    #[serde(default)]
    pub(crate) settings_at: Option<String>,
    /// The settings that they have brought.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) adopted: Vec<Adopted>,
}

/// Which manifest the agent goes by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InForce {
    /// Its number, below which none is taken any more.
    pub(crate) number: u64,
    /// Its model.
    pub(crate) model: u64,
    /// The digest of its envelope.
    #[serde(with = "text")]
    pub(crate) digest: Digest,
}

/// How one fileset stands.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Holding {
    /// What is at its target.
    pub(crate) active: Option<Kept>,
    /// What is being put there: whether it has got there is not known until that has ended.
    pub(crate) installing: Option<Kept>,
    /// Whether what is active is not confirmed yet: what was there before is kept.
    pub(crate) unconfirmed: bool,
    /// What was there before, while that is so.
    pub(crate) previous: Option<Kept>,
    /// Whether what is at the target has failed, and has to make way for what was there before.
    pub(crate) undo: bool,
    /// What lies at a place where it should be no more.
    pub(crate) outgoing: Option<Kept>,
    /// What is downloaded and not yet confirmed.
    pub(crate) ahead: Option<Ahead>,
    /// What it is on its way to.
    pub(crate) aim: Option<Aim>,
    /// How far it has been taken away.
    pub(crate) going: Option<Going>,
    /// Whether its files have to be looked at.
    pub(crate) check: bool,
    /// What was wrong with them and could not be healed.
    pub(crate) damaged: Option<String>,
    /// The last that was to be told of it.
    pub(crate) last: Option<FilesetResult>,
}

/// What is downloaded.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ahead {
    /// What it is of.
    pub(crate) item: Kept,
    /// The digest of the locator that is kept with it.
    #[serde(with = "text")]
    pub(crate) locator: Digest,
}

/// What a fileset is on its way to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Aim {
    /// What the manifest says.
    pub(crate) item: Kept,
    /// What has been done for it.
    pub(crate) reached: Reached,
    /// What went wrong.
    #[serde(default)]
    pub(crate) trouble: Trouble,
    /// Whether a script has said that nothing need be done: it counts as installed.
    #[serde(default)]
    pub(crate) skipped: bool,
    /// How many check-ins in a row have failed under the settings that it brings.
    #[serde(default)]
    pub(crate) trials: u32,
    /// Where its bytes came from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<SourceBytes>,
}

/// The last thing that was done for a fileset that comes, in order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reached {
    /// Nothing.
    Begun,
    /// The device meets the requirements.
    Required,
    /// All bytes are there.
    Downloaded,
    /// The preflight scripts have run.
    Prepared,
    /// It is at its target.
    Installed,
    /// The activation scripts have run.
    Activated,
    /// The postflight scripts have run.
    Followed,
    /// The verification scripts have run.
    Verified,
    /// The settings that it brings are in force, on trial.
    Adopted,
    /// A check-in has worked under them.
    Tried,
    /// It is confirmed.
    Done,
}

/// How far a fileset has been taken away.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Going {
    /// What was there; none if nothing was.
    pub(crate) item: Option<Kept>,
    /// The last thing that was done.
    pub(crate) left: Left,
    /// What went wrong.
    #[serde(default)]
    pub(crate) trouble: Trouble,
}

/// The last thing that was done for a fileset that goes, in order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Left {
    /// Nothing.
    Begun,
    /// The pre-uninstall scripts have run.
    Prepared,
    /// Nothing is at its target.
    Gone,
    /// The post-uninstall scripts have run.
    Followed,
}

/// What went wrong since something last went well.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Trouble {
    /// How often.
    pub(crate) failures: u32,
    /// When to try again.
    pub(crate) retry_at: Option<i64>,
    /// Whether it is not tried again before the manifest says something else of the fileset.
    pub(crate) never: bool,
    /// What happened last: at most [`FilesetResult::NOTE_BYTES_MAX`].
    pub(crate) note: String,
}

impl State {
    /// Takes up what an earlier run left. What it was installing when it ended may be there or not:
    /// it is taken for there, and has to make way.
    pub(crate) fn recover(&mut self) {
        self.doing = None;
        for holding in self.filesets.values_mut() {
            let Some(item) = holding.installing.take() else {
                continue;
            };
            holding.place(item);
            holding.undo = true;
        }
    }

    /// Takes note of what an operator asks. What is known, or was done, is not done again.
    pub(crate) fn hear(&mut self, command: Command) {
        if self.recent.contains(&command.id) {
            self.done.insert(command.id);
            return;
        }
        if self.commands.len() >= COMMANDS_MAX {
            return;
        }
        match command.what {
            CommandKind::Verify => {
                let active = self.filesets.values_mut().filter(|it| it.active.is_some());
                active.for_each(|holding| holding.check = true);
                self.commands.insert(command.id, command.what);
            }
            CommandKind::Log | CommandKind::Renew => {
                self.commands.insert(command.id, command.what);
            }
            CommandKind::Unknown => self.command_done(command.id),
        }
    }

    /// Takes note that a command is done.
    pub(crate) fn command_done(&mut self, id: u64) {
        self.commands.remove(&id);
        self.done.insert(id);
        self.recent.insert(id);
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }

    /// The scripts that may have to be run.
    pub(crate) fn scripts(&self) -> BTreeSet<Digest> {
        let holdings = self.filesets.values();
        let items = holdings.flat_map(|holding| {
            let aim = holding.aim.as_ref().map(|aim| &aim.item);
            let going = holding.going.as_ref().and_then(|going| going.item.as_ref());
            let others = [&holding.active, &holding.previous, &holding.outgoing];
            others.into_iter().flatten().chain(aim).chain(going)
        });
        let scripts = items.flat_map(|item| &item.scripts);
        scripts.map(|script| script.digest).collect()
    }

    /// Takes note that the origin has heard `results` and `done`.
    pub(crate) fn told(&mut self, results: &[FilesetResult], done: &[u64]) {
        for result in results {
            if self.results.get(&result.fileset) == Some(result) {
                self.results.remove(&result.fileset);
            }
        }
        for id in done {
            self.done.remove(id);
        }
    }

    /// Says that something about `fileset` should be told. A result counts only if it is newer
    /// than the one before, so that two of one second are told apart.
    pub(crate) fn tell(&mut self, result: FilesetResult) {
        let before = self.results.get(&result.fileset).map(|result| result.at);
        let at = before.map_or(result.at, |before| result.at.max(before + 1));
        let result = FilesetResult { at, ..result };
        self.results.insert(result.fileset.clone(), result);
    }
}

impl Holding {
    /// What it has come to: at its target, damaged or not, or failed on the way there. None while it
    /// comes or goes.
    pub(crate) fn settled(&self) -> Option<FilesetHeld> {
        let failed = self
            .last
            .as_ref()
            .filter(|last| last.state == FilesetState::Failed);
        match (&self.active, failed) {
            (Some(active), _) => Some(FilesetHeld {
                revision: active.revision.0,
                state: match self.damaged {
                    Some(_) => FilesetState::Damaged,
                    None => FilesetState::Active,
                },
            }),
            (None, Some(last)) => Some(FilesetHeld {
                revision: last.revision,
                state: FilesetState::Failed,
            }),
            (None, None) => None,
        }
    }

    /// Takes note that `item` is at its target, not confirmed.
    pub(super) fn place(&mut self, item: Kept) {
        let before = self.active.replace(item);
        // Done again, what was there before is known already.
        if !self.unconfirmed {
            self.previous = before;
        }
        self.unconfirmed = true;
    }
}

impl Trouble {
    /// Takes note of a failure, after which nothing is tried for `seconds`; none for ever.
    pub(crate) fn failed(&mut self, note: &str, now: i64, seconds: Option<i64>) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = seconds.map(|seconds| now.saturating_add(seconds));
        self.never = seconds.is_none();
        self.note = shortened(note);
    }

    /// When it may be tried again, if that is after `now`. The end of time if never.
    pub(crate) fn until(&self, now: i64) -> Option<i64> {
        if self.never {
            return Some(i64::MAX);
        }
        self.retry_at.filter(|at| *at > now)
    }
}

/// A note as long as one may be.
pub(crate) fn shortened(note: &str) -> String {
    let mut end = note.len().min(FilesetResult::NOTE_BYTES_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}

/// More commands than the origin can give at once, of which one kind is asked for many times.
const COMMANDS_MAX: usize = 256;
/// How many commands that were done are remembered.
const RECENT_MAX: usize = 256;

/// What has a text form is kept in it.
pub(super) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in super::super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in super::super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Maps by the names of filesets.
mod by_name {
    use std::collections::BTreeMap;

    use content::FilesetName;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        map: &BTreeMap<FilesetName, T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(name, value)| (name.as_str(), value)))
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<FilesetName, T>, D::Error> {
        let map = BTreeMap::<String, T>::deserialize(deserializer)?;
        let named = map.into_iter().map(|(name, value)| {
            let name = name.parse().map_err(serde::de::Error::custom)?;
            Ok((name, value))
        });
        named.collect()
    }
}
