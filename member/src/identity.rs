//! Who a member is: its key, its certificate, and whom it trusts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::keyfile::{self, KeyFileError};
use certs::name::NameError;
use certs::pem::{self, PemError};
use certs::tls::{CellError, CertCell};
use certs::trust::TrustError;
use certs::{CrlStore, DeploymentId, DeviceId, Identity as Name, Key, Role, Trust};
use content::durable::{self, Disk as _, RealDisk};
use serde::{Deserialize, Serialize};
use service::Report;
use thiserror::Error;
use tracing::debug;

use crate::blocking::off_the_runtime;
use crate::kind::Kind;

/// A member, as enrolment made it.
#[derive(Debug)]
pub struct Identity {
    /// Its certificate.
    pub cell: Arc<CertCell>,
    /// How it came here.
    pub joined: Joined,
    /// Its key.
    pub key: Key,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// The origin's name.
    pub origin: Name,
    /// Whom it trusts.
    pub trust: Arc<Trust>,
    folder: PathBuf,
}

/// What enrolment found out, kept as `join.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// Where others reach it, if that was said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<String>,
    /// Enrolment listeners, as the join string named them.
    pub addresses: Vec<String>,
    /// The deployment.
    pub deployment: String,
    /// This member.
    pub id: String,
    /// The origin.
    pub origin: String,
}

impl Identity {
    /// Loads what enrolment left in `folder`; none if nobody has enrolled there. `now` (Unix
    /// seconds) is what roots are judged by. A revocation list counts for `grace` after its next
    /// was due: none, unless an operator has decided otherwise.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read, is damaged, or can be read by others.
    pub fn load(
        folder: &Path,
        kind: Kind,
        grace: Duration,
        now: i64,
    ) -> Result<Option<Self>, IdentityError> {
        let (Some(joined), Some(chain)) = (read(folder, JOIN)?, read(folder, CERT)?) else {
            return Ok(None);
        };
        let joined: Joined =
            serde_json::from_str(&joined).map_err(|source| IdentityError::Joined {
                path: folder.join(JOIN),
                source,
            })?;
        let key = keyfile::load(&folder.join(KEY))?;
        let lists = Arc::new(CrlStore::new(grace));
        let trust = Trust::new(&certs(folder, ROOTS)?, lists, now)?;
        for ca in certs(folder, CAS)? {
            if let Err(failure) = trust.add_issuing_ca(&ca, now) {
                debug!(error = %Report(&failure), "an issuing CA counts no longer");
            }
        }
        let chain = parse(folder, CERT, &chain)?;
        Ok(Some(Self {
            cell: Arc::new(CertCell::new(&chain, &key)?),
            key,
            kind,
            name: name(&joined, kind.role(), &joined.id)?,
            origin: name(&joined, Role::Origin, &joined.origin)?,
            trust: Arc::new(trust),
            joined,
            folder: folder.to_owned(),
        }))
    }

    /// Keeps a new certificate and the CAs that are trusted now, and shows it from now on. The disk
    /// is touched off the runtime.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written, or is not for our key.
    pub async fn replace(&self, chain: &[Vec<u8>]) -> Result<(), IdentityError> {
        let text = pem::from_certs(chain);
        self.aside(move |folder, trust| {
            write(folder, CERT, &text)?;
            keep_cas(folder, trust)
        })
        .await?;
        Ok(self.cell.replace(chain, &self.key)?)
    }

    /// Keeps the roots and issuing CAs that are trusted now. Touches the disk.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be written.
    pub fn keep_cas(&self) -> Result<(), IdentityError> {
        keep_cas(&self.folder, &self.trust)
    }

    /// [`Identity::keep_cas`] off the runtime.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be written.
    pub async fn keep_cas_aside(&self) -> Result<(), IdentityError> {
        self.aside(keep_cas).await
    }

    async fn aside(
        &self,
        work: impl FnOnce(&Path, &Trust) -> Result<(), IdentityError> + Send + 'static,
    ) -> Result<(), IdentityError> {
        let (folder, trust) = (self.folder.clone(), Arc::clone(&self.trust));
        let done = off_the_runtime(move || work(&folder, &trust)).await;
        done.map_err(|source| IdentityError::Io {
            path: self.folder.clone(),
            source,
        })?
    }

    /// Until when the certificate counts, in Unix seconds; 0 if there is none.
    #[must_use]
    pub fn expires(&self) -> i64 {
        self.cell.validity().map_or(0, |(_, ends)| ends)
    }

    /// Whether the certificate has run out at `now`.
    #[must_use]
    pub fn has_expired(&self, now: i64) -> bool {
        now >= self.expires()
    }
}

/// Keeps what enrolment achieved; the certificate last, since it makes the rest count.
pub(crate) fn store(
    folder: &Path,
    joined: &Joined,
    trust: &Trust,
    chain: &[Vec<u8>],
) -> Result<(), IdentityError> {
    keep_cas(folder, trust)?;
    let text = serde_json::to_string_pretty(joined).expect("strings always encode");
    write(folder, JOIN, &text)?;
    write(folder, CERT, &pem::from_certs(chain))
}

/// The member's key, made at the first asking.
pub(crate) fn key(folder: &Path) -> Result<Key, IdentityError> {
    let path = folder.join(KEY);
    if path.exists() {
        return Ok(keyfile::load(&path)?);
    }
    let key = Key::generate()?;
    write(folder, KEY, &key.to_pem())?;
    Ok(key)
}

/// Trust in `roots` and in nothing else yet. Roots are judged at `now`, in Unix seconds. A list
/// counts until its next is due and no longer.
///
/// # Errors
///
/// Fails if a root is not in order, or none is in date.
pub fn new_trust<C: AsRef<[u8]>>(roots: &[C], now: i64) -> Result<Trust, IdentityError> {
    Ok(Trust::new(
        roots,
        Arc::new(CrlStore::new(Duration::ZERO)),
        now,
    )?)
}

fn keep_cas(folder: &Path, trust: &Trust) -> Result<(), IdentityError> {
    let ders = |cas: Vec<Arc<certs::CaCert>>| -> Vec<Vec<u8>> {
        cas.iter().map(|ca| ca.der().to_vec()).collect()
    };
    write(folder, ROOTS, &pem::from_certs(&ders(trust.roots())))?;
    write(folder, CAS, &pem::from_certs(&ders(trust.issuing_cas())))
}

fn name(joined: &Joined, role: Role, id: &str) -> Result<Name, IdentityError> {
    Ok(Name {
        deployment: joined.deployment.parse::<DeploymentId>()?,
        role,
        id: id.parse::<DeviceId>()?,
    })
}

fn certs(folder: &Path, file: &str) -> Result<Vec<Vec<u8>>, IdentityError> {
    match read(folder, file)? {
        Some(text) if !text.trim().is_empty() => parse(folder, file, &text),
        Some(_) | None => Ok(Vec::new()),
    }
}

fn parse(folder: &Path, file: &str, text: &str) -> Result<Vec<Vec<u8>>, IdentityError> {
    pem::to_certs(text).map_err(|source| IdentityError::Pem {
        path: folder.join(file),
        source,
    })
}

/// Writes durably, unless that is what the file says already.
fn write(folder: &Path, file: &str, text: &str) -> Result<(), IdentityError> {
    let path = folder.join(file);
    if fs::read(&path).is_ok_and(|before| before == text.as_bytes()) {
        return Ok(());
    }
    durable::write(&RealDisk, &path, text.as_bytes(), 0o600)
        .map_err(|source| IdentityError::Io { path, source })
}

fn read(folder: &Path, file: &str) -> Result<Option<String>, IdentityError> {
    let path = folder.join(file);
    let text = RealDisk.read(&path, FILE_BYTES_MAX).and_then(|bytes| {
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|_| io::Error::other("it is no text"))
    });
    text.map_err(|source| IdentityError::Io { path, source })
}

/// Why a member does not know who it is.
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
    #[error("cannot use a name that enrolment left")]
    Name(#[from] NameError),
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

impl IdentityError {
    /// Whether all is in order but the time: no root is in date.
    #[must_use]
    pub fn is_out_of_date(&self) -> bool {
        matches!(self, Self::Trust(TrustError::NoRoot))
    }
}

const KEY: &str = "key.pem";
const CERT: &str = "cert.pem";
const ROOTS: &str = "roots.pem";
const CAS: &str = "cas.pem";
const JOIN: &str = "join.json";
/// 64 certificates of 4 KiB in PEM.
const FILE_BYTES_MAX: u64 = 512 << 10;
