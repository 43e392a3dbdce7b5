//! CPU time of processes, as the system counts it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// CPU time of all threads of some processes, those that have ended included.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct CpuTime(Duration);

impl CpuTime {
    /// That of the processes `pids` together.
    pub(crate) fn of_all(pids: &[u32]) -> anyhow::Result<Self> {
        let times = pids.iter().map(|pid| read(&format!("/proc/{pid}/stat")));
        Ok(Self(times.sum::<anyhow::Result<Duration>>()?))
    }

    /// Our own.
    pub(crate) fn own() -> anyhow::Result<Self> {
        read("/proc/self/stat").map(Self)
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

fn read(path: &str) -> anyhow::Result<Duration> {
    let stat =
        fs::read_to_string(Path::new(path)).with_context(|| format!("cannot read {path}"))?;
    parse(&stat).with_context(|| format!("cannot understand {path}"))
}

/// Fields 14 and 15 (proc_pid_stat(5)): user and system time of the whole process.
fn parse(stat: &str) -> Option<Duration> {
    // The second field is the program's name, which may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SECOND,
    ))
}

/// Linux tells user space a hundred a second, whatever the kernel's own clock does.
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_taken_whatever_the_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 9 8 7 6 250 50 3 4 20 0 5 0 99 1 2";
        assert_eq!(parse(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse("42 (short) S 1"), None);
    }

    #[test]
    fn our_own_time_only_rises() {
        let before = CpuTime::own().unwrap();
        let pid = std::process::id();
        assert!(CpuTime::of_all(&[pid]).unwrap().0 >= before.0);
        assert!(CpuTime::of_all(&[]).unwrap() == CpuTime::default());
    }
}
