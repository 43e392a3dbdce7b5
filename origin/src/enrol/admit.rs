//! Who may ask at all: not too often, and in a version of the protocol that the operator allows.
//! Looked at before a body is read or a signature is checked.

use std::net::IpAddr;

use certs::Peer;
use content::Digest;
use http::HeaderMap;
use protocol::{Route, VERSION_HEADER};
use tokio::time::Instant;

use super::decide::Enrolment;
use super::est::token;
use super::limits::{Asker, READ, REQUEST, TooFast};
use super::refusal::EnrolError;
use crate::ledger::tokens;

impl Enrolment {
    /// Whether a request for `route`, if it leads anywhere, may be answered now.
    ///
    /// # Errors
    ///
    /// Says no to whoever asks too often.
    pub async fn admit(
        &self,
        route: Option<&Route>,
        headers: &HeaderMap,
        address: IpAddr,
        peer: Option<&Peer>,
    ) -> Result<(), EnrolError> {
        let (asker, cost) = match route {
            Some(Route::Enrol(_)) => (self.asker(headers, address).await?, REQUEST),
            // Its certificate was verified in the handshake.
            Some(Route::Reenrol(_)) if let Some(peer) = peer => {
                (Asker::known(peer.cert_sha256()), REQUEST)
            }
            Some(Route::Reenrol(_)) => (Asker::at(address), REQUEST),
            // A list may have 42 MB.
            Some(Route::Crl(_) | Route::Crls) => (Asker::at(address), REQUEST),
            _ => (Asker::at(address), READ),
        };
        let taken = self.limits().take(asker, cost, Instant::now());
        taken.map_err(|TooFast(wait)| EnrolError::TooFast { who: address, wait })
    }

    /// Whether who sends `headers` speaks a version of the protocol that is allowed.
    ///
    /// # Errors
    ///
    /// Says which it should speak.
    pub fn check_version(&self, headers: &HeaderMap) -> Result<(), EnrolError> {
        let stated = headers.get(VERSION_HEADER);
        let stated = stated.and_then(|field| field.to_str().ok()?.parse().ok());
        // Who states none is from before it was stated, or a foreign EST client.
        let speaks = stated.unwrap_or(1);
        let min = self.rules().protocol_min;
        if speaks < min {
            return Err(EnrolError::TooOld { speaks, min });
        }
        Ok(())
    }

    /// By what a request for a first certificate is counted: by its token if that is good, so that
    /// somebody who floods from the same address does not shut out who was invited.
    async fn asker(&self, headers: &HeaderMap, address: IpAddr) -> Result<Asker, EnrolError> {
        let stranger = Asker::at(address);
        let Ok(Some(token)) = token(headers) else {
            return Ok(stranger);
        };
        // Looking up costs something too.
        let look_up = Asker::with_token(address);
        if self.limits().take(look_up, READ, Instant::now()).is_err() {
            return Ok(stranger);
        }
        let digest = *Digest::of(token.as_bytes()).as_raw();
        let now = self.authority().clock().now();
        let mut db = self.authority().ledger().read().await?;
        Ok(if tokens::is_good(&mut db, &digest, now).await? {
            Asker::known(&digest)
        } else {
            stranger
        })
    }
}
