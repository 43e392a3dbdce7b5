//! Connections that are held, and do nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::Args;
use super::line::Line;
use super::target::Target;

/// Opens so many connections to a server on loopback, gets the object that `args` name on each of
/// them once, and does `then` while all are held.
///
/// They come from several addresses: a server may let in only so many from one.
///
/// # Errors
///
/// Fails if one cannot be opened, gets no good answer, or does not last until after `then`.
pub(crate) fn hold<T>(
    args: &Args,
    connections: u32,
    then: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(args.threads.get()))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let held = runtime.block_on(open(args, connections))?;
    let result = then()?;
    let lost = held.iter().filter(|line| line.is_closed()).count();
    ensure!(
        lost == 0,
        "the server ended {lost} of {connections} connections"
    );
    // They end on the runtime that carries them.
    let _inside = runtime.enter();
    drop(held);
    Ok(result)
}

async fn open(args: &Args, connections: u32) -> anyhow::Result<Vec<Line>> {
    let target = Arc::new(Target::find(args).await?);
    let paths = args.paths()?;
    let path = paths
        .first()
        .context("cannot hold connections: no object")?;
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut opening = JoinSet::new();
    let mut held = Vec::new();
    for number in 0..connections {
        let place = Arc::clone(&places).acquire_owned().await;
        let (target, path) = (Arc::clone(&target), path.clone());
        opening.spawn(async move {
            let _place = place;
            one(&target, number, &path).await
        });
        while let Some(opened) = opening.try_join_next() {
            held.push(opened??);
        }
    }
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    Ok(held)
}

async fn one(target: &Target, number: u32, path: &str) -> anyhow::Result<Line> {
    let [_, _, _, last] = (number / PER_ADDRESS + 1).to_be_bytes();
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let mut line = target.connect_from(Some(from)).await?;
    let response = line.get(path).await?;
    let status = response.status();
    ensure!(status.is_success(), "cannot get {path}: status {status}");
    response.into_body().collect().await?;
    Ok(line)
}

/// Handshakes at a time.
const AT_A_TIME: usize = 16;
/// Connections from one address.
const PER_ADDRESS: u32 = 1000;
