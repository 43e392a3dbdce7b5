//! The end of certificates whose key was left for another.

use std::collections::BTreeSet;

use certs::crl::RevocationReason;
use certs::{DeviceId, IssuerId, Role, Serial};
use tracing::info;

use super::{Authority, AuthorityError};
use crate::audit::{Actor, Event};
use crate::ledger::{LedgerError, Write, certificates, commit, rekeys};

impl Authority {
    /// Of each device in `shown`, which called under these certificates: if one of them is for the
    /// key that it has now, revokes what it holds for other keys, as superseded. All of that goes
    /// onto one new list of each issuer, signed in the same transaction and in force when this
    /// returns. Those of whom nothing is left to do.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, a signature or the disk does.
    pub async fn supersede<'a>(
        &self,
        shown: impl Iterator<Item = (&'a DeviceId, &'a [(IssuerId, Serial, [u8; 32])])>,
    ) -> Result<Vec<DeviceId>, AuthorityError> {
        let now = self.inner.clock.now();
        let mut tx = self.inner.ledger.write().await?;
        let (mut settled, mut issuers) = (Vec::new(), BTreeSet::new());
        for (id, shown) in shown {
            let Some((role, key)) = rekeys::awaited(&mut tx, id).await? else {
                settled.push(id.clone());
                continue;
            };
            if !is_shown(&mut tx, shown, &key).await? {
                continue;
            }
            let ended = certificates::supersede(&mut tx, role, id, &key, now).await?;
            rekeys::settle(&mut tx, id).await?;
            if !ended.is_empty() {
                told(&mut tx, role, id, &key, now).await?;
            }
            issuers.extend(ended);
            settled.push(id.clone());
        }
        let issuers: Vec<_> = issuers.into_iter().map(IssuerId::from_bytes).collect();
        let signed = self.sign_crls(&mut tx, &issuers, now).await?;
        commit(tx).await?;
        for id in &settled {
            info!(device = %id, "its new key has been seen: certificates for keys before are revoked");
        }
        self.publish_crls(signed).await?;
        Ok(settled)
    }
}

/// Whether one of the certificates `shown` is for `key`.
async fn is_shown(
    tx: &mut Write,
    shown: &[(IssuerId, Serial, [u8; 32])],
    key: &[u8; 32],
) -> Result<bool, LedgerError> {
    for (issuer, serial, own) in shown {
        // The number alone proves nothing: another with the same can come from a stolen CA's key.
        if own == key && certificates::key_of(tx, *issuer, *serial).await?.as_ref() == Some(key) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn told(
    tx: &mut Write,
    role: Role,
    id: &DeviceId,
    key: &[u8; 32],
    now: i64,
) -> Result<(), LedgerError> {
    Event::Revocation
        .by(&Actor::origin(), now)
        .with("profile", role)
        .with("device", id)
        .with("reason", RevocationReason::Superseded.code())
        .with_digest("kept", key)
        .append(tx)
        .await
}
