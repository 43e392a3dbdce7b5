//! The origin's own certificates: for TLS, and for signing content. Renewed at half their life and
//! swapped while everything runs.

use std::sync::{Arc, PoisonError};

use certs::issue::default_lifetime;
use certs::{CaKind, ContentSigner, Identity, Key, Role};
use content::statement::Signature;

use super::issue::issue_once;
use super::keys::Keys;
use super::{Authority, AuthorityError, identity};
use crate::ledger::certificates::{self, Certificate};
use crate::ledger::deployment::Deployment;
use crate::ledger::{Ledger, commit};

/// The content signer, with the first and the last second of its certificate.
pub(super) type Signer = (Arc<ContentSigner>, (i64, i64));

impl Authority {
    /// Renews the own certificates whose half of life is over or whose CA issues no more, and shows
    /// the new ones from the next handshake and the next statement on.
    ///
    /// # Errors
    ///
    /// Fails if the ledger or a signature does; the old ones stay.
    pub async fn renew_own(&self) -> Result<(), AuthorityError> {
        let inner = &self.inner;
        let (keys, ledger, now) = (self.keys(), &inner.ledger, inner.clock.now());
        // Asked every second: the ledger only when one of them is due.
        if self.own_stands(&keys, now) && self.signer_stands(&keys, now) {
            return Ok(());
        }
        let identity = self.identity();
        let own = renewed(ledger, &keys, &identity, &keys.origin, now).await?;
        let issuer = keys.ca(CaKind::Node, now);
        let chain = vec![own.der, issuer.cert_der().to_vec()];
        if inner.cell.chain_der() != chain {
            inner.cell.replace(&chain, &keys.origin)?;
        }
        let signer = renewed_signer(ledger, &inner.deployment, &keys, now).await?;
        *inner.signer.write().unwrap_or_else(PoisonError::into_inner) = signer;
        Ok(())
    }

    /// Whether the certificate for TLS need not be renewed.
    fn own_stands(&self, keys: &Keys, now: i64) -> bool {
        let cell = &self.inner.cell;
        let issuer = cell.chain_der().into_iter().nth(1);
        cell.validity().is_some_and(|life| is_young(life, now))
            && issuer.as_deref() == Some(keys.ca(CaKind::Node, now).cert_der())
    }

    /// The CA that vouches for the content signer at present, by its certificate's digest.
    pub fn content_issuer(&self) -> Option<content::Digest> {
        let held = self.inner.signer.read();
        let (signer, _) = &*held.unwrap_or_else(PoisonError::into_inner);
        signer.chain_der().get(1).map(|ca| content::Digest::of(ca))
    }

    /// Whether the content signer's certificate need not be renewed.
    fn signer_stands(&self, keys: &Keys, now: i64) -> bool {
        let held = self.inner.signer.read();
        let (signer, life) = held.unwrap_or_else(PoisonError::into_inner).clone();
        let issuer = signer.chain_der().get(1).map(Vec::as_slice);
        is_young(life, now) && issuer == Some(keys.ca(CaKind::Content, now).cert_der())
    }

    /// Signs a statement's message (DSSE's pre-authentication encoding), for
    /// [`content::statement::seal`].
    ///
    /// # Errors
    ///
    /// Fails only if there is no randomness to be had.
    pub fn sign_content(&self, message: &[u8]) -> Result<Signature, AuthorityError> {
        let held = self.inner.signer.read();
        let (signer, _) = held.unwrap_or_else(PoisonError::into_inner).clone();
        let chain = signer.chain_der().to_vec();
        let key_id = chain
            .first()
            .map(|leaf| content::Digest::of(leaf).to_string());
        Ok(Signature {
            signature: signer.sign(message)?,
            chain,
            key_id: key_id.unwrap_or_default(),
        })
    }
}

/// Whether `now` is in the first half of `life`.
fn is_young(life: (i64, i64), now: i64) -> bool {
    (life.0..i64::midpoint(life.0, life.1)).contains(&now)
}

/// The content signer, with a certificate that is in the first half of its life.
pub(super) async fn renewed_signer(
    ledger: &Ledger,
    deployment: &Deployment,
    keys: &Keys,
    now: i64,
) -> Result<Signer, AuthorityError> {
    let identity = identity(deployment, Role::Signer, &deployment.origin_id);
    let own = renewed(ledger, keys, &identity, &keys.signer, now).await?;
    let life = (own.not_before, own.not_after);
    let issuer = keys.ca(CaKind::Content, now);
    let chain = vec![own.der, issuer.cert_der().to_vec()];
    Ok((
        Arc::new(ContentSigner::new(chain, keys.signer.duplicate())?),
        life,
    ))
}

/// The certificate of our own `key`: the one that it has, or a new one when half of its life is
/// over or its CA issues no more.
async fn renewed(
    ledger: &Ledger,
    keys: &Keys,
    identity: &Identity,
    key: &Key,
    now: i64,
) -> Result<Certificate, AuthorityError> {
    let issuer = *keys.ca(CaKind::of(identity.role), now).id().as_bytes();
    let mut db = ledger.read().await?;
    let held = certificates::newest_by_key(&mut db, &key.spki_sha256()).await?;
    drop(db);
    if let Some(held) = held
        && held.holder == identity.id
        && held.issuer == issuer
        && is_young((held.not_before, held.not_after), now)
    {
        return Ok(held);
    }
    let mut tx = ledger.write().await?;
    let lifetime = default_lifetime(identity.role);
    let issued = issue_once(&mut tx, keys, identity, key.spki_der(), now, lifetime).await?;
    commit(tx).await?;
    Ok(issued.certificate)
}
