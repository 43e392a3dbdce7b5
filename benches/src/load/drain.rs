//! Clients that start together, fetch one sequence of packs each, and check what comes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use content::PackId;
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::args::Args;
use super::checker::Checker;
use super::line::Line;
use super::target::Target;

/// What so many clients do.
#[derive(Clone, Debug)]
pub(crate) struct Herd {
    /// How many clients.
    pub(crate) clients: u16,
    /// What their bodies hold, one after the other: all of the packs, in this order.
    pub(crate) packs: Vec<PackId>,
    /// So many of them check all that comes; the others the first frame.
    pub(crate) thorough: u16,
    /// One more, who begins before the others and takes so many bytes a second.
    pub(crate) slow: Option<u64>,
    /// How long all may take.
    pub(crate) patience: Duration,
    /// When a client has seen enough.
    pub(crate) until: Until,
}

/// When a client has seen enough.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Until {
    /// All has come.
    All,
    /// Its first frame has been checked.
    FirstFrame,
}

/// How it went for one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    /// From the start, when all are connected, until its first frame had been checked.
    pub(crate) first_frame: Duration,
    /// Until it had all.
    pub(crate) all: Duration,
    /// Body bytes.
    pub(crate) bytes: u64,
}

/// Has a herd fetch the objects that `args` name, one after the other.
///
/// # Errors
///
/// Fails if they are not done in time. How each of them ended, but the slow one, is what is given.
pub(crate) fn drain(args: &Args, herd: &Herd) -> anyhow::Result<Vec<anyhow::Result<Drained>>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(args.threads.get()))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let all = timeout_of(herd.patience, run(args, herd));
    runtime.block_on(all)
}

async fn timeout_of<T>(
    patience: Duration,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    timeout(patience, work)
        .await
        .context("they are not done in time")?
}

async fn run(args: &Args, herd: &Herd) -> anyhow::Result<Vec<anyhow::Result<Drained>>> {
    let target = Arc::new(Target::find(args).await?);
    let paths = Arc::new(args.paths()?);
    // Handshakes would be those of one processor, where a branch has one for each client.
    let mut lines = Vec::new();
    for _ in 0..herd.clients {
        lines.push(target.connect().await?);
    }
    let mut clients = JoinSet::new();
    let mut slow = JoinSet::new();
    if let Some(pace) = herd.slow {
        let checker = Checker::new(&herd.packs, false);
        let line = target.connect().await?;
        let paths = Arc::clone(&paths);
        slow.spawn(client(line, paths, checker, Some(pace), herd.until));
        tokio::time::sleep(HEAD_START).await;
    }
    for number in 0..herd.clients {
        let checker = Checker::new(&herd.packs, number < herd.thorough);
        let line = lines.pop().context("each has a line of its own")?;
        clients.spawn(client(line, Arc::clone(&paths), checker, None, herd.until));
    }
    let mut done = Vec::new();
    while let Some(client) = clients.join_next().await {
        done.push(client?);
    }
    // Whoever is slow has shown what it does to the others.
    drop(slow);
    Ok(done)
}

async fn client(
    mut line: Line,
    paths: Arc<Vec<String>>,
    mut checker: Checker,
    pace: Option<u64>,
    until: Until,
) -> anyhow::Result<Drained> {
    let began = Instant::now();
    let (mut bytes, mut first_frame) = (0, None);
    for path in paths.iter() {
        let response = line.get(path).await?;
        let status = response.status();
        ensure!(status.is_success(), "cannot get {path}: status {status}");
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                // Some servers end a connection without a word of TLS after the last byte. How
                // many came is looked at in the end.
                Err(failure) if is_silent_end(&failure) => break,
                frame => frame.with_context(|| format!("{path} broke off"))?,
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            bytes += data.len() as u64;
            checker.take(data)?;
            if first_frame.is_none() && checker.frames() > 0 {
                let first = began.elapsed();
                first_frame = Some(first);
                if until == Until::FirstFrame {
                    return Ok(Drained {
                        first_frame: first,
                        all: first,
                        bytes,
                    });
                }
            }
            if let Some(pace) = pace {
                sleep_until(began + Duration::from_secs_f64(bytes as f64 / pace as f64)).await;
            }
        }
    }
    checker.finish()?;
    Ok(Drained {
        first_frame: first_frame.context("nothing came")?,
        all: began.elapsed(),
        bytes,
    })
}

/// Whether a body ended because the connection did.
fn is_silent_end(failure: &hyper::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(failure);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// By how much the slow one is ahead of the others.
const HEAD_START: Duration = Duration::from_millis(500);
