//! Asking a program: in a process group of its own, for a limited time, and heard up to a bound.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::agent::script::{Group, PATH};

/// The first `most` bytes that `program` says; none if it cannot be run, fails, or takes longer than
/// `patience`: then it is killed with all of its process group.
pub(super) async fn ask(
    program: &Path,
    args: &[&str],
    patience: Duration,
    most: usize,
) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(Path::new("/"))
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .process_group(0);
    let mut group = Group::of(command.spawn().ok()?, None);
    let out = group.child.stdout.take()?;
    let mut said = Vec::new();
    let heard = async {
        let mut heard = out.take(most as u64);
        heard.read_to_end(&mut said).await.ok()?;
        // What is beyond that, nobody hears: it ends by itself, or is killed.
        drop(heard);
        group.child.wait().await.ok()
    };
    let status = timeout(patience, heard).await.ok().flatten()?;
    group.has_ended = true;
    status.success().then_some(said)
}
