//! Closed-loop load over mutual TLS: each of so many connections asks for the next object as soon
//! as it has the last one.
//!
//! It speaks to any HTTPS server, not only to ours, so it uses nothing of ours to do so: its TLS
//! verifier is the library's. It trusts nobody but the CA that it is given, keeps nothing of what
//! it fetches, and is bounded in time, in requests and in whom it may reach.

mod args;
mod checker;
mod churn;
mod drain;
mod fileset;
mod histogram;
mod hold;
mod line;
mod process;
mod summary;
mod target;
#[cfg(test)]
mod tests;
mod worker;

use std::time::Duration;

use anyhow::Context as _;

pub use args::{Args, HttpVersion, Suite};
pub use summary::{Latency, Summary};

pub(crate) use churn::{Churn, Phase};
pub(crate) use drain::{Drained, Herd, Until, drain};
pub(crate) use histogram::Histogram;
pub(crate) use hold::hold;
pub(crate) use process::CpuTime;
use target::Target;
use worker::Job;

/// Does what `args` say, and says how it went.
///
/// # Errors
///
/// Fails if what it is to load cannot be found out or reached; requests that fail later on are
/// counted in the summary instead.
pub fn run(args: Args) -> anyhow::Result<Summary> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(args.threads.get()))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(load(args))
}

/// The paths of all packs of the fileset that `args` name, in the order in which clients want them.
///
/// # Errors
///
/// Fails if the server does not tell them.
pub(crate) fn packs(args: &Args) -> anyhow::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let target = Target::find(args).await?;
        let name = args.fileset.as_ref().context("want a fileset")?;
        fileset::paths(&target, name).await
    })
}

async fn load(args: Args) -> anyhow::Result<Summary> {
    let target = Target::find(&args).await?;
    let paths = match &args.fileset {
        None => args.paths()?,
        Some(name) => fileset::paths(&target, name).await?,
    };
    // The first connection is made before the clock starts: what is wrong with the certificate or
    // the address should be said once, and not counted ten thousand times.
    target.connect().await?;
    let job = Job::new(&args, target, paths);
    let before = (CpuTime::of_all(&args.pid)?, CpuTime::own()?);
    let tally = job.run().await;
    let server = CpuTime::of_all(&args.pid)?.since(before.0);
    let own = CpuTime::own()?.since(before.1);
    let server = (!args.pid.is_empty()).then_some(server);
    Ok(Summary::new(&args, &tally, server, own))
}

/// To a connection and through its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
