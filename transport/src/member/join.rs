//! Joining: from a join string to a certificate.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use certs::tls::{CertCell, Expected};
use certs::trust::Revocation;
use certs::{CrlStore, DeviceId, Key, Role, Trust, csr};
use protocol::Join;
use service::Clock;

use super::files::{self, Joined};
use super::{Inner, Member, MemberError, enrol_role, fingerprint, id_of};
use crate::enrol::{Enrolled, accept, first_contact};
use crate::source::{CallLimits, Source, SourceSettings};

/// What a party wants to join as.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// What it was given.
    pub join: Join,
    /// As what.
    pub role: Role,
    /// The id that it claims; made of its key if none.
    pub id: Option<DeviceId>,
    /// How long a revocation list goes on being used after its end.
    pub grace: Duration,
}

/// An operator has to look at the request first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    /// The id that was claimed.
    pub id: DeviceId,
    /// The fingerprint to compare.
    pub fingerprint: String,
    /// When to ask again.
    pub retry_after: Duration,
}

impl Member {
    /// Joins a deployment, or takes up a joining that was broken off. `waiting` is told each time
    /// that an operator still has to decide; the caller bounds how long that may take.
    ///
    /// # Errors
    ///
    /// Fails if the origin cannot be reached, does not have the pinned root, or refuses.
    pub async fn join(
        data: &Path,
        request: JoinRequest,
        clock: Clock,
        mut waiting: impl FnMut(Waiting),
    ) -> Result<Self, MemberError> {
        let (folder, limits) = (data.to_owned(), CallLimits::default());
        let work = tokio::task::spawn_blocking(move || {
            let key = files::key(&folder)?;
            Ok::<_, MemberError>((key, files::joined(&folder)?))
        });
        let (key, before) = work.await??;
        let Join {
            pin,
            token,
            addresses,
        } = request.join;
        let contact = first_contact(addresses.clone(), &[pin], &clock, &limits).await?;
        let trust = trust_in(
            &contact.root.der().to_vec(),
            &contact.certs,
            request.grace,
            &clock,
        )?;
        if let Some(before) = before.filter(|it| it.deployment != trust.deployment().as_str()) {
            return Err(MemberError::AlreadyJoined {
                deployment: before.deployment,
            });
        }
        let source = Source::new(SourceSettings {
            addresses: addresses.clone(),
            expected: Expected::AnyOf(Role::Origin),
            revocation: Revocation::BestEffort,
            trust: Arc::clone(&trust),
            own: None,
            clock: clock.clone(),
            http2: false,
            limits,
        })?;
        let origin = source.identify().await;
        let origin = origin.map_err(|source| MemberError::Call {
            step: "reach the origin",
            source,
        })?;
        let id = request.id.unwrap_or_else(|| id_of(&key));
        let member = Self {
            inner: Arc::new(Inner {
                cell: Arc::new(CertCell::empty()),
                clock,
                data: data.to_owned(),
                joined: RwLock::new(Joined {
                    deployment: trust.deployment().to_string(),
                    id: id.clone(),
                    origin: origin.id().clone(),
                    enrol_addresses: addresses,
                }),
                key,
                limits,
                role: request.role,
                trust,
            }),
        };
        member.refresh_crls(&source).await?;
        member
            .enrol(&source, &id, token.as_ref(), &mut waiting)
            .await?;
        Ok(member)
    }

    /// Asks for a certificate until there is one, and keeps it.
    async fn enrol(
        &self,
        source: &Source,
        id: &DeviceId,
        token: Option<&protocol::Token>,
        waiting: &mut impl FnMut(Waiting),
    ) -> Result<(), MemberError> {
        let inner = &self.inner;
        let request = self.csr(id)?;
        let role = enrol_role(inner.role);
        let issued = loop {
            let asked = source.simple_enroll(role, &request, token).await;
            match asked.map_err(|source| MemberError::Call {
                step: "enrol",
                source,
            })? {
                Enrolled::Issued(issued) => break issued,
                Enrolled::Pending { retry_after } => {
                    let fingerprint = fingerprint(&inner.key);
                    waiting(Waiting {
                        id: id.clone(),
                        fingerprint,
                        retry_after,
                    });
                    tokio::time::sleep(retry_after).await;
                }
            }
        };
        let accepted = accept(
            &inner.trust,
            &issued,
            &inner.key,
            inner.role,
            inner.clock.now(),
        )?;
        inner.cell.replace(&accepted.chain_der, &inner.key)?;
        let mut joined = self.joined();
        joined.id = accepted.peer.id().clone();
        *inner
            .joined
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = joined.clone();
        let ders = |certs: Vec<Arc<certs::CaCert>>| -> Vec<Vec<u8>> {
            certs.iter().map(|ca| ca.der().to_vec()).collect()
        };
        let (roots, cas) = (ders(inner.trust.roots()), ders(inner.trust.issuing_cas()));
        let (data, chain) = (inner.data.clone(), accepted.chain_der);
        let work =
            tokio::task::spawn_blocking(move || files::store(&data, &chain, &roots, &cas, &joined));
        Ok(work.await??)
    }

    pub(super) fn csr(&self, id: &DeviceId) -> Result<Vec<u8>, MemberError> {
        csr_of(&self.inner.key, id)
    }
}

fn csr_of(key: &Key, id: &DeviceId) -> Result<Vec<u8>, MemberError> {
    csr::make(key, id.as_str()).map_err(|error| MemberError::Csr(Box::new(error)))
}

fn trust_in(
    root: &Vec<u8>,
    offered: &[Vec<u8>],
    grace: Duration,
    clock: &Clock,
) -> Result<Arc<Trust>, MemberError> {
    let now = clock.now();
    let trust = Trust::new(&[root], Arc::new(CrlStore::new(grace)), now)
        .map_err(|error| MemberError::Trust(Box::new(error)))?;
    for cert in offered {
        // The root itself is among them, and whatever else is there counts only if the root
        // vouches for it.
        let _no_ca_of_ours = trust.add_issuing_ca(cert, now).is_err();
    }
    Ok(Arc::new(trust))
}
