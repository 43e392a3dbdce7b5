//! What a verifier saw during one handshake.
//!
//! A failed handshake leaves no peer certificate behind in the TLS library, and a "last
//! error" shared by all handshakes would be a race. So whoever drives a handshake enters its
//! [`Capture`] around each step that it makes, and the verifiers write into the capture that
//! is entered on their thread.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ca_cert::CERT_BYTES_MAX;
use crate::digest::sha256;
use crate::peer::Peer;
use crate::refusal::RefusalReason;

/// Collects what the verifiers of one handshake see. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<Mutex<Captured>>);

/// What has been seen so far.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// The peer, once everything about it has been verified.
    pub peer: Option<Peer>,
    /// The certificate that was presented, and how it was judged.
    pub evidence: Option<Evidence>,
}

/// A certificate that somebody presented.
#[derive(Clone, Eq, PartialEq)]
pub struct Evidence {
    /// SHA-256 of the certificate.
    pub cert_sha256: [u8; 32],
    /// The certificate in DER, or nothing if it is longer than 8 KiB.
    pub leaf_der: Vec<u8>,
    /// Whether the peer proved that it holds the certificate's key. If not, anybody who has
    /// ever seen the certificate may have presented it: blame nobody.
    pub possession_proved: bool,
    /// Why the peer was refused; `None` if our verifier had no objection, or does
    /// not judge.
    pub reason: Option<RefusalReason>,
}

impl Capture {
    /// Runs `step`, during which verifiers on this thread write into this capture.
    pub fn enter<R>(&self, step: impl FnOnce() -> R) -> R {
        let previous = CURRENT.replace(Some(self.clone()));
        let _restore = Restore(previous);
        step()
    }

    /// Takes out what has been seen.
    pub fn take(&self) -> Captured {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(change: impl FnOnce(&mut Captured)) {
        CURRENT.with_borrow(|current| {
            if let Some(capture) = current {
                change(&mut capture.0.lock().unwrap_or_else(PoisonError::into_inner));
            }
        });
    }
}

impl Evidence {
    fn of(leaf_der: &[u8], possession_proved: bool, reason: Option<RefusalReason>) -> Self {
        let kept = leaf_der.len() <= CERT_BYTES_MAX;
        Self {
            cert_sha256: sha256(leaf_der),
            leaf_der: if kept { leaf_der.to_vec() } else { Vec::new() },
            possession_proved,
            reason,
        }
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence")
            .field("leaf_bytes", &self.leaf_der.len())
            .field("possession_proved", &self.possession_proved)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Notes how a certificate was judged, and passes the judgement on.
pub(super) fn judged(
    leaf_der: &[u8],
    possession_proved: bool,
    outcome: Result<Peer, RefusalReason>,
) -> Result<Peer, RefusalReason> {
    Capture::write(|captured| {
        let reason = outcome.as_ref().err().copied();
        captured.evidence = Some(Evidence::of(leaf_der, possession_proved, reason));
        // A peer counts once it has proved that it is who it says.
        captured.peer = outcome.as_ref().ok().filter(|_| possession_proved).cloned();
    });
    outcome
}

/// Notes the certificate of somebody whom nobody judges, who has proved to hold its key.
pub(super) fn shown(leaf_der: &[u8]) {
    Capture::write(|captured| captured.evidence = Some(Evidence::of(leaf_der, true, None)));
}

struct Restore(Option<Capture>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Capture>> = const { RefCell::new(None) };
}
