//! TLS settings: who may connect, and how it is proved.
//!
//! No listener and no connector here resumes sessions or takes early data, because a resumed
//! session asks no verifier, and a revoked client resumes happily. Versions and roles follow
//! from what a listener is for; time comes from the caller.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{ServerName, UnixTime};
use thiserror::Error;

use crate::crl::IssuerId;
use crate::name::{Identity, Role};
use crate::trust::{Revocation, Trust};

mod capture;
mod cell;
mod client;
mod server;

pub use capture::{Capture, Captured, Evidence};
pub use cell::{CellError, CertCell};

/// What a listener is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listener {
    /// Content and reports: TLS 1.3 alone, and a certificate of one of these roles.
    Data {
        /// Who may connect. Clients and boosters at the origin, clients at a booster.
        roles: Vec<Role>,
    },
    /// Enrolment: TLS 1.2 too, for the sake of foreign EST clients, and a certificate of one
    /// of these roles or none at all.
    Enrol {
        /// Who may renew.
        roles: Vec<Role>,
    },
}

/// Whom a connector expects to find.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Expected {
    /// This party and no other. Its name is sent as SNI.
    Exactly(Identity),
    /// Any party of this role in our deployment, because its id is not known yet: the origin
    /// on first contact.
    AnyOf(Role),
}

impl Expected {
    /// The name to connect with.
    pub fn server_name(&self) -> ServerName<'static> {
        let name = match self {
            Self::Exactly(identity) => identity.dns(),
            Self::AnyOf(_) => None,
        };
        ServerName::try_from(name.unwrap_or_else(|| ANY_SERVER_NAME.to_owned()))
            .expect("an identity's DNS name is a DNS name")
    }
}

/// The settings of a listener.
///
/// # Errors
///
/// A data listener fails without a known CA for each role and a revocation list, however
/// old, of each CA concerned and of the root: no list would mean no check.
pub fn server_config(
    listener: &Listener,
    trust: &Arc<Trust>,
    own: &Arc<CertCell>,
    time: &Arc<dyn TimeProvider>,
) -> Result<ServerConfig, TlsError> {
    let (roles, mandatory, versions) = match listener {
        Listener::Data { roles } => {
            ready(trust, roles)?;
            (roles, true, DATA_VERSIONS)
        }
        Listener::Enrol { roles } => (roles, false, ENROL_VERSIONS),
    };
    let verifier = server::Verifier::new(trust, roles.clone(), mandatory, time);
    let mut config = ServerConfig::builder_with_details(provider(), Arc::clone(time))
        .with_protocol_versions(versions)
        .map_err(|source| TlsError::Library { source })?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::clone(own) as Arc<dyn rustls::server::ResolvesServerCert>);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config.alpn_protocols = alpn();
    Ok(config)
}

/// The settings of a connector that finds `expected` at the other end or fails. `own`, if
/// given, is shown when the server asks.
///
/// # Errors
///
/// Fails if `expected` can be nobody who listens.
pub fn client_config(
    expected: &Expected,
    revocation: Revocation,
    trust: &Arc<Trust>,
    own: Option<&Arc<CertCell>>,
    time: &Arc<dyn TimeProvider>,
) -> Result<ClientConfig, TlsError> {
    let role = match expected {
        Expected::Exactly(identity) => identity.role,
        Expected::AnyOf(role) => *role,
    };
    if !crate::chain::listens(role) {
        return Err(TlsError::NobodyListens { role });
    }
    let verifier = client::Verifier::new(trust, expected.clone(), revocation, time);
    connector(Arc::new(verifier), DATA_VERSIONS, own, time)
}

/// The settings of a very first contact, which trusts *nobody*: it is good for fetching the
/// CA certificates and comparing them with a pin. Send nothing secret over it, and believe
/// nothing else that comes back.
///
/// # Errors
///
/// Fails only if the library's own settings disagree with each other.
pub fn untrusting_client_config(time: &Arc<dyn TimeProvider>) -> Result<ClientConfig, TlsError> {
    connector(
        Arc::new(client::TrustsAnybody::new()),
        DATA_VERSIONS,
        None,
        time,
    )
}

/// A clock for TLS out of a function that tells Unix seconds.
pub fn time_from(now: impl Fn() -> i64 + Send + Sync + 'static) -> Arc<dyn TimeProvider> {
    Arc::new(Time(now))
}

/// Why there are no settings.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The library would not have them.
    #[error("cannot set up TLS")]
    Library {
        /// What it said.
        source: rustls::Error,
    },
    /// The CA that certifies those who may connect is not known yet.
    #[error("cannot listen before an issuing CA is known for each role that may connect")]
    NoCa,
    /// Without a list there is no revocation.
    #[error("cannot listen without a revocation list of {issuer}")]
    NoCrl {
        /// Whose list.
        issuer: IssuerId,
    },
    /// Nobody with this role listens anywhere.
    #[error("cannot connect to a {role}: only origin and boosters listen")]
    NobodyListens {
        /// The role.
        role: Role,
    },
}

fn ready(trust: &Trust, roles: &[Role]) -> Result<(), TlsError> {
    if !trust.knows_cas_for(roles) {
        return Err(TlsError::NoCa);
    }
    match trust.missing_crls(roles).first() {
        Some(&issuer) => Err(TlsError::NoCrl { issuer }),
        None => Ok(()),
    }
}

fn connector(
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
    versions: &[&'static SupportedProtocolVersion],
    own: Option<&Arc<CertCell>>,
    time: &Arc<dyn TimeProvider>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::clone(time))
        .with_protocol_versions(versions)
        .map_err(|source| TlsError::Library { source })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(
            Arc::clone(own) as Arc<dyn rustls::client::ResolvesClientCert>
        ),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = alpn();
    Ok(config)
}

/// aws-lc-rs, built to prefer X25519MLKEM768 and to accept X25519, P-256 and P-384.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

struct Time<F>(F);

impl<F: Fn() -> i64 + Send + Sync> TimeProvider for Time<F> {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from((self.0)()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            seconds,
        )))
    }
}

impl<F> fmt::Debug for Time<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

/// Unix seconds by `time`; a clock that cannot tell counts as 1970, at which nothing is valid.
fn seconds(time: &dyn TimeProvider) -> i64 {
    time.current_time().map_or(0, unix)
}

fn unix(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// What is sent as SNI when the id is not known yet. Nobody has this name.
const ANY_SERVER_NAME: &str = "enrol.larder.internal";
const DATA_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const ENROL_VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

#[cfg(test)]
mod tests;
