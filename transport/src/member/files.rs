//! The files of a membership.

use std::io;
use std::path::{Path, PathBuf};

use certs::{DeviceId, Key, keyfile, pem};
use content::durable::{self, Disk as _, RealDisk};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::MemberError;

/// What was learnt on joining. Its file is written last: once it is there, the rest is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Joined {
    /// The deployment.
    pub deployment: String,
    /// Our id.
    #[serde(with = "text")]
    pub id: DeviceId,
    /// The origin's id.
    #[serde(with = "text")]
    pub origin: DeviceId,
    /// Where the origin, or a relay to it, enrols: `host:port`.
    pub enrol_addresses: Vec<String>,
}

/// Why a file of a membership cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The disk refused.
    #[error("cannot read or write {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("cannot use {path}: it is damaged; enrol again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// All that is kept.
pub(super) struct Kept {
    pub(super) cas: Vec<Vec<u8>>,
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) joined: Joined,
    pub(super) key: Key,
    pub(super) roots: Vec<Vec<u8>>,
}

/// Reads what is kept in `data`.
pub(super) fn load(data: &Path) -> Result<Kept, MemberError> {
    let identity = data.join(IDENTITY);
    let Some(joined) = read(&identity.join(JOINED))? else {
        return Err(MemberError::NotJoined {
            data: data.to_owned(),
        });
    };
    let path = identity.join(JOINED);
    let joined = serde_json::from_slice(&joined).map_err(|_| FileError::Damaged { path })?;
    let certs = |name| {
        let path = identity.join(name);
        let text = read(&path)?.and_then(|bytes| String::from_utf8(bytes).ok());
        let certs = text.and_then(|text| pem::to_certs(&text).ok());
        certs.ok_or(FileError::Damaged { path })
    };
    Ok(Kept {
        cas: certs(CAS)?,
        chain: certs(CERT)?,
        joined,
        key: keyfile::load(&identity.join(KEY))?,
        roots: certs(ROOTS)?,
    })
}

/// The key in `data`; a new one, if there is none.
pub(super) fn key(data: &Path) -> Result<Key, MemberError> {
    for folder in [data.to_owned(), data.join(IDENTITY), data.join(STATE)] {
        durable::create_folder(&RealDisk, &folder, 0o700).map_err(|source| FileError::Io {
            path: folder,
            source,
        })?;
    }
    let path = data.join(IDENTITY).join(KEY);
    if path.exists() {
        return Ok(keyfile::load(&path)?);
    }
    let key = Key::generate()?;
    write(&path, key.to_pem().as_bytes())?;
    Ok(key)
}

/// What was joined before, if anything.
pub(super) fn joined(data: &Path) -> Result<Option<Joined>, FileError> {
    let path = data.join(IDENTITY).join(JOINED);
    match read(&path)? {
        None => Ok(None),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| FileError::Damaged { path }),
    }
}

/// Keeps a membership.
pub(super) fn store(
    data: &Path,
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    cas: &[Vec<u8>],
    joined: &Joined,
) -> Result<(), FileError> {
    let identity = data.join(IDENTITY);
    for (name, certs) in [(ROOTS, roots), (CAS, cas), (CERT, chain)] {
        write(&identity.join(name), pem::from_certs(certs).as_bytes())?;
    }
    let joined = serde_json::to_vec_pretty(joined).expect("texts always encode");
    write(&identity.join(JOINED), &joined)
}

/// Keeps a renewed certificate.
pub(super) fn store_chain(data: &Path, chain: &[Vec<u8>]) -> Result<(), FileError> {
    write(
        &data.join(IDENTITY).join(CERT),
        pem::from_certs(chain).as_bytes(),
    )
}

/// A file in the state folder.
pub(super) fn read_state(data: &Path, name: &str) -> Result<Option<Vec<u8>>, FileError> {
    read(&data.join(STATE).join(name))
}

/// Keeps a file in the state folder.
pub(super) fn write_state(data: &Path, name: &str, bytes: &[u8]) -> Result<(), FileError> {
    write(&data.join(STATE).join(name), bytes)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    RealDisk
        .read(path, FILE_BYTES_MAX)
        .map_err(|source| FileError::Io {
            path: path.to_owned(),
            source,
        })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    durable::write(&RealDisk, path, bytes, 0o600).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Ids as their text, parsed strictly.
mod text {
    use certs::DeviceId;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &DeviceId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(id.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DeviceId, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The longest file is a CRL.
const FILE_BYTES_MAX: u64 = protocol::CRL_BYTES_MAX as u64;

const IDENTITY: &str = "identity";
const STATE: &str = "state";
const KEY: &str = "key.pem";
const CERT: &str = "cert.pem";
const ROOTS: &str = "roots.pem";
const CAS: &str = "cas.pem";
const JOINED: &str = "joined.json";
