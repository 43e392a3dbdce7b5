//! The keys of a deployment: where they lie, how they are made and read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::ca_cert::{CaCert, CaKind};
use certs::issue::{self, Ca};
use certs::key::{self, Key, Passphrase, SigningKey};
use certs::keyfile;
use certs::name::DeploymentId;
use certs::pkcs11::{Pkcs11Uri, TokenKey};
use certs::serial::Serial;
use content::durable::{self, Disk as _, RealDisk};

use super::AuthorityError;
use crate::ledger::authorities;

/// What the origin works with: every private key but the roots'.
#[derive(Debug)]
pub(super) struct Keys {
    /// Issuing CAs that are not retired, of each kind the newest first.
    issuing: Vec<Issuing>,
    /// Roots that are not retired, the newest first.
    roots: Vec<Root>,
    /// The origin's own, for TLS.
    pub(super) origin: Key,
    /// Signs statements.
    pub(super) signer: Key,
}

#[derive(Debug)]
struct Issuing {
    ca: Ca,
    issues_from: i64,
}

#[derive(Debug)]
struct Root {
    cert: CaCert,
    issues_from: i64,
}

/// Name of an authority's kind in the ledger and in file names.
pub(super) const ROOT: &str = "root";

/// The generation that `init` makes.
pub(super) const FIRST: u32 = 1;

impl Keys {
    /// Reads those in `folder` that belong to the authorities of the ledger and are not retired.
    /// Refuses keys that others may read, and keys that don't belong to their certificate. A root's
    /// key need not be there, nor be readable without its passphrase.
    pub(super) fn load(
        folder: &Path,
        known: &[authorities::Authority],
    ) -> Result<Self, AuthorityError> {
        let (mut issuing, mut roots) = (Vec::new(), Vec::new());
        // The newest generation of each kind comes first.
        for authority in known.iter().filter(|it| it.retired_at.is_none()) {
            let (kind, generation) = (&authority.kind, authority.generation);
            let issues_from = authority.issues_from;
            if kind == ROOT {
                let path = ca_key_path(folder, kind, generation);
                if path.exists() {
                    keyfile::check_private(&path)?;
                }
                let cert = CaCert::parse(&authority.der).map_err(AuthorityError::CaCert)?;
                roots.push(Root { cert, issues_from });
            } else {
                let ca = Ca::load(&authority.der, issuing_key(folder, kind, generation)?)?;
                issuing.push(Issuing { ca, issues_from });
            }
        }
        let kinds: Vec<_> = issuing
            .iter()
            .filter_map(|it| it.ca.cert().kind())
            .collect();
        if roots.is_empty() || CaKind::ALL.iter().any(|kind| !kinds.contains(kind)) {
            return Err(AuthorityError::NotInitialised);
        }
        Ok(Self {
            issuing,
            roots,
            origin: keyfile::load(&key_path(folder, ORIGIN))?,
            signer: keyfile::load(&key_path(folder, SIGNER))?,
        })
    }

    /// The roots, the newest first.
    pub(super) fn roots(&self) -> impl Iterator<Item = &CaCert> {
        self.roots.iter().map(|root| &root.cert)
    }

    /// The issuing CAs: those in use, those announced, and those whose certificates run out.
    pub(super) fn issuing(&self) -> impl Iterator<Item = &Ca> {
        self.issuing.iter().map(|it| &it.ca)
    }

    /// The root above the CAs that issue at `now`: what a newcomer must pin.
    pub(super) fn root(&self, now: i64) -> &CaCert {
        let in_use = self.roots.iter().find(|root| root.issues_from <= now);
        let root = in_use.or_else(|| self.roots.last());
        &root.expect("there is a root, as loading has found").cert
    }

    /// The CA that certifies `kind` at `now`.
    pub(super) fn ca(&self, kind: CaKind, now: i64) -> &Ca {
        let mut of_kind = self
            .issuing
            .iter()
            .filter(|it| it.ca.cert().kind() == Some(kind));
        let in_use = of_kind.clone().find(|it| it.issues_from <= now);
        // With a clock that is far behind, the first of all.
        let found = in_use.or_else(|| of_kind.next_back());
        &found
            .expect("there is one of each kind, as loading has found")
            .ca
    }
}

/// Makes the folder of the keys, and the origin's own two.
pub(super) fn make_own(folder: &Path) -> Result<(), AuthorityError> {
    durable::create_folder(&RealDisk, folder, 0o700).map_err(|source| AuthorityError::Write {
        path: folder.to_owned(),
        source,
    })?;
    for name in [ORIGIN, SIGNER] {
        write(
            &key_path(folder, name),
            Key::generate()?.to_pem().as_bytes(),
        )?;
    }
    Ok(())
}

/// Makes a root, and writes its key, encrypted if there is a passphrase.
pub(super) fn make_root(
    folder: &Path,
    deployment: &DeploymentId,
    generation: u32,
    passphrase: Option<&Passphrase>,
    now: i64,
) -> Result<Ca, AuthorityError> {
    let key = Key::generate()?;
    write_root_key(folder, generation, &key, passphrase)?;
    Ok(issue::root(
        deployment,
        generation,
        key,
        new_serial()?,
        now,
    )?)
}

/// Makes an issuing CA, and writes its key.
pub(super) fn make_issuing(
    folder: &Path,
    kind: CaKind,
    generation: u32,
    root: &Ca,
    now: i64,
) -> Result<Ca, AuthorityError> {
    let key = Key::generate()?;
    let path = ca_key_path(folder, kind_name(kind), generation);
    write(&path, key.to_pem().as_bytes())?;
    Ok(issue::issuing_ca(
        kind,
        generation,
        root,
        key,
        new_serial()?,
        now,
    )?)
}

/// Makes an issuing CA whose key lies in a token, and writes down where.
pub(super) fn make_issuing_in_token(
    folder: &Path,
    kind: CaKind,
    generation: u32,
    token: &Pkcs11Uri,
    root: &Ca,
    now: i64,
) -> Result<Ca, AuthorityError> {
    let key = TokenKey::open(token, None)?;
    let path = token_path(folder, kind_name(kind), generation);
    write(&path, format!("{token}\n").as_bytes())?;
    Ok(issue::issuing_ca(
        kind,
        generation,
        root,
        key_of(key),
        new_serial()?,
        now,
    )?)
}

/// The key of an issuing CA: from its file, or in the token that a file in its place names.
pub(super) fn issuing_key(
    folder: &Path,
    kind: &str,
    generation: u32,
) -> Result<Arc<dyn SigningKey>, AuthorityError> {
    let path = token_path(folder, kind, generation);
    if !path.exists() {
        return Ok(keyfile::load(&ca_key_path(folder, kind, generation))?.into());
    }
    keyfile::check_private(&path)?;
    let bytes = RealDisk.read(&path, URI_BYTES_MAX);
    let bytes = bytes.map_err(|source| AuthorityError::Read { path, source })?;
    let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    let token: Pkcs11Uri = text.trim().parse()?;
    Ok(key_of(TokenKey::open(&token, None)?))
}

fn key_of(key: TokenKey) -> Arc<dyn SigningKey> {
    Arc::new(key)
}

/// Writes a root's key, encrypted if there is a passphrase.
pub(super) fn write_root_key(
    folder: &Path,
    generation: u32,
    key: &Key,
    passphrase: Option<&Passphrase>,
) -> Result<(), AuthorityError> {
    let path = ca_key_path(folder, ROOT, generation);
    match passphrase {
        Some(passphrase) => write(&path, key.to_encrypted_pem(passphrase)?.as_bytes()),
        None => write(&path, key.to_pem().as_bytes()),
    }
}

/// Reads the key of the root of that generation.
pub(super) fn root_key(
    folder: &Path,
    generation: u32,
    passphrase: Option<&Passphrase>,
) -> Result<Key, AuthorityError> {
    let path = ca_key_path(folder, ROOT, generation);
    Ok(match passphrase {
        Some(passphrase) if key_state(&path) == KeyState::Encrypted => {
            keyfile::load_encrypted(&path, passphrase)?
        }
        Some(_) | None => keyfile::load(&path)?,
    })
}

/// How a key lies in its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum KeyState {
    /// It is not there.
    Absent,
    /// Under a passphrase.
    Encrypted,
    /// For whoever may read the file.
    Plain,
}

/// How the key in the file `path` lies there.
pub(super) fn key_state(path: &Path) -> KeyState {
    match std::fs::read_to_string(path) {
        Ok(text) if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") => KeyState::Encrypted,
        Ok(_) => KeyState::Plain,
        Err(_) => KeyState::Absent,
    }
}

/// A new random serial.
pub(super) fn new_serial() -> Result<Serial, AuthorityError> {
    Ok(Serial::from_random(key::random()?))
}

/// Writes a key where nobody else can read it.
fn write(path: &Path, pem: &[u8]) -> Result<(), AuthorityError> {
    durable::write(&RealDisk, path, pem, 0o600).map_err(|source| AuthorityError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The name of an issuing CA's kind in the ledger and in file names.
pub(super) fn kind_name(kind: CaKind) -> &'static str {
    match kind {
        CaKind::Node => "node",
        CaKind::Client => "client",
        CaKind::Content => "content",
    }
}

/// The file of a CA's key.
pub(super) fn ca_key_path(folder: &Path, kind: &str, generation: u32) -> PathBuf {
    key_path(folder, &format!("{kind}-g{generation}"))
}

/// The file that names a CA's key in a token.
pub(super) fn token_path(folder: &Path, kind: &str, generation: u32) -> PathBuf {
    folder.join(format!("{kind}-g{generation}.pkcs11"))
}

fn key_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.pem"))
}

/// The longest such name, and a line's end.
const URI_BYTES_MAX: u64 = 1026;
const ORIGIN: &str = "origin";
const SIGNER: &str = "signer";
