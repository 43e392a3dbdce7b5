//! EST on the wire: base64 in one line, certs-only PKCS#7, `202` with `Retry-After` (RFC 7030).

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use certs::{Peer, Role, csr, pkcs7};
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use protocol::{ENROL_BODY_BYTES_MAX, EnrolRole, Token};

use super::decide::{Decision, Enrolment, Request};
use super::refusal::EnrolError;
use crate::api::{Reply, full};

/// `GET /.well-known/est/cacerts`: the root and the issuing CAs.
#[must_use]
pub fn answer_ca_certs(enrolment: &Enrolment) -> Reply {
    certificates(
        &enrolment.authority().ca_certificates(),
        "application/pkcs7-mime",
    )
}

/// `POST …/simpleenroll`: a first certificate, or one for a key that is known already.
///
/// # Errors
///
/// Says why there is nothing for this key.
pub async fn answer_enrol(
    enrolment: &Enrolment,
    role: EnrolRole,
    headers: &HeaderMap,
    address: IpAddr,
    body: &[u8],
) -> Result<Reply, EnrolError> {
    enrolment.check_version(headers)?;
    let csr = csr::parse(&pkcs7::from_base64(body, ENROL_BODY_BYTES_MAX)?)?;
    let token = token(headers)?;
    let decision = enrolment
        .enrol(Request {
            role: party(role),
            csr,
            token,
            address,
            claims: claims(headers),
        })
        .await?;
    Ok(answer(enrolment, decision))
}

/// `POST …/simplereenroll`: a new certificate for an old one.
///
/// # Errors
///
/// Says why there is nothing for this key.
pub async fn answer_reenrol(
    enrolment: &Enrolment,
    role: EnrolRole,
    headers: &HeaderMap,
    peer: Option<&Peer>,
    body: &[u8],
) -> Result<Reply, EnrolError> {
    enrolment.check_version(headers)?;
    let peer = peer.ok_or(EnrolError::NotAuthenticated)?;
    let csr = csr::parse(&pkcs7::from_base64(body, ENROL_BODY_BYTES_MAX)?)?;
    let decision = enrolment.renew(party(role), &csr, peer).await?;
    Ok(answer(enrolment, decision))
}

fn answer(enrolment: &Enrolment, decision: Decision) -> Reply {
    match decision {
        Decision::Issued(certificate) => {
            // RFC 7030 §4.2.3: the issued certificate alone; the chain is in cacerts.
            certificates(
                &[certificate.der],
                "application/pkcs7-mime; smime-type=certs-only",
            )
        }
        Decision::Pending => {
            let mut reply =
                Response::new(full(Bytes::from_static(b"an operator has to approve\n")));
            *reply.status_mut() = StatusCode::ACCEPTED;
            let wait = retry_after(enrolment.rules().retry_after);
            reply.headers_mut().insert(RETRY_AFTER, wait);
            reply
        }
    }
}

fn certificates(certs: &[Vec<u8>], kind: &'static str) -> Reply {
    // One line: some clients cannot read wrapped base64 (RFC 7030 errata 5904).
    let mut reply = Response::new(full(pkcs7::to_base64(&pkcs7::encode(certs))));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let encoding = HeaderName::from_static("content-transfer-encoding");
    headers.insert(encoding, HeaderValue::from_static("base64"));
    reply
}

/// The token in `Authorization: Basic base64("larder:" + token)` (RFC 7617).
pub(super) fn token(headers: &HeaderMap) -> Result<Option<Token>, EnrolError> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let parse = || {
        let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
        let decoded = BASE64.decode(rest.trim()).ok()?;
        let (_, token) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        if scheme.eq_ignore_ascii_case("basic") {
            Token::parse(token)
        } else {
            None
        }
    };
    parse().ok_or(EnrolError::Token).map(Some)
}

/// A time to wait in whole seconds, up to a quarter longer than `wait`: who was turned away
/// together should not come back together.
pub(crate) fn retry_after(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds + fastrand::u64(0..=seconds / 4))
}

/// What a device says of itself in `User-Agent` (RFC 9110 §10.1.5). Nobody has checked it: a
/// vetting operator sees it as such.
fn claims(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(CLAIMS_CHARS_MAX).collect())
}

fn party(role: EnrolRole) -> Role {
    match role {
        EnrolRole::Booster => Role::Booster,
        EnrolRole::Client => Role::Client,
    }
}

/// Longer claims help nobody who reads a list of them.
const CLAIMS_CHARS_MAX: usize = 256;
