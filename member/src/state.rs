//! What protects us from being taken back in time, and what lets us start without the origin: marks,
//! revocation lists, the last timestamp, the deployment document.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use certs::{Crl, IssuerId, Trust};
use content::Digest;
use content::durable::{self, Disk as _, RealDisk};
use content::marks::{LoadMarksError, Marks};
use content::statement::{Deployment, Judge, Payload, Statement, Timestamp};
use service::Report;
use thiserror::Error;
use tracing::warn;

/// The folder that it is kept in. Everything here touches the disk.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
    /// Held while a list is kept and put in force, so that the disk never falls behind.
    lists: Arc<Mutex<()>>,
}

impl State {
    /// The state in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            lists: Arc::default(),
        }
    }

    /// The high-water marks.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be read: without them an old timestamp could pass for a new one.
    pub fn marks(&self) -> Result<Marks, StateError> {
        let path = self.folder.join(MARKS);
        Marks::load(&RealDisk, &path).map_err(|source| StateError::Marks { path, source })
    }

    /// Keeps higher marks.
    ///
    /// # Errors
    ///
    /// Fails if the disk does.
    pub fn put_marks(&self, marks: &Marks) -> Result<(), StateError> {
        let path = self.folder.join(MARKS);
        let stored = marks.store(&RealDisk, &path);
        stored.map_err(|source| StateError::Io { path, source })
    }

    /// The last timestamp's envelope, which has to be verified anew.
    #[must_use]
    pub fn timestamp(&self) -> Option<Vec<u8>> {
        self.read::<Timestamp>(TIMESTAMP)
    }

    /// Keeps a timestamp that has been verified.
    ///
    /// # Errors
    ///
    /// Fails if the disk does.
    pub fn put_timestamp(&self, envelope: &[u8]) -> Result<(), StateError> {
        self.write(&self.folder.join(TIMESTAMP), envelope)
    }

    /// The last deployment document's envelope, which has to be verified anew.
    #[must_use]
    pub fn document_envelope(&self) -> Option<Vec<u8>> {
        self.read::<Deployment>(DOCUMENT)
    }

    /// The last deployment document, if it still counts at `now` (Unix seconds).
    #[must_use]
    pub fn document(&self, judge: &impl Judge, now: i64) -> Option<Statement<Deployment>> {
        Statement::open(&self.document_envelope()?, judge, now).ok()
    }

    /// Keeps a deployment document that has been verified.
    ///
    /// # Errors
    ///
    /// Fails if the disk does.
    pub fn put_document(&self, envelope: &[u8]) -> Result<(), StateError> {
        self.write(&self.folder.join(DOCUMENT), envelope)
    }

    /// Puts the lists that are kept in force. One that cannot be used is left out: what the
    /// timestamp vouches for keeps older ones from taking its place.
    pub fn load_crls(&self, trust: &Trust, now: i64) {
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
    ///
    /// # Errors
    ///
    /// Fails if the disk does; the list is not in force then.
    pub fn put_crl(&self, trust: &Trust, crl: Crl) -> Result<bool, StateError> {
        let _one_at_a_time = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        // It was no older than the one in force when it was verified; if a newer one has come
        // since, that one stays, on the disk too.
        if trust.crls().check(&crl).is_err() {
            return Ok(false);
        }
        self.write(&self.crl_path(crl.issuer()), &crl.der())?;
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
