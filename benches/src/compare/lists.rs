//! Revocation lists of any length, signed by the deployment's own client CA.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::{Ca, Key, crl, pem};

use crate::revoked::revoked;

/// Who signs the lists of clients' certificates.
pub(super) struct Signer {
    ca: Ca,
    now: i64,
}

impl Signer {
    /// Takes the CA out of the folders of an origin and of one who has enrolled with it.
    pub(super) fn open(origin: &Path, enrolled: &Path, now: i64) -> anyhow::Result<Self> {
        let key = fs::read_to_string(origin.join("keys/client-g1.pem"))?;
        let key = Key::from_pem(&key)?;
        let cas = pem::to_certs(&fs::read_to_string(enrolled.join("identity/cas.pem"))?)?;
        let mut cas = cas
            .iter()
            .filter_map(|der| Ca::load(der, key.duplicate()).ok());
        let ca = cas
            .next()
            .context("cannot find the CA of clients' certificates")?;
        Ok(Self { ca, now })
    }

    /// What a booster calls the file of the lists of that CA.
    pub(super) fn file_name(&self) -> String {
        format!("{}.crl", self.ca.id())
    }

    /// A list (DER) of so many certificates that were never issued.
    pub(super) fn sign(&self, entries: u32) -> anyhow::Result<Vec<u8>> {
        let entries = revoked(entries, self.now);
        let from = crl::backdated(self.now);
        crl::sign(&self.ca, NUMBER, &entries, from, self.now + WEEK).context("cannot sign a list")
    }
}

/// All lists that a booster keeps, as other people's servers want them: one PEM file.
pub(super) fn as_pem(state: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for path in files(state)? {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text += "-----BEGIN X509 CRL-----\n";
        for line in STANDARD.encode(bytes).as_bytes().chunks(64) {
            text += &String::from_utf8_lossy(line);
            text.push('\n');
        }
        text += "-----END X509 CRL-----\n";
    }
    Ok(text)
}

fn files(state: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(state)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Higher than what the origin signs in the meantime: a booster takes no older list.
const NUMBER: u64 = 1 << 40;
const WEEK: i64 = 7 * 86_400;
