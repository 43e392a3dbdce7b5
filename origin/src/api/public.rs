//! Answers to anybody: what authenticates itself needs no certificate to be read.

use certs::{IssuerId, Role, pkcs7};
use content::Digest;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use protocol::{CRL_TYPE, Code, Fault, Hello, PROTOCOL_VERSION, STATEMENT_TYPE};

use super::reply::{Body, Reply, UnderWay, document, fault, full};
use crate::authority::Authority;
use crate::documents::Documents;

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
pub fn answer_crl(
    authority: &Authority,
    lists: &UnderWay,
    issuer: [u8; 32],
    asked: &HeaderMap,
) -> Reply {
    match authority
        .trust()
        .crls()
        .current(IssuerId::from_bytes(issuer))
    {
        Some(crl) => {
            let tag = Digest::from_raw(*crl.digest()).hex();
            let list = lists.share(&tag, || crl.der().into_owned());
            document(list, CRL_TYPE, &tag, asked)
        }
        None => fault(&Fault::new(Code::NotFound, "no such issuer")),
    }
}

/// `GET /.well-known/est/crls`: the lists of all issuers in one bag (RFC 8295 §5), in base64 as
/// everything in EST.
#[must_use]
pub fn answer_crls(authority: &Authority, lists: &UnderWay, asked: &HeaderMap) -> Reply {
    let all = authority.trust().crls().all();
    let digests: Vec<u8> = all.iter().flat_map(|crl| *crl.digest()).collect();
    let tag = Digest::of(&digests).hex();
    let bag = lists.share(&tag, || {
        let lists: Vec<_> = all.iter().map(|crl| crl.der()).collect();
        pkcs7::to_base64(&pkcs7::encode_crls(&lists)).into_bytes()
    });
    let mut reply = document(bag, "application/pkcs7-mime", &tag, asked);
    let encoding = HeaderName::from_static("content-transfer-encoding");
    let base64 = HeaderValue::from_static("base64");
    reply.headers_mut().insert(encoding, base64);
    reply
}

fn json(body: Vec<u8>) -> Reply {
    let mut reply: Response<Body> = Response::new(full(body));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::{ETAG, IF_NONE_MATCH};
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::testing::Bed;

    #[tokio::test]
    async fn one_bag_holds_the_lists_of_all_issuers() {
        let bed = Bed::new().await;
        let (authority, lists) = (&bed.authority, UnderWay::default());
        let asked = HeaderMap::new();
        let reply = answer_crls(authority, &lists, &asked);
        assert_eq!(reply.headers()["content-transfer-encoding"], "base64");
        let tag = reply.headers()[ETAG].clone();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let bag = pkcs7::from_base64(&body, body.len()).unwrap();
        let all = authority.trust().crls().all();
        assert_eq!(all.len(), 4);
        for crl in &all {
            let der = crl.der();
            assert!(bag.windows(der.len()).any(|part| part == &*der));
        }
        // Who has it need not get it again.
        let mut asked = HeaderMap::new();
        asked.insert(IF_NONE_MATCH, tag);
        let reply = answer_crls(authority, &lists, &asked);
        assert_eq!(reply.status(), StatusCode::NOT_MODIFIED);
        bed.pass(7200);
        authority.refresh_crls().await.unwrap();
        let reply = answer_crls(authority, &lists, &asked);
        assert_eq!(reply.status(), StatusCode::OK);
    }
}
