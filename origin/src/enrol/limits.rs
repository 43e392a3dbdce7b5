//! How much one address may ask for on the enrolment listener, which anybody can reach.
//!
//! Each asker has a bucket that refills steadily; what a request costs is taken out before its
//! body is read. A bucket is one moment: when it will be full again. One that is full is
//! forgotten, so only those who asked lately cost memory, and of those there is a bound.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The buckets. Cloning shares them.
#[derive(Clone)]
pub(super) struct Limits {
    buckets: Arc<Mutex<Buckets>>,
    /// How long a bucket takes to fill by the cost of one reading.
    step: Duration,
    /// How long an empty bucket takes to fill.
    depth: Duration,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Asker {
    /// Somebody at an address: an IPv4 address, or the network of an IPv6 address, of which a
    /// single host has 2^64.
    Address(IpAddr),
    /// Somebody at an address wants a token looked up.
    LookUp(IpAddr),
    /// Whoever has a good token or a certificate, by its digest: wherever it comes from, since a
    /// booster's relay hides its whole branch behind one address.
    Known([u8; 8]),
    /// Everybody who finds no room for a bucket of their own.
    Others,
}

/// How long to wait before asking again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TooFast(pub(super) Duration);

/// What reading something that is there already costs.
pub(super) const READ: u32 = 1;
/// What a request for a certificate costs: a signature is checked, and the ledger is written.
pub(super) const REQUEST: u32 = 10;
/// How many askers have a bucket: some 4 MB. An attacker with more addresses meets the last one,
/// together with whoever else comes then.
const ASKERS_MAX: usize = 1 << 16;
/// Full buckets are looked for no more often, however many come.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

struct Buckets {
    full_at: HashMap<Asker, Instant>,
    swept_at: Option<Instant>,
}

impl Limits {
    /// Allows each asker `rate` requests a second in the long run, and `burst` at once.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let step = Duration::from_secs(1) / (rate.max(1) * REQUEST);
        let buckets = Buckets {
            full_at: HashMap::new(),
            swept_at: None,
        };
        Self {
            buckets: Arc::new(Mutex::new(buckets)),
            step,
            depth: step * REQUEST * burst.max(1),
        }
    }

    /// Takes `cost` out of the bucket of `asker` at the time `now`.
    ///
    /// # Errors
    ///
    /// Says how long to wait if there is not as much in it. Then nothing is taken.
    pub(super) fn take(&self, asker: Asker, cost: u32, now: Instant) -> Result<(), TooFast> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let asker = buckets.place(asker, now);
        let entry = buckets.full_at.entry(asker);
        let full_at = match &entry {
            Entry::Occupied(known) => (*known.get()).max(now),
            Entry::Vacant(_) => now,
        };
        let then = full_at + self.step * cost;
        let wait = then.saturating_duration_since(now + self.depth);
        if wait > Duration::ZERO {
            return Err(TooFast(wait));
        }
        entry.insert_entry(then);
        Ok(())
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.full_at.len()
    }
}

impl Buckets {
    /// The bucket of `asker`, or that of all the others if there is no room.
    fn place(&mut self, asker: Asker, now: Instant) -> Asker {
        if self.full_at.len() < ASKERS_MAX || self.full_at.contains_key(&asker) {
            return asker;
        }
        let rested = |at| now.saturating_duration_since(at) >= SWEEP_EVERY;
        if self.swept_at.is_none_or(rested) {
            self.swept_at = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() < ASKERS_MAX {
            asker
        } else {
            Asker::Others
        }
    }
}

impl Asker {
    /// Whoever asks from `address`.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(network(address))
    }

    /// Whoever at `address` brings a token.
    pub(super) fn with_token(address: IpAddr) -> Self {
        Self::LookUp(network(address))
    }

    /// Whoever has what has this digest.
    pub(super) fn known(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *digest;
        Self::Known([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("step", &self.step)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Asker {
        Asker::at(address.parse().unwrap())
    }

    #[test]
    fn a_bucket_empties_at_once_and_fills_steadily() {
        let limits = Limits::new(5, 2);
        let start = Instant::now();
        let take = |cost, after| {
            let now = start + Duration::from_millis(after);
            let taken = limits.take(at("192.0.2.1"), cost, now);
            taken.map_err(|TooFast(wait)| wait.as_millis())
        };
        assert_eq!(take(REQUEST, 0), Ok(()));
        assert_eq!(take(REQUEST, 0), Ok(()));
        assert_eq!(take(REQUEST, 0), Err(200));
        // A refusal costs nothing, and reading is cheap.
        assert_eq!(take(REQUEST, 150), Err(50));
        assert_eq!(take(READ, 150), Ok(()));
        assert_eq!(take(REQUEST, 220), Ok(()));
        assert_eq!(take(REQUEST, 220), Err(200));
        // Rest gives no more than a full bucket.
        for expected in [Ok(()), Ok(()), Err(200)] {
            assert_eq!(take(REQUEST, 60_000), expected);
        }
    }

    #[test]
    fn addresses_of_one_host_are_one_and_others_are_others() {
        let limits = Limits::new(1, 1);
        let now = Instant::now();
        let take = |asker| limits.take(asker, REQUEST, now).is_ok();
        assert!(take(at("192.0.2.1")));
        assert!(!take(at("::ffff:192.0.2.1")));
        assert!(take(at("192.0.2.2")));
        assert!(take(at("2001:db8::1")));
        assert!(!take(at("2001:db8::2:1")));
        assert!(take(at("2001:db8:0:1::1")));
        assert!(take(Asker::with_token("192.0.2.1".parse().unwrap())));
        assert!(take(Asker::known(&[1; 32])));
        assert!(!take(Asker::known(&[1; 32])));
    }

    #[test]
    fn a_flood_from_everywhere_takes_no_more_memory() {
        let limits = Limits::new(50, 500);
        let now = Instant::now();
        let asker = |n: u32| Asker::at(IpAddr::from(n.to_be_bytes()));
        let flood = u32::try_from(ASKERS_MAX).unwrap() + 1000;
        let refused = (0..flood)
            .filter(|n| limits.take(asker(*n), REQUEST, now).is_err())
            .count();
        assert_eq!(limits.len(), ASKERS_MAX + 1);
        // The last thousand share a bucket of 500.
        assert_eq!(refused, 500);
        // Whoever is known already is not harmed, and room is made as soon as there is some.
        assert!(limits.take(asker(7), REQUEST, now).is_ok());
        let later = now + Duration::from_secs(20);
        assert!(limits.take(asker(flood), REQUEST, later).is_ok());
        assert_eq!(limits.len(), 1);
    }
}
