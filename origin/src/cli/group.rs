//! `group`: groups, and who is in.

use clap::Subcommand;
use service::Output;

use super::Place;
use super::model::Lines;
use crate::model::GroupName;
use crate::model::groups::{GroupRow, GroupShown};

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// List the groups of the current model
    List,
    /// Show a group: its rule, and the devices that are in
    Show {
        /// Its name
        group: GroupName,
    },
}

pub(super) async fn run(
    command: GroupCommand,
    place: &Place,
    output: Output,
) -> anyhow::Result<()> {
    let admin = place.admin()?;
    match command {
        GroupCommand::List => {
            let groups: Vec<GroupRow> = admin.get("/groups").await?;
            Ok(output.result(&Lines::new(groups, "no groups"))?)
        }
        GroupCommand::Show { group } => {
            let shown: GroupShown = admin.get(&format!("/groups/{group}")).await?;
            Ok(output.result(&shown)?)
        }
    }
}
