//! What the system tells about processes.

use std::fs;

use anyhow::Context as _;

/// `pid` and all that descend from it.
pub(super) fn family(pid: u32) -> Vec<u32> {
    let parents = parents();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        family.extend(children.map(|(child, _)| *child));
        next += 1;
    }
    family
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// Field 4 of proc_pid_stat(5).
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Memory of `pid` and its descendants in bytes, what they share divided among them
/// (`Pss`, proc_pid_smaps(5)).
pub(super) fn pss(pid: u32) -> anyhow::Result<u64> {
    let of = |pid: u32| line_of(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
    family(pid).into_iter().map(of).sum()
}

/// The most that each of `pid` and its descendants has had in memory, added up (`VmHWM`,
/// proc_pid_status(5)).
pub(crate) fn peak(pid: u32) -> anyhow::Result<u64> {
    let of = |pid: u32| line_of(&format!("/proc/{pid}/status"), "VmHWM:");
    family(pid).into_iter().map(of).sum()
}

/// Files that `pid` has open.
pub(super) fn files(pid: u32) -> anyhow::Result<usize> {
    let path = format!("/proc/{pid}/fd");
    let files = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(files.count())
}

/// Threads of `pid`.
pub(super) fn threads(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Threads:"));
    let threads = line.and_then(|line| line.trim().parse().ok());
    threads.with_context(|| format!("cannot understand {path}"))
}

/// The bytes that a line of that name tells in KiB.
fn line_of(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("cannot understand {path}"))? << 10)
}
