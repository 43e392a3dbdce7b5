//! Our own certificate, replaceable while connections run.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::key::Key;

/// The certificate that we show, to clients and to servers alike. Renewal swaps it; whoever
/// is connected stays so.
#[derive(Default)]
pub struct CertCell(ArcSwapOption<Own>);

struct Own {
    key: Arc<CertifiedKey>,
    not_after: i64,
    not_before: i64,
}

impl CertCell {
    /// A cell with nothing in it yet: a server that uses it refuses everybody, a client
    /// shows nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A cell with a certificate: the leaf, then its issuing CA, and the key to the leaf.
    ///
    /// # Errors
    ///
    /// Fails if the chain is empty or malformed, or its leaf is not for this key.
    pub fn new(chain_der: &[Vec<u8>], key: &Key) -> Result<Self, CellError> {
        let cell = Self::empty();
        cell.replace(chain_der, key)?;
        Ok(cell)
    }

    /// Shows another certificate from the next handshake on.
    ///
    /// # Errors
    ///
    /// Fails if the chain is empty or malformed, or its leaf is not for this key; the old
    /// certificate stays.
    pub fn replace(&self, chain_der: &[Vec<u8>], key: &Key) -> Result<(), CellError> {
        let leaf = chain_der.first().ok_or(CellError::Empty)?;
        let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| CellError::Malformed)?;
        let validity = cert.validity();
        let certified = CertifiedKey::from_der(
            chain_der
                .iter()
                .cloned()
                .map(CertificateDer::from)
                .collect(),
            key.to_private_der(),
            &rustls::crypto::aws_lc_rs::default_provider(),
        )
        .map_err(|source| CellError::Key { source })?;
        self.0.store(Some(Arc::new(Own {
            key: Arc::new(certified),
            not_after: validity.not_after.timestamp(),
            not_before: validity.not_before.timestamp(),
        })));
        Ok(())
    }

    /// The first and the last second of our certificate's life, in Unix seconds.
    pub fn validity(&self) -> Option<(i64, i64)> {
        self.0
            .load()
            .as_ref()
            .map(|own| (own.not_before, own.not_after))
    }

    /// The chain that we show, in DER.
    pub fn chain_der(&self) -> Vec<Vec<u8>> {
        let own = self.0.load();
        own.as_ref().map_or_else(Vec::new, |own| {
            own.key.cert.iter().map(|cert| cert.to_vec()).collect()
        })
    }

    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|own| Arc::clone(&own.key))
    }
}

impl fmt::Debug for CertCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertCell")
            .field("validity", &self.validity())
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertCell {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

impl ResolvesClientCert for CertCell {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// Why a certificate cannot be shown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CellError {
    /// There is none.
    #[error("cannot show an empty chain")]
    Empty,
    /// The key is not the certificate's.
    #[error("cannot use the key with this certificate")]
    Key {
        /// What the library said.
        source: rustls::Error,
    },
    /// The leaf is no certificate.
    #[error("cannot read our own certificate")]
    Malformed,
}
