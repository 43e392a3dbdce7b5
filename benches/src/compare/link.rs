//! A line with two ends: a network of its own for the origin, and a rate for what comes from it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::child::Running;

/// The far end, and what holds its network.
#[derive(Debug)]
pub(super) struct Link {
    holder: Running,
}

/// What a line has carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    /// Headers included.
    pub(super) bytes: u64,
    /// How long it took for it, but for the first and the last thousandth.
    pub(super) within: Duration,
}

impl Link {
    /// Makes a network at the far end of a new line; its log goes to `folder`.
    pub(super) fn lay(cpu: u32, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join("link.log");
        let args = ["--net", "sleep", "100000"];
        let holder = Running::start(cpu, Path::new("unshare"), args, &log)?;
        let link = Self { holder };
        let deadline = Instant::now() + Duration::from_secs(5);
        while network("self")? == network(&link.pid())? {
            ensure!(
                Instant::now() < deadline,
                "cannot make another network: {}",
                link.holder.said()
            );
            thread::sleep(Duration::from_millis(5));
        }
        let pid = link.pid();
        let veth = ["link", "add", NEAR, "type", "veth", "peer", "name", FAR];
        run("ip", &[&veth[..], &["netns", &pid]].concat())?;
        let near = format!("{NEAR_ADDRESS}/30");
        run("ip", &["addr", "add", &near, "dev", NEAR])?;
        run("ip", &["link", "set", NEAR, "up"])?;
        let far = format!("{FAR_ADDRESS}/30");
        link.at_far_end("ip", &["addr", "add", &far, "dev", FAR])?;
        link.at_far_end("ip", &["link", "set", FAR, "up"])?;
        link.at_far_end("ip", &["link", "set", "lo", "up"])?;
        let congestion = format!("echo {CONGESTION} >/proc/sys/net/ipv4/tcp_congestion_control");
        link.at_far_end("sh", &["-c", &congestion])?;
        Ok(link)
    }

    /// From now on so many bits a second come from the far end; none: as many as may.
    pub(super) fn limit(&self, mbit: Option<u32>) -> anyhow::Result<()> {
        let Some(mbit) = mbit else {
            // Without a limit there is nothing to take away.
            let gone = self.at_far_end("tc", &["qdisc", "del", "dev", FAR, "root"]);
            return gone.or(Ok(()));
        };
        let rate = format!("{mbit}mbit");
        let limit = ["qdisc", "replace", "dev", FAR, "root", "tbf", "rate", &rate];
        // A queue of 50 ms, as routers have them; a burst of more than one full segment.
        let queue = ["burst", "128kb", "latency", "50ms"];
        self.at_far_end("tc", &[&limit[..], &queue].concat())
    }

    /// Bytes that have come from the far end, headers included.
    pub(super) fn bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/net/dev", std::process::id());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(NEAR)?.strip_prefix(':'));
        let bytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        bytes.with_context(|| format!("cannot find {NEAR} in {path}"))
    }

    /// Does `work`, and looks every ten milliseconds at what the line has carried meanwhile.
    pub(super) fn watch<T>(&self, work: impl FnOnce() -> T) -> anyhow::Result<(T, Carried)> {
        let (began, before) = (Instant::now(), self.bytes()?);
        let (done, is_done) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let looked = scope.spawn(move || {
                let mut looks = Vec::new();
                while is_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    looks.push((began.elapsed(), self.bytes()? - before));
                }
                anyhow::Ok(looks)
            });
            let worked = work();
            let bytes = self.bytes()? - before;
            drop(done);
            let looks = looked.join().expect("looking at counters does not panic")?;
            let at = |least: u64| {
                let mut looks = looks.iter();
                looks.find_map(|(at, carried)| (*carried >= least).then_some(*at))
            };
            let (first, last) = (at(bytes / 1000), at(bytes - bytes / 1000));
            let ended = began.elapsed();
            let within = last.unwrap_or(ended) - first.unwrap_or_default();
            Ok((worked, Carried { bytes, within }))
        })
    }

    /// A program and its first arguments, so that what follows runs at the far end.
    pub(super) fn prefix(&self) -> (PathBuf, Vec<String>) {
        let args = ["-t", &self.pid(), "-n", "--"].map(str::to_owned);
        ("nsenter".into(), args.to_vec())
    }

    fn at_far_end(&self, program: &str, args: &[&str]) -> anyhow::Result<()> {
        let pid = self.pid();
        run(
            "nsenter",
            &[&["-t", &pid, "-n", "--", program], args].concat(),
        )
    }

    fn pid(&self) -> String {
        self.holder.pid().to_string()
    }
}

/// Which network a process is in.
fn network(pid: &str) -> anyhow::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/net"))?.ino())
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Where the far end is.
pub(super) const FAR_ADDRESS: &str = "10.231.0.2";
const LOOK: Duration = Duration::from_millis(10);
/// How TCP shares the line: by what every Linux has and lets a network of its own choose. BBR, where
/// that is the system's choice, leaves a line idle for a fifth of a second every ten, whoever sends.
const CONGESTION: &str = "reno";
const FAR: &str = "far";
const NEAR: &str = "near";
const NEAR_ADDRESS: &str = "10.231.0.1";
