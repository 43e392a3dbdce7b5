//! From NIST's authorities to ours: names, keys and signature algorithms are exchanged, and all
//! that the tests are about stays as NIST wrote it.

use anyhow::Context as _;
use certs::Ca;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::alg_id;

use crate::der::{self, BIT_STRING, CONTEXT_0, INTEGER, SEQUENCE};

/// What of a certificate of NIST's matters here.
#[derive(Debug)]
pub(crate) struct Theirs {
    /// The contents of its serial number.
    pub(crate) serial: Vec<u8>,
    subject: Vec<u8>,
    /// The public key's bits.
    key: Vec<u8>,
}

impl Theirs {
    pub(crate) fn read(cert: &[u8]) -> anyhow::Result<Self> {
        let (body, _, _) = der::signed(cert)?;
        let mut parts = der::inside(body)?;
        parts.retain(|part| part[0] != CONTEXT_0);
        let [serial, _, _, _, subject, key, ..] = parts[..] else {
            anyhow::bail!("a certificate is cut off")
        };
        let key = der::inside(key)?;
        let bits = der::contents(key.get(1).context("a key has bits")?)?;
        Ok(Self {
            serial: der::contents(serial)?.to_vec(),
            subject: subject.to_vec(),
            key: bits[1..].to_vec(),
        })
    }

    /// Whether its key has signed that list. All of NIST's lists here are RSA with SHA-256.
    fn has_signed(&self, list: &[u8]) -> anyhow::Result<bool> {
        let (body, _, signature) = der::signed(list)?;
        let rsa = aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .all
            .iter()
            .find(|known| known.signature_alg_id() == alg_id::RSA_PKCS1_SHA256)
            .context("the library knows RSA")?;
        // Whole bytes: no bits that do not count.
        let signature = signature.strip_prefix(&[0]);
        let good = |bytes| rsa.verify_signature(&self.key, body, bytes).is_ok();
        Ok(signature.is_some_and(good))
    }
}

/// The list `list` of the authority `theirs`, as `ours` would have issued it: version, times,
/// entries and extensions are the same to the byte. A name that is not its authority's stays as it
/// is, and a signature that is not good does not become so.
pub(crate) fn list(list: &[u8], theirs: &Theirs, ours: &Ca) -> anyhow::Result<Vec<u8>> {
    let (body, _, _) = der::signed(list)?;
    let mut parts = der::inside(body)?;
    // A list of version 1 does not say so.
    let at = usize::from(parts[0][0] == INTEGER);
    let algorithm = der::element(SEQUENCE, &alg_id::ECDSA_SHA256);
    parts[at] = &algorithm;
    let own_subject = Theirs::read(ours.cert_der())?.subject;
    if parts[at + 1] == theirs.subject {
        parts[at + 1] = &own_subject;
    }
    let body = der::element(SEQUENCE, &parts.concat());
    let mut signature = vec![0];
    signature.extend(ours.key().sign(&body)?);
    if !theirs.has_signed(list)? {
        let last = signature.last_mut().context("a signature is not empty")?;
        *last ^= 1;
    }
    let signature = der::element(BIT_STRING, &signature);
    let whole = [body, algorithm, signature].concat();
    Ok(der::element(SEQUENCE, &whole))
}
