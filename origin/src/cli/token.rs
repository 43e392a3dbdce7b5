//! `token`: what lets devices in.

use ::config::Period;
use clap::{Args, Subcommand};
use service::Output;

use super::Place;
use crate::fleet::{NewToken, TokenCreated};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print its join string, which is shown this once
    Create(CreateArgs),
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// Who may enrol with it
    #[arg(long, value_parser = ["booster", "client"])]
    role: String,

    /// Let in whoever brings it, without an operator's look
    #[arg(long)]
    auto_approve: bool,

    /// The group that its devices join
    #[arg(long)]
    group: Option<String>,

    /// How many devices may use it
    #[arg(long, default_value_t = 1)]
    uses: u32,

    /// How long it may be used
    #[arg(long, default_value = "24h")]
    ttl: Period,
}

pub(super) async fn run(
    command: TokenCommand,
    place: &Place,
    output: Output,
) -> anyhow::Result<()> {
    let TokenCommand::Create(args) = command;
    let new = NewToken {
        role: args.role,
        auto_approve: args.auto_approve,
        group: args.group,
        uses: args.uses,
        ttl_seconds: args.ttl.as_secs(),
    };
    let created: TokenCreated = place.admin()?.post("/tokens", &new).await?;
    Ok(output.result(&created)?)
}
