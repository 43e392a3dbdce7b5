//! The program's words: what can be typed after `larder-origin`.

mod audit;
mod bar;
mod ca;
pub mod content;
mod device;
mod group;
mod init;
mod inventory;
mod model;
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
    /// See groups and who is in
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// See what devices say of themselves
    Inventory(inventory::InventoryArgs),
    /// Say who should hold what
    #[command(subcommand)]
    Model(model::ModelCommand),
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
        Command::Group(command) => group::run(command, &place, output).await,
        Command::Inventory(args) => inventory::run(args, &place, output).await,
        Command::Model(command) => model::run(command, &place, output).await,
        Command::Publish(args) => content::publish(args, &place, output).await,
        Command::Fileset(command) => content::fileset(command, &place, output).await,
        Command::Gc(args) => content::gc(args, &place, output).await,
        Command::Reports(command) => reports::run(command, &place, output).await,
        Command::Ca(command) => ca::run(command, &place, output).await,
        Command::Audit(command) => audit::run(command, &place, output).await,
        Command::Restore(args) => restore::run(args, &place, output).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_word_can_be_typed() {
        Args::command().debug_assert();
        let typed = [
            "model set d fileset tools --revision latest --target /opt/t --mode tree \
             --heal etc/**=if-missing --depends base --script preflight=x --clear heal",
            "model set d group g",
            "model set d group g --rule os=debian",
            "group list",
            "group show g",
            "inventory one",
            "inventory --where os=debian",
            "model set d member g one two",
            "model set d associate tools --group g --activate-from 2026-12-01T06:00:00Z",
            "model unset d associate tools --device one",
            "model diff d",
            "model commit d --message why",
            "model rollback 3 --message why",
            "model show 3",
            "device command one verify",
        ];
        for line in typed {
            let words = ["larder-origin"].into_iter().chain(line.split_whitespace());
            let read = Args::try_parse_from(words);
            assert!(read.is_ok(), "{line}: {}", read.unwrap_err());
        }
    }
}
