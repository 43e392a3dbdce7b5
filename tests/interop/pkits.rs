//! NIST's Public Key Interoperability Test Suite (PKITS), sections 4.4 "basic certificate
//! revocation" and 4.14 "distribution points", against our reader of revocation lists, the store
//! and the verifier. The vectors come with the Python package `cryptography_vectors`.
//!
//! NIST's authorities are RSA and bear other names: as they come, every list is refused, which is
//! the first test. So each list is put under an authority of ours ([`translate`]), byte by byte the
//! same but for issuer, algorithm and signature; the device's and the issuing CA's certificates
//! are ours with NIST's serial numbers. What NIST says in a *certificate* (distribution points, CRL
//! issuers) is therefore not seen; our certificates have no such words.

mod translate;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certs::crl::CrlError;
use certs::{Ca, CaKind, Crl, CrlStore, Identity, Key, RefusalReason, Role, Serial, Trust};
use certs::{issue, key};

use crate::tools::python_data;
use translate::Theirs;

/// 2027-01-15: in the middle of what NIST's certificates and lists call their time.
const NOW: i64 = 1_800_000_000;
const DAY: Duration = Duration::from_secs(86_400);

/// The tests, and what we say in each.
const CASES: &str = include_str!("pkits/cases.txt");

/// One of them.
struct Case {
    number: &'static str,
    /// What becomes of the end entity.
    ours: &'static str,
    /// Its certificate: `Valid…` or `Invalid…`, which is the verdict that NIST wants.
    entity: &'static str,
    /// Its issuer's certificate.
    issuer: &'static str,
    /// The lists that are at hand, in the order in which they arrive.
    lists: Vec<&'static str>,
}

impl Case {
    fn all() -> anyhow::Result<Vec<Self>> {
        let lines = CASES.lines().filter(|line| !line.starts_with('#'));
        lines.map(Self::read).collect()
    }

    fn read(line: &'static str) -> anyhow::Result<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next().context(line);
        Ok(Self {
            number: word()?,
            ours: word()?,
            entity: word()?,
            issuer: word()?,
            lists: words.collect(),
        })
    }
}

/// Tests in which we refuse somebody whom NIST lets in, each with the reason. Docs/threats.md has
/// the same table.
const DEVIATIONS: &[(&str, &str)] = &[
    ("4.4.14", "a serial number that is not positive"),
    ("4.4.16", "a serial number of more than 128 bits"),
    ("4.4.17", "a serial number of more than 128 bits"),
    ("4.4.19", "a list is signed by the CA's one key"),
    ("4.14.1", "a partitioned list"),
    ("4.14.4", "a partitioned list"),
    ("4.14.5", "a partitioned list"),
    ("4.14.7", "a partitioned list"),
    ("4.14.13", "a list for CA certificates alone"),
    ("4.14.18", "lists for some reasons alone"),
    ("4.14.19", "lists for some reasons alone"),
    ("4.14.22", "an indirect list"),
    ("4.14.24", "an indirect list"),
    ("4.14.25", "an indirect list"),
    ("4.14.28", "an indirect list"),
    ("4.14.29", "an indirect list"),
    ("4.14.30", "an indirect list"),
    ("4.14.33", "an indirect list"),
];

/// NIST's files.
struct Vectors(PathBuf);

impl Vectors {
    fn find() -> anyhow::Result<Self> {
        python_data("cryptography_vectors/x509/PKITS_data").map(Self)
    }

    fn cert(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        self.read(&format!("certs/{name}.crt"))
    }

    fn list(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        self.read(&format!("crls/{name}.crl"))
    }

    fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        fs::read(self.0.join(name)).with_context(|| name.to_owned())
    }
}

/// Our own root and Client CA in the place of two of NIST's, with the root's list.
struct Stand {
    ca: Ca,
    ca_theirs: Theirs,
    root: Ca,
    trust: Trust,
}

impl Stand {
    fn build(vectors: &Vectors, root: &str, root_list: &str, ca: &str) -> anyhow::Result<Self> {
        let root_theirs = Theirs::read(&vectors.cert(root)?)?;
        let ca_theirs = Theirs::read(&vectors.cert(ca)?)?;
        let serial = serial_of(&root_theirs)?;
        let root = issue::root(&"nist".parse()?, 1, Key::generate()?, serial, NOW)?;
        let serial = serial_of(&ca_theirs)?;
        let ca = issue::issuing_ca(CaKind::Client, 1, &root, Key::generate()?, serial, NOW)?;
        let trust = Trust::new(
            &[root.cert_der()],
            Arc::new(CrlStore::new(Duration::ZERO)),
            NOW,
        )?;
        let stand = Self {
            ca,
            ca_theirs,
            root,
            trust,
        };
        let list = vectors.list(root_list)?;
        let refused = stand.learn(&list, &root_theirs, &stand.root)?;
        ensure!(refused.is_none(), "the root's list was refused");
        Ok(stand)
    }

    /// Puts a list of `theirs` in force under `ours`, or says why not.
    fn learn(
        &self,
        list: &[u8],
        theirs: &Theirs,
        ours: &Ca,
    ) -> anyhow::Result<Option<&'static str>> {
        let list = translate::list(list, theirs, ours)?;
        let refused = match Crl::verify(&list, ours.cert_der(), NOW) {
            Ok(list) => {
                self.trust.crls().install(list)?;
                return Ok(None);
            }
            Err(CrlError::Unsupported) => "no-kind",
            Err(CrlError::OtherIssuer) => "no-issuer",
            Err(CrlError::Serial) => "no-serial",
            Err(CrlError::Signature) => "no-signature",
            Err(other) => return Err(other.into()),
        };
        Ok(Some(refused))
    }

    /// What the verifier says to a device with that serial number.
    fn judge(&self, serial: Serial) -> anyhow::Result<Result<(), RefusalReason>> {
        let identity = Identity {
            deployment: "nist".parse()?,
            role: Role::Client,
            id: "entity".parse()?,
        };
        let key = Key::generate()?;
        let leaf = issue::leaf(&identity, key.spki_der(), &self.ca, serial, NOW, DAY)?;
        let between = [self.ca.cert_der().into()];
        let peer = self.trust.verify_client(&leaf, &between, NOW);
        Ok(peer.and_then(|peer| self.trust.check(&peer, NOW)))
    }
}

/// The serial number of one of NIST's certificates as one of ours.
fn serial_of(theirs: &Theirs) -> anyhow::Result<Serial> {
    Ok(Serial::from_der_integer(&theirs.serial)?)
}

fn verdict(vectors: &Vectors, case: &Case) -> anyhow::Result<&'static str> {
    let (root, root_list) = ("TrustAnchorRootCertificate", "TrustAnchorRootCRL");
    let stand = Stand::build(vectors, root, root_list, case.issuer)?;
    let mut refused = "no-list";
    for list in &case.lists {
        let list = vectors.list(list)?;
        if let Some(why) = stand.learn(&list, &stand.ca_theirs, &stand.ca)? {
            refused = why;
        }
    }
    let entity = Theirs::read(&vectors.cert(case.entity)?)?;
    // A number that cannot be one of ours: without a list, any number will do.
    let serial = serial_of(&entity).or_else(|_| key::random().map(Serial::from_random))?;
    let has_list = stand.trust.crls().current(stand.ca.id()).is_some();
    Ok(match (stand.judge(serial)?, has_list) {
        (Ok(()), true) => "good",
        (Err(RefusalReason::Revoked), true) => "revoked",
        (Err(RefusalReason::CrlStale), true) => "stale",
        (Err(RefusalReason::CrlStale), false) => refused,
        (other, _) => anyhow::bail!("{other:?}"),
    })
}

#[test]
fn pkits_nobody_whom_nist_refuses_gets_in() -> anyhow::Result<()> {
    let vectors = Vectors::find()?;
    let mut deviations = Vec::new();
    for case in Case::all()? {
        let (number, wanted) = (case.number, case.ours);
        let verdict = verdict(&vectors, &case).context(number)?;
        ensure!(verdict == wanted, "{number}: {verdict}, not {wanted}");
        let theirs = case.entity.starts_with("Valid");
        let ours = verdict == "good";
        ensure!(theirs || !ours, "{number}: NIST refuses it");
        if theirs && !ours {
            deviations.push(number);
        }
    }
    let listed: Vec<&str> = DEVIATIONS.iter().map(|(number, _)| *number).collect();
    ensure!(deviations == listed, "we deviate in {deviations:?}");
    Ok(())
}

/// 4.4.2 has a CA more than our chains have: the one above is taken for the root.
#[test]
fn pkits_a_ca_that_the_root_has_revoked_lets_nobody_in() -> anyhow::Result<()> {
    let vectors = Vectors::find()?;
    let stand = Stand::build(&vectors, "GoodCACert", "GoodCACRL", "RevokedsubCACert")?;
    let list = vectors.list("RevokedsubCACRL")?;
    let refused = stand.learn(&list, &stand.ca_theirs, &stand.ca)?;
    ensure!(refused.is_none(), "the list of the revoked CA is in order");
    let entity = Theirs::read(&vectors.cert("InvalidRevokedCATest2EE")?)?;
    let verdict = stand.judge(serial_of(&entity)?)?;
    ensure!(verdict == Err(RefusalReason::Revoked), "{verdict:?}");
    Ok(())
}

#[test]
fn pkits_as_they_come_no_list_is_believed() -> anyhow::Result<()> {
    let vectors = Vectors::find()?;
    let root = issue::root(
        &"nist".parse()?,
        1,
        Key::generate()?,
        Serial::from_random([7; 16]),
        NOW,
    )?;
    let mut seen = 0;
    for case in Case::all()? {
        for name in case.lists {
            let list = vectors.list(name)?;
            let theirs = Crl::verify(&list, &vectors.cert(case.issuer)?, NOW);
            let by_theirs = matches!(theirs, Err(CrlError::Issuer { .. }));
            ensure!(by_theirs, "{name}: {theirs:?}");
            let ours = Crl::verify(&list, root.cert_der(), NOW);
            let by_ours = matches!(ours, Err(CrlError::Unsupported));
            ensure!(by_ours, "{name}: {ours:?}");
            seen += 1;
        }
    }
    ensure!(seen > 50, "only {seen} lists");
    Ok(())
}
