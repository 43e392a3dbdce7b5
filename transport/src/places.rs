//! Places for connections: so many in all, and so many for one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::CancellationToken;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::{debug, warn};

/// The places of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    held: Arc<Held>,
    per_address_max: usize,
}

#[derive(Debug, Default)]
struct Held(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    address: IpAddr,
    held: Arc<Held>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(all: usize, per_address_max: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            held: Arc::default(),
            per_address_max,
        }
    }

    /// The next connection that there is a place for; `None` once `stop` is cancelled. If all
    /// places are taken, connections wait in the system's queue. An address that has its share
    /// is turned away: the queue is everybody's.
    pub(crate) async fn next(
        &self,
        listener: &TcpListener,
        stop: &CancellationToken,
    ) -> Option<(TcpStream, SocketAddr, Place)> {
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&self.all).acquire_owned() => permit.ok()?,
                () = stop.cancelled() => return None,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return None,
            };
            match accepted {
                Ok((stream, remote)) => match self.held.take(remote.ip(), self.per_address_max) {
                    Some(address) => {
                        let place = Place {
                            address,
                            held: Arc::clone(&self.held),
                            _permit: permit,
                        };
                        return Some((stream, remote, place));
                    }
                    None => debug!(%remote, "turned away: too many connections from there"),
                },
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Held {
    /// Counts a connection from `address`, if there may be one more, and says as whose.
    fn take(&self, address: IpAddr, most: usize) -> Option<IpAddr> {
        let address = household(address);
        let mut held = self.lock();
        let count = held.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(address)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// The address by which connections are counted: whoever has one of IPv6 mostly has all of its
/// /64 (RFC 6177).
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// How long to wait when the system has no more descriptors for us: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;
    use crate::testing::{SOON, loopback};

    #[tokio::test]
    async fn an_address_that_has_its_share_is_turned_away() {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (places, stop) = (Places::new(3, 1), CancellationToken::new());
        let first = TcpStream::connect(addr).await.unwrap();
        let (_, remote, place) = places.next(&listener, &stop).await.unwrap();
        assert_eq!(remote, first.local_addr().unwrap());
        let mut second = TcpStream::connect(addr).await.unwrap();
        let turned_away = async {
            let read = second.read(&mut [0]).await;
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
            stop.cancel();
        };
        let (next, ()) = timeout(SOON, async {
            tokio::join!(places.next(&listener, &stop), turned_away)
        })
        .await
        .unwrap();
        assert!(next.is_none());
        drop(place);
        assert!(places.held.lock().is_empty());
        let _third = TcpStream::connect(addr).await.unwrap();
        let stop = CancellationToken::new();
        let next = timeout(SOON, places.next(&listener, &stop)).await;
        assert!(next.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_full_listener_stops_when_it_is_asked() {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (places, stop) = (Places::new(1, 1), CancellationToken::new());
        let _first = places.next(&listener, &stop).await.unwrap();
        stop.cancel();
        let next = timeout(SOON, places.next(&listener, &stop)).await.unwrap();
        assert!(next.is_none());
    }

    #[test]
    fn addresses_are_counted_by_household() {
        let check = |address: &str, want: &str| {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(household(address), want.parse::<IpAddr>().unwrap());
        };
        check("10.1.2.3", "10.1.2.3");
        check("::ffff:10.1.2.3", "10.1.2.3");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("::1", "::");
    }
}
