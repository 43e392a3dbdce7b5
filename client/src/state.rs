//! What protects us from being taken back in time: marks, revocation lists, the deployment
//! document.

use std::io;
use std::path::PathBuf;

use certs::{Crl, IssuerId, Trust};
use content::Digest;
use content::durable::{self, Disk as _, RealDisk};
use content::marks::{LoadMarksError, Marks};
use content::statement::{Deployment, Judge, Payload as _, Statement};
use service::Report;
use thiserror::Error;
use tracing::warn;

/// The folder that it is kept in.
#[derive(Clone, Debug)]
pub(crate) struct State {
    folder: PathBuf,
}

impl State {
    /// The state in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The high-water marks.
    pub(crate) fn marks(&self) -> Result<Marks, StateError> {
        let path = self.folder.join(MARKS);
        Marks::load(&RealDisk, &path).map_err(|source| StateError::Marks { path, source })
    }

    /// Keeps higher marks.
    pub(crate) fn put_marks(&self, marks: &Marks) -> Result<(), StateError> {
        let path = self.folder.join(MARKS);
        marks
            .store(&RealDisk, &path)
            .map_err(|source| StateError::Io { path, source })
    }

    /// Puts the lists that are kept in force. One that cannot be used is left out: the timestamp's
    /// minimum keeps older ones from taking its place.
    pub(crate) fn load_crls(&self, trust: &Trust, now: i64) {
        // Roots first: their lists say which issuing CAs still count.
        for ca in trust.roots().iter().chain(&trust.issuing_cas()) {
            let path = self.crl_path(ca.id());
            let read = RealDisk.read(&path, protocol::CRL_BYTES_MAX as u64);
            let Some(bytes) = read.ok().flatten() else {
                continue;
            };
            match trust.verify_crl(ca.id(), &bytes, now) {
                Ok(crl) => install(trust, crl),
                Err(error) => {
                    warn!(path = %path.display(), error = %Report(&error), "leaving out a list");
                }
            }
        }
    }

    /// Keeps a verified list, then puts it in force.
    pub(crate) fn put_crl(&self, trust: &Trust, crl: Crl) -> Result<(), StateError> {
        let path = self.crl_path(crl.issuer());
        durable::write(&RealDisk, &path, &crl.der(), 0o600)
            .map_err(|source| StateError::Io { path, source })?;
        install(trust, crl);
        Ok(())
    }

    /// The deployment document that is kept, if it still counts.
    pub(crate) fn document(&self, judge: &impl Judge, now: i64) -> Option<Statement<Deployment>> {
        let bytes_max = Deployment::ENVELOPE_BYTES_MAX as u64;
        let bytes = RealDisk
            .read(&self.folder.join(DOCUMENT), bytes_max)
            .ok()??;
        Statement::open(&bytes, judge, now).ok()
    }

    /// Keeps a deployment document that has been verified.
    pub(crate) fn put_document(&self, envelope: &[u8]) -> Result<(), StateError> {
        let path = self.folder.join(DOCUMENT);
        durable::write(&RealDisk, &path, envelope, 0o600)
            .map_err(|source| StateError::Io { path, source })
    }

    fn crl_path(&self, issuer: IssuerId) -> PathBuf {
        let issuer = Digest::from_raw(*issuer.as_bytes());
        self.folder.join(format!("{}.crl", issuer.hex()))
    }
}

/// Puts a list in force that was found to be no older than the one in force when it was verified.
fn install(trust: &Trust, crl: Crl) {
    if let Err(error) = trust.crls().install(crl) {
        warn!(error = %Report(&error), "a newer list came in between");
    }
}

/// Why the state cannot be kept.
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
const DOCUMENT: &str = "deployment.json";
