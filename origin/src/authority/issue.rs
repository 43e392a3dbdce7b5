//! Certificates for devices, and their end.

use certs::crl::RevocationReason;
use certs::issue::{self, default_lifetime};
use certs::{CaKind, DeviceId, Identity, IssuerId, Role};
use sqlx::SqliteConnection;
use std::time::Duration;
use tracing::info;

use super::crls::heavy;
use super::keys::{Keys, new_serial};
use super::{Authority, AuthorityError, identity, seconds};
use crate::audit::{Actor, Draft, Event};
use crate::ledger::certificates::{self, Certificate};
use crate::ledger::devices;
use crate::ledger::{Write, commit};

/// A certificate, and whether it was made just now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issued {
    /// The certificate.
    pub certificate: Certificate,
    /// False if the key had one with enough of its life left, which is this.
    pub is_new: bool,
}

impl Authority {
    /// Issues a certificate for the key `spki` to the device `id`, within the transaction that
    /// decided so. A key that has one keeps it until a third of its life is over: asking twice
    /// makes no second one.
    ///
    /// # Errors
    ///
    /// Fails if the ledger or the signature does.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a role whose lifetime is no setting has that of its profile"
    )]
    pub async fn issue(
        &self,
        db: &mut SqliteConnection,
        role: Role,
        id: &DeviceId,
        spki: &[u8],
    ) -> Result<Issued, AuthorityError> {
        let identity = identity(&self.inner.deployment, role, id);
        let lifetime = match role {
            Role::Booster => self.inner.lives.booster,
            Role::Client => self.inner.lives.client,
            _ => default_lifetime(role),
        };
        let now = self.inner.clock.now();
        issue_once(db, &self.keys(), &identity, spki, now, lifetime).await
    }

    /// Ends the devices `whom`, because of `reason`: their certificates go onto new CRLs, signed in
    /// the same transaction and in force when this returns.
    ///
    /// # Errors
    ///
    /// Fails if the ledger, a signature or the disk does.
    pub async fn revoke(
        &self,
        mut tx: Write,
        whom: &[(Role, DeviceId)],
        reason: RevocationReason,
    ) -> Result<(), AuthorityError> {
        let now = self.inner.clock.now();
        let ids: Vec<DeviceId> = whom.iter().map(|(_, id)| id.clone()).collect();
        let issuers = certificates::revoke_holders(&mut tx, &ids, reason, now).await?;
        let issuers: Vec<_> = issuers.into_iter().map(IssuerId::from_bytes).collect();
        devices::revoke(&mut tx, &ids, reason, now).await?;
        for (role, id) in whom {
            Event::Revocation
                .by(&Actor::acting(), now)
                .with("profile", role)
                .with("device", id)
                .with("reason", reason.code())
                .append(&mut tx)
                .await?;
        }
        let signed = self.sign_crls(&mut tx, &issuers, now).await?;
        commit(tx).await?;
        for (role, id) in whom {
            info!(device = %id, %role, reason = reason.code(), "revoked");
        }
        self.publish_crls(signed).await
    }
}

/// The certificate that the key `spki` has, if it is in the first third of its life and for the
/// same party; else a new one.
pub(super) async fn issue_once(
    db: &mut SqliteConnection,
    keys: &Keys,
    identity: &Identity,
    spki: &[u8],
    now: i64,
    lifetime: Duration,
) -> Result<Issued, AuthorityError> {
    let spki_sha256 = *content::Digest::of(spki).as_raw();
    let ca = keys.ca(CaKind::of(identity.role), now);
    if let Some(held) = certificates::newest_by_key(db, &spki_sha256).await?
        && held.role == identity.role
        && held.holder == identity.id
        && held.issuer == *ca.id().as_bytes()
        && now >= held.not_before
        && now - held.not_before < (held.not_after - held.not_before) / 3
    {
        return Ok(Issued {
            certificate: held,
            is_new: false,
        });
    }
    let serial = new_serial()?;
    let der = heavy(|| issue::leaf(identity, spki, ca, serial, now, lifetime))?;
    let certificate = Certificate {
        issuer: *ca.id().as_bytes(),
        serial,
        role: identity.role,
        holder: identity.id.clone(),
        spki_sha256,
        not_before: now - seconds(issue::BACKDATE),
        not_after: (now + seconds(lifetime)).min(ca.cert().not_after()),
        der,
    };
    told(db, &certificate, now).await?.append(db).await?;
    certificates::insert(db, &certificate).await?;
    info!(party = %identity, serial = %serial, "issued a certificate");
    Ok(Issued {
        certificate,
        is_new: true,
    })
}

/// What the audit log is told of a certificate that is about to be recorded.
async fn told(
    db: &mut SqliteConnection,
    new: &Certificate,
    now: i64,
) -> Result<Draft, AuthorityError> {
    let event = if certificates::is_holder(db, new.role, &new.holder).await? {
        Event::Renewal
    } else {
        Event::Issue
    };
    Ok(event
        .by(&Actor::origin(), now)
        .with("profile", new.role)
        .with("holder", &new.holder)
        .with_issuer(&new.issuer)
        .with("serial", new.serial)
        .with_digest("key", &new.spki_sha256)
        .with("from", new.not_before)
        .with("until", new.not_after))
}
