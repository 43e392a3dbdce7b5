//! Other people's programs, and ours: each is ended by its own id, with those whom it started.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::proc;

/// A program at work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `program` on one CPU; what it says goes into `log`.
    pub(crate) fn start<I, S>(cpu: u32, program: &Path, args: I, log: &Path) -> anyhow::Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let failed = || format!("cannot start {}", program.display());
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = pinned(cpu, program)
            .args(args)
            .stdout(file.try_clone().with_context(failed)?)
            .stderr(file)
            .spawn()
            .with_context(failed)?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// The id of the process that was started.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something listens on `port` of loopback.
    pub(crate) fn listens(&mut self, port: u16, patience: Duration) -> anyhow::Result<()> {
        self.listens_at("127.0.0.1", port, patience)
    }

    /// The same, at another address.
    pub(crate) fn listens_at(
        &mut self,
        address: &str,
        port: u16,
        patience: Duration,
    ) -> anyhow::Result<()> {
        self.until(patience, |_| TcpStream::connect((address, port)).is_ok())
    }

    /// Waits until it has said `text`.
    pub(crate) fn says(&mut self, text: &str, patience: Duration) -> anyhow::Result<()> {
        self.until(patience, |running| running.said().contains(text))
    }

    fn until(&mut self, patience: Duration, is_so: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while !is_so(self) {
            if self.child.try_wait()?.is_some() {
                bail!("it has ended: {}", self.said());
            }
            ensure!(
                Instant::now() < deadline,
                "it does not serve: {}",
                self.said()
            );
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The end of what it said.
    pub(crate) fn said(&self) -> String {
        quote(&fs::read(&self.log).unwrap_or_default())
    }

    /// Asks it to end and waits for that; then ends it, and whomever it leaves behind.
    fn end(&mut self) {
        let family = proc::family(self.pid());
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(self.pid(), Signal::TERM);
            let deadline = Instant::now() + END_PATIENCE;
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(LOOK);
            }
        }
        for pid in family {
            signal(pid, Signal::KILL);
        }
        // It was killed: there is nothing left to do if it cannot be waited for.
        self.child.wait().map(drop).unwrap_or_default();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `program` to its end on one CPU, and gives what it printed.
pub(crate) fn output<I, S>(
    cpu: u32,
    program: &Path,
    args: I,
    envs: &[(&str, &OsStr)],
    patience: Duration,
) -> anyhow::Result<Vec<u8>>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let failed = || format!("cannot run {}", program.display());
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = pinned(cpu, program)
        .args(args)
        .envs(envs.iter().copied())
        .stdout(stdout.try_clone().with_context(failed)?)
        .stderr(stderr.try_clone().with_context(failed)?)
        .spawn()
        .with_context(failed)?;
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("{}: it does not end", failed());
        }
        thread::sleep(LOOK);
    };
    let (said, wrong) = (all_of(stdout)?, all_of(stderr)?);
    ensure!(
        status.success(),
        "{}: {status}: {}{}",
        failed(),
        quote(&wrong),
        quote(&said)
    );
    Ok(said)
}

/// A command that runs on one CPU, in plain English, and reads nothing.
fn pinned(cpu: u32, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu.to_string()]).arg(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Whoever has ended already needs no signal.
    pid.map_or(Ok(()), |pid| kill_process(pid, signal))
        .unwrap_or_default();
}

fn all_of(mut file: File) -> anyhow::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn quote(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(QUOTE_BYTES);
    String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
}

/// Between two looks at whether a program has ended.
const LOOK: Duration = Duration::from_millis(10);
/// How long one may take to end once it was asked to.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How much of what one said is quoted.
const QUOTE_BYTES: usize = 2000;
/// How much of what one printed is read.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
