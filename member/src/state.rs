//! What protects us from being taken back in time, and what lets us start without the origin: marks,
//! revocation lists, the last timestamp, the deployment document.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use certs::crl::CrlError;
use certs::trust::TrustCrlError;
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
    /// timestamp vouches for keeps older ones from taking its place. One that is damaged is set
    /// aside as `ISSUER.crl.bad`, for whoever wants to know why, so that it is told of once.
    pub fn load_crls(&self, trust: &Trust, now: i64) {
        // Roots first: their lists say which issuing CAs still count.
        for ca in trust.roots().iter().chain(&trust.issuing_cas()) {
            let path = self.crl_path(ca.id());
            let bytes = match RealDisk.read(&path, protocol::CRL_BYTES_MAX as u64) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(error) => {
                    let path = path.display();
                    warn!(%path, %error, "cannot read a revocation list: it has to be fetched anew");
                    continue;
                }
            };
            match trust.verify_crl(ca.id(), &bytes, now) {
                Ok(crl) => drop(trust.crls().install(crl)),
                Err(error) => leave_out(&path, &error),
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

/// Tells of a list that does not count, and sets it aside if it is the file that is at fault: one
/// that is refused by our clock or by newer lists may count another time.
fn leave_out(path: &Path, why: &TrustCrlError) {
    let (error, shown) = (Report(why), path.display());
    let damaged = match why {
        TrustCrlError::Crl { source } => {
            !matches!(source, CrlError::FromTheFuture | CrlError::Issuer { .. })
        }
        TrustCrlError::Rollback { .. } | TrustCrlError::UnknownIssuer | _ => false,
    };
    if !damaged {
        warn!(path = %shown, %error, "leaving out a revocation list");
        return;
    }
    let aside = path.with_extension("crl.bad");
    match RealDisk.rename(path, &aside) {
        Ok(()) => {
            let aside = aside.display();
            warn!(path = %shown, %error, %aside, "set a damaged revocation list aside: it has to be fetched anew");
        }
        Err(failure) => {
            warn!(path = %shown, %error, %failure, "cannot set a damaged revocation list aside");
        }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use certs::crl::{self, CrlStore};
    use certs::{Ca, Key, Serial, issue};

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn root() -> Ca {
        let (key, serial) = (Key::generate().unwrap(), Serial::from_random([1; 16]));
        issue::root(&"acme".parse().unwrap(), 1, key, serial, NOW).unwrap()
    }

    /// What becomes of a kept list of `bytes`: whether it is in force, and whether it was set aside.
    fn check(root: &Ca, bytes: &[u8], want: (bool, bool)) {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        let lists = Arc::new(CrlStore::new(std::time::Duration::ZERO));
        let trust = Trust::new(&[root.cert_der()], lists, NOW).unwrap();
        let path = state.crl_path(root.id());
        fs::write(&path, bytes).unwrap();
        state.load_crls(&trust, NOW);
        let aside = path.with_extension("crl.bad");
        let got = (trust.crls().current(root.id()).is_some(), aside.exists());
        assert_eq!(got, want);
        assert_ne!(path.exists(), aside.exists());
    }

    #[test]
    fn a_damaged_list_is_set_aside_and_one_that_is_early_stays() {
        let root = root();
        let list = |from| crl::sign(&root, 1, &[], from, from + 86_400).unwrap();
        let good = list(NOW - 600);
        check(&root, &good, (true, false));
        check(&root, &list(NOW + 86_400), (false, false));
        check(&root, &good[..good.len() - 1], (false, true));
        check(&root, b"", (false, true));
        let mut turned = good;
        *turned.last_mut().unwrap() ^= 1;
        check(&root, &turned, (false, true));
    }

    #[test]
    fn a_list_that_the_disk_does_not_give_is_left_where_it_is() {
        let (root, folder) = (root(), tempfile::tempdir().unwrap());
        let state = State::new(folder.path());
        let lists = Arc::new(CrlStore::new(std::time::Duration::ZERO));
        let trust = Trust::new(&[root.cert_der()], lists, NOW).unwrap();
        let path = state.crl_path(root.id());
        fs::create_dir(&path).unwrap();
        state.load_crls(&trust, NOW);
        assert!(path.is_dir() && trust.crls().current(root.id()).is_none());
    }
}
