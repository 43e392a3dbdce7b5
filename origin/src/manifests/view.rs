//! What a device should hold and what it said, as an operator sees it: as JSON, or as text.

use std::fmt;

use protocol::{CommandKind, FilesetResult};
use serde::{Deserialize, Serialize};

use crate::fleet::time;
use crate::ledger::results::Given;

/// What a device should hold, and what it said.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Holds {
    /// The current model; 0 if there is none.
    pub model: u64,
    /// The number of its manifest; none if it has had none yet.
    pub manifest: Option<u64>,
    /// The digest of that.
    pub digest: Option<String>,
    /// Whether a new one is due.
    pub due: bool,
    /// What it should hold by the current model, by fileset.
    pub filesets: Vec<Wanted>,
    /// What it said last, by fileset.
    pub results: Vec<ResultView>,
    /// What was asked of it last, the newest first.
    pub commands: Vec<CommandView>,
}

/// A fileset that a device should hold.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Wanted {
    /// Its name.
    pub fileset: String,
    /// Its revision.
    pub revision: u64,
    /// Where.
    pub target: String,
    /// How that folder is shared.
    pub mode: String,
}

/// What a device said of a fileset.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ResultView {
    /// As it said it. The note is untrusted.
    #[serde(flatten)]
    pub said: FilesetResult,
    /// When it was heard, in Unix seconds.
    pub received_at: i64,
}

/// What was asked of a device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CommandView {
    /// Its number.
    pub id: u64,
    /// What.
    pub what: CommandKind,
    /// By whom.
    pub author: String,
    /// When, in Unix seconds.
    pub made_at: i64,
    /// When the device said that it is done.
    pub done_at: Option<i64>,
}

impl From<Given> for CommandView {
    fn from(given: Given) -> Self {
        Self {
            id: given.id,
            what: given.what,
            author: given.author,
            made_at: given.made_at,
            done_at: given.done_at,
        }
    }
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.manifest {
            Some(number) => write!(f, "  manifest   {number}")?,
            None => write!(f, "  manifest   none")?,
        }
        if self.due {
            write!(f, ", a new one is due")?;
        }
        for wanted in &self.filesets {
            let Wanted {
                fileset,
                revision,
                target,
                mode,
            } = wanted;
            write!(
                f,
                "\n  holds      {fileset}@{revision} in {target} ({mode})"
            )?;
        }
        for ResultView { said, received_at } in &self.results {
            let (name, revision, state) = (&said.fileset, said.revision, said.state.word());
            let at = time(*received_at);
            write!(f, "\n  said       {name}@{revision} {state} at {at}")?;
            if !said.note.is_empty() {
                // Escaped: the device wrote it, and a terminal obeys what it is shown.
                write!(f, " {:?}", said.note)?;
            }
        }
        for command in &self.commands {
            let (id, what, at) = (command.id, command.what.word(), time(command.made_at));
            let done = command.done_at.map_or_else(
                || "not done".to_owned(),
                |at| format!("done at {}", time(at)),
            );
            write!(
                f,
                "\n  asked      {what} ({id}) at {at} by {}: {done}",
                command.author
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for CommandView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, what) = (self.id, self.what.word());
        write!(
            f,
            "command {id}: {what}; the device hears it when it checks in next"
        )
    }
}
