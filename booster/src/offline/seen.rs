//! Which clients have been let in while that could be judged: kept across restarts.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use content::durable::{self, Disk as _, RealDisk};
use service::CancellationToken;
use tokio::time::sleep;
use tracing::warn;

use crate::cache::off_runtime;

/// The certificates of clients that have been let in, each with when that was last.
///
/// Bounded: the oldest go first. Kept in a file of [`MAGIC`], then 40 bytes for each: SHA-256 of the
/// certificate, and Unix seconds in big-endian order. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    path: PathBuf,
    shared: Arc<Mutex<Set>>,
}

#[derive(Debug, Default)]
struct Set {
    by_cert: HashMap<[u8; 32], i64>,
    /// Whether the file says something else.
    is_dirty: bool,
}

impl Seen {
    /// What the last run left in the folder `state`. Reads up to [`FILE_BYTES_MAX`].
    pub(crate) fn open(state: &Path) -> Self {
        let path = state.join(FILE);
        let read = RealDisk.read(&path, FILE_BYTES_MAX);
        let by_cert = match read.map(|bytes| bytes.map(|bytes| decode(&bytes))) {
            Ok(None) => HashMap::new(),
            Ok(Some(Some(by_cert))) => by_cert,
            // Whoever is not known is not let in without fresh lists: that is the safe side.
            Ok(Some(None)) => {
                warn!(path = %path.display(), "the list of clients seen before is damaged: left out");
                HashMap::new()
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot read which clients were seen before");
                HashMap::new()
            }
        };
        let set = Set {
            by_cert,
            is_dirty: false,
        };
        Self {
            path,
            shared: Arc::new(Mutex::new(set)),
        }
    }

    /// Takes note that the client with that certificate was let in at `now`, in Unix seconds.
    pub(crate) fn note(&self, cert_sha256: [u8; 32], now: i64) {
        let mut set = self.set();
        let before = set.by_cert.insert(cert_sha256, now);
        // An hour is exact enough to tell who was seen last, and a booster with many short
        // sessions does not write all the time.
        set.is_dirty |= before.is_none_or(|before| (now - before).abs() >= EXACT_SECONDS);
        if set.by_cert.len() > SEEN_MAX {
            set.drop_oldest();
        }
    }

    /// Whether the client with that certificate has been let in before.
    pub(crate) fn contains(&self, cert_sha256: &[u8; 32]) -> bool {
        self.set().by_cert.contains_key(cert_sha256)
    }

    /// Writes down what is new, at most every minute and at the end.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let stopped = tokio::select! {
                () = sleep(WRITE_PAUSE) => false,
                () = stop.cancelled() => true,
            };
            self.keep().await;
            if stopped {
                return;
            }
        }
    }

    async fn keep(&self) {
        let bytes = {
            let mut set = self.set();
            if !std::mem::take(&mut set.is_dirty) {
                return;
            }
            encode(&set.by_cert)
        };
        let path = self.path.clone();
        let kept = off_runtime(move || durable::write(&RealDisk, &path, &bytes, 0o600));
        let kept: io::Result<()> = kept.await.unwrap_or(Ok(()));
        if let Err(error) = kept {
            warn!(%error, "cannot keep which clients were seen before");
            self.set().is_dirty = true;
        }
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    /// Makes room for some time to come.
    fn drop_oldest(&mut self) {
        let visits = self.by_cert.iter();
        let mut visits: Vec<(i64, [u8; 32])> = visits.map(|(cert, at)| (*at, *cert)).collect();
        let (oldest, ..) = visits.select_nth_unstable(SEEN_MAX / 8);
        for (_, cert) in oldest {
            self.by_cert.remove(cert);
        }
    }
}

fn encode(by_cert: &HashMap<[u8; 32], i64>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + by_cert.len() * ENTRY_BYTES);
    bytes.extend_from_slice(MAGIC);
    for (cert_sha256, at) in by_cert {
        bytes.extend_from_slice(cert_sha256);
        bytes.extend_from_slice(&at.to_be_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<[u8; 32], i64>> {
    let (entries, rest) = bytes.strip_prefix(MAGIC)?.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let entry = |entry: &[u8; ENTRY_BYTES]| {
        let (cert_sha256, at) = entry.split_first_chunk::<32>()?;
        Some((*cert_sha256, i64::from_be_bytes(at.try_into().ok()?)))
    };
    entries.iter().map(entry).collect()
}

const FILE: &str = "seen";
const MAGIC: &[u8] = b"larder seen 1\n";
const ENTRY_BYTES: usize = 40;
/// More clients than any branch has, in 2.6 MiB.
const SEEN_MAX: usize = 1 << 16;
const FILE_BYTES_MAX: u64 = (MAGIC.len() + (SEEN_MAX + 1) * ENTRY_BYTES) as u64;
/// What a crash may lose: clients that were new within the last minute.
const WRITE_PAUSE: Duration = Duration::from_secs(60);
const EXACT_SECONDS: i64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn cert(number: u32) -> [u8; 32] {
        let mut cert = [0; 32];
        cert[..4].copy_from_slice(&number.to_be_bytes());
        cert
    }

    #[tokio::test]
    async fn who_was_seen_is_known_after_a_restart_and_a_damaged_file_knows_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Seen::open(folder.path());
        let stop = CancellationToken::new();
        stop.cancel();
        seen.clone().run(stop.clone()).await;
        seen.keep().await;
        assert!(
            !folder.path().join(FILE).exists(),
            "there is nothing to say"
        );
        seen.note(cert(1), 100);
        assert!(seen.contains(&cert(1)) && !seen.contains(&cert(2)));
        seen.keep().await;
        let again = Seen::open(folder.path());
        assert!(again.contains(&cert(1)) && !again.contains(&cert(2)));
        again.note(cert(1), 200);
        assert!(!again.set().is_dirty, "a second visit is not worth a write");

        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], b"larder", b""] {
            std::fs::write(&path, damaged).unwrap();
            assert!(!Seen::open(folder.path()).contains(&cert(1)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_written_within_a_minute_and_when_it_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (seen, stop) = (Seen::open(folder.path()), CancellationToken::new());
        let known = |number| Seen::open(folder.path()).contains(&cert(number));
        let script = async {
            seen.note(cert(1), 100);
            while !known(1) {
                sleep(Duration::from_secs(1)).await;
            }
            seen.note(cert(2), 100);
            stop.cancel();
        };
        tokio::join!(seen.clone().run(stop.clone()), script);
        assert!(known(2));
    }

    #[test]
    fn there_is_an_end_to_how_many_are_known_and_the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Seen::open(folder.path());
        let count = SEEN_MAX as u32 + 1;
        for number in 0..count {
            seen.note(cert(number), i64::from(number));
        }
        assert!(seen.contains(&cert(count - 1)) && !seen.contains(&cert(0)));
        let kept = seen.set().by_cert.len();
        assert!((SEEN_MAX / 4 * 3..SEEN_MAX).contains(&kept), "{kept}");
        assert!(encode(&seen.set().by_cert).len() as u64 <= FILE_BYTES_MAX);
    }
}
