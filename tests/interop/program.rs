//! Running other people's programs: each has a deadline, is ended by its own id, and is quoted
//! when it fails.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a program may take that is waited for.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long one may take to end after it was asked to.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at whether one has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How much of what a program said is quoted.
const QUOTE_BYTES: usize = 4000;

/// A program that has not been started.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    deadline: Duration,
    input: Vec<u8>,
    stays_open: bool,
}

/// One that has. Dropping it ends it, and those whom it started.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    deadline: Duration,
    line: String,
    stderr: File,
    stdout: File,
}

/// One that has come to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
    pub(crate) stdout: Vec<u8>,
}

impl Program {
    pub(crate) fn new(name: &str) -> Self {
        let mut command = Command::new(name);
        // What a program says is matched: it should not be translated.
        command.env("LC_ALL", "C");
        Self {
            command,
            deadline: DEADLINE,
            input: Vec::new(),
            stays_open: false,
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Where it runs, and may leave things, instead of here.
    pub(crate) fn at(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// What it reads from its standard input; otherwise it finds that at its end.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// The same for programs that leave when their input has ended: it does not end. At most what
    /// a pipe holds.
    pub(crate) fn open_input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.stays_open = true;
        self.input(input)
    }

    /// How long it may take, instead of [`DEADLINE`].
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts it.
    pub(crate) fn start(mut self) -> anyhow::Result<Running> {
        // Files and not pipes: nobody waits for anybody to read.
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let stdin = if self.stays_open {
            Stdio::piped()
        } else {
            let file = tempfile::tempfile()?;
            file.write_all_at(&self.input, 0)?;
            Stdio::from(file)
        };
        let line = format!("{:?}", self.command);
        let started = self
            .command
            .stdin(stdin)
            .stdout(Stdio::from(stdout.try_clone()?))
            .stderr(Stdio::from(stderr.try_clone()?))
            // A group of its own, so that its children can be ended with it.
            .process_group(0)
            .spawn();
        let mut child = match started {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("a program is missing, run .ci/interop-install: {line}")
            }
            started => started.with_context(|| format!("cannot start {line}"))?,
        };
        // The pipe's other end lives as long as the child is looked after.
        if let Some(pipe) = child.stdin.as_mut() {
            pipe.write_all(&self.input)?;
        }
        Ok(Running {
            child,
            deadline: self.deadline,
            line,
            stderr,
            stdout,
        })
    }

    /// Runs it to its end, whatever that is.
    pub(crate) async fn run(self) -> anyhow::Result<Ended> {
        self.start()?.wait().await
    }

    /// Runs it to a good end, and returns what it wrote.
    pub(crate) async fn succeed(self) -> anyhow::Result<Vec<u8>> {
        let ended = self.run().await?;
        ensure!(ended.status.success(), "a program failed: {}", ended.told());
        Ok(ended.stdout)
    }
}

impl Running {
    /// Fails if it has ended, and says what it said.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} ended: {}", self.line, self.said()?);
        Ok(())
    }

    /// What it has written to standard error.
    pub(crate) fn said(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&whole(&self.stderr)?).into_owned())
    }

    /// What it has written anywhere.
    pub(crate) fn said_in_all(&self) -> anyhow::Result<String> {
        let written = whole(&self.stdout)?;
        Ok(format!(
            "{}{}",
            String::from_utf8_lossy(&written),
            self.said()?
        ))
    }

    /// Waits for its end, whatever that is.
    pub(crate) async fn wait(mut self) -> anyhow::Result<Ended> {
        let patience = self.deadline;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Ended {
                    line: self.line.clone(),
                    status,
                    stderr: self.said()?,
                    stdout: whole(&self.stdout)?,
                });
            }
            if Instant::now() > deadline {
                let said = self.said()?;
                bail!("{} took over {patience:?} and said: {said}", self.line);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn ends_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let group = Pid::from_child(&self.child);
        for signal in [Signal::TERM, Signal::KILL] {
            // It may have ended by itself in the meantime.
            let _gone = kill_process_group(group, signal).is_err();
            if self.ends_within(END_DEADLINE) {
                return;
            }
        }
    }
}

impl Ended {
    /// What it was, how it ended and what it said, for people.
    pub(crate) fn told(&self) -> String {
        let cut = |bytes: &[u8]| {
            let cut = &bytes[..bytes.len().min(QUOTE_BYTES)];
            String::from_utf8_lossy(cut).into_owned()
        };
        format!(
            "{}\n{}\nstandard error: {}\nstandard output: {}",
            self.line,
            self.status,
            cut(self.stderr.as_bytes()),
            cut(&self.stdout),
        )
    }

    /// All that it wrote, as text.
    pub(crate) fn everything(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.stdout), self.stderr)
    }

    /// Fails unless it said `wanted`.
    pub(crate) fn must_say(&self, wanted: &str) -> anyhow::Result<()> {
        let said = self.everything().contains(wanted);
        ensure!(said, "want {wanted:?} from {}", self.told());
        Ok(())
    }

    /// Fails if it said `unwanted`.
    pub(crate) fn must_not_say(&self, unwanted: &str) -> anyhow::Result<()> {
        let said = self.everything().contains(unwanted);
        ensure!(!said, "do not want {unwanted:?} from {}", self.told());
        Ok(())
    }
}

/// A file from its beginning: its place is shared with whoever writes to it.
fn whole(file: &File) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[tokio::test]
async fn a_program_is_ended_with_its_children_when_it_is_dropped() -> anyhow::Result<()> {
    let script = "sleep 600 & echo $! >&2; wait";
    let mut running = Program::new("sh").args(["-c", script]).start()?;
    let said = async || running.said().unwrap_or_default();
    let said = tests::testbed::until(said, |said| said.ends_with('\n')).await;
    let child = Pid::from_raw(said.trim().parse()?).context("it wrote its child's id")?;
    running.still_runs()?;
    drop(running);
    let looks = async || rustix::process::test_kill_process(child).is_ok();
    tests::testbed::until(looks, |lives| !lives).await;
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_missing_is_a_failure_that_says_what_to_do() {
    let missing = Program::new("larder-no-such-program").run().await;
    let told = missing.expect_err("there is no such program").to_string();
    assert!(told.contains(".ci/interop-install"), "{told}");
}
