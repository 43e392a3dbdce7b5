//! A folder, and paths beneath it that no link can lead out of.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use content::EntryPath;
use rustix::fs::{self, AtFlags, Mode, OFlags, RawMode, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// An open folder. Whatever is done through it stays beneath it, even while somebody else puts
/// symbolic links in the way.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// The folder used last: in byte order of paths, neighbours mostly share it.
    parent: Option<(String, OwnedFd)>,
}

impl Tree {
    /// Opens the folder at `path`, which must not itself be a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty())?;
        Ok(Self { root, parent: None })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What is at `path`, links not followed; none if nothing is.
    pub(crate) fn stat(&mut self, path: &EntryPath) -> io::Result<Option<Stat>> {
        let found = self.parent_of(path).and_then(|parent| {
            fs::statat(parent, path.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
        });
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the symbolic link at `path` says.
    pub(crate) fn read_link(&mut self, path: &EntryPath) -> io::Result<std::ffi::CString> {
        let parent = self.parent_of(path)?;
        Ok(fs::readlinkat(parent, path.file_name(), Vec::new())?)
    }

    /// Opens the regular file at `path` for reading.
    pub(crate) fn open_file(&mut self, path: &EntryPath) -> io::Result<File> {
        // Without NONBLOCK, a pipe in a file's place would hold us up for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let parent = self.parent_of(path)?;
        let file = fs::openat(parent, path.file_name(), flags, Mode::empty())?;
        if is_file(&fs::fstat(&file)?) {
            Ok(File::from(file))
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    }

    /// Makes a file that must not be there yet, for its owner alone, and opens it for writing.
    pub(crate) fn create_file(&mut self, path: &EntryPath) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.parent_of(path)?;
        Ok(fs::openat(parent, path.file_name(), flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Removes the file at `path`.
    pub(crate) fn remove_file(&mut self, path: &EntryPath) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        Ok(fs::unlinkat(parent, path.file_name(), AtFlags::empty())?)
    }

    /// Makes a folder for its owner alone: its real mode comes when it is full.
    pub(crate) fn create_folder(&mut self, path: &EntryPath) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        Ok(fs::mkdirat(parent, path.file_name(), Mode::RWXU)?)
    }

    /// Opens the folder at `path`; at none, the tree's own.
    pub(crate) fn open_folder(&self, path: Option<&str>) -> io::Result<OwnedFd> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Makes a symbolic link, and dates it.
    pub(crate) fn create_link(
        &mut self,
        path: &EntryPath,
        target: &str,
        mtime: i64,
    ) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        fs::symlinkat(target, parent, path.file_name())?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(fs::utimensat(
            parent,
            path.file_name(),
            &times(mtime),
            flags,
        )?)
    }

    /// Gives what is at `target` within this tree another name.
    pub(crate) fn create_hard_link(
        &mut self,
        path: &EntryPath,
        target: &EntryPath,
    ) -> io::Result<()> {
        let source = self.resolve(target.parent(), OFlags::PATH | OFlags::DIRECTORY)?;
        let parent = self.parent_of(path)?;
        link(source.as_fd(), target, parent, path)
    }

    /// Gives the file at `path` of `other` the name `name` here.
    pub(crate) fn link_from(
        &mut self,
        other: &mut Self,
        path: &EntryPath,
        name: &EntryPath,
    ) -> io::Result<()> {
        let source = other.parent_of(path)?;
        let parent = self.parent_of(name)?;
        link(source, path, parent, name)
    }

    /// Moves what is at `path` to `name` in `other`, or exchanges the two.
    pub(crate) fn rename_to(
        &mut self,
        path: &EntryPath,
        other: &mut Self,
        name: &EntryPath,
        flags: fs::RenameFlags,
    ) -> io::Result<()> {
        let (from, to) = (self.parent_of(path)?, other.parent_of(name)?);
        Ok(fs::renameat_with(
            from,
            path.file_name(),
            to,
            name.file_name(),
            flags,
        )?)
    }

    /// Removes the folder at `path`, which must be empty.
    pub(crate) fn remove_folder(&mut self, path: &EntryPath) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        Ok(fs::unlinkat(parent, path.file_name(), AtFlags::REMOVEDIR)?)
    }

    /// Whether the folder at `path` holds nothing.
    pub(crate) fn is_empty_folder(&self, path: &EntryPath) -> io::Result<bool> {
        for entry in fs::Dir::new(self.open_folder(Some(path.as_str()))?)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives what is at `path`, which is no link, a mode, and a time if one is given.
    pub(crate) fn dress(
        &mut self,
        path: &EntryPath,
        mode: u32,
        mtime: Option<i64>,
    ) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = fs::openat(parent, path.file_name(), flags, Mode::empty())?;
        let found = fs::FileType::from_raw_mode(fs::fstat(&open)?.st_mode);
        if found.is_symlink() {
            return Err(Errno::LOOP.into());
        }
        // What is open like this takes no mode, but its name in /proc is it and nothing else.
        let name = format!("/proc/self/fd/{}", open.as_raw_fd());
        if let Some(mtime) = mtime {
            fs::utimensat(fs::CWD, name.as_str(), &times(mtime), AtFlags::empty())?;
        }
        Ok(fs::chmod(name.as_str(), to_mode(mode))?)
    }

    /// Forgets which folder was used last: it may have been moved.
    pub(crate) fn forget(&mut self) {
        self.parent = None;
    }

    fn parent_of(&mut self, path: &EntryPath) -> io::Result<BorrowedFd<'_>> {
        let Some(wanted) = path.parent() else {
            return Ok(self.root.as_fd());
        };
        let cached = self.parent.take().filter(|(path, _)| path == wanted);
        let parent = match cached {
            Some(parent) => parent,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                (wanted.to_owned(), self.resolve(Some(wanted), flags)?)
            }
        };
        Ok(self.parent.insert(parent).1.as_fd())
    }

    fn resolve(&self, path: Option<&str>, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RACES_MAX {
            let flags = flags | OFlags::CLOEXEC;
            match fs::openat2(
                &self.root,
                path.unwrap_or("."),
                flags,
                Mode::empty(),
                resolve,
            ) {
                // The kernel could not rule out that a rename led it astray: ask again.
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

/// Times for a file: modified at `mtime`, in nanoseconds since 1970; the other left as it is.
pub(crate) fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.div_euclid(NANOS),
            tv_nsec: mtime.rem_euclid(NANOS),
        },
    }
}

/// When something was modified, in nanoseconds since 1970.
pub(crate) fn mtime(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(NANOS)
        .saturating_add(stat.st_mtime_nsec)
}

/// Its permission bits.
pub(crate) fn mode(stat: &Stat) -> u32 {
    stat.st_mode & MODE_BITS
}

/// Permission bits as the system takes them.
pub(crate) fn to_mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits as RawMode & MODE_BITS)
}

/// Whether it is a regular file.
pub(crate) fn is_file(stat: &Stat) -> bool {
    fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::RegularFile
}

/// Its length in bytes.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn link(
    source: BorrowedFd<'_>,
    from: &EntryPath,
    parent: BorrowedFd<'_>,
    to: &EntryPath,
) -> io::Result<()> {
    let (from, to) = (from.file_name(), to.file_name());
    Ok(fs::linkat(source, from, parent, to, AtFlags::empty())?)
}

/// Whether nothing is there, or something that is no folder stands in the way.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    absent
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

const NANOS: i64 = 1_000_000_000;
/// The permission bits of `st_mode`.
const MODE_BITS: u32 = 0o7777;
/// How often the kernel may ask us to try again before we give up.
const RACES_MAX: u32 = 64;
