//! Removing a whole tree, whatever its modes, and whatever is done to it meanwhile.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Dir, DirEntry, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::tree;

/// Removes the folder at `path` with all that it holds; nothing there is no error. Links are
/// removed and not followed, and what others have mounted within is not entered.
///
/// What cannot be removed does not save the rest; the first error is given back.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match enter(CWD, path, ResolveFlags::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return remove_link(path),
        Err(errno) => return Err(errno.into()),
    };
    empty(top)?;
    Ok(fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

/// Removes what is at `path` if it is a link.
fn remove_link(path: &Path) -> io::Result<()> {
    let stat = fs::lstat(path)?;
    if FileType::from_raw_mode(stat.st_mode).is_symlink() {
        Ok(fs::unlink(path)?)
    } else {
        Err(Errno::NOTDIR.into())
    }
}

/// A folder that is being emptied, and its name in the one above.
struct Open {
    dir: Dir,
    name: CString,
}

/// Removes all that the folder `top` holds. Keeps a descriptor open for each level: paths of an
/// index are far shallower than the limit of those.
fn empty(top: OwnedFd) -> io::Result<()> {
    let mut folders = vec![Open {
        dir: Dir::new(top)?,
        name: CString::default(),
    }];
    let mut stuck = None;
    while let Some(folder) = folders.last_mut() {
        let removed = match folder.dir.read() {
            Some(entry) => entry.and_then(|entry| remove(folder.dir.fd()?, &entry)),
            None => leave(&mut folders).map(|()| None),
        };
        match removed {
            Ok(Some(inner)) => folders.push(inner),
            Ok(None) | Err(Errno::NOENT) => {}
            Err(errno) => stuck = stuck.or(Some(errno)),
        }
    }
    stuck.map_or(Ok(()), |errno| Err(errno.into()))
}

/// Removes the innermost folder, once all that can be removed of its content is.
fn leave(folders: &mut Vec<Open>) -> Result<(), Errno> {
    let left = folders.pop();
    match (left, folders.last()) {
        (Some(left), Some(above)) => fs::unlinkat(above.dir.fd()?, &left.name, AtFlags::REMOVEDIR),
        // The top is its caller's.
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// Removes `entry` of `folder`, or enters it, if it is a folder itself.
fn remove(folder: BorrowedFd<'_>, entry: &DirEntry) -> Result<Option<Open>, Errno> {
    let name = entry.file_name();
    if name == c"." || name == c".." {
        return Ok(None);
    }
    // Not every file system says what an entry is.
    if entry.file_type() != FileType::Directory {
        match fs::unlinkat(folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            other => return other.map(|()| None),
        }
    }
    let inner = enter_named(folder, name)?;
    Ok(Some(Open {
        dir: Dir::new(inner)?,
        name: name.to_owned(),
    }))
}

/// Opens the folder called `name` in `folder`.
fn enter_named(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    enter(folder, name, ResolveFlags::NO_XDEV | ResolveFlags::BENEATH)
}

/// Opens a folder, which may not be a link, and lets us into it. All is done to what was opened
/// and nothing by name, since another may stand there by now.
fn enter(
    parent: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let common = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |flags: OFlags| fs::openat2(&parent, path, common | flags, Mode::empty(), resolve);
    let folder = match open(OFlags::RDONLY) {
        // Folders arrive as published, and some are published unreadable.
        Err(Errno::ACCESS) => {
            let closed = open(OFlags::PATH)?;
            // What is open like this takes no mode, but its name in /proc is it and nothing else.
            fs::chmod(format!("/proc/self/fd/{}", closed.as_raw_fd()), Mode::RWXU)?;
            let flags = common | OFlags::RDONLY;
            fs::openat(&closed, c".", flags, Mode::empty())?
        }
        other => other?,
    };
    let mode = tree::mode(&fs::fstat(&folder)?);
    if Mode::from_raw_mode(mode).contains(Mode::RWXU) {
        return Ok(folder);
    }
    match fs::fchmod(&folder, Mode::RWXU) {
        // It is somebody else's, or may not be changed: what is in it will say so.
        Ok(()) | Err(Errno::PERM | Errno::ROFS) => Ok(folder),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    /// A folder with a file and a folder in it, all closed.
    fn outside(bed: &Path) -> std::path::PathBuf {
        let outside = bed.join("outside");
        fs::create_dir_all(outside.join("deep")).unwrap();
        fs::write(outside.join("file"), b"theirs").unwrap();
        chmod(&outside.join("deep"), 0o555);
        chmod(&outside, 0o555);
        outside
    }

    #[test]
    fn a_tree_is_removed_whatever_its_modes_and_names() {
        let bed = tempfile::tempdir().unwrap();
        let outside = outside(bed.path());
        let top = bed.path().join("tree");
        let odd = top.join(OsStr::from_bytes(b"not \xff UTF-8"));
        for folder in ["closed", "blind", "shut/in"] {
            fs::create_dir_all(top.join(folder)).unwrap();
            fs::write(top.join(folder).join("file"), b"1").unwrap();
        }
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join("file"), b"1").unwrap();
        symlink(&outside, top.join("shut/link")).unwrap();
        for (folder, mode) in [("closed", 0), ("blind", 0o311), ("shut/in", 0o444)] {
            chmod(&top.join(folder), mode);
        }
        chmod(&odd, 0o555);
        chmod(&top.join("shut"), 0o555);
        chmod(&top, 0o000);
        remove_tree(&top).unwrap();
        assert!(top.symlink_metadata().is_err());
        assert_eq!(
            (mode(&outside), mode(&outside.join("deep"))),
            (0o555, 0o555)
        );
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"theirs");
        // Nothing there is no error, and a link is removed alone.
        remove_tree(&top).unwrap();
        symlink(&outside, &top).unwrap();
        remove_tree(&top).unwrap();
        assert!(top.symlink_metadata().is_err());
        assert!(remove_tree(&outside.join("file")).is_err());
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"theirs");
        chmod(&outside, 0o755);
    }

    #[test]
    fn a_link_that_is_swapped_in_for_a_folder_is_not_followed() {
        let bed = tempfile::tempdir().unwrap();
        let outside = outside(bed.path());
        let top = bed.path().join("tree");
        fs::create_dir_all(top.join("folder")).unwrap();
        // The walk has read the name of a folder, and before it enters there is a link.
        let opened = enter(CWD, top.as_path(), ResolveFlags::empty()).unwrap();
        fs::rename(top.join("folder"), bed.path().join("away")).unwrap();
        symlink(&outside, top.join("folder")).unwrap();
        enter_named(opened.as_fd(), c"folder").unwrap_err();
        assert_eq!(
            (mode(&outside), mode(&outside.join("deep"))),
            (0o555, 0o555)
        );
        // So with the tree itself.
        enter(CWD, top.join("folder").as_path(), ResolveFlags::empty()).unwrap_err();
        assert_eq!(
            (mode(&outside), mode(&outside.join("deep"))),
            (0o555, 0o555)
        );
        chmod(&outside, 0o755);
    }
}
