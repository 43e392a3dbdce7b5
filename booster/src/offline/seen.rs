//! Which clients have been let in while that could be judged: kept across restarts.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::{IssuerId, Peer, Serial};
use content::Digest;
use content::durable::{self, Disk as _, RealDisk};
use service::CancellationToken;
use tokio::time::sleep;
use tracing::warn;

use crate::cache::off_runtime;

/// The clients that have been let in, each with when that was last and by which certificate.
///
/// A client is known by its key and its name, so that it stays known when its certificate is
/// renewed. Bounded: the oldest go first. Kept in a file of [`MAGIC`], then 88 bytes for each: its
/// [`Visitor::party`]; Unix seconds in big-endian order; issuer and serial of the certificate.
/// Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    path: PathBuf,
    shared: Arc<Mutex<Set>>,
}

#[derive(Debug, Default)]
struct Set {
    visits: Visits,
    /// Whether the file says something else.
    is_dirty: bool,
}

type Visits = HashMap<[u8; 32], Visit>;

/// When a client came last, and by which certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Visit {
    /// In Unix seconds.
    pub(crate) at: i64,
    /// All zeros if a file of [`OLD_MAGIC`] told of it: the certificate is the client's own then.
    pub(crate) issuer: IssuerId,
    pub(crate) serial: Serial,
}

/// A client at the door.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor {
    cert_sha256: [u8; 32],
    issuer: IssuerId,
    /// SHA-256 of: SHA-256 of its SubjectPublicKeyInfo, then its name as a URI. One key under
    /// another name is another party.
    party: [u8; 32],
    serial: Serial,
}

impl Visitor {
    pub(crate) fn of(peer: &Peer) -> Self {
        let mut party = peer.spki_sha256().to_vec();
        party.extend_from_slice(peer.identity().uri().as_bytes());
        Self {
            cert_sha256: *peer.cert_sha256(),
            issuer: peer.issuer(),
            party: *Digest::of(&party).as_raw(),
            serial: peer.serial(),
        }
    }
}

impl Seen {
    /// What the last run left in the folder `state`. Reads up to [`FILE_BYTES_MAX`].
    pub(crate) fn open(state: &Path) -> Self {
        let path = state.join(FILE);
        let read = RealDisk.read(&path, FILE_BYTES_MAX);
        let visits = match read.map(|bytes| bytes.map(|bytes| decode(&bytes))) {
            Ok(None) => HashMap::new(),
            Ok(Some(Some(visits))) => visits,
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
            visits,
            is_dirty: false,
        };
        Self {
            path,
            shared: Arc::new(Mutex::new(set)),
        }
    }

    /// Takes note that a client was let in at `now`, in Unix seconds.
    pub(crate) fn note(&self, visitor: &Visitor, now: i64) {
        let visit = Visit {
            at: now,
            issuer: visitor.issuer,
            serial: visitor.serial,
        };
        let mut set = self.set();
        let before = set.visits.insert(visitor.party, visit);
        // An hour is exact enough to tell who was seen last, and a booster with many short
        // sessions does not write all the time.
        let is_news = |before: Visit| {
            (now - before.at).abs() >= EXACT_SECONDS || before.serial != visit.serial
        };
        set.is_dirty |= before.is_none_or(is_news);
        set.is_dirty |= set.visits.remove(&visitor.cert_sha256).is_some();
        if set.visits.len() > SEEN_MAX {
            set.drop_oldest();
        }
    }

    /// When that client was let in last, by whatever certificate for its key and name; none if it
    /// never was.
    pub(crate) fn last_visit(&self, visitor: &Visitor) -> Option<Visit> {
        let set = self.set();
        let visit = set.visits.get(&visitor.party);
        visit
            .or_else(|| set.visits.get(&visitor.cert_sha256))
            .copied()
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
            encode(&set.visits)
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
        let visits = self.visits.iter();
        let mut visits: Vec<(i64, [u8; 32])> =
            visits.map(|(party, visit)| (visit.at, *party)).collect();
        let (oldest, ..) = visits.select_nth_unstable(SEEN_MAX / 8);
        for (_, party) in oldest {
            self.visits.remove(party);
        }
    }
}

fn encode(visits: &Visits) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + visits.len() * ENTRY_BYTES);
    bytes.extend_from_slice(MAGIC);
    for (party, visit) in visits {
        bytes.extend_from_slice(party);
        bytes.extend_from_slice(&visit.at.to_be_bytes());
        bytes.extend_from_slice(visit.issuer.as_bytes());
        bytes.extend_from_slice(visit.serial.as_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Visits> {
    if let Some(entries) = bytes.strip_prefix(OLD_MAGIC) {
        return decode_entries::<OLD_ENTRY_BYTES>(entries);
    }
    decode_entries::<ENTRY_BYTES>(bytes.strip_prefix(MAGIC)?)
}

/// Entries of that many bytes; what an old one does not say is zero.
fn decode_entries<const BYTES: usize>(bytes: &[u8]) -> Option<Visits> {
    let (entries, rest) = bytes.as_chunks::<BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let entry = |entry: &[u8; BYTES]| {
        let (party, rest) = entry.split_first_chunk::<32>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (issuer, rest) = rest.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
        let serial = rest.first_chunk::<16>().unwrap_or(&[0; 16]);
        let visit = Visit {
            at: i64::from_be_bytes(*at),
            issuer: IssuerId::from_bytes(*issuer),
            serial: Serial::from_bytes(*serial),
        };
        Some((*party, visit))
    };
    entries.iter().map(entry).collect()
}

const FILE: &str = "seen";
const MAGIC: &[u8] = b"larder seen 2\n";
const ENTRY_BYTES: usize = 88;
/// What was written before clients were known by their keys: SHA-256 of the certificate, and Unix
/// seconds. Such an entry holds until that client comes again.
const OLD_MAGIC: &[u8] = b"larder seen 1\n";
const OLD_ENTRY_BYTES: usize = 40;
/// More clients than any branch has, in 5.5 MiB.
const SEEN_MAX: usize = 1 << 16;
const FILE_BYTES_MAX: u64 = (MAGIC.len() + (SEEN_MAX + 1) * ENTRY_BYTES) as u64;
/// What a crash may lose: clients that were new within the last minute.
const WRITE_PAUSE: Duration = Duration::from_secs(60);
const EXACT_SECONDS: i64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    /// The client of that number, by its certificate of that number.
    fn visitor(number: u32, cert: u32) -> Visitor {
        let digest = |text: String| *Digest::of(text.as_bytes()).as_raw();
        Visitor {
            cert_sha256: digest(format!("certificate {cert} of {number}")),
            issuer: IssuerId::from_bytes([7; 32]),
            party: digest(format!("client {number}")),
            serial: Serial::from_bytes([u8::try_from(cert).unwrap(); 16]),
        }
    }

    fn knows(seen: &Seen, number: u32) -> bool {
        seen.last_visit(&visitor(number, 9)).is_some()
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
        seen.note(&visitor(1, 1), 100);
        assert!(knows(&seen, 1) && !knows(&seen, 2));
        seen.keep().await;
        let again = Seen::open(folder.path());
        assert!(knows(&again, 1) && !knows(&again, 2));
        assert_eq!(again.set().visits, seen.set().visits);
        again.note(&visitor(1, 1), 200);
        assert!(!again.set().is_dirty, "a second visit is not worth a write");
        again.note(&visitor(1, 2), 200);
        assert!(again.set().is_dirty, "a new certificate is");

        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], b"larder", b""] {
            std::fs::write(&path, damaged).unwrap();
            assert!(!knows(&Seen::open(folder.path()), 1));
        }
    }

    #[tokio::test]
    async fn a_file_of_certificates_counts_until_its_clients_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut old = OLD_MAGIC.to_vec();
        for number in [1, 2] {
            old.extend_from_slice(&visitor(number, 1).cert_sha256);
            old.extend_from_slice(&100i64.to_be_bytes());
        }
        std::fs::write(folder.path().join(FILE), old).unwrap();
        let seen = Seen::open(folder.path());
        let by_cert = |seen: &Seen, number| seen.last_visit(&visitor(number, 1)).is_some();
        assert!(by_cert(&seen, 1) && by_cert(&seen, 2) && !knows(&seen, 1));
        seen.note(&visitor(1, 1), 200);
        seen.keep().await;
        let seen = Seen::open(folder.path());
        assert!(knows(&seen, 1) && by_cert(&seen, 2) && !knows(&seen, 2));
        assert_eq!(seen.set().visits.len(), 2, "nobody is there twice");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_written_within_a_minute_and_when_it_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (seen, stop) = (Seen::open(folder.path()), CancellationToken::new());
        let known = |number| knows(&Seen::open(folder.path()), number);
        let script = async {
            seen.note(&visitor(1, 1), 100);
            while !known(1) {
                sleep(Duration::from_secs(1)).await;
            }
            seen.note(&visitor(2, 1), 100);
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
            seen.note(&visitor(number, 1), i64::from(number));
        }
        assert!(knows(&seen, count - 1) && !knows(&seen, 0));
        let kept = seen.set().visits.len();
        assert!((SEEN_MAX / 4 * 3..SEEN_MAX).contains(&kept), "{kept}");
        assert!(encode(&seen.set().visits).len() as u64 <= FILE_BYTES_MAX);
    }
}
