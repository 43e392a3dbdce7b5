//! Memory stays flat: what is measured by hand with a million files and 64 GiB, here in small.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use tests::testbed::{Testbed, until};
use tests::tree;

/// Runs a party to its end; the most memory that it had, in MiB.
async fn peak_of(words: &[&str]) -> u64 {
    let mut party = Command::new(env!("CARGO_BIN_EXE_party"))
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", party.id());
    let mut peak = 0;
    let ended = until(
        async || {
            peak = high_water(Path::new(&status)).unwrap_or(peak);
            party.try_wait().unwrap()
        },
        Option::is_some,
    );
    assert!(ended.await.unwrap().success(), "{words:?} failed");
    assert!(peak > 0, "nothing was measured of {words:?}");
    peak
}

/// The kernel's own high-water mark of a process (proc_pid_status(5)), in MiB.
fn high_water(status: &Path) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib >> 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_many_files_nor_a_long_one_take_much_memory() {
    let bed = Testbed::start().await.unwrap();
    let folder = bed.path("tree");
    for at in 0..3000 {
        let path = folder.join(format!("{}/{at}", at % 30));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, at.to_string()).unwrap();
    }
    File::create(folder.join("sparse"))
        .unwrap()
        .set_len(512 << 20)
        .unwrap();
    let client = bed.enrol_client("one").await.unwrap();
    let target = bed.path("target");
    let [tree, origin, client, to] =
        [&folder, &bed.path("origin"), &client, &target].map(|path| path.display().to_string());
    let publisher = peak_of(&["origin", "publish", "tools", &tree, "--data", &origin]).await;
    assert!(publisher < 256, "the publisher took {publisher} MiB");
    let puller = peak_of(&["client", "pull", "tools", &to, "--data", &client]).await;
    assert!(puller < 128, "the client took {puller} MiB");
    let held = tree::size(&target).unwrap();
    assert_eq!(held, tree::size(&folder).unwrap());
}
