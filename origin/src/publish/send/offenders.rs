//! What stands in the way of publishing a tree.

use std::fmt;
use std::path::PathBuf;

/// Something in a tree that cannot be published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offender {
    /// Where, below the folder that was to be published.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// All that stands in the way, so that one look is enough to mend it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Offenders {
    /// The first of them.
    pub shown: Vec<Offender>,
    /// How many more there are.
    pub more: u64,
}

impl Offenders {
    /// How many are kept by name.
    pub const SHOWN_MAX: usize = 1000;

    /// Adds one.
    pub fn push(&mut self, path: impl Into<PathBuf>, why: impl Into<String>) {
        if self.shown.len() < Self::SHOWN_MAX {
            self.shown.push(Offender {
                path: path.into(),
                why: why.into(),
            });
        } else {
            self.more += 1;
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }
}

impl fmt::Display for Offenders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.shown.len() as u64 + self.more;
        write!(
            f,
            "cannot publish the folder, nothing was changed: {count} of its paths cannot be kept"
        )?;
        for offender in &self.shown {
            // Debug form: a path may hold what a terminal would obey.
            write!(f, "\n  {:?}: {}", offender.path, offender.why)?;
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Offenders {}
