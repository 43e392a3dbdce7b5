//! The booster for long under everything that changes: revisions, evictions, and clients that
//! vanish. What it takes must not grow.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use service::Output;

use super::ground::{Ground, copy, noise, path, start_booster};
use super::{peers, proc, tools};
use crate::load::{Churn, Phase};

/// How a soak went.
#[derive(Clone, Debug, Serialize)]
pub struct Soaked {
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Revisions that were published meanwhile.
    pub revisions: u32,
    /// Files that the cache gave up for room.
    pub evictions: u64,
    /// Clients that got all they wanted, every byte of which was good.
    pub visits: u64,
    /// Clients that left in the middle of it.
    pub vanished: u64,
    /// Bytes that were checked.
    pub bytes: u64,
    /// Why clients failed that did.
    pub failures: Vec<String>,
    /// What the booster took when all clients had left for a while: after a quarter of the time, and
    /// in the end.
    pub rests: [Reading; 2],
    /// The most that it took.
    pub peak_bytes: u64,
    /// What it took meanwhile, now and then.
    pub readings: Vec<Reading>,
}

/// What the booster took at one time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// Seconds since the beginning.
    pub at: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Open files.
    pub files: usize,
    /// Threads.
    pub threads: u64,
    /// Connections of clients, fills and requests upstream, as it counts them itself.
    pub at_work: u64,
}

impl Soaked {
    /// Whether nothing has grown, and nobody was served wrongly or not at all.
    ///
    /// Memory counts as flat by its growth only if the first look was at a booster that had settled:
    /// before that, it grows to what this load needs, and all that can be said is that there is a limit.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        let [before, after] = self.rests;
        let growth_max = match before.at >= SETTLED_AFTER {
            true => before.memory_bytes / 5 * 6 + MEMORY_SLACK,
            false => MEMORY_MAX,
        };
        self.failures.is_empty()
            && self.evictions > 0
            && self.vanished > 0
            && self.peak_bytes <= MEMORY_MAX
            && after.memory_bytes <= growth_max
            && after.files <= before.files + FILES_SLACK
            && after.at_work == 0
            && before.at_work == 0
    }
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} s: {} revisions, {} evictions, {} visits of {:.1} GiB, {} clients that vanished, {} \
             that failed, peak {} MiB",
            self.seconds,
            self.revisions,
            self.evictions,
            self.visits,
            self.bytes as f64 / f64::from(1 << 30),
            self.vanished,
            self.failures.len(),
            self.peak_bytes >> 20
        )?;
        for (when, rest) in ["after a quarter", "in the end"].iter().zip(self.rests) {
            writeln!(f, "at rest {when}: {rest}")?;
        }
        if let Some(first) = self.failures.first() {
            writeln!(f, "the first failure: {first}")?;
        }
        f.write_str(match self.is_flat() {
            true => "flat",
            false => "NOT FLAT",
        })
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} s, {:.1} MiB, {} files, {} threads, {} at work",
            self.at,
            self.memory_bytes as f64 / f64::from(1 << 20),
            self.files,
            self.threads,
            self.at_work
        )
    }
}

/// Runs it for a `time`, as long as `go_on` lets it.
pub(super) fn run(
    ground: &Ground,
    time: Duration,
    output: Output,
    go_on: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<Soaked> {
    publish(ground, 0)?;
    let place = ground.place("soak")?;
    let data = place.join("data");
    copy(&ground.booster(), &data)?;
    let (booster, port, ops) = start_booster(ground, &data, &place, SETTINGS)?;
    let churn = Arc::new(Churn::new(CLIENTS));
    let ways = tools::ways(&ground.client(), port, FILESET)?;
    let site = Site {
        began: Instant::now(),
        churn: Arc::clone(&churn),
        ground,
        ops,
        output,
        pid: booster.pid(),
        time,
    };
    thread::scope(|threads| {
        let clients = threads.spawn(|| churn.run(&ways));
        let soaked = site.play(go_on);
        churn.go(Phase::End);
        let ended = clients.join();
        ended.map_err(|_| anyhow::anyhow!("the clients panicked"))??;
        soaked
    })
}

/// A booster under churn.
struct Site<'a> {
    began: Instant,
    churn: Arc<Churn>,
    ground: &'a Ground,
    ops: u16,
    output: Output,
    pid: u32,
    time: Duration,
}

impl Site<'_> {
    fn play(&self, go_on: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<Soaked> {
        let (mut revisions, mut readings, mut rests) = (0, Vec::new(), Vec::new());
        let every = (self.time / READINGS).max(Duration::from_secs(1));
        let mut published = Instant::now();
        loop {
            go_on()?;
            let done = self.began.elapsed().as_secs_f64() / self.time.as_secs_f64();
            let due = if rests.is_empty() { 0.25 } else { 1.0 };
            if done >= due {
                rests.push(self.rest()?);
                if let [before, after] = rests[..] {
                    return self.end(revisions, readings, [before, after]);
                }
            }
            if published.elapsed() >= REVISION_EVERY {
                revisions += 1;
                publish(self.ground, revisions)?;
                published = Instant::now();
            }
            let last = readings.last().map_or(0, |it: &Reading| it.at);
            if self.began.elapsed() >= Duration::from_secs(last) + every {
                let reading = self.read()?;
                self.output.note(reading);
                readings.push(reading);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sends all clients away, waits until the booster has noticed, and reads what it takes then.
    fn rest(&self) -> anyhow::Result<Reading> {
        self.churn.go(Phase::Rest);
        let deadline = Instant::now() + REST_PATIENCE;
        loop {
            let reading = self.read()?;
            let is_at_rest = self.churn.busy() == 0 && reading.at_work == 0;
            if is_at_rest || Instant::now() > deadline {
                self.output.note(format_args!("at rest: {reading}"));
                self.churn.go(Phase::Run);
                return Ok(reading);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn read(&self) -> anyhow::Result<Reading> {
        let at_work = AT_WORK.map(|name| peers::number(self.ops, name));
        Ok(Reading {
            at: self.began.elapsed().as_secs(),
            memory_bytes: proc::pss(self.pid)?,
            files: proc::files(self.pid)?,
            threads: proc::threads(self.pid)?,
            at_work: at_work.into_iter().sum::<anyhow::Result<f64>>()? as u64,
        })
    }

    fn end(
        &self,
        revisions: u32,
        readings: Vec<Reading>,
        rests: [Reading; 2],
    ) -> anyhow::Result<Soaked> {
        let come = self.churn.come();
        let evictions = peers::number(self.ops, EVICTIONS)? as u64;
        Ok(Soaked {
            seconds: self.began.elapsed().as_secs(),
            revisions,
            evictions,
            visits: come.visits,
            vanished: come.vanished,
            bytes: come.bytes,
            failures: come.failures,
            rests,
            peak_bytes: proc::peak(self.pid)?,
            readings,
        })
    }
}

/// Publishes the next revision: two fifths of it are new.
fn publish(ground: &Ground, revision: u32) -> anyhow::Result<()> {
    let source = ground.folder().join("source").join(FILESET);
    fs::create_dir_all(&source)?;
    let changed: Vec<u32> = match revision {
        0 => (0..FILES).collect(),
        _ => (0..FILES * 2 / 5)
            .map(|at| (revision * 5 + at * 3) % FILES)
            .collect(),
    };
    ensure!(!changed.is_empty(), "a revision changes something");
    for file in changed {
        let seed = u64::from(revision) << 16 | u64::from(file) | 1 << 40;
        fs::write(source.join(format!("{file:02}")), noise(FILE_BYTES, seed))?;
    }
    let published = ground.run("larder-origin", &["publish", FILESET, path(&source)?]);
    published.context("cannot publish a revision")
}

const FILESET: &str = "churn";
/// 40 MiB, in as many packs.
const FILES: u32 = 10;
const FILE_BYTES: usize = 4 << 20;
/// 1.33 times a revision.
const SETTINGS: &str = "cache.disk = \"54 MiB\"\ncache.memory = \"16 MiB\"\n";
const CLIENTS: u16 = 16;
const REVISION_EVERY: Duration = Duration::from_secs(4);
/// How many readings are printed.
const READINGS: u32 = 60;
/// For a connection to be noticed as gone, and for what was begun ahead to end.
const REST_PATIENCE: Duration = Duration::from_secs(20);
/// Packs that are kept open, and threads' own.
const FILES_SLACK: usize = 24;
/// What allocators keep.
const MEMORY_SLACK: u64 = 16 << 20;
/// The most that a booster may ever take under this load.
const MEMORY_MAX: u64 = 320 << 20;
/// In seconds. By our own runs of eleven minutes and two hours, memory stands still after some five
/// minutes; within the first one it doubles.
const SETTLED_AFTER: u64 = 300;
const AT_WORK: [&str; 2] = [
    "larder_booster_connections_open ",
    "larder_booster_fills_running ",
];
const EVICTIONS: &str = "larder_booster_evictions_total{kind=\"pack\"} ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_by_growth_once_it_has_settled() {
        check(
            "short, still growing",
            [(11, 75, 27, 0), (41, 129, 27, 0)],
            144,
            true,
        );
        check(
            "short, over the limit",
            [(11, 75, 27, 0), (41, 129, 27, 0)],
            330,
            false,
        );
        check(
            "long, flat",
            [(1800, 160, 30, 0), (7200, 170, 32, 0)],
            230,
            true,
        );
        check(
            "long, grown",
            [(1800, 160, 30, 0), (7200, 230, 32, 0)],
            240,
            false,
        );
        check(
            "files left open",
            [(11, 75, 27, 0), (41, 75, 60, 0)],
            144,
            false,
        );
        check(
            "a task left",
            [(11, 75, 27, 0), (41, 75, 27, 1)],
            144,
            false,
        );
    }

    fn check(name: &str, rests: [(u64, u64, usize, u64); 2], peak: u64, is_flat: bool) {
        let soaked = Soaked {
            seconds: 41,
            revisions: 9,
            evictions: 49,
            visits: 759,
            vanished: 276,
            bytes: 1 << 34,
            failures: Vec::new(),
            rests: rests.map(|(at, memory, files, at_work)| Reading {
                at,
                memory_bytes: memory << 20,
                files,
                threads: 8,
                at_work,
            }),
            peak_bytes: peak << 20,
            readings: Vec::new(),
        };
        assert_eq!(soaked.is_flat(), is_flat, "{name}: {soaked}");
    }
}
