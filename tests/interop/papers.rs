//! What somebody needs who is to judge a certificate by himself: roots, issuing CAs, lists.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tests::testbed::Testbed;

use crate::curl::{Curl, host, roots_of};
use crate::openssl::{certs_in, openssl, s_client, write_certs};
use crate::program::Ended;

/// Everything that somebody needs who has only OpenSSL.
pub(crate) struct Papers {
    folder: PathBuf,
    pub(crate) roots: PathBuf,
    cas: PathBuf,
}

impl Papers {
    /// Those that an enrolled client with the data folder `client` has, or can ask for.
    pub(crate) fn of(bed: &Testbed, client: &Path) -> anyhow::Result<Self> {
        let folder = bed.path("papers");
        fs::create_dir_all(&folder)?;
        let authority = bed.origin().authority();
        let cas = authority.trust().issuing_cas();
        let cas: Vec<Vec<u8>> = cas.iter().map(|ca| ca.der().to_vec()).collect();
        Ok(Self {
            roots: roots_of(client),
            cas: write_certs(folder.join("cas.pem"), &cas)?,
            folder,
        })
    }

    /// The chain that a listener shows: the leaf's file, after OpenSSL has verified it.
    pub(crate) async fn shown_by(&self, id: &str, address: SocketAddr) -> anyhow::Result<PathBuf> {
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

    /// `openssl verify`, with these further arguments.
    pub(crate) async fn verify(
        &self,
        leaf: &Path,
        purpose: &str,
        args: &[&str],
    ) -> anyhow::Result<Ended> {
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
    pub(crate) async fn crls(&self, bed: &Testbed) -> anyhow::Result<PathBuf> {
        let enrol = bed.origin().addresses().enrol;
        let curl = Curl::to("origin", enrol, &self.roots);
        let trust = bed.origin().authority().trust();
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
