//! The answer of one call, as it comes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::Incoming;
use protocol::FAULT_BYTES_MAX;
use tokio::time::{Instant, timeout_at};

use crate::body::{ReadBodyError, read_body};
use crate::call::{CallError, Meter, retry_after};
use crate::connect::Returnable;

/// The head of an answer, and what its body comes over.
pub(crate) struct Reply {
    pub(crate) head: Response<Incoming>,
    pub(super) connection: Returnable,
    pub(super) idle: Duration,
    pub(super) meter: Arc<Meter>,
}

impl Reply {
    /// The whole body, of at most `bytes_max` bytes.
    pub(crate) async fn read(
        self,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let read = read_body(self.head.into_body(), bytes_max, self.idle);
        // One deadline or the other.
        let read = timeout_at(deadline, read).await;
        match read.unwrap_or(Err(ReadBodyError::Silent)) {
            Ok(bytes) => {
                self.meter
                    .other_bytes
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.connection.give_back();
                Ok(bytes)
            }
            Err(ReadBodyError::Broken { source }) => {
                Err(CallError::of_broken(source, self.connection.alert()))
            }
            Err(ReadBodyError::Silent) => {
                self.connection.give_up();
                Err(CallError::Timeout {
                    step: "read the answer",
                })
            }
            Err(ReadBodyError::TooLong { bytes_max }) => Err(CallError::TooLong {
                bytes_max: bytes_max as u64,
            }),
        }
    }

    pub(super) async fn into_fault(self, deadline: Instant) -> CallError {
        let status = self.head.status();
        let retry_after = retry_after(self.head.headers());
        match self.read(FAULT_BYTES_MAX, deadline).await {
            Ok(bytes) => CallError::of_status(status, &bytes, retry_after),
            Err(CallError::TooLong { .. }) => CallError::bad(format!("status {status}")),
            Err(error) => error,
        }
    }

    /// Who answered.
    pub(crate) fn peer(&self) -> Option<&certs::Peer> {
        self.connection.peer()
    }
}
