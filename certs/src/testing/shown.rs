//! Certificates to show at a door, good and bad, and what must come of each.
//!
//! The makers take the CAs, so that the same table holds in memory, against our own
//! programs, and against programs of others that only see keys and certificates.

use rustls::AlertDescription as Alert;

use super::{DAY, Own, identity, leaf_params_at, new_key, serial, sign};
use crate::ca_cert::{CLIENT_AUTH, SERVER_AUTH};
use crate::refusal::RefusalReason as Reason;
use crate::{Ca, CaKind, DeploymentId, Identity, Role, issue};

/// The CAs of the deployment whose doors are tried.
#[derive(Clone, Copy, Debug)]
pub struct Issuers<'a> {
    /// Certifies origin and boosters.
    pub node: &'a Ca,
    /// Certifies clients.
    pub client: &'a Ca,
}

/// What must come of showing a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// Why it is refused; `None` if it is good.
    pub reason: Option<Reason>,
    /// The alert that tells the peer.
    pub alert: Option<Alert>,
    /// Whether the peer had proved by then that it holds the key.
    pub possession_proved: bool,
}

impl Judgement {
    const GOOD: Self = Self {
        reason: None,
        alert: None,
        possession_proved: true,
    };

    /// Refused for what the chain says: nobody knows who presented it.
    const fn unproved(reason: Reason, alert: Alert) -> Self {
        Self {
            reason: Some(reason),
            alert: Some(alert),
            possession_proved: false,
        }
    }

    /// Refused after the peer had proved that the certificate is its own.
    const fn proved(reason: Reason, alert: Alert) -> Self {
        Self {
            reason: Some(reason),
            alert: Some(alert),
            possession_proved: true,
        }
    }
}

/// The nine certificates that a client may show to a booster or the origin.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ClientCert {
    /// Nothing is wrong with it.
    Good,
    /// On the Client CA's list: the caller puts it there.
    Revoked,
    /// Of another deployment.
    OtherCa,
    /// Of another deployment that took our names: only its keys differ.
    SameNameOtherKey,
    /// Its life is over.
    Expired,
    /// Its life has not begun.
    NotYetValid,
    /// For servers only.
    ServerPurpose,
    /// There is none.
    Nothing,
    /// Nothing is wrong with it, but the listener's list is too old to tell: the caller lets
    /// the list grow old.
    StaleList,
}

impl ClientCert {
    /// All nine.
    pub const ALL: [Self; 9] = [
        Self::Good,
        Self::Revoked,
        Self::OtherCa,
        Self::SameNameOtherKey,
        Self::Expired,
        Self::NotYetValid,
        Self::ServerPurpose,
        Self::Nothing,
        Self::StaleList,
    ];

    /// What must come of it.
    pub fn judgement(self) -> Judgement {
        match self {
            Self::Good => Judgement::GOOD,
            Self::Revoked => Judgement::proved(Reason::Revoked, Alert::CertificateRevoked),
            Self::OtherCa => Judgement::unproved(Reason::UnknownIssuer, Alert::UnknownCA),
            Self::SameNameOtherKey => {
                Judgement::unproved(Reason::BadSignature, Alert::DecryptError)
            }
            Self::Expired => Judgement::unproved(Reason::Expired, Alert::CertificateExpired),
            Self::NotYetValid => {
                Judgement::unproved(Reason::NotYetValid, Alert::CertificateExpired)
            }
            Self::ServerPurpose => {
                Judgement::unproved(Reason::WrongEku, Alert::UnsupportedCertificate)
            }
            Self::Nothing => Judgement::unproved(Reason::NoCertificate, Alert::CertificateRequired),
            Self::StaleList => Judgement::proved(Reason::CrlStale, Alert::UnknownCA),
        }
    }

    /// The certificate, for the client `id` at `now`.
    pub fn make(self, issuers: Issuers<'_>, id: &str, now: i64) -> Option<Own> {
        let ca = issuers.client;
        let name = named(ca, Role::Client, id);
        Some(match self {
            Self::Good | Self::Revoked | Self::StaleList => Own::issued(ca, &name, now),
            Self::OtherCa => stranger("other", Role::Client, id, now),
            Self::SameNameOtherKey => stranger(name.deployment.as_str(), Role::Client, id, now),
            Self::Expired => Own::issued(ca, &name, now - 15 * DAY),
            Self::NotYetValid => Own::issued(ca, &name, now + DAY),
            Self::ServerPurpose => {
                let name = named(issuers.node, Role::Booster, id);
                sign(&leaf_params_at(&name, &[SERVER_AUTH], now), issuers.node)
            }
            Self::Nothing => return None,
        })
    }
}

/// The certificates that somebody may show who claims to be the booster that a client
/// looks for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BoosterCert {
    /// Nothing is wrong with it.
    Good,
    /// On the Node CA's list: the caller puts it there.
    Revoked,
    /// Of another deployment.
    OtherCa,
    /// Of another deployment that took our names: only its keys differ.
    SameNameOtherKey,
    /// Its life is over.
    Expired,
    /// Its life has not begun.
    NotYetValid,
    /// A client's certificate, shown by a device that plays the booster.
    AClients,
    /// A booster's names under the Client CA's key, as if that had been stolen.
    ByTheClientCa,
    /// For clients only.
    ClientPurpose,
    /// Another booster's.
    AnotherBoosters,
    /// The origin's, under the booster's id.
    AnOrigins,
    /// Nothing is wrong with it, but the client's list is too old to tell: the caller lets
    /// the list grow old.
    StaleList,
}

impl BoosterCert {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Good,
        Self::Revoked,
        Self::OtherCa,
        Self::SameNameOtherKey,
        Self::Expired,
        Self::NotYetValid,
        Self::AClients,
        Self::ByTheClientCa,
        Self::ClientPurpose,
        Self::AnotherBoosters,
        Self::AnOrigins,
        Self::StaleList,
    ];

    /// What must come of it.
    pub fn judgement(self) -> Judgement {
        match self {
            Self::Good => Judgement::GOOD,
            Self::Revoked => Judgement::proved(Reason::Revoked, Alert::CertificateRevoked),
            Self::OtherCa => Judgement::unproved(Reason::UnknownIssuer, Alert::UnknownCA),
            Self::SameNameOtherKey => {
                Judgement::unproved(Reason::BadSignature, Alert::DecryptError)
            }
            Self::Expired => Judgement::unproved(Reason::Expired, Alert::CertificateExpired),
            Self::NotYetValid => {
                Judgement::unproved(Reason::NotYetValid, Alert::CertificateExpired)
            }
            Self::AClients | Self::ByTheClientCa | Self::ClientPurpose => {
                Judgement::unproved(Reason::WrongEku, Alert::UnsupportedCertificate)
            }
            Self::AnotherBoosters => {
                Judgement::unproved(Reason::NameMismatch, Alert::BadCertificate)
            }
            Self::AnOrigins => Judgement::unproved(Reason::WrongRole, Alert::AccessDenied),
            Self::StaleList => Judgement::proved(Reason::CrlStale, Alert::UnknownCA),
        }
    }

    /// The certificate, shown in place of that of the booster `id` at `now`.
    pub fn make(self, issuers: Issuers<'_>, id: &str, now: i64) -> Own {
        let ca = issuers.node;
        let name = named(ca, Role::Booster, id);
        match self {
            Self::Good | Self::Revoked | Self::StaleList => Own::issued(ca, &name, now),
            Self::OtherCa => stranger("other", Role::Booster, id, now),
            Self::SameNameOtherKey => stranger(name.deployment.as_str(), Role::Booster, id, now),
            Self::Expired => Own::issued(ca, &name, now - 15 * DAY),
            Self::NotYetValid => Own::issued(ca, &name, now + DAY),
            Self::AClients => Own::issued(issuers.client, &named(ca, Role::Client, id), now),
            Self::ByTheClientCa => {
                let params = leaf_params_at(&name, &[SERVER_AUTH, CLIENT_AUTH], now);
                sign(&params, issuers.client)
            }
            Self::ClientPurpose => sign(&leaf_params_at(&name, &[CLIENT_AUTH], now), ca),
            Self::AnotherBoosters => {
                let other = format!("not-{id}");
                Own::issued(ca, &named(ca, Role::Booster, &other), now)
            }
            Self::AnOrigins => Own::issued(ca, &named(ca, Role::Origin, id), now),
        }
    }
}

fn named(ca: &Ca, role: Role, id: &str) -> Identity {
    Identity {
        deployment: ca.cert().deployment().clone(),
        ..identity(role, id)
    }
}

/// A party of a deployment that calls itself `deployment` and is not ours.
fn stranger(deployment: &str, role: Role, id: &str, now: i64) -> Own {
    let deployment: DeploymentId = deployment.parse().unwrap();
    let root = issue::root(&deployment, 1, new_key(), serial(), now - 60 * DAY).unwrap();
    let kind = CaKind::of(role);
    let ca = issue::issuing_ca(kind, 1, &root, new_key(), serial(), now - 60 * DAY).unwrap();
    Own::issued(&ca, &named(&ca, role, id), now)
}
