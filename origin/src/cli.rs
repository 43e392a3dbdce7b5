//! The program's words: what can be typed after `larder-origin`.

mod audit;
mod bar;
mod ca;
pub mod content;
mod device;
mod init;
mod passphrase;
mod place;
mod reports;
mod restore;
mod serve;
mod token;

use clap::{Parser, Subcommand};
use service::Output;

use passphrase::RootPassphrase;
pub use place::Place;

/// The origin of a Larder: signs, keeps, publishes and answers
#[derive(Debug, Parser)]
#[command(name = "larder-origin", version, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new deployment: root, issuing CAs, database, first join strings
    Init(init::InitArgs),
    /// Run the origin until it is asked to stop
    Serve,
    /// Make tokens, which let devices in
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// See devices and decide about them
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Publish a folder as the next revision of a fileset
    Publish(content::PublishArgs),
    /// See filesets and say how many revisions to keep
    #[command(subcommand)]
    Fileset(content::FilesetCommand),
    /// Delete packs that no revision needs any more
    Gc(content::GcArgs),
    /// See whom the parties refused
    #[command(subcommand)]
    Reports(reports::ReportsCommand),
    /// See and replace the CAs, and sign what needs the root's key
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Check and read the log of who did what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Put a backup of the database in place, while the origin is stopped
    Restore(restore::RestoreArgs),
}

impl Args {
    /// How results are printed.
    #[must_use]
    pub fn output(&self) -> Output {
        Output::new(self.json)
    }
}

/// Does what `args` say.
///
/// # Errors
///
/// Fails as the command does.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let output = args.output();
    let place = args.place;
    match args.command {
        Command::Init(args) => init::run(args, &place, output).await,
        Command::Serve => serve::run(&place, output).await,
        Command::Token(command) => token::run(command, &place, output).await,
        Command::Device(command) => device::run(command, &place, output).await,
        Command::Publish(args) => content::publish(args, &place, output).await,
        Command::Fileset(command) => content::fileset(command, &place, output).await,
        Command::Gc(args) => content::gc(args, &place, output).await,
        Command::Reports(command) => reports::run(command, &place, output).await,
        Command::Ca(command) => ca::run(command, &place, output).await,
        Command::Audit(command) => audit::run(command, &place, output).await,
        Command::Restore(args) => restore::run(args, &place, output).await,
    }
}
