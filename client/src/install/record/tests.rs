//! What a crash leaves in a record, and what is made of it.

use super::*;

/// What is found to be installed by a run that comes after a crash in the switch, if the
/// record that is left says `switching` and the target's name bears `inode` by now.
#[track_caller]
fn check(switching: &str, inode: Option<u64>, wanted: Option<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let mut record = Record::open(folder.path(), &target).unwrap();
    let revision = Revision::new(
        &"tools".parse().unwrap(),
        RevisionNumber(7),
        Digest::of(b"root"),
    );
    record.begin(Some(revision)).unwrap();
    let path = record.folder.join(RECORD);
    let left = std::fs::read_to_string(&path).unwrap();
    let left = left.replace(
        "\"switching\": null",
        &format!("\"switching\": {switching}"),
    );
    std::fs::write(&path, left).unwrap();
    let mut record = Record::open(folder.path(), &target).unwrap();
    let stat = inode.map(|inode| {
        let mut stat = rustix::fs::lstat(folder.path()).unwrap();
        stat.st_ino = inode;
        stat
    });
    record.recover(stat.as_ref()).unwrap();
    let again = Record::open(folder.path(), &target).unwrap();
    let installed = again.installed().map(|revision| revision.number().0);
    assert_eq!(installed, wanted, "{switching} and {inode:?}");
}

#[test]
fn an_inode_alone_tells_whether_a_switch_took_place() {
    check("12", Some(12), Some(7));
    check("12", Some(13), None);
    check("12", None, None);
    check("null", Some(12), None);
    // Of an older program, from before the devices were numbered anew.
    check("[99999999, 12]", Some(12), Some(7));
    check("[99999999, 12]", Some(13), None);
    check("[12, 99999999]", Some(12), None);
}

#[test]
fn what_begin_switch_writes_is_what_recover_reads_on_another_device() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let mut record = Record::open(folder.path(), &target).unwrap();
    let name = "tools".parse().unwrap();
    let revision = Revision::new(&name, RevisionNumber(7), Digest::of(b"root"));
    let mut stat = rustix::fs::lstat(folder.path()).unwrap();
    record.begin(Some(revision.clone())).unwrap();
    record.begin_switch(&stat).unwrap();
    let mut record = Record::open(folder.path(), &target).unwrap();
    stat.st_dev += 1;
    record.recover(Some(&stat)).unwrap();
    assert_eq!(record.installed(), Some(&revision));
}
