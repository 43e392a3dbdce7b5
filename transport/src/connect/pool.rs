//! Connections kept for the next call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::Peer;
use hyper::client::conn::{http1, http2};
use tokio::time::{Instant, timeout};

use super::{Alert, Lease, Sender, Shown};
use crate::body::Body;

/// A few idle HTTP/1.1 connections, or one HTTP/2 connection that all share.
#[derive(Default)]
pub(super) struct Pool {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    idle: Vec<Idle>,
    shared: Option<Shared>,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    alert: Alert,
    peer: Option<Peer>,
    shown: Shown,
    since: Instant,
}

struct Shared {
    sender: http2::SendRequest<Body>,
    alert: Alert,
    peer: Option<Peer>,
    shown: Shown,
}

impl Pool {
    /// A connection that seems to be alive, the last used first, and that was opened with the
    /// certificate `shown`. One opened with an older one ends when what is on it has ended: it would
    /// be cut off with that certificate's life.
    pub(super) async fn take(&self, shown: Shown) -> Option<Lease> {
        if let Some(lease) = self.take_shared(shown) {
            return Some(lease);
        }
        loop {
            let mut idle = self.pop()?;
            let fresh = idle.since.elapsed() < IDLE_MAX && idle.shown == shown;
            // It becomes ready as soon as its task has seen the end of the last answer.
            if fresh && matches!(timeout(READY_MAX, idle.sender.ready()).await, Ok(Ok(()))) {
                return Some(Lease {
                    alert: idle.alert,
                    peer: idle.peer,
                    reused: true,
                    sender: Sender::Http1(idle.sender),
                    shown,
                    stranger: None,
                });
            }
        }
    }

    pub(super) fn put(
        &self,
        sender: http1::SendRequest<Body>,
        alert: Alert,
        peer: Option<Peer>,
        shown: Shown,
    ) {
        let mut kept = self.lock();
        if !sender.is_closed() && kept.idle.len() < IDLE_CONNECTIONS_MAX {
            kept.idle.push(Idle {
                sender,
                alert,
                peer,
                shown,
                since: Instant::now(),
            });
        }
    }

    pub(super) fn share(
        &self,
        sender: http2::SendRequest<Body>,
        alert: Alert,
        peer: Option<Peer>,
        shown: Shown,
    ) {
        self.lock().shared = Some(Shared {
            sender,
            alert,
            peer,
            shown,
        });
    }

    pub(super) fn clear(&self) {
        let mut kept = self.lock();
        kept.idle.clear();
        kept.shared = None;
    }

    fn take_shared(&self, shown: Shown) -> Option<Lease> {
        let mut kept = self.lock();
        let shared = kept.shared.as_ref()?;
        if shared.sender.is_closed() || shared.shown != shown {
            kept.shared = None;
            return None;
        }
        Some(Lease {
            alert: Arc::clone(&shared.alert),
            peer: shared.peer.clone(),
            reused: true,
            sender: Sender::Http2(shared.sender.clone()),
            shown,
            stranger: None,
        })
    }

    fn pop(&self) -> Option<Idle> {
        self.lock().idle.pop()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many as a device fetches packs at a time, twice over.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// Well below the listeners' 60 s, so that it is we who close.
const IDLE_MAX: Duration = Duration::from_secs(40);
const READY_MAX: Duration = Duration::from_millis(100);
