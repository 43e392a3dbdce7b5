//! The numbers of one listener.

use std::sync::atomic::{AtomicU64, Ordering};

use certs::RefusalReason;

/// What one listener has counted since it began.
#[derive(Debug, Default)]
pub struct ListenMetrics {
    /// Connections open now, handshakes included.
    pub open: AtomicU64,
    /// Sessions that were accepted.
    pub accepted: AtomicU64,
    /// Requests that were handed on.
    pub requests: AtomicU64,
    /// Bytes received over TCP by connections that have ended.
    pub received_bytes: AtomicU64,
    /// Bytes sent over TCP by connections that have ended.
    pub sent_bytes: AtomicU64,
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
