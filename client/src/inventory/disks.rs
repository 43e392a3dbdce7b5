//! Disks: the file systems that are mounted from them (proc_pid_mounts(5)).

use std::collections::BTreeSet;
use std::path::Path;

use protocol::{Disk, Inventory};

use super::text::short;
use super::{SMALL_BYTES_MAX, read};

/// The file systems of this machine's disks. Others are not asked: one over a network may not
/// answer for ever.
pub(super) fn disks() -> Vec<Disk> {
    let mounts = read(Path::new("/proc/self/mounts"), SMALL_BYTES_MAX);
    let mounts = mounts.map_or_else(Vec::new, |text| parse(&text));
    let sized = mounts.into_iter().filter_map(|(mount, kind)| {
        let known = rustix::fs::statvfs(mount.as_str()).ok()?;
        let size = known.f_blocks.saturating_mul(known.f_frsize);
        let free = known.f_bavail.saturating_mul(known.f_frsize);
        let (mount, kind) = (short(&mount), short(&kind));
        (size > 0).then(|| Disk {
            mount,
            kind,
            size,
            free: rounded(free),
        })
    });
    sized.take(Inventory::DISKS_MAX).collect()
}

/// Where what is mounted, each file system once.
fn parse(mounts: &[u8]) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(mounts).lines() {
        let mut parts = line.split(' ');
        let (Some(source), Some(mount), Some(kind)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        // A container's root is of no disk's kind, and is its disk all the same.
        if (KINDS.contains(&kind) || mount == "/") && seen.insert(source.to_owned()) {
            found.push((unescaped(mount), kind.to_owned()));
        }
    }
    found.sort();
    found
}

/// White space and backslashes are written as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut plain = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Three binary digits of it, rounded down: what changes all the time would be sent all the time.
fn rounded(bytes: u64) -> u64 {
    let spare = (u64::BITS - bytes.leading_zeros()).saturating_sub(3);
    bytes >> spare << spare
}

/// File systems that lie on disks.
const KINDS: [&str; 11] = [
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "ntfs3", "vfat", "xfs", "zfs",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_found_once_each() {
        let check = |mounts: &str, expected: &[(&str, &str)]| {
            let found = parse(mounts.as_bytes());
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(a, b)| (a.as_str(), b.as_str()))
                .collect();
            assert_eq!(found, expected);
        };
        check(
            "/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/sdb /mnt/a\\040b xfs rw 0 0\n\
             /dev/sda1 /var/chroot ext4 rw 0 0\nhost:/x /net nfs rw 0 0\n",
            &[("/", "ext4"), ("/mnt/a b", "xfs")],
        );
        check(
            "overlay / overlay rw 0 0\noverlay /x overlay rw 0 0\n",
            &[("/", "overlay")],
        );
        check("\n/dev/sda1\n/dev/sda1 /x\n", &[]);
        check("a /\\9\\04 ext4 x", &[("/\\9\\04", "ext4")]);
        check("a /\\777\\134 ext4 x", &[("/\\777\\", "ext4")]);
    }

    #[test]
    fn what_is_free_is_rounded_down_by_a_quarter_at_most() {
        for (bytes, expected) in [(0, 0), (7, 7), (9, 8), (1000, 896), (u64::MAX, 7 << 61)] {
            assert_eq!(rounded(bytes), expected);
        }
    }
}
