//! `model`: who should hold what.

mod edit;

use std::fmt;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use service::Output;

use super::Place;
use crate::admin::AdminClient;
use crate::model::calls::{Reason, Rollback};
use crate::model::desk::ENTRIES_SHOWN;
use crate::model::view::{Committed, Diff, DraftShown, DraftView, ModelShown, ModelView};

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// See drafts, and forget them
    #[command(subcommand)]
    Draft(DraftCommand),
    /// Put something into a draft, which begins with the current model if it is new
    Set(edit::SetArgs),
    /// Let a draft remove something
    Unset(edit::UnsetArgs),
    /// Show what a draft would come to: who gets, loses or changes what
    Diff {
        /// The draft
        draft: String,
    },
    /// Make a draft the next model
    Commit(CommitArgs),
    /// Make a new model that says what an old one did
    Rollback(RollbackArgs),
    /// List models, the newest first
    List,
    /// Show what a model says
    Show {
        /// Its number; the current one if there is none
        model: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DraftCommand {
    /// List drafts
    List,
    /// Show what a draft edits
    Show {
        /// Its name
        draft: String,
    },
    /// Forget a draft
    Drop {
        /// Its name
        draft: String,
    },
    /// Let a draft stand on the current model, once you have seen what others changed
    Rebase {
        /// Its name
        draft: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct CommitArgs {
    /// The draft
    draft: String,

    /// Why, for those who come after
    #[arg(long)]
    message: String,
}

#[derive(Args, Debug)]
pub(super) struct RollbackArgs {
    /// The number of the model that is to hold again
    model: u64,

    /// Why, for those who come after
    #[arg(long)]
    message: String,
}

pub(super) async fn run(
    command: ModelCommand,
    place: &Place,
    output: Output,
) -> anyhow::Result<()> {
    let admin = place.admin()?;
    match command {
        ModelCommand::Draft(command) => draft(command, &admin, output).await,
        ModelCommand::Set(args) => edit::set(args, &admin, output).await,
        ModelCommand::Unset(args) => edit::unset(args, &admin, output).await,
        ModelCommand::Diff { draft } => {
            let diff: Diff = admin.get(&format!("/model/drafts/{draft}/diff")).await?;
            Ok(output.result(&diff)?)
        }
        ModelCommand::Commit(CommitArgs { draft, message }) => {
            let path = format!("/model/drafts/{draft}/commit");
            let made: Committed = admin.post(&path, &Reason { message }).await?;
            Ok(output.result(&made)?)
        }
        ModelCommand::Rollback(RollbackArgs { model, message }) => {
            let wish = Rollback { model, message };
            let made: Committed = admin.post("/model/rollback", &wish).await?;
            Ok(output.result(&made)?)
        }
        ModelCommand::List => {
            let models: Vec<ModelView> = admin.get("/models").await?;
            Ok(output.result(&Lines::new(models, "no models yet"))?)
        }
        ModelCommand::Show { model } => Ok(output.result(&show(&admin, model).await?)?),
    }
}

async fn draft(command: DraftCommand, admin: &AdminClient, output: Output) -> anyhow::Result<()> {
    match command {
        DraftCommand::List => {
            let drafts: Vec<DraftView> = admin.get("/model/drafts").await?;
            Ok(output.result(&Lines::new(drafts, "no drafts"))?)
        }
        DraftCommand::Show { draft } => {
            let shown: DraftShown = admin.get(&format!("/model/drafts/{draft}")).await?;
            Ok(output.result(&shown)?)
        }
        DraftCommand::Drop { draft } => {
            let path = format!("/model/drafts/{draft}/discard");
            let _nothing: Value = admin.post(&path, &()).await?;
            let dropped = Dropped { dropped: draft };
            Ok(output.result(&dropped)?)
        }
        DraftCommand::Rebase { draft } => {
            let path = format!("/model/drafts/{draft}/rebase");
            let draft: DraftView = admin.post(&path, &()).await?;
            Ok(output.result(&draft)?)
        }
    }
}

/// All of a model, page after page.
async fn show(admin: &AdminClient, model: Option<u64>) -> anyhow::Result<ModelShown> {
    let named = model.map_or_else(|| "current".to_owned(), |number| number.to_string());
    let mut all: ModelShown = admin.get(&format!("/models/{named}")).await?;
    let mut last_page = all.entries.len();
    while last_page == ENTRIES_SHOWN as usize {
        // The next page is of the same model, even if another was committed meanwhile.
        let (number, after) = (all.model.model, all.entries.last());
        let after = after.map_or("", |entry| entry.key.as_str());
        let path = format!("/models/{number}?after={after}");
        let page: ModelShown = admin.get(&path).await?;
        last_page = page.entries.len();
        all.entries.extend(page.entries);
    }
    Ok(all)
}

#[derive(Serialize)]
struct Dropped {
    dropped: String,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dropped the draft {}", self.dropped)
    }
}

/// Things, one on a line.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Lines<T> {
    all: Vec<T>,
    #[serde(skip)]
    none: &'static str,
}

impl<T> Lines<T> {
    pub(super) fn new(all: Vec<T>, none: &'static str) -> Self {
        Self { all, none }
    }
}

impl<T: fmt::Display> fmt::Display for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.all.iter();
        match all.next() {
            None => return f.write_str(self.none),
            Some(first) => first.fmt(f)?,
        }
        all.try_for_each(|one| write!(f, "\n{one}"))
    }
}
