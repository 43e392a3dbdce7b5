//! Waiting for a value: never for a time.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::PATIENCE;

/// Looks at a value until it is as `wanted`, and returns it.
///
/// # Panics
///
/// Panics with the last value if that takes longer than [`PATIENCE`].
pub async fn until<T: Debug>(mut look: impl AsyncFnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let value = look().await;
        if wanted(&value) {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited in vain; the last value was {value:?}"
        );
        // Between two looks; what is waited for is the value.
        sleep(Duration::from_millis(10)).await;
    }
}
