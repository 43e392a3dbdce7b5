//! `audit`: the log of who did what.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use service::Output;

use super::Place;
use crate::LEDGER_FILE;
use crate::audit::{Verified, verify};
use crate::ledger::audit::{Entry, Hash, ends};
use crate::ledger::{Ledger, Read};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Check that nobody has changed the log or taken entries away
    Verify(VerifyArgs),
    /// Check the log and print it, one JSON object a line
    Export(ExportArgs),
    /// Print the number and the hash of the newest entry, for keeping elsewhere
    Head(FileArgs),
}

#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// A hash that `audit head` printed earlier: it must be in the log
    #[arg(long, value_name = "HEX", value_parser = hash)]
    head: Option<Hash>,

    #[command(flatten)]
    from: From,

    #[command(flatten)]
    file: FileArgs,
}

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    from: From,

    #[command(flatten)]
    file: FileArgs,
}

#[derive(Args, Debug)]
struct From {
    /// The first entry to look at; what comes before it is believed
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: u64,
}

#[derive(Args, Debug)]
pub(super) struct FileArgs {
    /// Another database than the one in the data folder: a backup, or one that was replaced
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// An entry as it is printed.
#[derive(Debug, Serialize)]
struct Line<'a> {
    number: u64,
    at: i64,
    actor: &'a str,
    event: &'a str,
    details: BTreeMap<&'a str, &'a str>,
    hash: String,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Checked {
    first: u64,
    entries: u64,
    head: String,
    found: Option<u64>,
}

/// The newest entry.
#[derive(Debug, Serialize)]
struct Newest {
    entries: u64,
    head: String,
}

pub(super) async fn run(
    command: AuditCommand,
    place: &Place,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        AuditCommand::Verify(args) => {
            let mut db = open(place, args.file).await?;
            let from = args.from.from;
            let verified = verify(&mut db, from, args.head.as_ref(), |_, _, _| {}).await?;
            Ok(output.result(&Checked::from(&verified))?)
        }
        AuditCommand::Export(args) => {
            let mut db = open(place, args.file).await?;
            export(&mut db, args.from.from).await
        }
        AuditCommand::Head(args) => {
            let (_, head) = ends(&mut *open(place, args).await?).await?;
            let newest = Newest {
                entries: head.number,
                head: hex(&head.hash),
            };
            Ok(output.result(&newest)?)
        }
    }
}

/// Prints each entry once it has been checked, so that a log which breaks is printed up to there.
async fn export(db: &mut Read, from: u64) -> anyhow::Result<()> {
    let mut printed: io::Result<()> = Ok(());
    let show = |number, entry: &Entry, hash: &Hash| {
        if printed.is_ok() {
            printed = Output::new(true).result(&Line::new(number, entry, hash));
        }
    };
    verify(db, from, None, show).await?;
    Ok(printed?)
}

async fn open(place: &Place, file: FileArgs) -> anyhow::Result<Read> {
    let path = match file.file {
        Some(file) => file,
        None => place.config()?.data().join(LEDGER_FILE),
    };
    Ok(Ledger::look(&path).await?)
}

impl<'a> Line<'a> {
    fn new(number: u64, entry: &'a Entry, hash: &Hash) -> Self {
        let details = entry.details.iter();
        Self {
            number,
            at: entry.at,
            actor: &entry.actor,
            event: &entry.event,
            details: details.map(|(name, value)| (&**name, &**value)).collect(),
            hash: hex(hash),
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}: {}",
            self.number, self.at, self.actor, self.event
        )
    }
}

impl std::convert::From<&Verified> for Checked {
    fn from(verified: &Verified) -> Self {
        Self {
            first: verified.first,
            entries: (verified.head.number + 1).saturating_sub(verified.first),
            head: hex(&verified.head.hash),
            found: verified.found,
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the audit log holds: {} entries from number {} on\nits head: {}",
            self.entries, self.first, self.head
        )?;
        if let Some(found) = self.found {
            write!(f, "\nthe head that was asked for is entry {found}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.entries, self.head)
    }
}

fn hex(hash: &Hash) -> String {
    content::Digest::from_raw(*hash).hex()
}

fn hash(text: &str) -> Result<Hash, String> {
    let digest: Result<content::Digest, _> = format!("sha256:{text}").parse();
    match digest {
        Ok(digest) => Ok(*digest.as_raw()),
        Err(_) => Err("want the 64 hexadecimal digits that `audit head` prints".to_owned()),
    }
}
