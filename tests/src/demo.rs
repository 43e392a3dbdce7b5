//! The demo: the main job, end to end, on loopback, with real files.

mod change;
mod report;
mod run;
mod source;

use std::path::PathBuf;

use clap::Parser;
use service::Output;
use service::signal::Stop;

pub use report::{Report, Step, Update};

/// Brings up origin, booster and two clients, and moves a real folder through them
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
pub struct Args {
    /// The folder to publish; the documentation of the Rust toolchain if left out
    dir: Option<PathBuf>,

    /// End when all is done, instead of staying up
    #[arg(long)]
    once: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the demo.
///
/// # Errors
///
/// Fails if anything does not go as it should.
pub async fn main(args: Args) -> anyhow::Result<()> {
    let output = Output::new(args.json);
    let folder = source::folder(args.dir.as_deref())?;
    let mut stop = Stop::listen()?;
    let stage = run::Stage::set(&folder, output).await?;
    let report = tokio::select! {
        report = stage.play() => report?,
        () = stop.requested() => anyhow::bail!("stopped before the end"),
    };
    output.result(&report)?;
    if !args.once {
        output.note(stage.what_to_try());
        stop.requested().await;
    }
    stage.strike().await;
    report.check()
}
