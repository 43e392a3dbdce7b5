//! The numbers of one listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use certs::RefusalReason;

use crate::io::Traffic;

/// What one listener has counted since it began.
#[derive(Debug, Default)]
pub struct ListenMetrics {
    /// Connections open now, handshakes included.
    pub open: AtomicU64,
    /// Sessions that were accepted.
    pub accepted: AtomicU64,
    /// Requests that were handed on.
    pub requests: AtomicU64,
    /// Times that the buffers of an HTTP/1.1 connection were put away, since nothing was under way
    /// and nothing expected.
    pub rests: AtomicU64,
    /// Bytes that went over TCP, TLS included.
    pub traffic: Arc<Traffic>,
    refused: [AtomicU64; RefusalReason::ALL.len()],
}

impl ListenMetrics {
    /// How many were refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (RefusalReason, u64)> + '_ {
        let counts = self
            .refused
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        RefusalReason::ALL.into_iter().zip(counts)
    }

    pub(super) fn count_refused(&self, reason: RefusalReason) {
        let counts = RefusalReason::ALL.iter().zip(&self.refused);
        for (_, count) in counts.filter(|(other, _)| **other == reason) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
