//! Why a target cannot be used.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::foreign::ForeignError;
use super::record::RecordError;
use crate::plan::walk::WalkError;

/// Why a target cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It holds what we did not put there.
    #[error(
        "cannot install to {path}: it holds {count} paths that larder did not put there: {list}; \
         move them away, or use --replace to lose them",
        path = path.display(),
        list = shorten(named, *count)
    )]
    Foreign {
        /// The target.
        path: PathBuf,
        /// How many.
        count: u64,
        /// Some of them.
        named: Vec<String>,
    },
    /// The index of what is installed in a shared folder is damaged.
    #[error(
        "cannot tell which files in {path} are ours: the index of what is installed is damaged; \
         heal it first",
        path = path.display()
    )]
    Index {
        /// The target.
        path: PathBuf,
    },
    /// Something has the staging folder's name.
    #[error(
        "cannot install: {path} is in the way, and larder did not make it",
        path = path.display()
    )]
    InTheWay {
        /// What.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot work on {path}", path = path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The target cannot be looked through.
    #[error("cannot look at {path}", path = path.display())]
    Look {
        /// The target.
        path: PathBuf,
        /// Why.
        source: ForeignError,
    },
    /// A step of a merge cannot be done; those before it were taken back.
    #[error("cannot merge into {path}: cannot change {at}", path = path.display())]
    Merge {
        /// The target.
        path: PathBuf,
        /// The path within it.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// The target is a file or a link.
    #[error("cannot install to {path}: it is not a folder", path = path.display())]
    NotAFolder {
        /// The target.
        path: PathBuf,
    },
    /// The record fails.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The two trees cannot be exchanged.
    #[error("cannot put the new tree in the place of {path}", path = path.display())]
    Switch {
        /// The target.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is to be shared, and is a fileset's alone.
    #[error(
        "cannot merge into {path}: it is a tree that a fileset has for itself",
        path = path.display()
    )]
    Tree {
        /// The target.
        path: PathBuf,
    },
    /// An index cannot be gone through.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// Some of the names, and a sign if there are more.
pub(super) fn shorten(named: &[String], count: u64) -> String {
    let more = if count > named.len() as u64 {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", named.join(", "))
}
