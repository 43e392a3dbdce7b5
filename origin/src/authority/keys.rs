//! The keys of a deployment: where they lie, how they are made and read.

use std::path::{Path, PathBuf};

use certs::ca_cert::CaKind;
use certs::issue::{self, Ca};
use certs::key::{self, Key};
use certs::keyfile;
use certs::name::DeploymentId;
use certs::serial::Serial;
use content::durable::{self, RealDisk};

use super::AuthorityError;
use crate::ledger::authorities;

/// Every private key that this origin holds, each CA with its certificate.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) root: Ca,
    pub(super) node: Ca,
    pub(super) client: Ca,
    pub(super) content: Ca,
    /// The origin's own, for TLS.
    pub(super) origin: Key,
    /// Signs statements.
    pub(super) signer: Key,
}

/// Name of an authority's kind in the ledger and in file names.
pub(super) const ROOT: &str = "root";

/// The generation that `init` makes.
const FIRST: u32 = 1;

impl Keys {
    /// Makes them all, and writes each into its file.
    pub(super) fn make(
        folder: &Path,
        deployment: &DeploymentId,
        now: i64,
    ) -> Result<Self, AuthorityError> {
        durable::create_folder(&RealDisk, folder, 0o700).map_err(|source| {
            AuthorityError::Write {
                path: folder.to_owned(),
                source,
            }
        })?;
        let fresh = |name: &str| fresh(&key_path(folder, name));
        let root = issue::root(
            deployment,
            FIRST,
            fresh(&ca_name(ROOT, FIRST))?,
            new_serial()?,
            now,
        )?;
        let issuing = |kind: CaKind| {
            let key = fresh(&ca_name(kind_name(kind), FIRST))?;
            let ca = issue::issuing_ca(kind, FIRST, &root, key, new_serial()?, now)?;
            Ok::<_, AuthorityError>(ca)
        };
        Ok(Self {
            node: issuing(CaKind::Node)?,
            client: issuing(CaKind::Client)?,
            content: issuing(CaKind::Content)?,
            origin: fresh(ORIGIN)?,
            signer: fresh(SIGNER)?,
            root,
        })
    }

    /// Reads them from `folder`, for the authorities of the ledger. Refuses keys that others may
    /// read, and keys that don't belong to their certificate.
    pub(super) fn load(
        folder: &Path,
        known: &[authorities::Authority],
    ) -> Result<Self, AuthorityError> {
        let ca = |kind: &str| {
            // The newest generation of each kind comes first.
            let found = known.iter().find(|authority| authority.kind == kind);
            let found = found.ok_or(AuthorityError::NotInitialised)?;
            let key = keyfile::load(&key_path(folder, &ca_name(kind, found.generation)))?;
            Ok::<_, AuthorityError>(Ca::load(&found.der, key)?)
        };
        Ok(Self {
            root: ca(ROOT)?,
            node: ca(kind_name(CaKind::Node))?,
            client: ca(kind_name(CaKind::Client))?,
            content: ca(kind_name(CaKind::Content))?,
            origin: keyfile::load(&key_path(folder, ORIGIN))?,
            signer: keyfile::load(&key_path(folder, SIGNER))?,
        })
    }

    /// Every CA with its kind's name, the root first.
    pub(super) fn cas(&self) -> [(&'static str, &Ca); 4] {
        [
            (ROOT, &self.root),
            (kind_name(CaKind::Node), &self.node),
            (kind_name(CaKind::Client), &self.client),
            (kind_name(CaKind::Content), &self.content),
        ]
    }

    /// The CA that certifies `kind`.
    pub(super) fn ca(&self, kind: CaKind) -> &Ca {
        match kind {
            CaKind::Node => &self.node,
            CaKind::Client => &self.client,
            CaKind::Content => &self.content,
        }
    }

    /// The authorities as the ledger keeps them.
    pub(super) fn authorities(&self) -> [authorities::Authority; 4] {
        self.cas().map(|(kind, ca)| authorities::Authority {
            issuer: *ca.id().as_bytes(),
            kind: kind.to_owned(),
            generation: FIRST,
            der: ca.cert_der().to_vec(),
        })
    }
}

/// A new random serial.
pub(super) fn new_serial() -> Result<Serial, AuthorityError> {
    Ok(Serial::from_random(key::random()?))
}

/// Makes a key and writes it where nobody else can read it.
fn fresh(path: &Path) -> Result<Key, AuthorityError> {
    let key = Key::generate()?;
    durable::write(&RealDisk, path, key.to_pem().as_bytes(), 0o600).map_err(|source| {
        AuthorityError::Write {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(key)
}

fn kind_name(kind: CaKind) -> &'static str {
    match kind {
        CaKind::Node => "node",
        CaKind::Client => "client",
        CaKind::Content => "content",
    }
}

fn ca_name(kind: &str, generation: u32) -> String {
    format!("{kind}-g{generation}")
}

fn key_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.pem"))
}

const ORIGIN: &str = "origin";
const SIGNER: &str = "signer";
