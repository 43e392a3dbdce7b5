//! Waiting until the origin has something new for us.

use std::time::Duration;

use bytes::Bytes;
use content::Digest;
use http::StatusCode;
use protocol::{CheckIn, CheckInAnswer, Route};
use tokio::time::Instant;

use super::{Source, finish};
use crate::call::CallError;

/// The longest that the origin lets us wait.
const WAIT: Duration = Duration::from_secs(60);

impl Source {
    /// Waits until something changes for us, who go by the manifest `held` of the model `model`, but
    /// no longer than a minute. None if nothing did.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn wait(
        &self,
        model: u64,
        held: Option<&Digest>,
    ) -> Result<Option<CheckInAnswer>, CallError> {
        let deadline = Instant::now() + WAIT + self.limits.call_timeout;
        let manifest = held.map(|digest| format!("&manifest={digest}"));
        let manifest = manifest.unwrap_or_default();
        let path = format!("{}?model={model}{manifest}", Route::Wait);
        let make = || finish(self.connector.request(&path), Bytes::new());
        let reply = self.send(make, deadline).await?;
        if reply.head.status() == StatusCode::NO_CONTENT {
            return reply.read(0, deadline).await.map(|_| None);
        }
        let bytes = reply.read(CheckIn::BYTES_MAX, deadline).await?;
        let answer = CheckInAnswer::decode(&bytes);
        let answer = answer.ok_or_else(|| CallError::bad("it is no answer to a wait"))?;
        Ok(Some(answer))
    }
}
