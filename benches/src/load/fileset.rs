//! The packs of a fileset, found as a client finds them.
//!
//! Nothing is installed, so no signature is judged: the server's own certificate is proof enough
//! of what to ask that same server for.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use content::locator::Locator;
use content::statement::{Judge, JudgeError, Payload, Snapshot, Statement, Timestamp};
use content::{Digest, FilesetName};
use http_body_util::{BodyExt as _, Limited};
use protocol::{HELLO_BYTES_MAX, Hello, Route};
use tokio::time::timeout;

use super::line::Line;
use super::target::Target;

/// Paths of all packs of the current revision of `name`.
pub(super) async fn paths(target: &Target, name: &FilesetName) -> anyhow::Result<Vec<String>> {
    let mut line = target.connect().await?;
    let hello = fetch(&mut line, &Route::Hello, HELLO_BYTES_MAX).await?;
    let hello = Hello::decode(&hello).context("cannot use the server: it does not say hello")?;
    let judge = AnySigner {
        deployment: hello.deployment,
    };
    let timestamp: Timestamp = statement(&mut line, &Route::Timestamp, None, &judge).await?;
    let route = Route::Snapshot(timestamp.snapshot);
    let snapshot: Snapshot = statement(&mut line, &route, Some(timestamp.snapshot), &judge).await?;
    let current = snapshot
        .fileset(name)
        .and_then(|fileset| fileset.revision(fileset.current))
        .with_context(|| format!("cannot find the fileset {name}"))?;
    let route = Route::Statement(current.locator);
    let locator: Locator = statement(&mut line, &route, Some(current.locator), &judge).await?;
    let packs = locator.packs.iter();
    let paths: Vec<String> = packs
        .map(|pack| Route::Pack(name.clone(), pack.id).to_string())
        .collect();
    ensure!(!paths.is_empty(), "cannot load {name}: it has no packs");
    Ok(paths)
}

async fn statement<T: Payload>(
    line: &mut Line,
    route: &Route,
    name: Option<Digest>,
    judge: &AnySigner,
) -> anyhow::Result<T> {
    let envelope = fetch(line, route, T::ENVELOPE_BYTES_MAX).await?;
    let statement = match name {
        None => Statement::<T>::open(&envelope, judge, 0),
        Some(name) => Statement::<T>::open_named(&envelope, name, judge, 0),
    };
    Ok(statement?.into_payload())
}

async fn fetch(line: &mut Line, route: &Route, bytes_max: usize) -> anyhow::Result<Bytes> {
    let path = route.to_string();
    let fetch = async {
        let response = line.get(&path).await?;
        let status = response.status();
        ensure!(status.is_success(), "status {status}");
        let body = Limited::new(response.into_body(), bytes_max)
            .collect()
            .await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?;
        Ok(body.to_bytes())
    };
    timeout(super::CONNECT_TIMEOUT, fetch)
        .await
        .context("no answer in ten seconds")
        .flatten()
        .with_context(|| format!("cannot get {path}"))
}

/// Takes any signature.
struct AnySigner {
    deployment: String,
}

impl Judge for AnySigner {
    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judge(&self, _: &[u8], _: &[u8], _: &[Vec<u8>], _: i64) -> Result<(), JudgeError> {
        Ok(())
    }
}
