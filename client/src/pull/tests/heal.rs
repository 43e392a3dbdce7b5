//! What is installed, damaged in many ways, and what verifying and healing make of it.

use content::statement::{HealMode, HealRule};

use super::*;
use crate::install::Target;
use crate::install::examine::{DifferenceKind, Fate, Findings, Pace, Stop};

/// What may happen to an installed file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Damage {
    /// One byte changes, and nothing tells by its look.
    Corrupt,
    Deleted,
    Chmod,
    Touched,
    /// A link takes its place.
    Link,
    /// An empty folder does.
    Folder,
    EditedNewer,
    EditedOlder,
}

const DAMAGES: [Damage; 8] = [
    Damage::Corrupt,
    Damage::Deleted,
    Damage::Chmod,
    Damage::Touched,
    Damage::Link,
    Damage::Folder,
    Damage::EditedNewer,
    Damage::EditedOlder,
];

const MODES: [HealMode; 5] = [
    HealMode::SelfHeal,
    HealMode::IfMissing,
    HealMode::LeaveBehind,
    HealMode::NeverOverwrite,
    HealMode::OverwriteIfOlder,
];

impl Damage {
    fn befalls(self, path: &Path) {
        let metadata = path.metadata().unwrap();
        let mtime = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        let edit = |mtime| {
            fs::write(path, b"edited").unwrap();
            date(path, mtime);
        };
        match self {
            Self::Corrupt => {
                let mut bytes = fs::read(path).unwrap();
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                fs::write(path, bytes).unwrap();
                date(path, mtime);
            }
            Self::Deleted => fs::remove_file(path).unwrap(),
            Self::Chmod => fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
            Self::Touched => date(path, mtime + 1),
            Self::Link => {
                fs::remove_file(path).unwrap();
                symlink("/etc/passwd", path).unwrap();
            }
            Self::Folder => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }
            Self::EditedNewer => edit(i64::MAX / 2),
            Self::EditedOlder => edit(5),
        }
    }

    fn kind(self) -> DifferenceKind {
        match self {
            Self::Corrupt | Self::EditedNewer | Self::EditedOlder => DifferenceKind::Content,
            Self::Deleted => DifferenceKind::Missing,
            Self::Chmod => DifferenceKind::Mode,
            Self::Touched => DifferenceKind::Time,
            Self::Link | Self::Folder => DifferenceKind::Type,
        }
    }
}

fn is_healed(mode: HealMode, damage: Damage) -> bool {
    match mode {
        HealMode::SelfHeal => true,
        HealMode::IfMissing | HealMode::NeverOverwrite => damage == Damage::Deleted,
        HealMode::LeaveBehind => false,
        HealMode::OverwriteIfOlder => damage == Damage::Deleted || damage == Damage::EditedOlder,
    }
}

impl Bed {
    fn examine(&self, mode: InstallMode) -> Findings {
        let target = self.open(mode);
        target.examine(&mut pace()).unwrap()
    }

    fn open(&self, mode: InstallMode) -> Target {
        let installed = self.folder.path().join("data/installed");
        let (target, steps) = (self.target(), Steps::default());
        let opened = match mode {
            InstallMode::Tree => Target::open(&installed, &target, steps),
            InstallMode::Merge => {
                Target::open_shared(&installed, &target, &"tools".parse().unwrap(), steps)
            }
        };
        opened.unwrap()
    }

    fn healing(
        &self,
        stated: &Stated,
        served: &Arc<Served>,
        mode: InstallMode,
    ) -> (Job<Memory>, crate::testing::Sent) {
        let source = Memory::new("origin o1", served, Vice::None);
        let sent = Arc::clone(&source.sent);
        let mut job = self.job(stated, vec![source]);
        job.mode = mode;
        (job, sent)
    }
}

fn pace() -> Pace {
    Pace::new(None, Stop::default())
}

#[tokio::test]
async fn each_way_to_heal_does_to_each_damage_what_it_says() {
    for install in [InstallMode::Tree, InstallMode::Merge] {
        let mut bed = Bed::new();
        for mode in MODES {
            fs::create_dir(bed.source().join(mode.word())).unwrap();
            for (seed, damage) in DAMAGES.into_iter().enumerate() {
                let path = bed.source().join(format!("{}/{damage:?}", mode.word()));
                write(&path, &noise(30_000, seed as u64));
            }
        }
        let (stated, served) = bed.publish();
        let (mut job, _) = bed.healing(&stated, &served, install);
        let rule = |mode: HealMode| HealRule {
            pattern: format!("{}/**", mode.word()).parse().unwrap(),
            mode,
        };
        job.rules = Some(MODES.into_iter().map(rule).collect());
        job.run().await.unwrap();
        let whole = bed.examine(install);
        assert_eq!(
            (whole.damaged, whole.kept),
            (0, 0),
            "{:?}",
            whole.differences
        );
        let of = |mode: HealMode, damage| bed.target().join(format!("{}/{damage:?}", mode.word()));
        for mode in MODES {
            for damage in DAMAGES {
                damage.befalls(&of(mode, damage));
            }
        }
        let found = bed.examine(install);
        for mode in MODES {
            for damage in DAMAGES {
                let path = format!("{}/{damage:?}", mode.word());
                let told = found.differences.iter().find(|told| told.path == path);
                let told = told.map(|told| (told.kind, told.fate));
                let fate = if is_healed(mode, damage) {
                    Fate::Left
                } else {
                    Fate::Kept
                };
                // What is left behind is not looked at again.
                let wanted = (mode != HealMode::LeaveBehind).then_some((damage.kind(), fate));
                assert_eq!(told, wanted, "{install:?} {path}");
            }
        }
        let (job, _) = bed.healing(&stated, &served, install);
        let (healed, count) = job.heal(Some(found), pace()).await.unwrap();
        assert_eq!(
            count, healed.damaged,
            "{install:?}: {:?}",
            healed.differences
        );
        for mode in MODES {
            for damage in DAMAGES {
                let right = fs::read(bed.source().join(mode.word()).join(format!("{damage:?}")));
                let path = of(mode, damage);
                let same_bytes = fs::read(&path).ok() == right.ok();
                let metadata = path.symlink_metadata().unwrap_or_else(|_| {
                    // What is missing and stays so has the look of nothing.
                    bed.folder.path().metadata().unwrap()
                });
                let dressed = metadata.permissions().mode() & 0o7777 == 0o644
                    && metadata.mtime() == 1_600_000_000
                    && metadata.mtime_nsec() == 30_000;
                let is_right = same_bytes && dressed && metadata.is_file();
                let case = format!("{install:?} {} {damage:?}", mode.word());
                assert_eq!(is_right, is_healed(mode, damage), "{case}");
            }
        }
        let again = bed.examine(install);
        assert_eq!((again.damaged, again.kept), (0, healed.kept), "{again:?}");
    }
}

#[tokio::test]
async fn only_the_frames_that_hold_broken_chunks_are_fetched() {
    for install in [InstallMode::Tree, InstallMode::Merge] {
        let mut bed = Bed::new();
        bed.fill();
        let (stated, served) = bed.publish();
        let (job, _) = bed.healing(&stated, &served, install);
        job.run().await.unwrap();
        let before = look(&bed.target());
        Damage::Corrupt.befalls(&bed.target().join("bin/big"));
        // What two paths hold is copied from the one that is whole.
        write(&bed.target().join("bin/deep/3"), b"gone");
        let (job, sent) = bed.healing(&stated, &served, install);
        let (healed, count) = job.heal(None, pace()).await.unwrap();
        assert_eq!((count, healed.damaged), (3, 3), "{:?}", healed.differences);
        let frames = frames_sent(&served, &sent.lock().unwrap());
        let fetched: u32 = frames.values().sum();
        assert!(fetched <= 2, "{fetched} frames were fetched for two chunks");
        if install == InstallMode::Tree {
            assert_eq!(look(&bed.target()), before);
        }
        assert_eq!(bed.examine(install).damaged, 0);
    }
}

#[tokio::test]
async fn folders_links_and_names_are_healed_and_files_of_others_stay() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    let (target, before) = (bed.target(), look(&bed.target()));
    fs::remove_file(target.join("link")).unwrap();
    symlink("bin/small", target.join("link")).unwrap();
    fs::remove_file(target.join("other-big")).unwrap();
    write(&target.join("other-big"), &noise(1_500_000, 99));
    fs::set_permissions(target.join("bin"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir_all(target.join("bin/deep")).unwrap();
    write(&target.join("bin/theirs"), b"mine");
    fs::remove_file(target.join("a.txt")).unwrap();
    fs::create_dir(target.join("a.txt")).unwrap();
    write(&target.join("a.txt/theirs"), b"mine");
    let found = bed.examine(InstallMode::Tree);
    let strangers = bed.open(InstallMode::Tree).strangers().unwrap();
    let named: Vec<_> = strangers.named.into_iter().collect();
    assert_eq!(named, ["a.txt/theirs", "bin/theirs"]);
    let (job, _) = bed.healing(&stated, &served, InstallMode::Tree);
    let (healed, count) = job.heal(Some(found), pace()).await.unwrap();
    // A folder that holds something of others is not lost for a file.
    assert_eq!(healed.damaged - count, 1);
    let left = healed.differences.iter().filter(|it| it.fate == Fate::Left);
    let left: Vec<_> = left.map(|it| it.path.as_str()).collect();
    assert_eq!(left, ["a.txt"]);
    assert!(target.join("bin/theirs").exists() && target.join("a.txt/theirs").exists());
    fs::remove_file(target.join("bin/theirs")).unwrap();
    fs::remove_dir_all(target.join("a.txt")).unwrap();
    let (job, _) = bed.healing(&stated, &served, InstallMode::Tree);
    let (_, count) = job.heal(None, pace()).await.unwrap();
    assert_eq!(count, 1);
    assert_eq!(look(&bed.target()), before);
}

#[tokio::test]
async fn a_damaged_index_is_fetched_and_then_the_files_are_healed() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    let before = look(&bed.target());
    Damage::Corrupt.befalls(&bed.target().join("bin/big"));
    let index = bed.open(InstallMode::Tree).installed_index().unwrap();
    fs::write(&index, b"not an index").unwrap();
    assert!(bed.open(InstallMode::Tree).is_damaged());
    let (job, _) = bed.healing(&stated, &served, InstallMode::Tree);
    let (healed, count) = job.heal(None, pace()).await.unwrap();
    // The file under both of its names.
    assert_eq!((healed.damaged, count), (2, 2), "{:?}", healed.differences);
    assert_eq!(look(&bed.target()), before);
}

#[tokio::test]
async fn what_another_fileset_has_put_in_a_place_is_not_damage() {
    let mut bed = Bed::new();
    write(&bed.source().join("both"), b"one");
    let (first, served) = bed.publish();
    let (job, _) = bed.healing(&first, &served, InstallMode::Merge);
    job.run().await.unwrap();
    write(&bed.source().join("both"), b"two and more");
    let (mut second, served) = bed.publish();
    second.fileset = "other".parse().unwrap();
    let (job, _) = bed.healing(&second, &served, InstallMode::Merge);
    job.run().await.unwrap();
    assert_eq!(bed.examine(InstallMode::Merge).damaged, 0);
    write(&bed.target().join("both"), b"of nobody");
    assert_eq!(bed.examine(InstallMode::Merge).damaged, 1);
}

#[tokio::test]
async fn healing_that_is_killed_anywhere_is_healed_by_the_next() {
    for install in [InstallMode::Tree, InstallMode::Merge] {
        let mut bed = Bed::new();
        bed.fill();
        let (stated, served) = bed.publish();
        let (job, _) = bed.healing(&stated, &served, install);
        job.run().await.unwrap();
        let whole = look(&bed.target());
        let mut count = 0;
        loop {
            let names = fs::read_dir(bed.target()).unwrap().count();
            Damage::Corrupt.befalls(&bed.target().join("bin/big"));
            fs::remove_dir_all(bed.target().join("bin/deep")).unwrap();
            fs::remove_file(bed.target().join("a.txt")).unwrap();
            let (mut job, _) = bed.healing(&stated, &served, install);
            job.steps = Steps::crash_after(count);
            let ended = job.heal(None, pace()).await;
            // Each is there whole, or as the damage left it.
            let bread = fs::read(bed.target().join("a.txt")).unwrap_or_default();
            assert!(bread == b"bread" || bread.is_empty(), "after {count} steps");
            let big = bed.target().join("bin/big").metadata().unwrap();
            assert_eq!(big.len(), 1_500_000, "after {count} steps");
            let (job, _) = bed.healing(&stated, &served, install);
            job.heal(None, pace()).await.unwrap();
            assert_eq!(bed.examine(install).damaged, 0, "after {count} steps");
            assert_eq!(fs::read_dir(bed.target()).unwrap().count(), names);
            if install == InstallMode::Tree {
                assert_eq!(look(&bed.target()), whole, "after {count} steps");
            }
            let left = fs::read_dir(bed.folder.path()).unwrap().count();
            assert_eq!(left, 3, "something was left behind after {count} steps");
            if ended.is_ok() {
                break;
            }
            count += 1;
        }
        assert!(count > 20, "{count}");
    }
}
