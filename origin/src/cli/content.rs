//! `publish`, `fileset`, `gc`: the words about content.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use content::FilesetName;
use content::index::CasePolicy;
use http::{Method, Request};
use http_body_util::Full;
use serde::Serialize;
use service::Output;

use super::Place;
use super::bar::Bar;
use crate::admin::SOCKET_FILE;
use crate::gc::Collected;
use crate::publish::messages::Committed;
use crate::publish::send;
use crate::publish::serve::{FilesetRow, Gc, Keep, RevisionRow};

/// What to publish.
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// The fileset's name
    pub name: FilesetName,
    /// The folder
    pub dir: PathBuf,
    /// Allow paths that differ only by case, and say so in the index
    #[arg(long)]
    pub case_sensitive: bool,
}

/// What about filesets.
#[derive(Debug, Subcommand)]
pub enum FilesetCommand {
    /// List filesets
    List,
    /// Show one fileset, or one of its revisions
    Show {
        /// NAME or NAME@N
        name: String,
    },
    /// Say how many revisions of a fileset to keep
    Retain {
        /// The fileset's name
        name: FilesetName,
        /// How many
        #[arg(long)]
        keep: u32,
    },
}

/// What to delete.
#[derive(Args, Debug)]
pub struct GcArgs {
    /// Only say what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// First read every pack, and forget those that are damaged
    #[arg(long, conflicts_with = "dry_run")]
    pub verify: bool,
}

/// What a publish came to.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    committed: Committed,
    seconds: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, in {:.1} s", self.committed, self.seconds)
    }
}

/// Publishes a folder.
///
/// # Errors
///
/// Fails as the publish does.
pub async fn publish(args: PublishArgs, place: &Place, output: Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let policy = if args.case_sensitive {
        CasePolicy::Sensitive
    } else {
        CasePolicy::Unique
    };
    let request = send::Request {
        fileset: args.name,
        folder: args.dir,
        case_policy: policy,
    };
    let socket = place.config()?.data().join(SOCKET_FILE);
    let bar = Arc::new(Bar::new(output));
    let committed = send::publish(&socket, request, Arc::clone(&bar) as _).await;
    bar.finish();
    let outcome = Outcome {
        committed: committed?,
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok(output.result(&outcome)?)
}

/// Shows or changes filesets.
///
/// # Errors
///
/// Fails as the origin does.
pub async fn fileset(command: FilesetCommand, place: &Place, output: Output) -> anyhow::Result<()> {
    let admin = place.admin()?;
    match command {
        FilesetCommand::List => {
            let rows: Vec<FilesetRow> = admin.get("/filesets").await?;
            Ok(output.result(&Filesets(rows))?)
        }
        FilesetCommand::Show { name } => {
            let (name, number): (&str, Option<u64>) = match name.split_once('@') {
                None => (name.as_str(), None),
                Some((name, number)) => (
                    name,
                    Some(number.parse().context("cannot read the number after @")?),
                ),
            };
            let name: FilesetName = name.parse()?;
            let rows: Vec<FilesetRow> = admin.get(&format!("/filesets/{name}")).await?;
            let Some(mut row) = rows.into_iter().next() else {
                bail!("there is no fileset {name}")
            };
            if let Some(number) = number {
                row.revisions.retain(|revision| revision.revision == number);
                if row.revisions.is_empty() {
                    bail!("{name} does not retain a revision {number}");
                }
            }
            Ok(output.result(&Shown(row))?)
        }
        FilesetCommand::Retain { name, keep } => {
            let request = Request::builder()
                .method(Method::PUT)
                .uri(format!("/filesets/{name}/keep"))
                .body(Full::new(Bytes::from(serde_json::to_vec(&Keep { keep })?)))?;
            let answer = admin.send(request, DEADLINE).await?;
            let rows: Vec<FilesetRow> = serde_json::from_slice(&answer)?;
            Ok(output.result(&Filesets(rows))?)
        }
    }
}

/// Deletes packs that no revision needs.
///
/// # Errors
///
/// Fails as the origin does.
pub async fn gc(args: GcArgs, place: &Place, output: Output) -> anyhow::Result<()> {
    let GcArgs { dry_run, verify } = args;
    let body = serde_json::to_vec(&Gc { dry_run, verify })?;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/gc")
        .body(Full::new(Bytes::from(body)))?;
    let deadline = if verify { DEADLINE_VERIFY } else { DEADLINE };
    let answer = place.admin()?.send(request, deadline).await?;
    let collected: Collected = serde_json::from_slice(&answer)?;
    Ok(output.result(&collected)?)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Filesets(Vec<FilesetRow>);

impl fmt::Display for Filesets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing has been published yet");
        }
        write!(
            f,
            "{:<24} {:>8} {:>6} {:>10} {:>12}",
            "FILESET", "CURRENT", "KEPT", "FILES", "SIZE"
        )?;
        for row in &self.0 {
            let last = row.revisions.last();
            let current = row
                .current
                .map_or_else(|| "-".to_owned(), |number| number.to_string());
            let kept = format!("{}/{}", row.revisions.len(), row.keep);
            let files = last.map_or(0, |last| last.files);
            let size = bytesize::ByteSize(last.map_or(0, |last| last.bytes)).to_string();
            write!(
                f,
                "\n{:<24} {current:>8} {kept:>6} {files:>10} {size:>12}",
                row.name
            )?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Shown(FilesetRow);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FilesetRow {
            name,
            current,
            keep,
            revisions,
        } = &self.0;
        let current = current.map_or_else(|| "none".to_owned(), |number| number.to_string());
        write!(f, "{name}: current revision {current}, keeps {keep}")?;
        for revision in revisions {
            let RevisionRow {
                revision,
                files,
                bytes,
                packs_bytes,
                created,
                root,
                ..
            } = revision;
            let when = jiff::Timestamp::from_second(*created).map_err(|_| fmt::Error)?;
            let (size, packs) = (bytesize::ByteSize(*bytes), bytesize::ByteSize(*packs_bytes));
            write!(
                f,
                "\n  @{revision}  {when}  {files} files, {size}, in packs of {packs}\n      index root {root}"
            )?;
        }
        Ok(())
    }
}

/// Removing many packs from a slow disk takes minutes.
const DEADLINE: Duration = Duration::from_secs(600);
/// Reading all packs takes longer, and goes on even if nobody waits: a terabyte in three hours.
const DEADLINE_VERIFY: Duration = Duration::from_secs(3600);
