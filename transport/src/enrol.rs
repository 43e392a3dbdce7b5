//! Enrolment: EST (RFC 7030) as the one who asks.
//!
//! First contact trusts nobody: it fetches the CA certificates, looks for the pinned root
//! among them, and hangs up. Token and request go over a second connection, on which the
//! server has proved to be the origin of that root's deployment.

use std::env::consts;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::ca_cert::{CaCertError, find_pinned_root};
use certs::pkcs7;
use certs::tls::{CellError, CertCell, Expected};
use certs::{CaCert, Key, Peer, RefusalReason, Role, Trust};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};
use protocol::{EnrolRole, Route, Token};
use service::Clock;
use thiserror::Error;
use tokio::time::Instant;

use crate::call::{CallError, Meter, RETRY_AFTER_DEFAULT, retry_after};
use crate::connect::{Connector, Stranger};
use crate::source::{CallLimits, Source, finish};

/// What first contact found.
#[derive(Clone, Debug)]
pub struct FirstContact {
    /// The pinned root.
    pub root: CaCert,
    /// Every certificate that was offered, in DER: the root's issuing CAs are among them.
    /// Only the root has been checked.
    pub certs: Vec<Vec<u8>>,
}

/// What came of asking for a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Enrolled {
    /// Here it is, in DER. Check it with [`accept`] before using it.
    Issued(Vec<Vec<u8>>),
    /// An operator has to look at it first.
    Pending {
        /// Ask again after this long, with the same request.
        retry_after: Duration,
    },
}

/// Fetches the CA certificates from whoever answers at `addresses`, and finds the root with one
/// of the pinned keys. Nothing secret is sent.
///
/// # Errors
///
/// Fails if nobody answers, or no pinned root is offered.
pub async fn first_contact(
    addresses: Vec<String>,
    pins: &[[u8; 32]],
    clock: &Clock,
    limits: &CallLimits,
) -> Result<FirstContact, EnrolError> {
    let call = |source| EnrolError::Call { source };
    let time = certs::tls::time_from({
        let clock = clock.clone();
        move || clock.now()
    });
    let tls =
        certs::tls::untrusting_client_config(&time).map_err(|source| EnrolError::Tls { source })?;
    let meter = Arc::new(Meter::default());
    let nobody_yet = Expected::AnyOf(Role::Origin);
    let connector = Connector::new(
        addresses,
        &nobody_yet,
        tls,
        None,
        false,
        limits.connect_timeout,
        meter,
    );
    let path = Route::CaCerts.to_string();
    let deadline = Instant::now() + limits.call_timeout;
    let make = || finish(connector.request(&path), Bytes::new());
    let (head, connection) = connector.exchange(make, deadline).await.map_err(call)?;
    let (status, wait) = (head.status(), retry_after(head.headers()));
    let body = crate::read_body(head.into_body(), BAG_BYTES_MAX, limits.idle_timeout);
    let body = tokio::time::timeout_at(deadline, body)
        .await
        .map_err(|_| {
            call(CallError::Timeout {
                step: "read the CA certificates",
            })
        })?
        .map_err(|error| call(CallError::of_broken(error.into(), connection.alert())))?;
    let stranger = connection.stranger().cloned().map(Box::new);
    drop(connection);
    if status != StatusCode::OK {
        return Err(call(CallError::of_status(status, &body, wait)));
    }
    let certs = bag(&body).map_err(call)?;
    let root = find_pinned_root(&certs, pins, clock.now());
    let root = root.map_err(|source| EnrolError::Pin { source, stranger })?;
    Ok(FirstContact { root, certs })
}

impl Source {
    /// Fetches the CA certificates, in DER.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn cacerts(&self) -> Result<Vec<Vec<u8>>, CallError> {
        bag(&self.get(&Route::CaCerts, BAG_BYTES_MAX).await?)
    }

    /// Asks for a first certificate. The same request again is answered by the same
    /// certificate.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`]. The faults `denied` and `conflict` are
    /// final.
    pub async fn simple_enroll(
        &self,
        role: EnrolRole,
        csr_der: &[u8],
        token: Option<&Token>,
    ) -> Result<Enrolled, CallError> {
        self.enroll(&Route::Enrol(role), csr_der, token).await
    }

    /// Asks for a new certificate, showing the old one.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn simple_reenroll(
        &self,
        role: EnrolRole,
        csr_der: &[u8],
    ) -> Result<Enrolled, CallError> {
        self.enroll(&Route::Reenrol(role), csr_der, None).await
    }

    async fn enroll(
        &self,
        route: &Route,
        csr_der: &[u8],
        token: Option<&Token>,
    ) -> Result<Enrolled, CallError> {
        let (path, body) = (route.to_string(), Bytes::from(pkcs7::to_base64(csr_der)));
        let make = || {
            let mut request = self
                .connector
                .request(&path)
                .method(Method::POST)
                .header(CONTENT_TYPE, "application/pkcs10")
                .header(USER_AGENT, ourselves())
                .header(TRANSFER_ENCODING, "base64");
            if let Some(token) = token {
                request = request.header(AUTHORIZATION, basic(token));
            }
            finish(request, body.clone())
        };
        let deadline = Instant::now() + self.limits.call_timeout;
        let reply = self.send(make, deadline).await?;
        match reply.head.status() {
            StatusCode::OK => {
                bag(&reply.read(BAG_BYTES_MAX, deadline).await?).map(Enrolled::Issued)
            }
            StatusCode::ACCEPTED => {
                let retry_after = retry_after(reply.head.headers());
                let retry_after = retry_after.unwrap_or(RETRY_AFTER_DEFAULT);
                reply.read(BAG_BYTES_MAX, deadline).await?;
                Ok(Enrolled::Pending { retry_after })
            }
            status => Err(CallError::bad(format!("status {status}"))),
        }
    }

    /// Learns who answers, without believing anything else: the origin's id, on first contact.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn identify(&self) -> Result<Peer, CallError> {
        let path = Route::Hello.to_string();
        let deadline = Instant::now() + self.limits.call_timeout;
        let make = || finish(self.connector.request(&path), Bytes::new());
        let reply = self.send(make, deadline).await?;
        let peer = reply.peer().cloned();
        reply.read(protocol::HELLO_BYTES_MAX, deadline).await?;
        peer.ok_or_else(|| CallError::bad("the server has not been identified"))
    }
}

/// A certificate that is fit for use.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The leaf, then its issuing CA, in DER.
    pub chain_der: Vec<Vec<u8>>,
    /// Who we are now.
    pub peer: Peer,
}

/// Checks a certificate that has been issued to us before it is used: that it chains to a root
/// which we trust, is in date at `now`, has the role asked for, and is for our own key.
///
/// # Errors
///
/// Says which of these does not hold.
pub fn accept(
    trust: &Trust,
    issued: &[Vec<u8>],
    key: &Key,
    role: Role,
    now: i64,
) -> Result<Accepted, EnrolError> {
    // A bag may hold the chain, too, and its order says nothing: ours is the one for our key.
    let is_ours = |cert: &&Vec<u8>| CertCell::new(&[cert.to_vec()], key).is_ok();
    let leaf = issued.iter().find(is_ours).or_else(|| issued.first());
    let leaf = leaf.ok_or(EnrolError::Issued {
        reason: RefusalReason::NoCertificate,
    })?;
    let intermediates: Vec<rustls_pki_types::CertificateDer<'_>> = issued
        .iter()
        .filter(|cert| *cert != leaf)
        .map(|cert| cert.as_slice().into())
        .collect();
    let peer = trust
        .verify_client(leaf, &intermediates, now)
        .map_err(|reason| EnrolError::Issued { reason })?;
    if peer.role() != role {
        return Err(EnrolError::Issued {
            reason: RefusalReason::WrongRole,
        });
    }
    let issuer = trust.issuer(peer.issuer()).ok_or(EnrolError::Issued {
        reason: RefusalReason::UnknownIssuer,
    })?;
    let chain_der = vec![leaf.clone(), issuer.der().to_vec()];
    CertCell::new(&chain_der, key).map_err(|source| EnrolError::Key { source })?;
    Ok(Accepted { chain_der, peer })
}

/// Why enrolment failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// A call came to nothing.
    #[error("cannot fetch the CA certificates")]
    Call {
        /// Why.
        source: CallError,
    },
    /// The certificate issued is not one that we can use.
    #[error("cannot use the certificate that was issued: {reason}")]
    Issued {
        /// Why not.
        reason: RefusalReason,
    },
    /// The certificate issued is not for our key.
    #[error("cannot use the certificate that was issued: it is for another key")]
    Key {
        /// What the library said.
        source: CellError,
    },
    /// The server does not belong to the deployment that we were told to join.
    #[error("cannot trust the server: it does not offer the root that the join string names")]
    Pin {
        /// What is wrong with what it offers.
        source: CaCertError,
        /// Who it is.
        stranger: Option<Box<Stranger>>,
    },
    /// TLS could not be set up at all.
    #[error("cannot set up TLS")]
    Tls {
        /// Why not.
        source: certs::tls::TlsError,
    },
}

fn bag(body: &[u8]) -> Result<Vec<Vec<u8>>, CallError> {
    pkcs7::from_base64(body, BAG_BYTES_MAX)
        .and_then(|der| pkcs7::decode(&der))
        .map_err(|error| CallError::bad(error.to_string()))
}

/// The token as HTTP Basic credentials (RFC 7617), which EST clients can send. Marked so that
/// nobody prints it.
fn basic(token: &Token) -> HeaderValue {
    let credentials = pkcs7::to_base64(format!("larder:{}", token.reveal()).as_bytes());
    let mut value = HeaderValue::from_str(&format!("Basic {credentials}"))
        .expect("base64 is valid in a header");
    value.set_sensitive(true);
    value
}

/// What we say of ourselves: an operator who vets us sees it, unverified.
fn ourselves() -> String {
    let (release, os, machine) = (env!("CARGO_PKG_VERSION"), consts::OS, consts::ARCH);
    format!("larder/{release} ({os}; {machine})")
}

/// The base64 of the longest bag, with line breaks.
const BAG_BYTES_MAX: usize = pkcs7::PKCS7_BYTES_MAX / 2 * 3;
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");
