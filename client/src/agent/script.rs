//! Running a script: in a process group of its own, with nothing to read, for a limited time, and
//! what it says kept up to a bound.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use content::statement::{Item, Script};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tracing::warn;

/// What a script is told of itself.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    /// The file that is run.
    pub(crate) program: PathBuf,
    /// The fileset that it belongs to.
    pub(crate) item: &'a Item,
    /// The script.
    pub(crate) script: &'a Script,
    /// Where it is noted while it runs.
    pub(crate) mark: PathBuf,
}

/// How a script ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How.
    pub(crate) end: End,
    /// The last that it said, on both of its outputs: at most [`OUTPUT_BYTES_MAX`].
    pub(crate) output: Vec<u8>,
}

/// The end of a script.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It took longer than it may, and was killed.
    Late,
    /// It could not be run.
    NotRun(io::Error),
}

impl End {
    /// Its exit code; none if it has none.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Exited(status) => status.code(),
            Self::Late | Self::NotRun(_) => None,
        }
    }

    /// What happened, for people.
    pub(crate) fn told(&self, script: &Script) -> String {
        let Script { stage, name, .. } = script;
        match self {
            Self::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("{stage} script {name}: exit code {code}"),
                (None, Some(signal)) => format!("{stage} script {name}: killed by signal {signal}"),
                (None, None) => format!("{stage} script {name}: {status}"),
            },
            Self::Late => format!("{stage} script {name}: over {} seconds", script.seconds),
            Self::NotRun(error) => format!("{stage} script {name}: cannot run it: {error}"),
        }
    }
}

/// Runs a script to its end, or to its limit: then it is killed with all of its process group. If
/// this is dropped, it is killed too.
pub(crate) async fn run(call: &Call<'_>) -> Ran {
    let child = match start(call).await {
        Ok(child) => child,
        Err(error) => {
            let (end, output) = (End::NotRun(error), Vec::new());
            return Ran { end, output };
        }
    };
    let mut group = Group::of(child, Some(&call.mark));
    let (mut said, mut cried) = (Tail::default(), Tail::default());
    let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
    let limit = Duration::from_secs(u64::from(call.script.seconds));
    let end = {
        let heard = async {
            tokio::join!(said.hear(out), cried.hear(err));
        };
        tokio::pin!(heard);
        let mut is_silent = false;
        let ended = async {
            loop {
                tokio::select! {
                    status = group.child.wait() => break status,
                    // It may close its outputs and go on.
                    () = &mut heard, if !is_silent => is_silent = true,
                }
            }
        };
        match timeout(limit, ended).await {
            Ok(Ok(status)) => {
                // What it left behind in the background may hold its outputs open for ever.
                let _left_open = !is_silent && timeout(LAST_WORDS, heard).await.is_err();
                End::Exited(status)
            }
            Ok(Err(error)) => End::NotRun(error),
            Err(_) => End::Late,
        }
    };
    group.has_ended = matches!(end, End::Exited(_));
    let mut output = said.0;
    output.extend_from_slice(&cried.0);
    Ran { end, output }
}

async fn start(call: &Call<'_>) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        match command(call).spawn() {
            // Another program that is being started still holds the file open for writing.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 20 => {
                tries += 1;
                sleep(Duration::from_millis(10)).await;
            }
            started => return started,
        }
    }
}

fn command(call: &Call<'_>) -> Command {
    let Call { item, script, .. } = call;
    let mut command = Command::new(&call.program);
    command
        .current_dir(Path::new("/"))
        .env_clear()
        .env("PATH", PATH)
        .env("LARDER_FILESET", item.fileset.as_str())
        .env("LARDER_REVISION", item.revision.to_string())
        .env("LARDER_TARGET", &item.target)
        .env("LARDER_STAGE", script.stage.word())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    command
}

/// A process and those that it has started, which end with it.
pub(crate) struct Group {
    pub(crate) child: Child,
    pid: Option<rustix::process::Pid>,
    /// Set once the process is known to have ended.
    pub(crate) has_ended: bool,
    /// Where it is noted while it runs, if it is.
    mark: Option<PathBuf>,
}

impl Group {
    /// The group of `child`, noted at `mark` while it runs.
    pub(crate) fn of(child: Child, mark: Option<&Path>) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let begun = pid.and_then(|pid| Some((pid, begun_at(pid)?)));
        if let (Some(mark), Some((pid, begun))) = (mark, begun) {
            // Not durably: what ends this machine ends the script. If it cannot be noted, a script
            // that outlives us goes on.
            let noted = std::fs::write(mark, format!("{} {begun}", pid.as_raw_nonzero()));
            noted.unwrap_or_default();
        }
        Self {
            child,
            pid,
            has_ended: false,
            mark: mark.map(Path::to_owned),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Of one that has ended, the number may be somebody else's by now.
        if let Some(pid) = self.pid.filter(|_| !self.has_ended) {
            let kill = rustix::process::Signal::KILL;
            let _gone_already = rustix::process::kill_process_group(pid, kill).is_err();
        }
        if let Some(mark) = &self.mark {
            std::fs::remove_file(mark).unwrap_or_default();
        }
    }
}

/// Ends the script that `mark` says an earlier run of this program has left running: its stage runs
/// again, and two at once are what no script expects.
pub(crate) fn end_leftover(mark: &Path) {
    let Ok(text) = std::fs::read_to_string(mark) else {
        return;
    };
    let found = text.split_once(' ').and_then(|(pid, begun)| {
        let pid = rustix::process::Pid::from_raw(pid.parse().ok()?)?;
        // Of one that has ended, the number may be somebody else's by now.
        (begun_at(pid)? == begun).then_some(pid)
    });
    if let Some(pid) = found {
        warn!(pid = %pid.as_raw_nonzero(), "ending a script that an earlier run has left");
        let kill = rustix::process::Signal::KILL;
        let _gone_already = rustix::process::kill_process_group(pid, kill).is_err();
    }
    std::fs::remove_file(mark).unwrap_or_default();
}

/// When a process was started, in ticks since the machine was: proc(5), `stat`, field 22. None if
/// there is no such process, or no such file on this system.
fn begun_at(pid: rustix::process::Pid) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// The last bytes of what is heard.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    async fn hear(&mut self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut buffer = [0; 4 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            self.0.extend_from_slice(&buffer[..count]);
            let over = self.0.len().saturating_sub(OUTPUT_BYTES_MAX / 2);
            self.0.drain(..over);
        }
    }
}

/// How much is kept of what a script says, half of it of each output.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// How long to wait for the rest of what it said once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Where scripts find programs, whatever started us.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::agent::step::tests::item;

    async fn run_text(text: &str, seconds: u32) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("script");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let item = item("tools@7 /opt/tools !preflight");
        let script = Script {
            seconds,
            ..item.scripts[0].clone()
        };
        let call = Call {
            program,
            item: &item,
            script: &script,
            mark: folder.path().join("running"),
        };
        let ran = run(&call).await;
        assert!(!call.mark.exists());
        let output = String::from_utf8_lossy(&ran.output).into_owned();
        (ran.end.told(&script), output)
    }

    async fn check(text: &str, expected: Expect) {
        let (told, output) = run_text(&format!("#!/bin/sh\n{text}\n"), 60).await;
        expected.assert_eq(&format!("{told}\n{output}"));
    }

    #[tokio::test]
    async fn a_script_that_an_earlier_run_left_is_ended_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("running");
        let mut left = Command::new("sleep")
            .arg("600")
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = i32::try_from(left.id().unwrap()).unwrap();
        let begun = begun_at(rustix::process::Pid::from_raw(pid).unwrap()).unwrap();
        // The number is somebody else's by now.
        fs::write(&mark, format!("{pid} {begun}0")).unwrap();
        end_leftover(&mark);
        assert!(left.try_wait().unwrap().is_none());
        fs::write(&mark, format!("{pid} {begun}")).unwrap();
        end_leftover(&mark);
        let ended = timeout(Duration::from_secs(30), left.wait()).await.unwrap();
        assert_eq!(ended.unwrap().signal(), Some(9));
        assert!(!mark.exists());
        end_leftover(&mark);
    }

    #[tokio::test]
    async fn a_script_knows_what_it_is_for_and_nothing_else() {
        let names = "env | sed 's/=.*//' | sort | tr '\\n' ' '; pwd; cat; echo bad >&2; exit 7";
        check(
            names,
            expect![[r#"
                preflight script preflight: exit code 7
                LARDER_FILESET LARDER_REVISION LARDER_STAGE LARDER_TARGET PATH PWD /
                bad
            "#]],
        )
        .await;
        let told = "echo $LARDER_FILESET $LARDER_REVISION $LARDER_STAGE $LARDER_TARGET; kill -9 $$";
        check(
            told,
            expect![[r#"
                preflight script preflight: killed by signal 9
                tools 7 preflight /opt/tools
            "#]],
        )
        .await;
    }

    #[tokio::test]
    async fn what_cannot_be_run_says_so() {
        let (told, _) = run_text("#!/no/such/program\n", 60).await;
        expect![
            "preflight script preflight: cannot run it: No such file or directory (os error 2)"
        ]
        .assert_eq(&told);
    }

    #[tokio::test]
    async fn one_that_takes_too_long_ends_with_all_that_it_has_started() {
        let begun = Instant::now();
        let (told, output) = run_text("#!/bin/sh\nsleep 600 &\necho $!\nsleep 600\n", 1).await;
        assert_eq!(told, "preflight script preflight: over 1 seconds");
        let stat = format!("/proc/{}/stat", output.trim());
        // Whoever takes up orphans may not have done so yet.
        let goes_on = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while goes_on() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it goes on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_it_leaves_in_the_background_does_not_keep_us() {
        let (told, _) = run_text("#!/bin/sh\nsleep 20 &\nexit 0\n", 60).await;
        assert_eq!(told, "preflight script preflight: exit code 0");
    }

    #[tokio::test]
    async fn of_much_that_it_says_the_last_is_kept() {
        let text = "#!/bin/sh\nfor i in $(seq 1 20000); do echo line $i; done\n";
        let (_, output) = run_text(text, 60).await;
        assert!(output.len() <= OUTPUT_BYTES_MAX);
        assert!(output.ends_with("line 20000\n"), "{}", output.len());
    }
}
