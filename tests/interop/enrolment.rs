//! EST with nothing but curl and OpenSSL: all that a foreign party is told is a join string.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use certs::Role;
use origin::fleet::DeviceView;
use protocol::{Join, Token};
use service::Clock;
use sha2::{Digest as _, Sha256};
use tests::testbed::Testbed;

use crate::answer::Answer;
use crate::curl::Curl;
use crate::openssl::{certs_in, openssl, public_key};

/// Somebody who has heard of Larder's protocol and has none of its programs.
pub(crate) struct Foreigner {
    clock: Clock,
    pub(crate) folder: PathBuf,
    pub(crate) join: Join,
    pub(crate) origin: SocketAddr,
}

/// A request for a certificate.
pub(crate) struct Request {
    /// The key that it is for.
    pub(crate) key: PathBuf,
    /// As PEM.
    pem: PathBuf,
    /// Base64 of its DER, wrapped as OpenSSL wraps it.
    body: PathBuf,
}

impl Foreigner {
    pub(crate) async fn told(bed: &Testbed, join: Join) -> anyhow::Result<Self> {
        let folder = bed.path("foreigner");
        fs::create_dir_all(&folder)?;
        let foreigner = Self {
            clock: bed.clock(),
            folder,
            origin: join.addresses[0].parse()?,
            join,
        };
        foreigner.meet().await?;
        Ok(foreigner)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// First contact: believes nobody, and keeps the root that has the pinned key.
    async fn meet(&self) -> anyhow::Result<()> {
        let nobody = Curl::plain(&format!("https://{}", self.origin)).and(["--insecure"]);
        let answer = nobody.get("/.well-known/est/cacerts").await?;
        answer.must_be(200)?;
        answer.must_have("content-type", "application/pkcs7-mime")?;
        let bag = self.unpack(&answer, "bag.pem").await?;
        let (mut roots, mut others) = (Vec::new(), Vec::new());
        for cert in certs_in(&bag)? {
            let alone = crate::openssl::write_certs(self.at("one.pem"), &[&cert])?;
            let pinned = self.pin_of(&alone).await? == self.join.pin;
            if pinned { &mut roots } else { &mut others }.push(cert);
        }
        ensure!(roots.len() == 1, "want one root, got {}", roots.len());
        ensure!(
            others.len() == 3,
            "want three issuing CAs, got {}",
            others.len()
        );
        crate::openssl::write_certs(self.at("cas.pem"), &others)?;
        crate::openssl::write_certs(self.at("roots.pem"), &roots)?;
        Ok(())
    }

    /// SHA-256 of a certificate's SubjectPublicKeyInfo.
    async fn pin_of(&self, cert: &Path) -> anyhow::Result<[u8; 32]> {
        let key = public_key("x509", cert).await?;
        let spki = openssl("pkey -pubin -outform DER").input(key);
        Ok(Sha256::digest(spki.succeed().await?).into())
    }

    /// The certificates in an answer, as a PEM file.
    async fn unpack(&self, answer: &Answer, name: &str) -> anyhow::Result<PathBuf> {
        answer.must_have("content-transfer-encoding", "base64")?;
        // -A: in one line.
        let der = openssl("base64 -d -A").input(answer.body.clone());
        let pkcs7 = openssl("pkcs7 -inform DER -print_certs").input(der.succeed().await?);
        let path = self.at(name);
        fs::write(&path, pkcs7.succeed().await?)?;
        Ok(path)
    }

    /// A request of a new key of that kind which claims `id`.
    pub(crate) async fn request(&self, id: &str, key: &str) -> anyhow::Result<Request> {
        let file = |kind: &str| {
            tempfile::Builder::new()
                .suffix(kind)
                .tempfile_in(&self.folder)
        };
        let request = Request {
            key: file(".key")?.keep()?.1,
            pem: file(".csr")?.keep()?.1,
            body: file(".b64")?.keep()?.1,
        };
        openssl("req -new -noenc -newkey")
            .args(key.split(' '))
            .args(["-subj", &format!("/CN={id}"), "-keyout"])
            .arg(&request.key)
            .arg("-out")
            .arg(&request.pem)
            .succeed()
            .await?;
        let der = openssl("req -outform DER -in").arg(&request.pem);
        let body = openssl("base64 -e").input(der.succeed().await?);
        fs::write(&request.body, body.succeed().await?)?;
        Ok(request)
    }

    /// Sends a request for a first certificate.
    pub(crate) async fn enrol(
        &self,
        request: &Request,
        token: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let mut curl = self.curl();
        if let Some(token) = token {
            curl = curl.and(["--user", &format!("larder:{token}")]);
        }
        Self::send(&curl, "simpleenroll", request).await
    }

    /// curl, as it calls the origin.
    pub(crate) fn curl(&self) -> Curl {
        Curl::to("origin", self.origin, &self.at("roots.pem"))
    }

    /// Sends a request for a client's certificate to where `operation` is done.
    pub(crate) async fn send(
        curl: &Curl,
        operation: &str,
        request: &Request,
    ) -> anyhow::Result<Answer> {
        curl.and(["--header", "Content-Type: application/pkcs10"])
            .and(["--header", "Content-Transfer-Encoding: base64"])
            .and(["--data-binary", &format!("@{}", request.body.display())])
            .get(&format!("/.well-known/est/client/{operation}"))
            .await
    }

    /// The certificate in an answer, if it is a good one for the key that asked.
    pub(crate) async fn issued(
        &self,
        answer: &Answer,
        request: &Request,
    ) -> anyhow::Result<Vec<u8>> {
        answer.must_be(200)?;
        let kind = "application/pkcs7-mime; smime-type=certs-only";
        answer.must_have("content-type", kind)?;
        let leaf = self.unpack(answer, "leaf.pem").await?;
        let mut certs = certs_in(&leaf)?;
        ensure!(
            certs.len() == 1,
            "want one certificate, got {}",
            certs.len()
        );
        ensure!(
            public_key("x509", &leaf).await? == public_key("req", &request.pem).await?,
            "the certificate is for another key"
        );
        self.must_verify(&leaf).await?;
        certs.pop().context("there is one")
    }

    /// Fails unless the root answers for a client's certificate.
    pub(crate) async fn must_verify(&self, leaf: &Path) -> anyhow::Result<()> {
        let verified = openssl("verify -x509_strict -purpose sslclient -attime")
            .arg(self.clock.now().to_string())
            .arg("-CAfile")
            .arg(self.at("roots.pem"))
            .arg("-untrusted")
            .arg(self.at("cas.pem"))
            .arg(leaf)
            .run()
            .await?;
        verified.must_say(": OK")
    }

    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let token = self.join.token.as_ref();
        Ok(token.context("it was told a token")?.reveal())
    }
}

pub(crate) const P256: &str = "ec -pkeyopt ec_paramgen_curve:prime256v1";

#[tokio::test(flavor = "multi_thread")]
async fn curl_enrols_with_a_token_whatever_the_key() -> anyhow::Result<()> {
    let keys = [
        ("p256", P256),
        ("p384", "ec -pkeyopt ec_paramgen_curve:secp384r1"),
        ("rsa", "rsa:2048"),
        ("ed25519", "ed25519"),
    ];
    let bed = Testbed::start().await?;
    for (id, key) in keys {
        let join = bed.token(Role::Client, true).await?;
        let foreigner = Foreigner::told(&bed, join).await?;
        let token = foreigner.token()?;
        let request = foreigner.request(id, key).await?;
        let answer = foreigner.enrol(&request, Some(&token)).await?;
        let cert = foreigner.issued(&answer, &request).await?;
        // The token has one use; the key is known.
        let again = foreigner.enrol(&request, Some(&token)).await?;
        let same = foreigner.issued(&again, &request).await?;
        ensure!(cert == same, "{id}: the same key got another certificate");
        let bare = foreigner.enrol(&request, None).await?;
        let same = foreigner.issued(&bare, &request).await?;
        ensure!(cert == same, "{id}: the same key got another certificate");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_waits_until_an_operator_approves() -> anyhow::Result<()> {
    let bed = Testbed::start().await?;
    let join = bed.token(Role::Client, false).await?;
    let foreigner = Foreigner::told(&bed, join).await?;
    let token = foreigner.token()?;
    let request = foreigner.request("vetted", P256).await?;
    for _ in 0..2 {
        let answer = foreigner.enrol(&request, Some(&token)).await?;
        answer.must_be(202)?;
        let wait: u64 = answer.header("retry-after").parse()?;
        ensure!((1..=86_400).contains(&wait), "wait {wait} s");
    }
    let approve = "/devices/vetted/approve";
    let device: DeviceView = bed.admin().post(approve, &()).await?;
    ensure!(device.id == "vetted", "{device:?}");
    let answer = foreigner.enrol(&request, Some(&token)).await?;
    foreigner.issued(&answer, &request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_no_certificate_with_a_wrong_request() -> anyhow::Result<()> {
    let bed = Testbed::start().await?;
    let join = bed.token(Role::Client, true).await?;
    let foreigner = Foreigner::told(&bed, join).await?;
    let token = foreigner.token()?;
    let wrong = Token::new([7; Token::BYTES]).reveal();
    let good = foreigner.request("good", P256).await?;
    let weak = foreigner.request("weak", "rsa:1024").await?;
    let long = foreigner.request("long", P256).await?;
    fs::write(&long.body, "A".repeat(1 << 20))?;
    let table = [
        ("a wrong token", &good, wrong.as_str(), 401),
        ("no token at all", &good, "", 401),
        ("a weak key", &weak, token.as_str(), 400),
    ];
    for (what, request, token, wanted) in table {
        let answer = foreigner.enrol(request, Some(token)).await?;
        answer.must_be(wanted).context(what)?;
        answer.must_have("content-type", "application/problem+json")?;
        if wanted == 401 {
            answer.must_have("www-authenticate", "Basic realm=\"larder\"")?;
        }
    }
    for version in ["--http1.1", "--http2"] {
        let curl = foreigner.curl().and([version]);
        let answer = Foreigner::send(&curl, "simpleenroll", &long).await?;
        answer.must_be(413).context("a megabyte")?;
    }
    // What failed has used up nothing.
    let answer = foreigner.enrol(&good, Some(&token)).await?;
    foreigner.issued(&answer, &good).await?;
    let other = foreigner.request("other", P256).await?;
    let answer = foreigner.enrol(&other, Some(&token)).await?;
    answer.must_be(401).context("a token that is used up")
}
