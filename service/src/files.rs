//! How many files a process may hold open: sockets count as files.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the limit of open files as far as the system lets us without privileges, and logs what
/// holds from now on. Gives that: none if there is no limit.
///
/// For programs that serve many. A shell's usual limit of 1024 is there for programs that use
/// `select`, which ours do not, and is less than the connections that a server takes.
pub fn raise_open_files() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let mut raised = before;
    raised.current = before.maximum;
    if raised != before
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        warn!(%error, "cannot raise the limit of open files");
    }
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(limit) => info!(limit, "open files are limited"),
        None => info!("open files are not limited"),
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_it_goes() {
        let mut lowered = getrlimit(Resource::Nofile);
        let most = lowered.maximum;
        // Low enough to tell, and enough for the tests that run beside this one.
        lowered.current = most.map(|most| most / 2);
        setrlimit(Resource::Nofile, lowered).unwrap();
        assert_eq!(raise_open_files(), most);
        assert_eq!(getrlimit(Resource::Nofile).current, most);
        assert_eq!(raise_open_files(), most, "nothing is left to raise");
    }
}
