//! Filesets that share a folder.

use super::*;

#[tokio::test]
async fn a_path_that_two_filesets_have_stays_until_both_give_it_up() {
    let mut bed = Bed::new();
    write(&bed.source().join("both"), b"one");
    write(&bed.source().join("first"), b"one");
    let (first, served) = bed.publish();
    bed.merge(&first, &served).run().await.unwrap();
    // Another fileset has the path with other content: it takes the place, since it is ours.
    write(&bed.source().join("both"), b"two and more");
    fs::rename(bed.source().join("first"), bed.source().join("second")).unwrap();
    let (mut second, served) = bed.publish();
    second.fileset = "other".parse().unwrap();
    bed.merge(&second, &served).run().await.unwrap();
    let shared = bed.target();
    let both = || fs::read(shared.join("both")).unwrap_or_default();
    assert_eq!(both(), b"two and more");
    // An update of the first that lacks the path leaves what the second has put there.
    fs::remove_file(bed.source().join("both")).unwrap();
    let (third, served) = bed.publish();
    bed.merge(&third, &served).run().await.unwrap();
    assert_eq!(both(), b"two and more");
    assert!(!bed.target().join("first").exists());
    // And when the second goes as well, it goes.
    let installed = bed.folder.path().join("data/installed");
    let other = "other".parse().unwrap();
    let mut target =
        Target::open_shared(&installed, &bed.target(), &other, Steps::default()).unwrap();
    target.uninstall().unwrap();
    assert_eq!(both(), b"");
    assert!(bed.target().join("second").exists());
}

#[tokio::test]
async fn what_another_fileset_left_half_done_is_finished_first() {
    let (mut forward, mut back) = (0, 0);
    for count in (20..100).step_by(3) {
        let mut bed = Bed::new();
        bed.fill_shared();
        let (first, _) = bed.publish();
        let old = seen(&bed.source());
        bed.change();
        let (second, served) = bed.publish();
        let new = seen(&bed.source());
        bed.merge(&first, &served).run().await.unwrap();
        let mut job = bed.merge(&second, &served);
        job.steps = Steps::crash_after(count);
        if job.run().await.is_ok() {
            break;
        }
        // Another fileset comes into the same folder, with a path of its own.
        fs::remove_dir_all(bed.source()).unwrap();
        fs::create_dir(bed.source()).unwrap();
        write(&bed.source().join("of-the-other"), b"1");
        let (mut other, served) = bed.publish();
        other.fileset = "other".parse().unwrap();
        bed.merge(&other, &served).run().await.unwrap();
        let mut lies = seen(&bed.target());
        let of_the_other = lies
            .iter()
            .position(|line| line.starts_with("of-the-other "));
        lies.remove(of_the_other.unwrap());
        let is_old = lies.iter().any(|line| line.starts_with("a.txt "));
        same(&lies, if is_old { &old } else { &new }, &format!("{count}"));
        (forward, back) = (forward + u32::from(!is_old), back + u32::from(is_old));
    }
    assert!(forward > 1 && back > 0, "{forward} and {back}");
}
