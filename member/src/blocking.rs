//! Work that blocks, done where it holds up nobody.

use std::io;
use std::panic;

use tokio::task::spawn_blocking;

/// Does `work` (disk, much hashing) on a thread of its own kind, and waits for it.
///
/// # Errors
///
/// Fails only if the runtime is ending, and `work` was not begun.
pub(crate) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    match spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(failed) if failed.is_panic() => panic::resume_unwind(failed.into_panic()),
        Err(_) => Err(io::Error::other("the program is ending")),
    }
}
