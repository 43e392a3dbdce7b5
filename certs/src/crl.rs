//! Certificate revocation lists: signing, reading, and the store that verifiers ask.
//!
//! The TLS library would verify a list's signature in *every* handshake, takes an old list
//! for a new one, and knows no grace. So a list is verified here, once, when it is loaded,
//! and kept as a sorted array of serials: a look-up costs well under a microsecond whether
//! there are ten revocations or a million.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use thiserror::Error;

use crate::ca_cert::{CaCert, CaCertError};
use crate::der::DerError;
use crate::digest::{from_hex, sha256, write_hex};
use crate::issue::{BACKDATE, Ca, LATEST};
use crate::key::KeyError;
use crate::serial::Serial;

mod entries;
mod reader;
mod reason;
mod store;
mod writer;

use entries::Entry;

pub use reason::{RevocationReason, UnknownRevocationReason};
pub(crate) use store::Lists;
pub use store::{CrlStore, CrlWatcher, Freshness, Rollback, Verdict};

/// The name of an issuer: SHA-256 of its public key. Its text form is 64 lower-case
/// hexadecimal digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IssuerId([u8; 32]);

impl IssuerId {
    /// The name of the issuer with this SubjectPublicKeyInfo.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(sha256(spki_der))
    }

    /// Takes back a name that was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerId({self})")
    }
}

impl fmt::Display for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for IssuerId {
    type Err = IssuerIdError;

    fn from_str(text: &str) -> Result<Self, IssuerIdError> {
        from_hex(text).map(Self).ok_or(IssuerIdError)
    }
}

/// A text that names no issuer.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("cannot read an issuer's name: want 64 lower-case hexadecimal digits")]
pub struct IssuerIdError;

/// One revoked certificate, as the origin's ledger has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RevokedCert {
    /// Its serial.
    pub serial: Serial,
    /// When it was revoked, in Unix seconds.
    pub revoked_at: i64,
    /// Why.
    pub reason: RevocationReason,
}

/// Signs a list, in DER, with its entries in the order of their serials. `number` must be
/// higher than any that `ca` ever published.
///
/// `this_update` is for the caller to backdate: see [`backdated`].
///
/// # Errors
///
/// Fails if `next_update` is not after `this_update`, or the key would not sign.
pub fn sign(
    ca: &Ca,
    number: u64,
    entries: &[RevokedCert],
    this_update: i64,
    next_update: i64,
) -> Result<Vec<u8>, SignCrlError> {
    if next_update <= this_update {
        return Err(SignCrlError::Times);
    }
    // Of two entries for one certificate, the first stays.
    let mut entries: Vec<Entry> = entries.iter().map(Entry::of).collect();
    entries.sort_by_key(Entry::number);
    entries.dedup_by_key(|entry| entry.number());
    let key_id = ca.cert().key_id();
    let head = writer::Head {
        issuer_der: ca.cert().subject_der(),
        key_id: key_id.as_deref(),
        next_update: next_update.clamp(0, LATEST),
        number,
        this_update: this_update.clamp(0, LATEST),
    };
    let to_be_signed = writer::to_be_signed(head, &entries);
    let signature = ca.key().sign(&to_be_signed);
    let signature = signature.map_err(|source| SignCrlError::Key { source })?;
    Ok(writer::signed(&to_be_signed, &signature))
}

/// Which certificates the next list must name: those revoked that end at this time or later.
/// `previous_this_update` is the list in force now, if there is one.
///
/// RFC 5280 §3.3: an entry stays until it has stood on a list from after its certificate's
/// end. So it leaves one list later than it could, and nobody whose clock lags by as much as
/// lists are backdated takes an expired certificate for one that was never revoked.
pub fn listed_from(previous_this_update: Option<i64>) -> i64 {
    previous_this_update.unwrap_or(i64::MIN)
}

/// The `this_update` of a list signed at `now`: ten minutes earlier, for clocks that lag.
pub fn backdated(now: i64) -> i64 {
    now - BACKDATE.as_secs() as i64
}

/// Why a list was not signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignCrlError {
    /// The key would not.
    #[error("cannot sign a revocation list")]
    Key {
        /// Why not.
        source: KeyError,
    },
    /// It would end before it begins.
    #[error("cannot sign a revocation list that ends before it begins")]
    Times,
}

/// A list whose signature has been verified.
#[derive(Clone)]
pub struct Crl {
    digest: [u8; 32],
    /// Sorted by serial.
    entries: Vec<Entry>,
    issuer: IssuerId,
    next_update: i64,
    number: u64,
    text: Text,
    this_update: i64,
}

/// What it takes to give a list's DER back.
#[derive(Clone)]
enum Text {
    /// Everything but the entries, which can be written anew.
    AroundEntries { head: Vec<u8>, tail: Vec<u8> },
    /// All of it: somebody else writes lists in another way.
    Whole(Vec<u8>),
}

impl Crl {
    /// Reads a list and verifies that `issuer_cert_der` signed it and may.
    ///
    /// Where the list's author writes entries in another form than we do, the TLS library
    /// reads them too, and has to agree.
    /// An old list is not an error here: [`CrlStore`] judges freshness at each look-up.
    ///
    /// # Errors
    ///
    /// Fails on more than 64 MiB, on anything malformed or unsupported (indirect, delta or
    /// partitioned lists, critical extensions), on another issuer's list or a wrong
    /// signature, and on a list from more than ten minutes after `now`.
    pub fn verify(der: &[u8], issuer_cert_der: &[u8], now: i64) -> Result<Self, CrlError> {
        if der.len() > CRL_BYTES_MAX {
            return Err(CrlError::TooLong);
        }
        let issuer =
            CaCert::parse(issuer_cert_der).map_err(|source| CrlError::Issuer { source })?;
        let list = reader::List::split(der)?;
        if list.issuer_der != issuer.subject_der() {
            return Err(CrlError::OtherIssuer);
        }
        // The signature comes before the entries: a stranger's list costs us no parsing.
        verify_signature(&list, issuer.spki_der())?;
        if list.next_update <= list.this_update {
            return Err(CrlError::Times);
        }
        if list.this_update > now.saturating_add(SKEW_MAX.as_secs() as i64) {
            return Err(CrlError::FromTheFuture);
        }
        let mut entries = list.entries()?;
        reader::agree(der, &entries)?;
        let text = if entries.as_we_write {
            let (head, tail) = list.around_entries(der);
            Text::AroundEntries {
                head: head.to_vec(),
                tail: tail.to_vec(),
            }
        } else {
            entries.list.sort_unstable_by_key(Entry::number);
            Text::Whole(der.to_vec())
        };
        Ok(Self {
            digest: sha256(der),
            entries: entries.list,
            issuer: issuer.id(),
            next_update: list.next_update,
            number: list.number,
            text,
            this_update: list.this_update,
        })
    }

    /// The list in DER, as it was signed. A list of ours is written anew each time, at some
    /// 1 GB/s, since that takes half the memory.
    pub fn der(&self) -> Cow<'_, [u8]> {
        match &self.text {
            Text::Whole(der) => Cow::Borrowed(der),
            Text::AroundEntries { head, tail } => {
                let entries: usize = self.entries.iter().map(Entry::der_len).sum();
                let mut der = Vec::with_capacity(head.len() + entries + tail.len());
                der.extend_from_slice(head);
                self.entries.iter().for_each(|entry| entry.write(&mut der));
                der.extend_from_slice(tail);
                Cow::Owned(der)
            }
        }
    }

    /// SHA-256 of the list in DER: a good ETag.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Who signed it.
    pub fn issuer(&self) -> IssuerId {
        self.issuer
    }

    /// How many certificates are on it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no certificate is on it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the next one is due at the latest, in Unix seconds.
    pub fn next_update(&self) -> i64 {
        self.next_update
    }

    /// Its number: each list of an issuer has a higher one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// From when on it holds, in Unix seconds.
    pub fn this_update(&self) -> i64 {
        self.this_update
    }

    /// Why the certificate with this serial was revoked, if it was.
    pub fn revoked(&self, serial: Serial) -> Option<RevocationReason> {
        let at = self
            .entries
            .binary_search_by_key(&serial.as_u128(), Entry::number)
            .ok()?;
        Some(self.entries[at].reason())
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("issuer", &self.issuer)
            .field("number", &self.number)
            .field("entries", &self.entries.len())
            .field("next_update", &self.next_update)
            .finish_non_exhaustive()
    }
}

/// Why a list was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CrlError {
    /// The TLS library reads something else into it than we do.
    #[error("cannot trust a revocation list that two parsers read differently")]
    Disagreement,
    /// It holds from a time that is yet to come.
    #[error("cannot use a revocation list from the future")]
    FromTheFuture,
    /// The issuer's certificate is not in order.
    #[error("cannot use this issuer's revocation lists")]
    Issuer {
        /// What is wrong with it.
        source: CaCertError,
    },
    /// Malformed.
    #[error("cannot read the revocation list")]
    Malformed {
        /// What is wrong with it.
        source: DerError,
    },
    /// Without a number, nobody can tell an old list from a new one.
    #[error("cannot use a revocation list without a number of at most 64 bits")]
    Number,
    /// Signed in the name of another issuer.
    #[error("cannot use another issuer's revocation list")]
    OtherIssuer,
    /// An entry's serial is none of ours.
    #[error("cannot read a serial number in the revocation list")]
    Serial,
    /// Not signed by the issuer.
    #[error("cannot verify the revocation list's signature")]
    Signature,
    /// It ends before it begins.
    #[error("cannot use a revocation list that ends before it begins")]
    Times,
    /// Longer than any that we load.
    #[error("cannot take a revocation list of more than {CRL_BYTES_MAX} bytes")]
    TooLong,
    /// Delta, indirect or partitioned lists, or extensions that must not be ignored.
    #[error("cannot use this kind of revocation list")]
    Unsupported,
}

impl From<DerError> for CrlError {
    fn from(source: DerError) -> Self {
        Self::Malformed { source }
    }
}

fn verify_signature(list: &reader::List<'_>, spki_der: &[u8]) -> Result<(), CrlError> {
    let spki = SubjectPublicKeyInfoDer::from(spki_der);
    let key = webpki::RawPublicKeyEntity::try_from(&spki).map_err(|_| CrlError::Signature)?;
    key.verify_signature(
        webpki::aws_lc_rs::ECDSA_P256_SHA256,
        list.signed,
        list.signature,
    )
    .map_err(|_| CrlError::Signature)
}

/// The longest list that we load: 1.3 million entries with reasons. It is verified at some
/// 2 GB/s, and kept in half the space.
pub const CRL_BYTES_MAX: usize = 64 << 20;

/// How far a list's beginning may lie ahead of our clock.
pub const SKEW_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
