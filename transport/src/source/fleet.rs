//! Calls of a booster that speaks for its devices, and of a device that speaks through it.

use std::time::Duration;

use bytes::Bytes;
use content::statement::{Payload, RosterHead, Spoken};
use content::{Digest, RosterProof};
use http::StatusCode;
use protocol::{CheckInAnswer, Relayed, RelayedAnswers, Route};
use tokio::time::Instant;

use super::{Source, finish};
use crate::call::CallError;

/// How long the origin may hold a wait.
const WAIT: Duration = Duration::from_secs(60);

impl Source {
    /// `GET /v1/roster` of a booster: the envelope of the head of its roster.
    ///
    /// # Errors
    ///
    /// Says what came of the call.
    pub async fn roster(&self) -> Result<Bytes, CallError> {
        self.get(&Route::Roster, RosterHead::ENVELOPE_BYTES_MAX)
            .await
    }

    /// `GET /v1/wait` of a booster that has the list called `held`: true once there is another head,
    /// which it then asks for, or false if its time is over.
    ///
    /// # Errors
    ///
    /// Says what came of the call.
    pub async fn wait_for_roster(&self, held: &Digest) -> Result<bool, CallError> {
        let deadline = Instant::now() + WAIT + self.limits.call_timeout;
        let path = format!("{}?roster={held}", Route::Wait);
        let make = || finish(self.connector.request(&path), Bytes::new());
        let reply = self.send(make, deadline).await?;
        let is_over = reply.head.status() == StatusCode::NO_CONTENT;
        // The origin shows the head, too; one that is asked for later is none that was overtaken.
        let _head = reply.read(RosterHead::ENVELOPE_BYTES_MAX, deadline).await?;
        Ok(!is_over)
    }

    /// `POST /v1/relayed` of a booster: what became of each message.
    ///
    /// # Errors
    ///
    /// Says what came of the call.
    pub async fn pass_on(&self, relayed: &Relayed) -> Result<RelayedAnswers, CallError> {
        let deadline = Instant::now() + self.limits.call_timeout;
        let reply = self
            .post(&Route::Relayed, relayed.encode(), deadline)
            .await?;
        let bytes = reply.read(Relayed::BYTES_MAX, deadline).await?;
        let answers = RelayedAnswers::decode(&bytes);
        let answers = answers.filter(|it| it.answers.len() == relayed.messages.len());
        answers.ok_or_else(|| CallError::bad("it is no answer to what was passed on"))
    }

    /// `POST /v1/check-in` of a device at a booster, with what it has sealed.
    ///
    /// # Errors
    ///
    /// Says what came of the call.
    pub async fn speak(&self, sealed: Vec<u8>) -> Result<Option<CheckInAnswer>, CallError> {
        debug_assert!(sealed.len() <= Spoken::ENVELOPE_BYTES_MAX);
        self.say(sealed).await
    }

    /// `GET /v1/roster` of a device at a booster: its entry with its proof, not yet judged.
    ///
    /// # Errors
    ///
    /// Says what came of the call.
    pub async fn roster_proof(&self) -> Result<RosterProof, CallError> {
        let bytes = self.get(&Route::Roster, RosterProof::BYTES_MAX).await?;
        RosterProof::decode(&bytes).map_err(|error| CallError::bad(error.to_string()))
    }
}
