//! `reports`: whom the parties refused, and what else they reported.

use ::config::Period;
use clap::{Args, Subcommand};
use service::Output;

use super::Place;
use crate::reports::ReportsView;

#[derive(Debug, Subcommand)]
pub(super) enum ReportsCommand {
    /// List what was reported, the newest first
    List(ListArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Only what came within this time
    #[arg(long, value_name = "TIME", default_value = "7d")]
    since: Period,

    /// Only refusals for this reason, or notices of this kind
    #[arg(long)]
    reason: Option<String>,

    /// Only those of this reporter
    #[arg(long, value_name = "ROLE/ID")]
    reporter: Option<String>,

    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

pub(super) async fn run(
    command: ReportsCommand,
    place: &Place,
    output: Output,
) -> anyhow::Result<()> {
    let ReportsCommand::List(args) = command;
    let mut path = format!(
        "/reports?within={}&limit={}",
        args.since.as_secs(),
        args.limit
    );
    for (key, value) in [("reason", &args.reason), ("reporter", &args.reporter)] {
        if let Some(value) = value {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/".contains(&byte);
            anyhow::ensure!(value.bytes().all(plain), "cannot use {value:?} as a {key}");
            path += &format!("&{key}={value}");
        }
    }
    let reports: ReportsView = place.admin()?.get(&path).await?;
    Ok(output.result(&reports)?)
}
