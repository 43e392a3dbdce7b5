//! What stands in the way at the target: a full disk, foreign files, links.

use super::*;

#[tokio::test]
async fn a_full_disk_leaves_the_installed_tree_and_says_what_is_needed() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    let before = look(&bed.target());
    write(&bed.source().join("more"), &noise(300_000, 7));
    let (stated, served) = bed.publish();
    for count in [None, Some(0), Some(5), Some(30)] {
        let mut job = bed.job(&stated, vec![Memory::new("origin o1", &served, Vice::None)]);
        match count {
            None => job.room.bytes_max = Some(100_000),
            Some(count) => job.steps = Steps::full_after(count),
        }
        let error = job.run().await.unwrap_err();
        let PullError::Room(RoomError::Full { needed, .. }) = error else {
            panic!("{count:?}: {error}");
        };
        assert!(
            (300_000..2_500_000).contains(&needed),
            "{needed} bytes needed"
        );
        assert_eq!(look(&bed.target()), before, "{count:?}");
        assert!(!bed.folder.path().join(".target.larder-staging").exists());
    }
    bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&bed.source()));
}

#[tokio::test]
async fn foreign_files_are_refused_by_name_unless_they_may_be_lost() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    let pull = |replace: bool| {
        let mut job = bed.job(&stated, vec![Memory::new("origin o1", &served, Vice::None)]);
        job.replace = replace;
        job.run()
    };
    // A folder that was there before us.
    fs::create_dir(bed.target()).unwrap();
    fs::write(bed.target().join("mine"), b"1").unwrap();
    let error = pull(false).await.unwrap_err().to_string();
    assert!(
        error.contains("holds 1 paths") && error.contains("mine"),
        "{error}"
    );
    fs::remove_file(bed.target().join("mine")).unwrap();
    pull(false).await.unwrap();
    // Files put among ours.
    for number in 0..25 {
        fs::write(bed.target().join(format!("bin/x{number:02}")), b"1").unwrap();
    }
    symlink("/etc", bed.target().join("etc")).unwrap();
    let error = pull(false).await.unwrap_err().to_string();
    assert!(
        error.contains("holds 26 paths") && error.contains("bin/x03"),
        "{error}"
    );
    assert!(error.contains(", …;"), "{error}");
    pull(true).await.unwrap();
    assert_eq!(look(&bed.target()), look(&bed.source()));
    // A file, or a link, where the folder should be.
    fs::rename(bed.target(), bed.folder.path().join("away")).unwrap();
    symlink("away", bed.target()).unwrap();
    let error = pull(true).await.unwrap_err().to_string();
    assert!(error.contains("it is not a folder"), "{error}");
}

#[tokio::test]
async fn a_link_in_the_way_leads_nowhere() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    // Somebody swaps an installed folder for a link to another that looks the same.
    let outside = bed.folder.path().join("outside");
    fs::rename(bed.target().join("bin"), &outside).unwrap();
    symlink(&outside, bed.target().join("bin")).unwrap();
    let before = look(&outside);
    let (outcome, sent) = bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&bed.source()));
    assert_eq!(look(&outside), before);
    assert!(
        sent > 1_000_000 && !outcome.unchanged,
        "{sent} bytes were fetched"
    );
}

#[tokio::test]
async fn an_old_tree_that_cannot_be_removed_is_put_aside_and_removed_later() {
    let mut bed = Bed::new();
    write(&bed.source().join("file"), b"bread");
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    let parent = bed.folder.path().to_owned();
    let beside = || -> Vec<String> {
        let names = fs::read_dir(&parent).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with('.')).collect();
        names.sort();
        names
    };
    let aside = |number: u32| format!(".target.larder-old-{number}");
    // As with a mount, or a folder that may not be changed, within the old tree.
    let mut stuck = async |round: u32| {
        write(&bed.source().join("more"), &noise(3000, round.into()));
        let (stated, served) = bed.publish();
        let mut job = bed.job(&stated, vec![Memory::new("origin o1", &served, Vice::None)]);
        job.steps = Steps::keeping_trees();
        let ended = job.run().await;
        (ended, look(&bed.target()) == look(&bed.source()))
    };
    for round in 0..8 {
        let (ended, is_new) = stuck(round).await;
        assert!(!ended.unwrap().unchanged && is_new, "round {round}");
        assert_eq!(beside(), (0..=round).map(aside).collect::<Vec<_>>());
    }
    // There are enough of them: the next is still installed, and only those after it have to wait.
    let (ended, is_new) = stuck(8).await;
    assert!(!ended.unwrap().unchanged && is_new);
    let (ended, is_new) = stuck(9).await;
    let error = ended.unwrap_err().to_string();
    assert!(
        error.contains(".target.larder-staging") && !is_new,
        "{error}"
    );
    // When the system lets us again, all of it goes.
    fs::write(parent.join(aside(99)), b"of somebody else").unwrap();
    let (stated, served) = bed.publish();
    bed.pull(&stated, &served).await;
    assert_eq!(look(&bed.target()), look(&bed.source()));
    assert_eq!(beside(), [aside(99)]);
}
