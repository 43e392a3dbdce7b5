//! The end of certificates whose key was left for another.

use std::collections::BTreeSet;

use certs::crl::RevocationReason;
use certs::{IssuerId, Peer};
use tracing::info;

use super::{Authority, AuthorityError};
use crate::audit::{Actor, Event};
use crate::ledger::rekeys::Shown;
use crate::ledger::{LedgerError, Write, certificates, commit, rekeys};

impl Authority {
    /// Whether the certificate of `peer` is for the key that its holder has to be seen with; if so,
    /// that is noted durably, if it was not before, and the key before has no say any more.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn show(&self, peer: &Peer) -> Result<bool, LedgerError> {
        let (id, key) = (peer.id(), peer.spki_sha256());
        let mut db = self.inner.ledger.read().await?;
        let awaited = rekeys::awaited(&mut db, id).await?;
        let Some((_, is_shown)) = awaited.filter(|(awaited, _)| awaited == key) else {
            return Ok(false);
        };
        // The number alone proves nothing: another with the same can come from a stolen CA's key.
        let ours = certificates::key_of(&mut db, peer.issuer(), peer.serial()).await?;
        drop(db);
        if ours.as_ref() != Some(key) {
            return Ok(false);
        }
        if !is_shown {
            let mut tx = self.inner.ledger.write().await?;
            rekeys::show(&mut tx, id, key, self.inner.clock.now()).await?;
            commit(tx).await?;
        }
        Ok(true)
    }

    /// Of each device that has been seen with its new key, revokes what it holds for other keys, as
    /// superseded. All of that goes onto one new list of each issuer, signed in the same
    /// transaction and in force when this returns.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, a signature or the disk does.
    pub async fn supersede(&self) -> Result<(), AuthorityError> {
        let now = self.inner.clock.now();
        let mut tx = self.inner.ledger.write().await?;
        let shown = rekeys::shown(&mut tx).await?;
        let mut issuers = BTreeSet::new();
        for device in &shown {
            let (role, id, key) = (device.role, &device.id, &device.key);
            let ended = certificates::supersede(&mut tx, role, id, key, now).await?;
            rekeys::settle(&mut tx, id).await?;
            if !ended.is_empty() {
                told(&mut tx, device, now).await?;
            }
            issuers.extend(ended);
        }
        let issuers: Vec<_> = issuers.into_iter().map(IssuerId::from_bytes).collect();
        let signed = self.sign_crls(&mut tx, &issuers, now).await?;
        commit(tx).await?;
        for Shown { id, .. } in &shown {
            info!(device = %id, "its new key has been seen: certificates for keys before are revoked");
        }
        self.publish_crls(signed).await
    }
}

async fn told(tx: &mut Write, device: &Shown, now: i64) -> Result<(), LedgerError> {
    Event::Revocation
        .by(&Actor::origin(), now)
        .with("profile", device.role)
        .with("device", &device.id)
        .with("reason", RevocationReason::Superseded.code())
        .with_digest("kept", &device.key)
        .append(tx)
        .await
}
