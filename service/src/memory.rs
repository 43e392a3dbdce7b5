//! How much memory the process may take: what its control group allows, or what the machine has.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory that the process may take, as its control groups (cgroup v2 or v1, the tightest
/// on the way up) or the machine's memory say. None where the system does not tell.
#[must_use]
pub fn limit() -> Option<u64> {
    limit_in(Path::new("/"))
}

/// The same, with all files below `root`.
fn limit_in(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| group_limit(root, line));
    limits.chain(total(root)).min()
}

/// The tightest limit of a group and those above it; `line` is of /proc/self/cgroup (cgroups(7)):
/// `NUMBER:CONTROLLERS:PATH`, the controllers being empty in version 2.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (mount, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|it| it == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    // In a container the path may be the host's and lead nowhere here: then the topmost counts.
    let mut group = PathBuf::from(path.trim_start_matches('/'));
    let mut tightest: Option<u64> = None;
    loop {
        let text = fs::read_to_string(root.join(mount).join(&group).join(file));
        // "max" is no limit.
        let limit = text.ok().and_then(|text| text.trim().parse().ok());
        tightest = tightest.into_iter().chain(limit).min();
        if !group.pop() {
            return tightest;
        }
    }
}

/// What the machine has (proc_meminfo(5)).
fn total(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(limit_in(root.path()), expected, "{files:?}");
    }

    #[test]
    fn the_tightest_limit_counts_wherever_it_is_set() {
        let memory = ("proc/meminfo", "MemFree: 5 kB\nMemTotal:    4 kB\n");
        let second = ("proc/self/cgroup", "0::/system.slice/booster.service\n");
        let of = |path: &'static str, text: &'static str| (path, text);
        check(&[], None);
        check(&[memory], Some(4096));
        check(&[memory, second], Some(4096));
        let own = of(
            "sys/fs/cgroup/system.slice/booster.service/memory.max",
            "2048\n",
        );
        let slice = of("sys/fs/cgroup/system.slice/memory.max", "1024\n");
        let none = of(
            "sys/fs/cgroup/system.slice/booster.service/memory.max",
            "max\n",
        );
        check(&[memory, second, own], Some(2048));
        check(&[memory, second, own, slice], Some(1024));
        check(&[memory, second, none], Some(4096));
        // A container that sees the host's path, and its own group as the topmost.
        check(
            &[memory, second, of("sys/fs/cgroup/memory.max", "512\n")],
            Some(512),
        );
        let first = ("proc/self/cgroup", "3:cpu,cpuacct:/a\n2:memory:/a/b\n");
        let huge = of(
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        let above = of("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000\n");
        check(&[memory, first, huge], Some(4096));
        check(&[memory, first, huge, above], Some(3000));
    }

    #[test]
    fn this_machine_tells() {
        assert!(limit().is_some_and(|bytes| bytes > 16 << 20));
    }
}
