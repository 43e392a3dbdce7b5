//! What this device is: read off the machine, and found out by scripts of the operator's.
//!
//! Nothing here fails: what cannot be read is left out, and what is odd is passed over. All text is
//! cut to what an [`Inventory`] may hold.

mod ask;
mod disks;
mod dpkg;
mod fields;
mod os_release;
mod rpm;
mod stock;
mod text;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use protocol::{Inventory, System};

pub(crate) use stock::Stock;

use crate::fetch::off_the_runtime;
use text::short;

/// The most of a small file that is read.
const SMALL_BYTES_MAX: u64 = 256 << 10;

/// What the machine is, but for its filesets; fields come from the scripts in the folder `fields`.
pub(crate) async fn collect(fields: &Path) -> Inventory {
    let folder = fields.to_owned();
    let read = off_the_runtime(move || (of_machine(), fields::scripts(&folder)));
    let Ok((mut inventory, scripts)) = read.await else {
        return Inventory::default();
    };
    inventory.software.extend(rpm::packages().await);
    inventory.software.sort();
    inventory.software.dedup();
    inventory.software.truncate(Inventory::SOFTWARE_MAX);
    inventory.fields = fields::answers(scripts).await;
    inventory
}

fn of_machine() -> Inventory {
    let mut inventory = Inventory {
        system: system(),
        disks: disks::disks(),
        ..Inventory::default()
    };
    if let Some(status) = read(Path::new(dpkg::STATUS), dpkg::STATUS_BYTES_MAX) {
        inventory.software = dpkg::packages(&status);
    }
    inventory
}

fn system() -> System {
    let known = rustix::system::uname();
    let os = ["/etc/os-release", "/usr/lib/os-release"].map(PathBuf::from);
    let os = os.iter().find_map(|path| read(path, SMALL_BYTES_MAX));
    let os = os_release::OsRelease::parse(&os.unwrap_or_default());
    let memory = read(Path::new("/proc/meminfo"), SMALL_BYTES_MAX);
    System {
        hostname: short(&known.nodename().to_string_lossy()),
        os: os.id,
        os_version: os.version,
        os_name: os.name,
        kernel: short(&known.release().to_string_lossy()),
        arch: short(&known.machine().to_string_lossy()),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        cpus: std::thread::available_parallelism().map_or(0, |count| count.get() as u64),
        memory: memory.map_or(0, |text| memory_total(&text)),
    }
}

/// `MemTotal` of `/proc/meminfo` in bytes; 0 if it is not told.
fn memory_total(meminfo: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(meminfo);
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0_u64).saturating_mul(1024)
}

/// The first `max` bytes of a file; none if it cannot be read.
fn read(path: &Path, max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes() {
        let check = |text: &str, expected| assert_eq!(memory_total(text.as_bytes()), expected);
        check(
            "MemTotal:       16326572 kB\nMemFree: 1 kB\n",
            16_326_572 * 1024,
        );
        check("MemFree: 1 kB\n", 0);
        check("MemTotal: lots kB\n", 0);
        check("MemTotal: 18446744073709551615 kB\n", u64::MAX);
    }

    #[tokio::test]
    async fn what_is_told_of_this_machine_is_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let inventory = collect(folder.path()).await;
        assert_eq!(
            Inventory::decode(&inventory.encode()),
            Some(inventory.clone())
        );
        assert!(!inventory.system.kernel.is_empty());
        assert!(inventory.system.memory > 0);
    }
}
