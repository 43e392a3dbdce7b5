//! Answers to anybody: what authenticates itself needs no certificate to be read.

use certs::{IssuerId, Peer, Role};
use content::Digest;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response};
use protocol::{
    CRL_TYPE, CheckIn, CheckInAnswer, Code, Fault, Hello, PROTOCOL_VERSION, STATEMENT_TYPE,
};
use service::Report;
use tracing::error;

use super::reply::{Body, Reply, document, fault, full};
use crate::authority::Authority;
use crate::documents::Documents;

/// How often a party checks in: often enough that a booster which moved is found within minutes.
const CHECK_IN_SECONDS: u32 = 300;

/// `GET /v1/hello`: who answers, and since which version it understands others.
#[must_use]
pub fn answer_hello(authority: &Authority, protocol_min: u32) -> Reply {
    let hello = Hello {
        deployment: authority.deployment().id.to_string(),
        role: Role::Origin.to_string(),
        id: authority.deployment().origin_id.to_string(),
        protocol_min,
        protocol_max: PROTOCOL_VERSION,
        time: authority.clock().now(),
    };
    json(hello.encode())
}

/// `GET /v1/deployment`: who is who, and where.
#[must_use]
pub fn answer_deployment(documents: &Documents, asked: &HeaderMap) -> Reply {
    let sealed = documents.current();
    document(
        sealed.envelope.clone(),
        STATEMENT_TYPE,
        &sealed.digest.hex(),
        asked,
    )
}

/// `GET /v1/crl/{issuer}`: the list of one issuer.
#[must_use]
pub fn answer_crl(authority: &Authority, issuer: [u8; 32], asked: &HeaderMap) -> Reply {
    match authority
        .trust()
        .crls()
        .current(IssuerId::from_bytes(issuer))
    {
        Some(crl) => {
            let tag = Digest::from_raw(*crl.digest()).hex();
            document(crl.der().into_owned(), CRL_TYPE, &tag, asked)
        }
        None => fault(&Fault::new(Code::NotFound, "no such issuer")),
    }
}

/// `POST /v1/check-in`: a party says how it is. A booster can speak only for itself.
pub async fn answer_check_in(documents: &Documents, peer: &Peer, body: &[u8]) -> Reply {
    let Some(check_in) = CheckIn::decode(body) else {
        return fault(&Fault::new(Code::BadRequest, "want a check-in"));
    };
    if let Some(at) = check_in.booster {
        if peer.role() != Role::Booster {
            return fault(&Fault::new(Code::Forbidden, "only a booster has addresses"));
        }
        if let Err(failure) = documents
            .put_booster(peer.id(), &at.content, &at.enrol)
            .await
        {
            error!(error = %Report(&failure), "cannot take a booster's addresses");
            let told = Fault::new(Code::Internal, "the origin cannot take that at the moment");
            return fault(&told);
        }
    }
    let answer = CheckInAnswer {
        next_seconds: CHECK_IN_SECONDS,
    };
    json(answer.encode())
}

fn json(body: Vec<u8>) -> Reply {
    let mut reply: Response<Body> = Response::new(full(body));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
