//! Refused handshakes and other things to report, gathered until somebody takes them to the origin.
//!
//! The same certificate refused for the same reason to the same network is one report with a
//! counter, for an hour; then a new one begins. What arrived is kept for that hour too, so that its
//! counter goes on, which is told once a minute. Room is bounded: when it ends, what has arrived
//! goes first, then what tells least, then what is oldest; what goes unheard is counted.

mod gathered;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use certs::tls::{Evidence, Expected};
use certs::{RefusalReason, Role};
use content::Digest;
use protocol::Reports;
use protocol::report::{Bypass, Direction, Matter, Notice, Refusal, Stage};
use service::Clock;
use tokio::sync::Notify;

use crate::connect::Stranger;
use crate::listen::{Handshake, Refused};
use gathered::{Gathered, Key};

/// Gathers what is to be reported. Cloning shares it.
#[derive(Clone)]
pub struct Refusals {
    shared: Arc<Shared>,
}

struct Shared {
    changed: Notify,
    clock: Clock,
    gathered: Mutex<Gathered>,
}

/// How many reports there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Waiting to be taken to the origin.
    pub waiting: usize,
    /// Given up, in this run and those whose count was restored: for want of room, or because the
    /// origin would never take it.
    pub dropped: u64,
    /// Of these, how many the origin has not been told of.
    pub untold: u64,
    /// Taken to the origin, since the start.
    pub delivered: u64,
}

impl Counts {
    /// Whether there is anything that the origin is to hear.
    #[must_use]
    pub fn is_work(&self) -> bool {
        self.waiting > 0 || self.untold > 0
    }
}

impl Refusals {
    /// Gathers by the time of `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                changed: Notify::new(),
                clock,
                gathered: Mutex::default(),
            }),
        }
    }

    /// Takes note of somebody whom a listener refused. Quick: for a connection's own task. Whoever
    /// turned from us knows why, and reports it: one refusal is one report.
    pub fn note(&self, refused: &Refused) {
        if refused.by_peer {
            return;
        }
        let peer = refused.peer.as_ref();
        let evidence = refused.evidence.as_ref();
        let sha256 = match (peer, evidence) {
            (Some(peer), _) => Some(*peer.cert_sha256()),
            (None, evidence) => evidence.map(|it| it.cert_sha256),
        };
        let refusal = Refusal {
            direction: Direction::Inbound,
            stage: match refused.stage {
                Handshake::Failed => Stage::Handshake,
                Handshake::Registered => Stage::Registered,
                Handshake::InSession => Stage::Session,
            },
            reason: refused.reason.as_str().to_owned(),
            possession_proved: refused.possession_proved,
            remote: refused.remote.to_string(),
            party: peer.map(|peer| peer.identity().uri()),
            cert_sha256: sha256.map(hex),
            cert: evidence.and_then(|it| Refusal::cert_text(&it.leaf_der)),
        };
        self.gather(Matter::Refusal(refusal), network(refused.remote.ip()));
    }

    /// Takes note of a server that we turned from in the handshake.
    pub(crate) fn note_server(
        &self,
        remote: SocketAddr,
        expected: &Expected,
        reason: RefusalReason,
        evidence: Option<&Evidence>,
    ) {
        let refusal = Refusal {
            direction: Direction::Outbound,
            stage: Stage::Handshake,
            reason: reason.as_str().to_owned(),
            possession_proved: evidence.is_some_and(|it| it.possession_proved),
            remote: remote.to_string(),
            party: match expected {
                Expected::Exactly(name) => Some(name.uri()),
                Expected::AnyOf(_) => None,
            },
            cert_sha256: evidence.map(|it| hex(it.cert_sha256)),
            cert: evidence.and_then(|it| Refusal::cert_text(&it.leaf_der)),
        };
        self.gather(Matter::Refusal(refusal), network(remote.ip()));
    }

    /// Takes note of somebody whom we took for the origin to join, and who has not the root that
    /// we were told to look for. Nothing more is known of it than what it showed.
    pub fn note_stranger(&self, stranger: &Stranger) {
        let (reason, origin) = (RefusalReason::UnknownIssuer, Expected::AnyOf(Role::Origin));
        self.note_server(stranger.remote, &origin, reason, Some(&stranger.evidence));
    }

    /// Takes note of something else that an operator should know of: `kind` is one of the words of
    /// `docs/protocol.md`; of `detail`, the first [`Notice::DETAIL_BYTES_MAX`] bytes count.
    pub fn notice(&self, kind: &'static str, detail: &str) {
        let end = detail.floor_char_boundary(Notice::DETAIL_BYTES_MAX);
        let notice = Notice {
            kind: kind.to_owned(),
            detail: detail[..end].to_owned(),
        };
        self.gather(Matter::Notice(notice), String::new());
    }

    /// Takes note that a booster was gone round. What the same one costs for the same reason within
    /// an hour is one report, of all its bytes.
    pub fn bypass(&self, bypass: Bypass) {
        self.gather(Matter::Bypass(bypass), String::new());
    }

    /// Waits until something has been noted, or has arrived, since the last time.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// What should go to the origin now, what tells most first, as much of it as fits into a body;
    /// none if there is nothing. A counter that only went on waits for a minute after the last. With
    /// no report in it, it tells how many were dropped.
    #[must_use]
    pub fn batch(&self) -> Option<Reports> {
        let now = self.shared.clock.now();
        self.gathered().batch(now)
    }

    /// Takes note that `reports` have arrived.
    pub fn delivered(&self, reports: &Reports) {
        let now = self.shared.clock.now();
        self.gathered().delivered(reports, now);
        self.shared.changed.notify_one();
    }

    /// Gives up `reports`, which the origin will never take, and counts them as dropped; what is
    /// the same within their hour goes the same way, lest it be tried again and again.
    pub fn give_up(&self, reports: &Reports) {
        self.gathered().give_up(reports);
        self.shared.changed.notify_one();
    }

    /// All that waits, the oldest first, to be written down.
    #[must_use]
    pub fn waiting(&self) -> Reports {
        self.gathered().waiting()
    }

    /// Takes up what an earlier run left waiting; of the reports dropped in it, the origin has been
    /// told of `told`.
    pub fn restore(&self, reports: Reports, told: u64) {
        self.gathered().restore(reports, told);
        self.shared.changed.notify_one();
    }

    /// How many there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.gathered().counts()
    }

    fn gather(&self, matter: Matter, network: String) {
        let now = self.shared.clock.now().max(1);
        let key = Key::new(&matter, network);
        self.gathered().note(key, matter, now);
        self.shared.changed.notify_one();
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        let gathered = self.shared.gathered.lock();
        gathered.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Refusals").field(&self.counts()).finish()
    }
}

/// The network that an address is in, as far as one office goes: /24 or /64.
fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

fn hex(digest: [u8; 32]) -> String {
    Digest::from_raw(digest).hex()
}
