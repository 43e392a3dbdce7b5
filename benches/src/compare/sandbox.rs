//! A network and a family of processes of our own: nothing that is started here can be reached
//! from outside, and all of it ends with us.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context as _;
use service::Output;
use service::signal::Stop;

/// Runs this program again inside new namespaces, if the system lets us; comes back if not.
///
/// # Errors
///
/// Fails if the program cannot be started again.
pub(crate) fn enter(output: Output) -> anyhow::Result<()> {
    let flags = flags();
    let probe = Command::new("unshare")
        .args(&flags)
        .args(["ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        output.note("no namespaces are to be had here: staying in the network that there is");
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let failed = Command::new("unshare")
        .args(&flags)
        .arg(program)
        .arg("--inside")
        .args(std::env::args_os().skip(1))
        .exec();
    Err(failed).context("cannot start this program again in a namespace")
}

fn flags() -> Vec<&'static str> {
    let mut flags = vec!["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !rustix::process::geteuid().is_root() {
        flags.extend(["--user", "--map-root-user"]);
    }
    flags
}

/// Brings loopback up, and allows as many open files as may be.
pub(crate) fn prepare(output: Output) -> anyhow::Result<()> {
    // In the network that was there before it is up.
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .output();
    up.context("cannot run ip")?;
    if service::raise_open_files().is_some_and(|limit| limit < 12_000) {
        output.note("fewer than 12,000 open files are allowed: 10,000 connections will not do");
    }
    Ok(())
}

/// From now on SIGINT and SIGTERM set what is returned, so that everybody is ended before we end.
pub(super) fn watch_signals() -> anyhow::Result<&'static AtomicBool> {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut stop = {
        let _inside = runtime.enter();
        Stop::listen().context("cannot handle signals")?
    };
    thread::spawn(move || {
        runtime.block_on(stop.requested());
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(&INTERRUPTED)
}
