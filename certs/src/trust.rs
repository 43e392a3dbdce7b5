//! What we believe: roots, the issuing CAs that they vouch for, and revocation lists.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;

use crate::ca_cert::{CaCert, CaCertError, CaKind};
use crate::chain::{self, Usage};
use crate::crl::{Crl, CrlError, CrlStore, IssuerId, Lists, Rollback, Verdict};
use crate::name::{DeploymentId, Role};
use crate::peer::Peer;
use crate::refusal::RefusalReason;
use crate::vouched::Vouched;

/// The roots of one deployment, the issuing CAs known so far, and the lists in force.
///
/// Only a root is ever an anchor: an issuing CA used as one loses its limits. Shared by
/// every verifier; roots can be added while it is in use.
#[derive(Debug)]
pub struct Trust {
    crls: Arc<CrlStore>,
    deployment: DeploymentId,
    known: ArcSwap<Known>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    pub(crate) issuing: Vec<Arc<CaCert>>,
    pub(crate) roots: Vec<Arc<CaCert>>,
    /// Of the issuing CAs, the roots' signatures on them.
    pub(crate) vouched: Vec<Arc<Vouched>>,
}

/// Names the roots, issuing CAs and lists of one moment without keeping them: a list may be
/// long. While this lives, nothing else comes to lie where they lay.
#[derive(Clone)]
pub struct Basis {
    known: Weak<Known>,
    lists: Weak<Lists>,
}

impl fmt::Debug for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basis").finish_non_exhaustive()
    }
}

/// Whether a certificate must be shown to be good, or merely not known to be bad.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Revocation {
    /// A fresh list must say that the certificate is good.
    Required,
    /// A list that we have must not say that it is revoked; there may be none yet. For
    /// fetching what authenticates itself, and for enrolment, where we start with nothing.
    BestEffort,
}

impl Trust {
    /// Trust in `roots`, in DER. They must be roots in order, of one deployment, and at least
    /// one of them in date at `now`; those out of date are left out.
    ///
    /// # Errors
    ///
    /// Fails if any of `roots` is not a root in order, if they belong to several
    /// deployments, or if none is in date.
    pub fn new<C: AsRef<[u8]>>(
        roots: &[C],
        crls: Arc<CrlStore>,
        now: i64,
    ) -> Result<Self, TrustError> {
        let mut parsed = Vec::new();
        for root in roots {
            parsed.push(parse_root(root.as_ref())?);
        }
        parsed.retain(|root| root.is_in_date(now));
        let first = parsed.first().ok_or(TrustError::NoRoot)?;
        let deployment = first.deployment().clone();
        let trust = Self {
            crls,
            deployment,
            known: ArcSwap::default(),
        };
        parsed
            .into_iter()
            .try_for_each(|root| trust.learn_root(root))?;
        Ok(trust)
    }

    /// The deployment whose roots these are.
    pub fn deployment(&self) -> &DeploymentId {
        &self.deployment
    }

    /// The lists in force.
    pub fn crls(&self) -> &Arc<CrlStore> {
        &self.crls
    }

    /// Adds a root, as a deployment document does that an older root has vouched for.
    ///
    /// # Errors
    ///
    /// Fails if it is not a root in order, not of this deployment, or out of date.
    pub fn add_root(&self, der: &[u8], now: i64) -> Result<(), TrustError> {
        let root = parse_root(der)?;
        if !root.is_in_date(now) {
            return Err(TrustError::Ca {
                source: CaCertError::OutOfDate,
            });
        }
        self.learn_root(root)
    }

    /// Stops trusting the root called `root`, its issuing CAs, and whatever hangs on them;
    /// their lists are dropped too. The last step of a rotation. Returns whether it was
    /// trusted at all.
    ///
    /// # Errors
    ///
    /// Fails if it is the only root: nobody would be left to trust.
    pub fn forget_root(&self, root: IssuerId) -> Result<bool, TrustError> {
        let known = self.known.load();
        if known.roots.iter().all(|it| it.id() != root) {
            return Ok(false);
        }
        let hangs_on_it = |ca: &Arc<CaCert>| {
            let signer = chain::root_of(&known, ca);
            signer.is_none_or(|signer| signer == root)
        };
        let gone: Vec<IssuerId> = known
            .issuing
            .iter()
            .filter(|ca| hangs_on_it(ca))
            .map(|ca| ca.id())
            .chain([root])
            .collect();
        let mut was_last = false;
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            let stays = |ca: &Arc<CaCert>| !gone.contains(&ca.id());
            let keep: Vec<bool> = known.roots.iter().map(stays).collect();
            was_last = !keep.contains(&true);
            if was_last {
                return known;
            }
            let mut kept = keep.iter();
            known.anchors.retain(|_| kept.next() == Some(&true));
            known.roots.retain(stays);
            known.issuing.retain(stays);
            known.vouched.retain(|vouched| stays(&vouched.ca));
            known
        });
        if was_last {
            return Err(TrustError::NoRoot);
        }
        gone.into_iter().for_each(|issuer| self.crls.forget(issuer));
        Ok(true)
    }

    /// Adds an issuing CA, once it is found to be vouched for by a root. Its certificate is
    /// what its revocation lists are verified with, and peers need not send it.
    ///
    /// # Errors
    ///
    /// Fails if it is not in order, not of this deployment, out of date or revoked at `now`,
    /// or signed by no root that we know.
    pub fn add_issuing_ca(&self, der: &[u8], now: i64) -> Result<Arc<CaCert>, TrustError> {
        let known = self.known.load();
        if let Some(ca) = known.issuing.iter().find(|ca| ca.der() == der) {
            return Ok(Arc::clone(ca));
        }
        let ca = CaCert::parse(der).map_err(|source| TrustError::Ca { source })?;
        if ca.kind().is_none() {
            return Err(TrustError::Ca {
                source: CaCertError::Kind,
            });
        }
        if ca.deployment() != &self.deployment {
            return Err(TrustError::OtherDeployment);
        }
        if !ca.is_in_date(now) {
            return Err(TrustError::Ca {
                source: CaCertError::OutOfDate,
            });
        }
        let ca = Arc::new(ca);
        let root = chain::root_of(&known, &ca).ok_or(TrustError::UnknownIssuer)?;
        if let Verdict::Revoked { .. } = self.crls.lookup(root, ca.serial(), now) {
            return Err(TrustError::Revoked);
        }
        Ok(self.learn_issuing(ca))
    }

    /// The roots, in DER.
    pub fn roots(&self) -> Vec<Arc<CaCert>> {
        self.known.load().roots.clone()
    }

    /// The issuing CAs known so far.
    pub fn issuing_cas(&self) -> Vec<Arc<CaCert>> {
        self.known.load().issuing.clone()
    }

    /// The certificate of the root or issuing CA called `issuer`.
    pub fn issuer(&self, issuer: IssuerId) -> Option<Arc<CaCert>> {
        let known = self.known.load();
        known
            .roots
            .iter()
            .chain(&known.issuing)
            .find(|ca| ca.id() == issuer)
            .cloned()
    }

    /// Verifies a list by the certificate of the issuer that it claims, without putting it
    /// in force: the caller writes it to disk first, then [`CrlStore::install`]s it.
    ///
    /// # Errors
    ///
    /// Fails if the issuer is not known, the list is not in order, or the list in force is
    /// newer.
    pub fn verify_crl(&self, issuer: IssuerId, der: &[u8], now: i64) -> Result<Crl, TrustCrlError> {
        let ca = self.issuer(issuer).ok_or(TrustCrlError::UnknownIssuer)?;
        let crl =
            Crl::verify(der, ca.der(), now).map_err(|source| TrustCrlError::Crl { source })?;
        self.crls
            .check(&crl)
            .map_err(|source| TrustCrlError::Rollback { source })?;
        Ok(crl)
    }

    /// The issuers whose lists are needed to judge parties with these roles, that have none
    /// at all. Nobody may listen until this is empty.
    pub fn missing_crls(&self, roles: &[Role]) -> Vec<IssuerId> {
        let known = self.known.load();
        let wanted = |ca: &&Arc<CaCert>| {
            roles
                .iter()
                .any(|role| ca.kind() == Some(CaKind::of(*role)))
        };
        known
            .roots
            .iter()
            .chain(known.issuing.iter().filter(wanted))
            .map(|ca| ca.id())
            .filter(|issuer| self.crls.current(*issuer).is_none())
            .collect()
    }

    /// Whether an issuing CA is known for each of `roles`.
    pub fn knows_cas_for(&self, roles: &[Role]) -> bool {
        let known = self.known.load();
        roles.iter().all(|role| {
            known
                .issuing
                .iter()
                .any(|ca| ca.kind() == Some(CaKind::of(*role)))
        })
    }

    /// Verifies the chain of a certificate that came from outside a handshake, for a party
    /// that connects to others. Revocation is not looked at: see [`Trust::check`].
    ///
    /// # Errors
    ///
    /// Says why the chain does not hold.
    pub fn verify_client(
        &self,
        leaf_der: &[u8],
        intermediates: &[CertificateDer<'_>],
        now: i64,
    ) -> Result<Peer, RefusalReason> {
        chain::verify(self, leaf_der, intermediates, now, Usage::Client)
    }

    /// The same for a party that listens.
    ///
    /// # Errors
    ///
    /// Says why the chain does not hold.
    pub fn verify_server(
        &self,
        leaf_der: &[u8],
        intermediates: &[CertificateDer<'_>],
        now: i64,
    ) -> Result<Peer, RefusalReason> {
        chain::verify(self, leaf_der, intermediates, now, Usage::Server)
    }

    /// Whether `peer` may still be spoken to at `now`: its certificate has not run out, and
    /// neither it nor its issuer has been revoked, as far as fresh lists can tell, and its
    /// root is still trusted. Costs under a microsecond: ask at each request.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn check(&self, peer: &Peer, now: i64) -> Result<(), RefusalReason> {
        self.check_with(peer, Revocation::Required, now)
    }

    /// [`Trust::check`] with a say in what a missing list means.
    ///
    /// # Errors
    ///
    /// Says why the peer may not be spoken to.
    pub fn check_with(
        &self,
        peer: &Peer,
        revocation: Revocation,
        now: i64,
    ) -> Result<(), RefusalReason> {
        let known = self.known.load();
        if known.roots.iter().all(|root| root.id() != peer.root) {
            return Err(RefusalReason::UnknownIssuer);
        }
        let verdicts = [
            self.crls.lookup(peer.issuer, peer.serial, now),
            self.crls.lookup(peer.root, peer.issuer_serial, now),
        ];
        if verdicts
            .iter()
            .any(|verdict| matches!(verdict, Verdict::Revoked { .. }))
        {
            return Err(RefusalReason::Revoked);
        }
        if now > peer.not_after {
            return Err(RefusalReason::Expired);
        }
        match revocation {
            Revocation::Required if verdicts != [Verdict::Good; 2] => Err(RefusalReason::CrlStale),
            Revocation::Required | Revocation::BestEffort => Ok(()),
        }
    }

    /// What every judgement stands on at this moment: what is derived from it holds until
    /// [`Trust::stands_on`] says otherwise.
    pub fn basis(&self) -> Basis {
        Basis {
            known: Arc::downgrade(&self.known.load()),
            lists: Arc::downgrade(&self.crls.lists()),
        }
    }

    /// Whether no root, issuing CA or list has come, gone or been called outdated since
    /// `basis` was taken. Costs some nanoseconds.
    pub fn stands_on(&self, basis: &Basis) -> bool {
        let (known, lists) = (self.known.load(), self.crls.lists());
        std::ptr::eq(Arc::as_ptr(&known), basis.known.as_ptr())
            && std::ptr::eq(Arc::as_ptr(&lists), basis.lists.as_ptr())
    }

    pub(crate) fn known(&self) -> arc_swap::Guard<Arc<Known>> {
        self.known.load()
    }

    pub(crate) fn learn_issuing(&self, ca: Arc<CaCert>) -> Arc<CaCert> {
        let vouched = Vouched::verify(&self.known.load().roots, &ca).map(Arc::new);
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            let is_new = known.issuing.iter().all(|other| other.der() != ca.der());
            if is_new && known.issuing.len() < ISSUING_CAS_MAX {
                known.issuing.push(Arc::clone(&ca));
                known.vouched.extend(vouched.clone());
            }
            known
        });
        ca
    }

    fn learn_root(&self, root: CaCert) -> Result<(), TrustError> {
        if root.deployment() != &self.deployment {
            return Err(TrustError::OtherDeployment);
        }
        let der = CertificateDer::from(root.der());
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_| TrustError::Ca {
                source: CaCertError::Malformed,
            })?
            .to_owned();
        let root = Arc::new(root);
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            if known.roots.iter().all(|other| other.der() != root.der()) {
                known.roots.push(Arc::clone(&root));
                known.anchors.push(anchor.clone());
            }
            known
        });
        Ok(())
    }
}

/// Why a CA is not trusted.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TrustError {
    /// Its certificate is not in order.
    #[error("cannot trust this CA")]
    Ca {
        /// What is wrong with it.
        source: CaCertError,
    },
    /// There is no root in date.
    #[error("cannot do without a root in date")]
    NoRoot,
    /// It serves another deployment.
    #[error("cannot trust a CA of another deployment")]
    OtherDeployment,
    /// Its root has revoked it.
    #[error("cannot trust a revoked CA")]
    Revoked,
    /// No root that we know has signed it.
    #[error("cannot trust a CA that none of our roots has signed")]
    UnknownIssuer,
}

/// Why a revocation list was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TrustCrlError {
    /// It is not in order.
    #[error("cannot use the revocation list")]
    Crl {
        /// What is wrong with it.
        source: CrlError,
    },
    /// It would take us back in time: an attack, or a restored backup. Worth a report.
    #[error("cannot go back to an older revocation list")]
    Rollback {
        /// From where to where.
        source: Rollback,
    },
    /// We do not know the issuer.
    #[error("cannot verify a revocation list of an unknown issuer")]
    UnknownIssuer,
}

fn parse_root(der: &[u8]) -> Result<CaCert, TrustError> {
    let root = CaCert::parse(der).map_err(|source| TrustError::Ca { source })?;
    if root.is_root() {
        Ok(root)
    } else {
        Err(TrustError::Ca {
            source: CaCertError::NotSelfSigned,
        })
    }
}

/// Three kinds, through several generations. Only what our own root has signed gets in.
const ISSUING_CAS_MAX: usize = 64;

#[cfg(test)]
mod tests;
