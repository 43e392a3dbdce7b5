//! pkilint holds every kind of certificate and of revocation list that we issue against RFC 5280.
//!
//! A finding that is not named here fails.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certs::crl::{self, RevocationReason, RevokedCert};
use certs::issue::{self, Ca};
use certs::key::random;
use certs::{CaKind, DeploymentId, Identity, Key, Role, Serial};
use serde::Deserialize;
use tempfile::TempDir;

use crate::openssl::openssl;
use crate::program::Program;
use crate::tools::python_tool;

/// 2027-01-15.
const NOW: i64 = 1_800_000_000;
const DAY: Duration = Duration::from_secs(86_400);

/// A finding: how bad pkilint takes it to be, its code, and where it was found.
type Finding = (&'static str, &'static str, &'static str);

/// The names of parties are `spiffe://…` URIs, which pkilint takes for web addresses and therefore
/// for malformed. RFC 3986 §3 and RFC 5280 §4.2.1.6 are content with them.
const SPIFFE: Finding = ("ERROR", "pkix.invalid_uri_syntax", "subjectAltName");
/// A key's identifier is the first 160 bits of SHA-256 over the bits of the key (RFC 7093 §2,
/// method 1); pkilint knows the SHA-1 methods of RFC 5280 §4.2.1.2 alone, which are examples.
const KEY_ID: Finding = (
    "NOTICE",
    "pkix.unknown_subject_key_identifier_calculation_method",
    "subjectKeyIdentifier",
);
/// The purpose "content signing" is 2.25 and 128 random bits (ITU-T X.667 §7), and pkilint's
/// decoder reads no arc of more than 32 bits. OpenSSL has to read it instead.
const LONG_ARC: Finding = ("FATAL", "itu.invalid_asn1_syntax", "extensions");

/// All CAs of a deployment.
struct Authority {
    deployment: DeploymentId,
    folder: TempDir,
    root: Ca,
    issuing: Vec<Ca>,
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let deployment: DeploymentId = "lint".parse()?;
        let root = issue::root(&deployment, 1, Key::generate()?, serial()?, NOW)?;
        let mut issuing = Vec::new();
        for kind in CaKind::ALL {
            let key = Key::generate()?;
            issuing.push(issue::issuing_ca(kind, 1, &root, key, serial()?, NOW)?);
        }
        Ok(Self {
            deployment,
            folder: tempfile::tempdir()?,
            root,
            issuing,
        })
    }

    fn ca(&self, kind: CaKind) -> anyhow::Result<&Ca> {
        let found = self
            .issuing
            .iter()
            .find(|ca| ca.cert().kind() == Some(kind));
        found.context("there is one of each kind")
    }

    /// A certificate as it is issued to a party of that role.
    fn leaf(&self, role: Role) -> anyhow::Result<Vec<u8>> {
        let identity = Identity {
            deployment: self.deployment.clone(),
            role,
            id: "d1".parse()?,
        };
        let (key, ca) = (Key::generate()?, self.ca(CaKind::of(role))?);
        let life = issue::default_lifetime(role);
        let leaf = issue::leaf(&identity, key.spki_der(), ca, serial()?, NOW, life)?;
        Ok(leaf)
    }

    fn write(&self, name: &str, der: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, der)?;
        Ok(path)
    }
}

/// What pkilint writes.
#[derive(Debug, Deserialize)]
struct Report {
    results: Vec<Place>,
}

#[derive(Debug, Deserialize)]
struct Place {
    finding_descriptions: Vec<Description>,
    node_path: String,
}

#[derive(Debug, Deserialize)]
struct Description {
    code: String,
    severity: String,
}

/// Fails unless pkilint finds `expected` and nothing else.
async fn check(what: &str, lint: Program, expected: &[Finding]) -> anyhow::Result<()> {
    let ended = lint.run().await?;
    let told = || format!("{what}: {}", ended.told());
    let report: Report = serde_json::from_slice(&ended.stdout).with_context(told)?;
    let mut left = expected.to_vec();
    for place in &report.results {
        for found in &place.finding_descriptions {
            let is_it = |(severity, code, node): &Finding| {
                *severity == found.severity && *code == found.code && place.node_path.contains(node)
            };
            let at = left.iter().position(is_it);
            let at = at.with_context(|| format!("{what}: {found:?} at {}", place.node_path))?;
            left.remove(at);
        }
    }
    ensure!(left.is_empty(), "{what}: no more {left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pkilint_finds_nothing_new_in_any_certificate() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let root = authority.root.cert_der().to_vec();
    let mut certs = vec![("root".to_owned(), None, root)];
    for kind in CaKind::ALL {
        let ca = authority.ca(kind)?.cert_der().to_vec();
        certs.push((format!("{} CA", kind.as_str()), Some(kind), ca));
    }
    for role in [Role::Origin, Role::Booster, Role::Client, Role::Signer] {
        let leaf = authority.leaf(role)?;
        certs.push((role.to_string(), Some(CaKind::of(role)), leaf));
    }
    for (what, kind, der) in certs {
        let file = authority.write(&format!("{what}.crt"), &der)?;
        let lint = python_tool("lint_pkix_cert")
            .args(["lint", "--format", "JSON", "--severity", "ALL"])
            .args(["--document-format", "DER"])
            .arg(&file);
        let mut expected = vec![SPIFFE, KEY_ID];
        if kind == Some(CaKind::Content) {
            expected.push(LONG_ARC);
            let read = openssl("x509 -inform DER -noout -ext extendedKeyUsage -in").arg(file);
            let purpose = "2.25.200721575810121502834843416378635524477\n";
            read.run().await?.must_say(purpose)?;
        }
        check(&what, lint, &expected).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pkilint_finds_nothing_in_any_revocation_list() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let mut revoked = Vec::new();
    for code in [0, 1, 2, 3, 4, 5, 9] {
        revoked.push(RevokedCert {
            serial: serial()?,
            revoked_at: NOW - 60,
            reason: RevocationReason::from_code(code),
        });
    }
    let from = crl::backdated(NOW);
    let until = NOW + 7 * DAY.as_secs() as i64;
    for ca in authority.issuing.iter().chain([&authority.root]) {
        let is_root = ca.cert().is_root();
        for entries in [&[][..], &revoked[..]] {
            let der = crl::sign(ca, 7, entries, from, until)?;
            let file = authority.write("list.crl", &der)?;
            let lint = python_tool("lint_crl")
                .args(["lint", "--format", "JSON", "--severity", "ALL"])
                .args(["--document-format", "DER", "--profile", "PKIX"])
                .args(["--type", if is_root { "ARL" } else { "CRL" }])
                .arg(file);
            check("a list", lint, &[]).await?;
        }
    }
    Ok(())
}

fn serial() -> anyhow::Result<Serial> {
    Ok(Serial::from_random(random()?))
}
