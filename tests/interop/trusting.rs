//! OpenSSL reads and believes our certificates, revocation lists and listeners.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::curl::{Curl, host, roots_of};
use crate::openssl::{certs_in, openssl, write_certs};
use crate::program::{Ended, Program};
use crate::shop::Shop;

/// Everything that somebody needs who has only OpenSSL.
struct Papers {
    folder: PathBuf,
    roots: PathBuf,
    cas: PathBuf,
}

impl Papers {
    fn of(shop: &Shop) -> anyhow::Result<Self> {
        let folder = shop.bed.path("papers");
        fs::create_dir_all(&folder)?;
        let authority = shop.bed.origin().authority();
        let cas = authority.trust().issuing_cas();
        let cas: Vec<Vec<u8>> = cas.iter().map(|ca| ca.der().to_vec()).collect();
        Ok(Self {
            roots: roots_of(&shop.client),
            cas: write_certs(folder.join("cas.pem"), &cas)?,
            folder,
        })
    }

    /// The chain that a listener shows: the leaf's file, after OpenSSL has verified it.
    async fn shown_by(&self, id: &str, address: SocketAddr) -> anyhow::Result<PathBuf> {
        let ended = s_client(address, &self.roots)
            .args(["-servername", &host(id), "-verify_hostname", &host(id)])
            .args(["-verify_return_error", "-showcerts"])
            .run()
            .await?;
        ended.must_say("Verify return code: 0 (ok)")?;
        let chain = self.folder.join(format!("{id}-shown.pem"));
        fs::write(&chain, &ended.stdout)?;
        let chain = certs_in(&chain)?;
        let leaf = chain.first().context("no certificate was shown")?;
        write_certs(self.folder.join(format!("{id}.pem")), &[leaf])
    }

    async fn verify(&self, leaf: &Path, purpose: &str, args: &[&str]) -> anyhow::Result<Ended> {
        openssl("verify -x509_strict -check_ss_sig -policy_check")
            .args(["-purpose", purpose, "-CAfile"])
            .arg(&self.roots)
            .arg("-untrusted")
            .arg(&self.cas)
            .args(args)
            .arg(leaf)
            .run()
            .await
    }

    /// All revocation lists, fetched from the enrolment listener, in one PEM file.
    async fn crls(&self, shop: &Shop) -> anyhow::Result<PathBuf> {
        let enrol = shop.bed.origin().addresses().enrol;
        let curl = Curl::to("origin", enrol, &self.roots);
        let trust = shop.bed.origin().authority().trust();
        let mut all = Vec::new();
        for ca in trust.roots().iter().chain(&trust.issuing_cas()) {
            let issuer = ca.id();
            let answer = curl.get(&format!("/v1/crl/{issuer}")).await?;
            answer.must_be(200)?;
            answer.must_have("content-type", "application/pkix-crl")?;
            let own = write_certs(self.folder.join("issuer.pem"), &[ca.der()])?;
            let read = openssl("crl -inform DER -text -CAfile")
                .arg(own)
                .input(answer.body)
                .run()
                .await?;
            read.must_say("verify OK")?;
            read.must_say("Version 2 (0x1)")?;
            read.must_say("X509v3 CRL Number")?;
            read.must_say("X509v3 Authority Key Identifier")?;
            read.must_say("ecdsa-with-SHA256")?;
            all.extend(read.stdout);
        }
        let path = self.folder.join("crls.pem");
        fs::write(&path, all)?;
        Ok(path)
    }
}

/// A TLS client that hangs up as soon as it has shaken hands.
fn s_client(address: SocketAddr, roots: &Path) -> Program {
    openssl("s_client -connect")
        .arg(address.to_string())
        .arg("-CAfile")
        .arg(roots)
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_accepts_every_partys_certificate_for_its_purpose_alone() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let booster = shop.bed.enrol_booster("b1").await?;
    let papers = Papers::of(&shop)?;
    let enrol = shop.bed.origin().addresses().enrol;
    let origin = papers.shown_by("origin", enrol).await?;
    let client = shop.client.join("identity/cert.pem");
    let booster = booster.join("identity/cert.pem");
    let table: [(&Path, &str, bool); 6] = [
        (&client, "sslclient", true),
        (&client, "sslserver", false),
        (&booster, "sslclient", true),
        (&booster, "sslserver", true),
        (&origin, "sslserver", true),
        (&origin, "smimesign", false),
    ];
    for (leaf, purpose, good) in table {
        let ended = papers.verify(leaf, purpose, &[]).await?;
        let as_wanted = ended.status.success() == good;
        ensure!(as_wanted, "want {good} for {purpose}: {}", ended.told());
    }
    let named = ["-verify_hostname", &host("b1")];
    let ended = papers.verify(&booster, "sslserver", &named).await?;
    ended.must_say(": OK")?;
    let ended = papers.verify(&client, "sslclient", &named).await?;
    ended.must_say("hostname mismatch")
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_reads_every_revocation_list_and_goes_by_it() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let papers = Papers::of(&shop)?;
    let client = shop.client.join("identity/cert.pem");
    let checks = async || {
        let crls = papers.crls(&shop).await?.display().to_string();
        let args = ["-crl_check_all", "-CRLfile", &crls];
        papers.verify(&client, "sslclient", &args).await
    };
    checks().await?.must_say(": OK")?;
    shop.bed.revoke("c1").await?;
    checks().await?.must_say("certificate revoked")
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_no_word_without_a_certificate_and_never_a_ticket() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let booster = shop.bed.booster("b1").await?;
    let origin = shop.bed.origin().addresses().clone();
    let identity = shop.client.join("identity");
    let roots = roots_of(&shop.client);
    let call = "GET /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (id, address) in [("origin", origin.content), ("b1", booster.local_addr())] {
        let calls = |version: &str| {
            s_client(address, &roots)
                // Reads until the other side has ended, and says what comes.
                .args(["-servername", &host(id), "-ign_eof", "-msg", version])
                .input(call)
        };
        let stranger = calls("-tls1_3").run().await?;
        stranger.must_say("alert certificate required")?;
        stranger.must_not_say("HTTP/1.1")?;
        stranger.must_not_say("NewSessionTicket")?;
        let old = calls("-tls1_2").run().await?;
        old.must_say("alert protocol version")?;
        old.must_not_say("HTTP/1.1")?;
        let known = calls("-tls1_3")
            .arg("-cert")
            .arg(identity.join("cert.pem"))
            .arg("-cert_chain")
            .arg(identity.join("cert.pem"))
            .arg("-key")
            .arg(identity.join("key.pem"))
            .run()
            .await?;
        known.must_say("HTTP/1.1 200")?;
        known.must_say(r#""deployment":"bed""#)?;
        known.must_say("CertificateVerify")?;
        known.must_not_say("NewSessionTicket")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_no_ticket_on_the_enrolment_listener_either() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let enrol = shop.bed.origin().addresses().enrol;
    let roots = roots_of(&shop.client);
    let call = "GET /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let ended = s_client(enrol, &roots)
            .args([
                "-servername",
                "enrol.larder.internal",
                "-ign_eof",
                "-msg",
                version,
            ])
            .input(call)
            .run()
            .await?;
        ended.must_say("HTTP/1.1 200")?;
        ended.must_not_say("NewSessionTicket")?;
    }
    Ok(())
}
