//! What protects us from being taken back in time, and what lets us start without upstream: marks,
//! revocation lists, the last timestamp, the deployment document.

use std::io;
use std::path::{Path, PathBuf};

use certs::{Crl, IssuerId, Trust};
use content::Digest;
use content::durable::{self, Disk as _, RealDisk};
use content::marks::{LoadMarksError, Marks};
use content::statement::{Deployment, Payload, Timestamp};
use service::Report;
use thiserror::Error;
use tracing::warn;

/// The folder that it is kept in. Everything here touches the disk.
#[derive(Clone, Debug)]
pub(crate) struct State {
    folder: PathBuf,
}

impl State {
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The high-water marks.
    pub(crate) fn marks(&self) -> Result<Marks, StateError> {
        let path = self.folder.join(MARKS);
        Marks::load(&RealDisk, &path).map_err(|source| StateError::Marks { path, source })
    }

    /// Keeps higher marks.
    pub(crate) fn put_marks(&self, marks: &Marks) -> Result<(), StateError> {
        let path = self.folder.join(MARKS);
        let stored = marks.store(&RealDisk, &path);
        stored.map_err(|source| StateError::Io { path, source })
    }

    /// The last timestamp's envelope, which has to be verified anew.
    pub(crate) fn timestamp(&self) -> Option<Vec<u8>> {
        self.read::<Timestamp>(TIMESTAMP)
    }

    /// Keeps a timestamp that has been verified.
    pub(crate) fn put_timestamp(&self, envelope: &[u8]) -> Result<(), StateError> {
        self.write(&self.folder.join(TIMESTAMP), envelope)
    }

    /// The last deployment document's envelope, which has to be verified anew.
    pub(crate) fn document(&self) -> Option<Vec<u8>> {
        self.read::<Deployment>(DOCUMENT)
    }

    /// Keeps a deployment document that has been verified.
    pub(crate) fn put_document(&self, envelope: &[u8]) -> Result<(), StateError> {
        self.write(&self.folder.join(DOCUMENT), envelope)
    }

    /// Puts the lists that are kept in force. One that cannot be used is left out: what the
    /// timestamp vouches for keeps older ones from taking its place.
    pub(crate) fn load_crls(&self, trust: &Trust, now: i64) {
        // Roots first: their lists say which issuing CAs still count.
        for ca in trust.roots().iter().chain(&trust.issuing_cas()) {
            let path = self.crl_path(ca.id());
            let read = RealDisk.read(&path, protocol::CRL_BYTES_MAX as u64);
            let Some(bytes) = read.ok().flatten() else {
                continue;
            };
            match trust.verify_crl(ca.id(), &bytes, now) {
                Ok(crl) => drop(trust.crls().install(crl)),
                Err(error) => {
                    let error = Report(&error);
                    warn!(path = %path.display(), %error, "leaving out a revocation list");
                }
            }
        }
    }

    /// Keeps a verified list, then puts it in force. Says whether it is a new one.
    pub(crate) fn put_crl(&self, trust: &Trust, crl: Crl) -> Result<bool, StateError> {
        self.write(&self.crl_path(crl.issuer()), &crl.der())?;
        // It was found to be no older than the one in force when it was verified; if a newer one
        // has come since, that one stays.
        Ok(trust.crls().install(crl).unwrap_or(false))
    }

    fn crl_path(&self, issuer: IssuerId) -> PathBuf {
        let issuer = Digest::from_raw(*issuer.as_bytes());
        self.folder.join(format!("{}.crl", issuer.hex()))
    }

    fn read<T: Payload>(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(name);
        let read = RealDisk.read(&path, T::ENVELOPE_BYTES_MAX as u64);
        read.unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "cannot read what the last run knew");
            None
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StateError> {
        durable::write(&RealDisk, path, bytes, 0o600).map_err(|source| StateError::Io {
            path: path.to_owned(),
            source,
        })
    }
}

/// Why the state cannot be kept or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file cannot be written.
    #[error("cannot keep {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The marks cannot be used.
    #[error("cannot go on without {path}", path = path.display())]
    Marks {
        /// The file.
        path: PathBuf,
        /// Why.
        source: LoadMarksError,
    },
}

const MARKS: &str = "marks";
const TIMESTAMP: &str = "timestamp.json";
const DOCUMENT: &str = "deployment.json";
