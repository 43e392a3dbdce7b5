//! What the booster's index of a million packs takes, and how fast a cache is found again at a start.
//!
//! `cargo bench -p benches --bench store`, some twenty seconds and 1 GiB of memory for 200,000 files
//! in a file system in memory. Time is CPU time of the process, so that a busy machine blurs it
//! less. With `--measurement-time`, which CI passes, there are 20,000 files and no verdict on speed.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use booster::cache::index::{Index, Key, Kind};
use booster::cache::{Cache, Limits};
use booster::metrics::CacheMetrics;
use booster::upstream::Upstreams;
use content::Digest;
use rustix::time::{ClockId, clock_gettime};
use service::Tasks;
use service::metrics::Registry;

/// The size that is supported, and the most memory for it.
const PACKS: u32 = 1_000_000;
const MEMORY_MAX: u64 = 128 << 20;
/// Files of the start, and how many a second of CPU have to be found.
const FILES: u32 = 200_000;
const FILES_QUICK: u32 = 20_000;
const RATE_MIN: f64 = 100_000.0;
/// Starts, of which the median counts.
const STARTS: usize = 5;

fn main() -> Result<ExitCode> {
    let quick = std::env::args().any(|argument| argument == "--measurement-time");
    let small = memory()?;
    let fast = start(if quick { FILES_QUICK } else { FILES })?;
    Ok(if small && (fast || quick) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Says what a million packs take, with the memory of what was given up.
fn memory() -> Result<bool> {
    let before = resident()?;
    // Room for all but the last, which pushes out another.
    let mut index = Index::new(u64::from(PACKS - 1) * 4096, 4096);
    for number in 0..PACKS {
        if index.make_room(4096).is_err() {
            anyhow::bail!("there is always something to give up");
        }
        index.insert(key(number), 4096, true, 0);
    }
    let taken = resident()?.saturating_sub(before);
    let files = index.files(Kind::Pack) as u64;
    say(&format!(
        "index: {files} packs take {:.1} MiB, {:.1} bytes each (at most {} MiB)",
        taken as f64 / f64::from(1 << 20),
        taken as f64 / files as f64,
        MEMORY_MAX >> 20
    ))?;
    Ok(taken <= MEMORY_MAX)
}

/// Says how fast a cache of so many files is opened.
fn start(files: u32) -> Result<bool> {
    let shared = Path::new("/dev/shm");
    let folder = if shared.is_dir() {
        tempfile::tempdir_in(shared)?
    } else {
        tempfile::tempdir()?
    };
    open(folder.path())?;
    let packs = folder.path().join("packs");
    for number in 0..files {
        let hex = key(number).digest.hex();
        let shard = packs.join(&hex[..2]);
        if !shard.is_dir() {
            fs::create_dir(&shard)?;
        }
        fs::write(shard.join(hex), b"x")?;
    }
    let mut rates = Vec::new();
    for _ in 0..STARTS {
        let before = cpu();
        open(folder.path())?;
        rates.push(f64::from(files) / (cpu() - before).as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let rate = rates[STARTS / 2];
    say(&format!(
        "start: {files} packs at {rate:.0} a second of CPU ({:.0} to {:.0}; at least {RATE_MIN:.0})",
        rates[0],
        rates[STARTS - 1]
    ))?;
    Ok(rate >= RATE_MIN)
}

/// Opens the cache in `folder` and lets it go again, like a process that is killed.
fn open(folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (tasks, upstreams) = (Tasks::new(), Arc::new(Upstreams::new(Vec::new())));
        let limits = Limits {
            free_percent_min: 0,
            ..Limits::default()
        };
        let metrics = CacheMetrics::register(&Registry::new("bench"))?;
        let now = service::Clock::system().now();
        let opened = Cache::open(folder, limits, upstreams, tasks.spawner(), metrics, now);
        let _cache = opened.await?;
        Ok(())
    })
}

fn key(number: u32) -> Key {
    Key {
        kind: Kind::Pack,
        digest: Digest::of(&number.to_le_bytes()),
    }
}

/// Bytes of this process that are in memory (proc(5), `VmRSS`).
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.context("the system does not say VmRSS")?.parse()?;
    Ok(kib << 10)
}

fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(spent.tv_sec).unwrap_or(0),
        u32::try_from(spent.tv_nsec).unwrap_or(0),
    )
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot report")
}
