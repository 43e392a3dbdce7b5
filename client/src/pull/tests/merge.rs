//! Folders that are shared with others, in good and bad weather.

mod others;

use content::statement::{HealMode, HealRule};

use super::*;
use crate::install::{Target, TargetError};

impl Bed {
    fn merge(&self, stated: &Stated, served: &Arc<Served>) -> Job<Memory> {
        let mut job = self.job(stated, vec![Memory::new("origin o1", served, Vice::None)]);
        job.mode = InstallMode::Merge;
        job
    }

    fn shared(&self, steps: Steps) -> Result<Target, TargetError> {
        let installed = self.folder.path().join("data/installed");
        Target::open_shared(&installed, &self.target(), &"tools".parse().unwrap(), steps)
    }

    /// A target in which somebody else's files lie already.
    fn settle(&self) {
        fs::create_dir_all(self.target().join("bin/deep")).unwrap();
        write(&self.target().join("theirs"), b"of others");
        write(&self.target().join("bin/deep/theirs"), b"of others too");
        symlink("/etc", self.target().join("bin/etc")).unwrap();
    }

    /// The revision that `fill` makes, changed in many ways.
    fn change(&self) {
        let source = self.source();
        write(&source.join("bin/deep/8"), &noise(9000, 1000));
        write(&source.join("more"), &noise(300_000, 1001));
        fs::remove_file(source.join("a.txt")).unwrap();
        // A folder becomes a file, and a file a folder.
        fs::remove_dir_all(source.join("gone")).unwrap();
        write(&source.join("gone"), b"a file now");
        fs::remove_file(source.join("empty")).unwrap();
        fs::create_dir_all(source.join("empty/no/more")).unwrap();
        write(&source.join("empty/no/file"), b"deep");
        // A file and all its names, a link, a mode.
        write(&source.join("bin/big"), &noise(400_000, 98));
        fs::remove_file(source.join("link")).unwrap();
        symlink("more", source.join("link")).unwrap();
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(source.join("odd"), mode).unwrap();
    }

    fn fill_shared(&self) {
        self.fill();
        fs::create_dir_all(self.source().join("gone/too")).unwrap();
        write(&self.source().join("gone/too/file"), b"goes");
        fs::create_dir(self.source().join("odd")).unwrap();
        write(&self.source().join("odd/file"), b"stays");
    }
}

/// All that can be seen of a shared folder. Folders have their times from whoever was there last.
fn seen(folder: &Path) -> Vec<String> {
    let undated = |line: String| match line.strip_suffix(" folder") {
        Some(rest) => format!("{} folder", rest.rsplit_once(' ').unwrap().0),
        None => line,
    };
    let lines = look(folder).into_iter().map(undated);
    lines.filter(|line| !line.contains(".larder-")).collect()
}

/// The names of our own folders in a shared one.
fn of_ours(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".larder-")).collect()
}

#[track_caller]
fn same(got: &[String], wanted: &[String], case: &str) {
    let lacks: Vec<_> = wanted.iter().filter(|line| !got.contains(line)).collect();
    let more: Vec<_> = got.iter().filter(|line| !wanted.contains(line)).collect();
    assert!(
        lacks.is_empty() && more.is_empty(),
        "{case}: {more:#?} instead of {lacks:#?}"
    );
}

/// What is to be seen where `ours` has been merged with what [`Bed::settle`] leaves.
fn with_theirs(bed: &Bed, ours: &Path) -> Vec<String> {
    let elsewhere = Bed::new();
    elsewhere.settle();
    let mut all = seen(ours);
    let theirs = seen(&elsewhere.target());
    all.extend(theirs.into_iter().filter(|line| {
        let name = line.split(' ').next().unwrap();
        !bed.source().join(name).exists()
    }));
    // The link's time is that of the test.
    all.retain(|line| !line.starts_with("bin/etc "));
    all.sort();
    all
}

fn seen_of(bed: &Bed) -> Vec<String> {
    let mut seen = seen(&bed.target());
    let link = seen.iter().position(|line| line.starts_with("bin/etc "));
    seen.remove(link.expect("the link of others is gone"));
    seen
}

#[tokio::test]
async fn a_revision_comes_to_lie_among_the_files_of_others_and_is_updated_there() {
    let mut bed = Bed::new();
    bed.fill_shared();
    bed.settle();
    let (first, served) = bed.publish();
    bed.merge(&first, &served).run().await.unwrap();
    same(&seen_of(&bed), &with_theirs(&bed, &bed.source()), "");
    let again = bed.merge(&first, &served).run().await.unwrap();
    assert!(again.unchanged);
    bed.change();
    let (second, served) = bed.publish();
    bed.merge(&second, &served).run().await.unwrap();
    same(&seen_of(&bed), &with_theirs(&bed, &bed.source()), "");
    // What others have put into a folder of ours keeps it.
    write(&bed.target().join("empty/no/theirs"), b"mine");
    let mut target = bed.shared(Steps::default()).unwrap();
    target.uninstall().unwrap();
    assert!(!bed.target().join("more").exists());
    assert!(bed.target().join("empty/no/theirs").exists());
    fs::remove_dir_all(bed.target().join("empty")).unwrap();
    let nothing = Bed::new();
    same(
        &seen_of(&bed),
        &with_theirs(&nothing, &nothing.source()),
        "",
    );
    assert!(target.record().installed().is_none());
}

#[tokio::test]
async fn a_merge_killed_anywhere_is_rolled_forward_or_back_before_anything_else() {
    let mut bed = Bed::new();
    bed.fill_shared();
    let (first, _) = bed.publish();
    bed.settle();
    let old = with_theirs(&bed, &bed.source());
    bed.change();
    let (second, served) = bed.publish();
    let new = with_theirs(&bed, &bed.source());
    let begin = async |steps: Steps| {
        fs::remove_dir_all(bed.target()).unwrap();
        fs::remove_dir_all(bed.folder.path().join("data")).unwrap();
        fs::create_dir(bed.folder.path().join("data")).unwrap();
        bed.settle();
        bed.merge(&first, &served).run().await.unwrap();
        let mut job = bed.merge(&second, &served);
        job.steps = steps;
        job.run().await
    };
    let steps = Steps::crash_after(i64::MAX);
    begin(steps.clone()).await.unwrap();
    let total = steps.taken();
    let (mut forward, mut back) = (0, 0);
    for count in 0..total {
        let crashed = begin(Steps::crash_after(count)).await;
        assert!(crashed.is_err(), "after {count} of {total} steps");
        // The run after it crashes too, somewhere in its recovery, and the third has time.
        drop(bed.shared(Steps::crash_after(count % 5)));
        let target = bed.shared(Steps::default()).unwrap();
        let installed = target.record().installed().unwrap().number();
        let case = format!("after {count} of {total} steps");
        if installed == first.number {
            same(&seen_of(&bed), &old, &case);
            back += 1;
        } else {
            same(&seen_of(&bed), &new, &case);
            forward += 1;
        }
        bed.merge(&second, &served).run().await.unwrap();
        same(&seen_of(&bed), &new, &case);
        assert_eq!(of_ours(&bed.target()), Vec::<String>::new(), "{case}");
    }
    assert!(forward > 10 && back > 10, "{forward} and {back}");
}

#[tokio::test]
async fn going_back_from_a_merge_or_a_tree_can_be_killed_anywhere_too() {
    for mode in [InstallMode::Merge, InstallMode::Tree] {
        going_back_killed_anywhere(mode).await;
    }
}

async fn going_back_killed_anywhere(mode: InstallMode) {
    let mut bed = Bed::new();
    bed.fill_shared();
    let (first, _) = bed.publish();
    let old = seen(&bed.source());
    bed.change();
    let (second, served) = bed.publish();
    let new = seen(&bed.source());
    let open = |steps: Steps| {
        let installed = bed.folder.path().join("data/installed");
        match mode {
            InstallMode::Tree => Target::open(&installed, &bed.target(), steps),
            InstallMode::Merge => bed.shared(steps),
        }
    };
    let run = async |stated: &Stated, keep: bool| {
        let mut job = bed.merge(stated, &served);
        job.mode = mode;
        job.keep = keep;
        job.run().await.unwrap();
    };
    for (before, first) in [(true, &first), (false, &first)] {
        let steps = Steps::crash_after(i64::MAX);
        let mut total = i64::MAX;
        let mut count = -1;
        while count < total {
            if bed.target().exists() {
                crate::install::remove_tree(&bed.target()).unwrap();
            }
            drop(open(Steps::default()));
            fs::remove_dir_all(bed.folder.path().join("data/installed")).unwrap();
            if before {
                run(first, false).await;
            }
            run(&second, true).await;
            same(&seen(&bed.target()), &new, "before");
            // The first time it is let through, to count its steps.
            if count < 0 {
                let mut target = open(steps.clone()).unwrap();
                assert!(target.go_back().unwrap());
                total = steps.taken();
            } else {
                let mut target = open(Steps::crash_after(count)).unwrap();
                target.go_back().unwrap_err();
            }
            drop(open(Steps::crash_after(2)));
            let mut target = open(Steps::default()).unwrap();
            // Whoever was killed does it again.
            let went = target.go_back().unwrap();
            assert!(!went || count >= 0);
            let installed = target.record().installed().map(|it| it.number());
            assert_eq!(
                installed,
                before.then_some(first.number),
                "{mode:?} {count}"
            );
            let exists = bed.target().exists();
            let seen = if exists { seen(&bed.target()) } else { vec![] };
            let wanted = if before { old.clone() } else { vec![] };
            let case = format!("{mode:?} after {count} of {total} steps");
            same(&seen, &wanted, &case);
            count += 1;
        }
    }
}

fn rule(mode: HealMode) -> HealRule {
    HealRule {
        pattern: "**".parse().unwrap(),
        mode,
    }
}

const ALL: [HealMode; 5] = [
    HealMode::SelfHeal,
    HealMode::IfMissing,
    HealMode::LeaveBehind,
    HealMode::NeverOverwrite,
    HealMode::OverwriteIfOlder,
];

/// What a file of somebody else's comes to that lies where a file of the fileset is to be.
#[tokio::test]
async fn files_of_others_in_the_way_go_by_the_rule() {
    for mode in ALL {
        for older in [true, false] {
            for replace in [true, false] {
                let mut bed = Bed::new();
                write(&bed.source().join("file"), b"of the fileset");
                let (stated, served) = bed.publish();
                fs::create_dir(bed.target()).unwrap();
                let path = bed.target().join("file");
                fs::write(&path, b"of others").unwrap();
                date(&path, if older { 5 } else { i64::MAX / 2 });
                let mut job = bed.merge(&stated, &served);
                job.rules = Some(vec![rule(mode)]);
                job.replace = replace;
                let ended = job.run().await;
                let case = format!("{mode:?}, older {older}, replace {replace}");
                let ours = fs::read(&path).unwrap() == b"of the fileset";
                let (wanted, refused) = match mode {
                    _ if replace => (true, false),
                    HealMode::NeverOverwrite => (false, false),
                    HealMode::OverwriteIfOlder => (older, false),
                    HealMode::SelfHeal | HealMode::IfMissing | HealMode::LeaveBehind => {
                        (false, true)
                    }
                };
                assert_eq!(
                    (ours, ended.is_err()),
                    (wanted, refused),
                    "{case}: {ended:?}"
                );
                if let Err(error) = ended {
                    let error = error.to_string();
                    assert!(
                        error.contains("holds 1 paths") && error.contains("file"),
                        "{error}"
                    );
                }
                let left: Vec<_> = fs::read_dir(bed.target()).unwrap().collect();
                assert_eq!(left.len(), 1, "{case}: {left:?}");
            }
        }
    }
}

/// What an update does to a file that was edited: one that it changes, and one that it lacks.
#[tokio::test]
async fn an_update_treats_edited_files_by_the_rule() {
    for mode in ALL {
        for older in [true, false] {
            for edited in [true, false] {
                let mut bed = Bed::new();
                write(&bed.source().join("changed"), b"one");
                write(&bed.source().join("lacking"), b"one");
                let (first, served) = bed.publish();
                let run = async |stated: &Stated, served: &Arc<Served>| {
                    let mut job = bed.merge(stated, served);
                    job.rules = Some(vec![rule(mode)]);
                    job.run().await.unwrap();
                };
                run(&first, &served).await;
                for name in ["changed", "lacking"].into_iter().filter(|_| edited) {
                    fs::write(bed.target().join(name), b"edited").unwrap();
                    date(
                        &bed.target().join(name),
                        if older { 5 } else { i64::MAX / 2 },
                    );
                }
                write(&bed.source().join("changed"), b"three");
                fs::remove_file(bed.source().join("lacking")).unwrap();
                let second = bed.publisher.publish(&bed.source());
                let served = bed.publisher.serve();
                let mut job = bed.merge(&second, &served);
                job.rules = Some(vec![rule(mode)]);
                job.run().await.unwrap();
                let newer = fs::read(bed.target().join("changed")).unwrap() == b"three";
                let gone = !bed.target().join("lacking").exists();
                let wanted = match mode {
                    HealMode::SelfHeal => (true, true),
                    HealMode::IfMissing => (!edited, true),
                    HealMode::LeaveBehind => (!edited, false),
                    HealMode::NeverOverwrite => (!edited, !edited),
                    HealMode::OverwriteIfOlder => (!edited || older, !edited || older),
                };
                let case = format!("{mode:?}, edited {edited}, older {older}");
                assert_eq!((newer, gone), wanted, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn without_its_index_nothing_is_merged_or_removed_until_it_is_healed() {
    let mut bed = Bed::new();
    bed.fill_shared();
    let (first, served) = bed.publish();
    bed.merge(&first, &served).run().await.unwrap();
    let index = bed.shared(Steps::default()).unwrap().installed_index();
    fs::write(index.unwrap(), b"not an index").unwrap();
    bed.change();
    fs::remove_dir_all(bed.source().join("bin")).unwrap();
    let (second, served) = bed.publish();
    let is_told = |error: &dyn std::error::Error| error.to_string().contains("heal it first");
    let error = bed.merge(&second, &served).run().await.unwrap_err();
    assert!(is_told(&error), "{error}");
    let error = bed.shared(Steps::default()).unwrap().uninstall();
    assert!(is_told(&error.unwrap_err()));
    let pace = crate::install::examine::Pace::new(None, Default::default());
    bed.merge(&first, &served).heal(None, pace).await.unwrap();
    bed.merge(&second, &served).run().await.unwrap();
    same(&seen(&bed.target()), &seen(&bed.source()), "");
}

#[tokio::test]
async fn going_back_takes_back_what_was_healed_and_edited_since() {
    let mut bed = Bed::new();
    bed.fill_shared();
    let (first, _) = bed.publish();
    let old = seen(&bed.source());
    bed.change();
    let (second, served) = bed.publish();
    bed.merge(&first, &served).run().await.unwrap();
    let mut job = bed.merge(&second, &served);
    job.keep = true;
    job.run().await.unwrap();
    // A file that both have, one that only the new one has, and one in a new folder.
    for name in ["bin/deep/8", "more", "empty/no/file"] {
        fs::write(bed.target().join(name), b"damaged").unwrap();
    }
    let pace = crate::install::examine::Pace::new(None, Default::default());
    let (_, healed) = bed.merge(&second, &served).heal(None, pace).await.unwrap();
    assert_eq!(healed, 3);
    fs::remove_file(bed.target().join("more")).unwrap();
    fs::write(bed.target().join("link-new"), b"edited").unwrap();
    fs::rename(bed.target().join("link-new"), bed.target().join("bin/big")).unwrap();
    let mut target = bed.shared(Steps::default()).unwrap();
    assert!(target.go_back().unwrap());
    same(&seen(&bed.target()), &old, "");
    assert_eq!(of_ours(&bed.target()), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_merged_into_a_tree() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    let error = bed.merge(&stated, &served).run().await.unwrap_err();
    assert!(error.to_string().contains("a tree that"), "{error}");
    same(&look(&bed.target()), &look(&bed.source()), "");
}

/// cas.md 12: a link that lies in the way is not followed.
#[tokio::test]
async fn b12_no_link_leads_a_merge_out_of_its_folder() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    let outside = bed.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(bed.target()).unwrap();
    symlink(&outside, bed.target().join("bin")).unwrap();
    let error = bed.merge(&stated, &served).run().await.unwrap_err();
    assert!(error.to_string().contains("bin"), "{error}");
    assert_eq!(look(&outside), Vec::<String>::new());
    // Told to, it loses the link, and not what it leads to.
    let mut job = bed.merge(&stated, &served);
    job.replace = true;
    job.run().await.unwrap();
    same(&seen(&bed.target()), &seen(&bed.source()), "");
    assert_eq!(look(&outside), Vec::<String>::new());
}

#[tokio::test]
async fn a_step_that_cannot_be_done_takes_all_others_back() {
    let mut bed = Bed::new();
    bed.fill_shared();
    let (first, served) = bed.publish();
    bed.merge(&first, &served).run().await.unwrap();
    let old = seen(&bed.target());
    bed.change();
    let (second, served) = bed.publish();
    // Somebody has files in the folder that is to become a file.
    write(&bed.target().join("gone/theirs"), b"mine");
    let error = bed.merge(&second, &served).run().await.unwrap_err();
    assert!(
        matches!(&error, PullError::Target(TargetError::Merge { at, .. }) if at == "gone"),
        "{error}"
    );
    fs::remove_file(bed.target().join("gone/theirs")).unwrap();
    same(&seen(&bed.target()), &old, "");
    bed.merge(&second, &served).run().await.unwrap();
    same(&seen(&bed.target()), &seen(&bed.source()), "");
}
