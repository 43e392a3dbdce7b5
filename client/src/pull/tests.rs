//! Pulls from memory to disk, in good and bad weather.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::AtFlags;

use super::job::{Job, Outcome, Stated};
use super::*;
use crate::fetch::sources::Sources;
use crate::install::room::Room;
use crate::steps::Steps;
use crate::testing::{Memory, Publisher, Served, Vice, frames_sent};
use crate::tree::times;

mod damage;
mod heal;
mod merge;
mod stale;
mod target;

/// A publisher's folder, a device's folder and a target.
struct Bed {
    folder: tempfile::TempDir,
    publisher: Publisher,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Self {
            folder,
            publisher: Publisher::default(),
        }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    fn publish(&mut self) -> (Stated, Arc<Served>) {
        let stated = self.publisher.publish(&self.source());
        (stated, self.publisher.serve())
    }

    fn job(&self, stated: &Stated, sources: Vec<Memory>) -> Job<Memory> {
        Job {
            stated: stated.clone(),
            sources: Arc::new(Sources::hasty(sources)),
            data: self.folder.path().join("data"),
            target: self.target(),
            mode: InstallMode::Tree,
            rules: None,
            keep: false,
            replace: false,
            now: Clock::system().now(),
            room: Room::default(),
            progress: Arc::default(),
            steps: Steps::default(),
            lock: Arc::new(()),
        }
    }

    async fn pull(&self, stated: &Stated, served: &Arc<Served>) -> (Outcome, u64) {
        let source = Memory::new("origin o1", served, Vice::None);
        let sent = Arc::clone(&source.sent);
        let outcome = self.job(stated, vec![source]).run().await.unwrap();
        let sent = sent.lock().unwrap();
        (
            outcome,
            sent.iter().map(|(_, range)| range.end - range.start).sum(),
        )
    }

    /// Some files of several kinds and sizes.
    fn fill(&self) {
        let source = self.source();
        write(&source.join("a.txt"), b"bread");
        write(&source.join("empty"), b"");
        fs::create_dir_all(source.join("bin/deep")).unwrap();
        write(&source.join("bin-x"), b"between bin and bin/");
        for number in 0..20 {
            let bytes = noise(3000 + number * 977, number as u64);
            write(&source.join(format!("bin/deep/{number}")), &bytes);
        }
        write(&source.join("bin/big"), &noise(1_500_000, 99));
        symlink("bin/big", source.join("link")).unwrap();
        fs::hard_link(source.join("bin/big"), source.join("other-big")).unwrap();
        for (path, mtime) in [
            ("bin/deep/3", -1_234_567_890_123_456_789),
            ("link", 1),
            ("bin/deep", 1_000_000_000_000_000_007),
            ("bin", 999_999_999),
            ("a.txt", -1),
        ] {
            date(&source.join(path), mtime);
        }
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    date(path, 1_600_000_000_000_000_000 + bytes.len() as i64);
}

fn date(path: &Path, mtime: i64) {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times(mtime), flags).unwrap();
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..bytes).map(|_| random.u8(..)).collect()
}

/// All that can be seen of a tree, its own folder left out.
fn look(folder: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut inodes: Vec<(u64, PathBuf)> = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let within = path.strip_prefix(folder).unwrap().to_owned();
            let what = if metadata.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if metadata.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else {
                inodes.push((metadata.ino(), within.clone()));
                content::Digest::of(&fs::read(&path).unwrap()).to_string()
            };
            seen.push(format!(
                "{} {:o} {}.{:09} {what}",
                within.display(),
                metadata.permissions().mode() & 0o7777,
                metadata.mtime(),
                metadata.mtime_nsec(),
            ));
        }
    }
    inodes.sort();
    for pair in inodes.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        seen.push(format!("one: {:?} {:?}", pair[0].1, pair[1].1));
    }
    seen.sort();
    seen
}

#[tokio::test]
async fn a_tree_arrives_as_it_was_published() {
    let mut bed = Bed::new();
    bed.fill();
    let source = bed.source();
    fs::set_permissions(source.join("a.txt"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(source.join("bin/deep"), fs::Permissions::from_mode(0o555)).unwrap();
    date(&source.join("bin/deep"), 5);
    let (stated, served) = bed.publish();
    let (outcome, _) = bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&source));
    assert_eq!((outcome.files, outcome.reused), (25, 0));
    // And again: nothing is fetched, nothing is written.
    let before = bed.target().metadata().unwrap().ino();
    let (outcome, sent) = bed.pull(&stated, &served).await;
    assert!(outcome.unchanged);
    assert_eq!((sent, bed.target().metadata().unwrap().ino()), (0, before));
}

#[tokio::test]
async fn an_update_fetches_only_what_is_new() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    let source = bed.source();
    // An edit in the middle, renames, deletions, a changed mode, a new file, a changed date.
    let mut big = fs::read(source.join("bin/big")).unwrap();
    big[700_000..700_010].copy_from_slice(b"jam on top");
    write(&source.join("bin/big"), &big);
    fs::rename(source.join("bin/deep/1"), source.join("renamed")).unwrap();
    fs::remove_file(source.join("bin/deep/2")).unwrap();
    fs::set_permissions(source.join("bin/deep/4"), fs::Permissions::from_mode(0o600)).unwrap();
    date(&source.join("bin/deep/5"), 77);
    write(&source.join("new"), &noise(50_000, 1234));
    let (stated, served) = bed.publish();
    let (outcome, sent) = bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&source));
    // One or two chunks of the big file, the new file, the changed part of the index.
    assert!(sent < 500_000, "{sent} bytes were fetched");
    assert!(
        outcome.reused > 1_200_000 && !outcome.unchanged,
        "{outcome:?}"
    );
    // Renames alone need no pack of content.
    fs::rename(source.join("bin/deep/6"), source.join("renamed-too")).unwrap();
    let (stated, served) = bed.publish();
    let (_, sent) = bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&source));
    assert!(sent < 20_000, "{sent} bytes were fetched for a rename");
}

#[tokio::test]
async fn damage_in_the_installed_tree_is_found_and_healed() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    // Same length and date, other bytes: only a changed mode makes us read it.
    let path = bed.target().join("bin/deep/7");
    let length = fs::read(&path).unwrap().len();
    let mtime = path.metadata().unwrap();
    fs::write(&path, vec![b'x'; length]).unwrap();
    date(&path, mtime.mtime() * 1_000_000_000 + mtime.mtime_nsec());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let (outcome, sent) = bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&bed.source()));
    assert!(sent > 0 && !outcome.unchanged);
}

#[tokio::test]
async fn a_hole_arrives_as_a_hole() {
    let mut bed = Bed::new();
    let file = fs::File::create(bed.source().join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"an island", 20 << 20).unwrap();
    let (stated, served) = bed.publish();
    let (_, sent) = bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&bed.source()));
    let blocks = bed.target().join("sparse").metadata().unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks are taken up");
    assert!(sent < 100_000, "{sent} bytes were fetched");
}

#[tokio::test]
async fn a_bad_source_is_named_and_the_next_one_used() {
    for (vice, check) in [
        (Vice::Flips, Some("frame")),
        (Vice::Swaps, Some("pack header")),
        (Vice::Truncates, Some("length")),
        (Vice::Lies, Some("index root")),
        (Vice::Dead, None),
        (Vice::DiesAfter(600_000), None),
    ] {
        let mut bed = Bed::new();
        bed.fill();
        let (stated, served) = bed.publish();
        let sources = vec![
            Memory::new("booster b1", &served, vice),
            Memory::new("origin o1", &served, Vice::None),
        ];
        let job = bed.job(&stated, sources);
        let sources = Arc::clone(&job.sources);
        job.run().await.unwrap();
        assert_eq!(look(&bed.target()), look(&bed.source()), "{vice:?}");
        let bypasses = sources.bypasses();
        assert_eq!(bypasses.len(), 1, "{vice:?}: {bypasses:?}");
        assert_eq!(bypasses[0].source, "booster b1");
        assert_eq!(bypasses[0].check.as_deref(), check, "{bypasses:?}");
        assert!(sources.traffic()[1].pack_bytes > 0, "{vice:?}");
    }
}

/// A booster whose disk has changed what it keeps is told so, and goes on being used.
#[tokio::test]
async fn a_source_that_mends_what_was_wrong_is_not_gone_round() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    let sources = vec![
        Memory::new("booster b1", &served, Vice::Rots),
        Memory::new("origin o1", &served, Vice::None),
    ];
    let job = bed.job(&stated, sources);
    let sources = Arc::clone(&job.sources);
    job.run().await.unwrap();
    assert_eq!(look(&bed.target()), look(&bed.source()));
    assert_eq!(sources.bypasses(), []);
    assert_eq!(sources.traffic()[1].pack_bytes, 0);
}

#[tokio::test]
async fn without_any_source_the_installed_tree_stays_and_the_reasons_are_told() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    let before = look(&bed.target());
    write(&bed.source().join("new"), &noise(40_000, 5));
    let (stated, served) = bed.publish();
    let sources = vec![
        Memory::new("booster b1", &served, Vice::Dead),
        Memory::new("origin o1", &served, Vice::Flips),
    ];
    let error = bed
        .job(&stated, sources)
        .run()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("booster b1: the connection broke"),
        "{error}"
    );
    assert!(error.contains("origin o1: frame check failed"), "{error}");
    assert_eq!(look(&bed.target()), before);
}

#[tokio::test]
async fn a_pull_killed_anywhere_ends_in_a_right_tree_and_fetches_no_frame_twice() {
    let mut bed = Bed::new();
    bed.fill();
    let (first, _) = bed.publish();
    let old = look(&bed.source());
    write(&bed.source().join("bin/deep/8"), &noise(9000, 1000));
    write(&bed.source().join("more"), &noise(300_000, 1001));
    fs::remove_file(bed.source().join("a.txt")).unwrap();
    let (second, served) = bed.publish();
    let new = look(&bed.source());
    bed.pull(&first, &served).await;
    let mut job = bed.job(&second, vec![Memory::new("origin o1", &served, Vice::None)]);
    job.steps = Steps::crash_after(i64::MAX);
    let steps = job.steps.clone();
    job.run().await.unwrap();
    let total = steps.taken();
    // Each of the first and last, where the journal is at work, and some of those between.
    for count in (0..total).filter(|count| *count < 3 || *count > total - 8 || count % 11 == 0) {
        let data = bed.folder.path().join("data");
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(&data).unwrap();
        crate::install::remove_tree(&bed.target()).unwrap();
        bed.pull(&first, &served).await;
        let source = Memory::new("origin o1", &served, Vice::None);
        let sent = Arc::clone(&source.sent);
        let mut job = bed.job(&second, vec![source]);
        job.steps = Steps::crash_after(count);
        let crashed = job.run().await;
        let seen = look(&bed.target());
        assert!(seen == old || seen == new, "after {count} steps: {seen:#?}");
        // The next run finishes it, whatever was left behind.
        let again = Memory::new("origin o1", &served, Vice::None);
        let sent_again = Arc::clone(&again.sent);
        bed.job(&second, vec![again]).run().await.unwrap();
        assert_eq!(look(&bed.target()), new, "after {count} steps");
        let mut all = sent.lock().unwrap().clone();
        all.extend(sent_again.lock().unwrap().iter().cloned());
        let twice = frames_sent(&served, &all);
        assert!(
            twice.values().all(|&times| times <= 1),
            "after {count} steps: {twice:?}"
        );
        let left: Vec<_> = fs::read_dir(bed.folder.path()).unwrap().collect();
        assert_eq!(left.len(), 3, "something was left behind: {left:?}");
        assert!(crashed.is_err(), "after {count} of {total} steps");
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_at_the_last_good_frame() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    let mut all = Vec::new();
    // Each source dies for good somewhere else; each try is a program of its own.
    for bytes in [1, 40_000, 300_000, 333_333, 90_000, u64::MAX] {
        let source = Memory::new("origin o1", &served, Vice::DiesAfter(bytes));
        let sent = Arc::clone(&source.sent);
        let ended = bed.job(&stated, vec![source]).run().await;
        assert_eq!(ended.is_ok(), bytes == u64::MAX, "after {bytes} bytes");
        all.extend(sent.lock().unwrap().iter().cloned());
    }
    assert_eq!(look(&bed.target()), look(&bed.source()));
    let sent = frames_sent(&served, &all);
    assert!(sent.values().all(|&times| times == 1), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_the_old_tree_or_the_new_one() {
    let mut bed = Bed::new();
    let versions: Vec<_> = (0..6u8)
        .map(|version| {
            for name in ["a", "z"] {
                fs::write(bed.source().join(name), vec![version; 2000]).unwrap();
            }
            bed.publish()
        })
        .collect();
    bed.pull(&versions[0].0, &versions[0].1).await;
    let (target, stop) = (
        bed.target(),
        Arc::new(std::sync::atomic::AtomicBool::new(false)),
    );
    let stopped = Arc::clone(&stop);
    let reader = tokio::task::spawn_blocking(move || {
        let mut reads = 0u64;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            // The folder is opened once, as a reader does who wants one tree.
            let folder = rustix::fs::open(
                &target,
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
                rustix::fs::Mode::empty(),
            )
            .expect("the target is always there");
            let read = |name: &str| {
                let flags = rustix::fs::OFlags::RDONLY;
                let file = rustix::fs::openat(&folder, name, flags, rustix::fs::Mode::empty());
                file.ok().map(|file| {
                    let mut bytes = Vec::new();
                    io::Read::read_to_end(&mut fs::File::from(file), &mut bytes).unwrap();
                    bytes
                })
            };
            // After the switch the old tree is taken down, so one of them may be gone.
            if let (Some(a), Some(z)) = (read("a"), read("z")) {
                assert_eq!((a.len(), &a), (2000, &z));
                reads += 1;
            }
        }
        reads
    });
    for (stated, served) in &versions[1..] {
        bed.pull(stated, served).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0);
}

#[test]
fn a_pull_may_move_between_threads() {
    fn check<T: Send>(_: &T) {}
    let name = "tools".parse().unwrap();
    let request = PullRequest::new("/d".into(), name, "/t".into());
    check(&pull(request, &Clock::system()));
}
