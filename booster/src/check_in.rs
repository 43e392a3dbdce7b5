//! Check-in: the booster tells the origin where clients find it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use config::HostPort;
use protocol::{BoosterAddresses, CheckIn};
use service::{CancellationToken, Report};
use tokio::time::sleep;
use tracing::{info, warn};
use transport::{Backoff, Source};

use crate::cache::off_runtime;

/// What is told, and to whom.
#[derive(Debug)]
pub(crate) struct CheckIns {
    /// Where content is served, and what was said about it.
    pub(crate) content: Place,
    /// The same for the relay.
    pub(crate) enrol: Place,
    /// The origin.
    pub(crate) origin: Arc<Source>,
}

/// A listener, and where others reach it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Where it listens.
    pub(crate) bound: SocketAddr,
    /// Where others reach it, if that was said.
    pub(crate) said: Vec<String>,
}

impl Place {
    pub(crate) fn new(bound: SocketAddr, said: &[HostPort]) -> Self {
        Self {
            bound,
            said: said.iter().map(HostPort::to_string).collect(),
        }
    }

    /// Where others reach it; `own` is this machine's address as the origin sees the way to it.
    fn addresses(&self, own: Option<IpAddr>) -> Vec<String> {
        if !self.said.is_empty() {
            return self.said.clone();
        }
        let ip = match self.bound.ip() {
            ip if ip.is_unspecified() => own,
            ip => Some(ip),
        };
        let address = ip.map(|ip| SocketAddr::new(ip, self.bound.port()).to_string());
        address.into_iter().collect()
    }
}

impl CheckIns {
    /// Checks in whenever the origin wants it, until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        let mut told = None;
        loop {
            let check_in = self.check_in().await;
            let answered = tokio::select! {
                answered = self.origin.check_in(&check_in) => answered,
                () = stop.cancelled() => return,
            };
            let wait = match answered {
                Ok(answer) => {
                    backoff.succeeded();
                    if told.as_ref() != Some(&check_in) {
                        info!(addresses = ?check_in.booster, "checked in");
                        told = Some(check_in);
                    }
                    let seconds = answer.map_or(WAIT_UNSAID, |answer| answer.next_seconds);
                    Duration::from_secs(u64::from(seconds)).clamp(WAIT_MIN, WAIT_MAX)
                }
                Err(failure) => {
                    warn!(error = %Report(&failure), "cannot check in");
                    backoff.failed(fastrand::f64())
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn check_in(&self) -> CheckIn {
        let addresses = self.origin.addresses();
        let own = off_runtime(move || own_address(&addresses)).await.flatten();
        CheckIn {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            booster: Some(BoosterAddresses {
                content: self.content.addresses(own),
                enrol: self.enrol.addresses(own),
            }),
            held: None,
        }
    }
}

/// The address by which this machine reaches the first of `addresses` that it can reach. Asks the
/// system alone: connecting a UDP socket sends nothing.
fn own_address(addresses: &[String]) -> Option<IpAddr> {
    let resolved = addresses
        .iter()
        .filter_map(|address| address.to_socket_addrs().ok())
        .flatten();
    let own = |target: SocketAddr| {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0; 16].into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    resolved.filter_map(own).next()
}

const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_LONGEST: Duration = Duration::from_secs(300);
/// If the origin does not say when, in seconds.
const WAIT_UNSAID: u32 = 300;
/// However often the origin would like it.
const WAIT_MIN: Duration = Duration::from_secs(10);
/// A booster that has moved should be found within the hour.
const WAIT_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_counts_then_where_it_listens_then_how_it_reaches_the_origin() {
        let own = Some([10, 0, 0, 7].into());
        let place = |bound: &str, said: &[&str]| Place {
            bound: bound.parse().unwrap(),
            said: said.iter().map(ToString::to_string).collect(),
        };
        let cases = [
            (
                place("0.0.0.0:7543", &["b.example:1"]),
                own,
                vec!["b.example:1"],
            ),
            (place("10.1.1.1:7543", &[]), own, vec!["10.1.1.1:7543"]),
            (place("[::]:7543", &[]), own, vec!["10.0.0.7:7543"]),
            (place("[::]:7543", &[]), None, vec![]),
        ];
        for (place, own, addresses) in cases {
            assert_eq!(place.addresses(own), addresses);
        }
        let loopback = own_address(&["127.0.0.1:9".to_owned()]);
        assert_eq!(loopback, Some([127, 0, 0, 1].into()));
    }
}
