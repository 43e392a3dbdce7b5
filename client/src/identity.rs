//! Who this device is: its key, its certificate, and whom it trusts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::keyfile::{self, KeyFileError};
use certs::pem::{self, PemError};
use certs::tls::{CellError, CertCell};
use certs::trust::TrustError;
use certs::{CrlStore, DeploymentId, DeviceId, Identity as Name, Key, Role, Trust};
use content::durable::{self, Disk as _, RealDisk};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// This device, as enrolment made it.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Its name.
    pub(crate) name: Name,
    /// Its key.
    pub(crate) key: Key,
    /// Its certificate.
    pub(crate) cell: Arc<CertCell>,
    /// Whom it trusts.
    pub(crate) trust: Arc<Trust>,
    /// How it came here.
    pub(crate) joined: Joined,
    folder: PathBuf,
}

/// What enrolment found out, kept as `join.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joined {
    /// The deployment.
    pub(crate) deployment: String,
    /// This device.
    pub(crate) id: String,
    /// The origin.
    pub(crate) origin: String,
    /// Enrolment listeners, as the join string named them.
    pub(crate) addresses: Vec<String>,
}

impl Joined {
    /// The origin's name.
    pub(crate) fn origin(&self) -> Result<Name, IdentityError> {
        self.name(Role::Origin, &self.origin)
    }

    fn name(&self, role: Role, id: &str) -> Result<Name, IdentityError> {
        let failed = |source| IdentityError::Name { source };
        Ok(Name {
            deployment: self.deployment.parse::<DeploymentId>().map_err(failed)?,
            role,
            id: id.parse::<DeviceId>().map_err(failed)?,
        })
    }
}

impl Identity {
    /// Loads what enrolment left in `folder`; none if this device has not enrolled. `now` (Unix
    /// seconds) is what roots are judged by.
    pub(crate) fn load(folder: &Path, now: i64) -> Result<Option<Self>, IdentityError> {
        let Some(joined) = read(&folder.join(JOIN))? else {
            return Ok(None);
        };
        let Some(chain) = read(&folder.join(CERT))? else {
            return Ok(None);
        };
        let joined: Joined =
            serde_json::from_str(&joined).map_err(|source| IdentityError::Joined {
                path: folder.join(JOIN),
                source,
            })?;
        let pem = |name: &str, text: &str| {
            pem::to_certs(text).map_err(|source| IdentityError::Pem {
                path: folder.join(name),
                source,
            })
        };
        let chain = pem(CERT, &chain)?;
        let roots = pem(ROOTS, &read(&folder.join(ROOTS))?.unwrap_or_default())?;
        let key = keyfile::load(&folder.join(KEY))?;
        let trust = new_trust(&roots, now)?;
        for ca in pem(CAS, &read(&folder.join(CAS))?.unwrap_or_default()).unwrap_or_default() {
            // One that has run out, or was revoked, is simply no longer known.
            drop(trust.add_issuing_ca(&ca, now));
        }
        Ok(Some(Self {
            name: joined.name(Role::Client, &joined.id)?,
            cell: Arc::new(CertCell::new(&chain, &key)?),
            key,
            trust: Arc::new(trust),
            joined,
            folder: folder.to_owned(),
        }))
    }

    /// Keeps a new certificate, and shows it from now on.
    pub(crate) fn renew(&self, chain: &[Vec<u8>]) -> Result<(), IdentityError> {
        write(&self.folder.join(CERT), &pem::from_certs(chain))?;
        Ok(self.cell.replace(chain, &self.key)?)
    }

    /// Keeps the roots and issuing CAs that are trusted now.
    pub(crate) fn keep_cas(&self) -> Result<(), IdentityError> {
        write_cas(&self.folder, &self.trust)
    }
}

/// Keeps what enrolment achieved; the certificate last, since it makes the rest count.
pub(crate) fn store(
    folder: &Path,
    joined: &Joined,
    trust: &Trust,
    chain: &[Vec<u8>],
) -> Result<(), IdentityError> {
    write_cas(folder, trust)?;
    let text = serde_json::to_string_pretty(joined).expect("strings always encode");
    write(&folder.join(JOIN), &text)?;
    write(&folder.join(CERT), &pem::from_certs(chain))
}

/// The device's key, made at the first asking.
pub(crate) fn key(folder: &Path) -> Result<Key, IdentityError> {
    let path = folder.join(KEY);
    if path.exists() {
        return Ok(keyfile::load(&path)?);
    }
    let key = Key::generate()?;
    durable::write(&RealDisk, &path, key.to_pem().as_bytes(), 0o600)
        .map_err(|source| IdentityError::Io { path, source })?;
    Ok(key)
}

/// Trust in `roots` and in nothing else yet.
pub(crate) fn new_trust<C: AsRef<[u8]>>(roots: &[C], now: i64) -> Result<Trust, IdentityError> {
    Ok(Trust::new(roots, Arc::new(CrlStore::new(CRL_GRACE)), now)?)
}

fn write_cas(folder: &Path, trust: &Trust) -> Result<(), IdentityError> {
    let ders = |cas: Vec<Arc<certs::CaCert>>| -> Vec<Vec<u8>> {
        cas.iter().map(|ca| ca.der().to_vec()).collect()
    };
    write(&folder.join(ROOTS), &pem::from_certs(&ders(trust.roots())))?;
    write(
        &folder.join(CAS),
        &pem::from_certs(&ders(trust.issuing_cas())),
    )
}

fn write(path: &Path, text: &str) -> Result<(), IdentityError> {
    if fs::read(path).is_ok_and(|before| before == text.as_bytes()) {
        return Ok(());
    }
    durable::write(&RealDisk, path, text.as_bytes(), 0o600).map_err(|source| IdentityError::Io {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let failed = |source| IdentityError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = RealDisk.read(path, FILE_BYTES_MAX).map_err(failed)?;
    bytes
        .map(|bytes| {
            String::from_utf8(bytes).map_err(|_| failed(io::Error::other("it is no text")))
        })
        .transpose()
}

/// Why this device does not know who it is.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate cannot be shown.
    #[error("cannot use our certificate")]
    Cell(#[from] CellError),
    /// A file cannot be read or written.
    #[error("cannot use {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What enrolment left is damaged.
    #[error("cannot use {path}", path = path.display())]
    Joined {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[from] certs::key::KeyError),
    /// The key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A name is none.
    #[error("cannot use a name")]
    Name {
        /// What is wrong.
        source: certs::name::NameError,
    },
    /// Certificates cannot be read.
    #[error("cannot use the certificates in {path}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// The roots cannot be trusted.
    #[error("cannot trust the roots that we were given")]
    Trust(#[from] TrustError),
}

const KEY: &str = "key.pem";
const CERT: &str = "cert.pem";
const ROOTS: &str = "roots.pem";
const CAS: &str = "cas.pem";
const JOIN: &str = "join.json";
/// Sixteen certificates of 4 KiB in PEM, and room to spare.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// A list counts until its next is due and no longer: a client that has none asks for one.
const CRL_GRACE: Duration = Duration::ZERO;
