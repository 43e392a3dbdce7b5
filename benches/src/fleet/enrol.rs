//! Enrolment of many: what EST asks for, each with a key of its own; what differs from a device's
//! own program is that one connection carries many requests, and that the root is known already.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use certs::{Key, csr, pkcs7};
use http::Method;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;

use super::device::{Device, Line};
use super::ground::Ground;

/// How devices speak TLS.
#[derive(Clone)]
pub(super) struct Tls {
    issuing: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Tls {
    pub(super) fn new(ground: &Ground) -> anyhow::Result<Self> {
        let (issuing, roots) = &ground.chain;
        let mut anchors = RootCertStore::empty();
        for root in roots {
            anchors.add(CertificateDer::from(root.clone()))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let anchors = Arc::new(anchors);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(&provider)).build()?;
        Ok(Self {
            issuing: CertificateDer::from(issuing.clone()),
            provider,
            verifier,
        })
    }

    /// For somebody with this certificate, or with none.
    pub(super) fn config(&self, own: Option<(Vec<u8>, &Key)>) -> anyhow::Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(Arc::clone(&self.verifier));
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((leaf, key)) => {
                let chain = vec![CertificateDer::from(leaf), self.issuing.clone()];
                let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes())?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Enrols `devices` of them with one token; their names begin with `prefix`.
pub(super) async fn many(
    ground: &Ground,
    prefix: &str,
    devices: u32,
) -> anyhow::Result<Vec<Device>> {
    let join = ground.join("client", "fleet", devices).await?;
    let token = join.token.context("a token was asked for")?.reveal();
    let authorization = format!("Basic {}", BASE64.encode(format!("larder:{token}")));
    let place = ground.enrolment()?;
    let tls = Tls::new(ground)?;
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (place, tls, authorization) = (place.clone(), tls.clone(), authorization.clone());
        let prefix = prefix.to_owned();
        let numbers = (0..devices).filter(move |number| number % WORKERS == worker);
        workers.spawn(async move {
            let stranger = tls.config(None)?;
            let mut line = Line::open(&place, stranger, Ipv4Addr::LOCALHOST).await?;
            let mut enrolled = Vec::new();
            for number in numbers {
                let id = format!("{prefix}{number:05}");
                let tls = one(&mut line, &tls, &authorization, &id).await?;
                enrolled.push(Device {
                    id,
                    tls,
                    from: address(number),
                    held: None,
                });
            }
            anyhow::Ok(enrolled)
        });
    }
    let mut all = Vec::new();
    while let Some(enrolled) = workers.join_next().await {
        all.extend(enrolled??);
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}

/// Enrols `id`; gives how it speaks TLS.
async fn one(
    line: &mut Line,
    tls: &Tls,
    authorization: &str,
    id: &str,
) -> anyhow::Result<Arc<ClientConfig>> {
    let key = Key::generate()?;
    let body = BASE64.encode(csr::make(&key, id)?);
    let headers = [
        ("content-type", "application/pkcs10"),
        ("authorization", authorization),
    ];
    let path = "/.well-known/est/client/simpleenroll";
    let asked = line.ask(Method::POST, path, &headers, Bytes::from(body));
    let (status, body) = asked.await.with_context(|| format!("cannot enrol {id}"))?;
    ensure!(status.is_success(), "cannot enrol {id}: {status}");
    let bag = pkcs7::from_base64(&body, BAG_BYTES_MAX)?;
    let leaf = pkcs7::decode(&bag)?.into_iter().next();
    let leaf = leaf.context("there is no certificate in the answer")?;
    tls.config(Some((leaf, &key)))
}

/// A listener takes 2048 connections from one address at most.
fn address(number: u32) -> Ipv4Addr {
    let [_, _, _, last] = (number / PER_ADDRESS + 2).to_be_bytes();
    Ipv4Addr::new(127, 0, 0, last)
}

/// As many ask at a time: the ledger has one writer.
const WORKERS: u32 = 8;
/// Devices with one address.
const PER_ADDRESS: u32 = 1000;
const BAG_BYTES_MAX: usize = 64 << 10;
