//! The steps that change the disk, counted so that tests can stop at each of them.

use std::io;

/// Stands before each change of the disk. Outside tests it does nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    #[cfg(test)]
    fail: Option<tests::Fail>,
    #[cfg(test)]
    keeps_trees: bool,
}

impl Steps {
    /// Goes on to the next change, unless a test wants the world to end here.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "only tests have a state")
    )]
    pub(crate) fn next(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(fail) = &self.fail {
            return fail.next();
        }
        Ok(())
    }

    /// Goes on to remove a tree, unless a test wants the system to refuse it.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "only tests have a state")
    )]
    pub(crate) fn may_remove(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.keeps_trees {
            return Err(rustix::io::Errno::PERM.into());
        }
        Ok(())
    }

    /// Whether this error means that the program is gone, so that nothing may tidy up after it.
    #[cfg_attr(
        not(test),
        expect(unused_variables, reason = "only tests end the world")
    )]
    pub(crate) fn is_crash(error: &(dyn std::error::Error + 'static)) -> bool {
        #[cfg(test)]
        {
            let mut next = Some(error);
            while let Some(error) = next {
                if error.to_string() == tests::CRASH {
                    return true;
                }
                next = error.source();
            }
        }
        false
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    pub(crate) const CRASH: &str = "the test ends the program here";

    #[derive(Clone, Debug)]
    pub(super) struct Fail {
        left: Arc<AtomicI64>,
        full: bool,
    }

    impl Fail {
        pub(super) fn next(&self) -> io::Result<()> {
            if self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
                Ok(())
            } else if self.full {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Err(io::Error::other(CRASH))
            }
        }
    }

    impl Steps {
        /// Ends the world after `count` steps.
        pub(crate) fn crash_after(count: i64) -> Self {
            Self {
                fail: Some(Fail {
                    left: Arc::new(AtomicI64::new(count)),
                    full: false,
                }),
                keeps_trees: false,
            }
        }

        /// Has the system refuse to remove trees.
        pub(crate) fn keeping_trees() -> Self {
            Self {
                fail: None,
                keeps_trees: true,
            }
        }

        /// How many steps there were, of as many as there can be.
        pub(crate) fn taken(&self) -> i64 {
            let left = self
                .fail
                .as_ref()
                .map(|fail| fail.left.load(Ordering::Relaxed));
            i64::MAX - left.unwrap_or(i64::MAX)
        }

        /// Has the disk full after `count` steps.
        pub(crate) fn full_after(count: i64) -> Self {
            Self {
                fail: Some(Fail {
                    left: Arc::new(AtomicI64::new(count)),
                    full: true,
                }),
                keeps_trees: false,
            }
        }
    }
}
