//! Who did what: entries for the audit log, and the check that nobody has touched it since.

mod verify;

use std::fmt;
use std::fs::File;
use std::io::Read as _;

use certs::{Identity, IssuerId, Role};
use content::Digest;
use service::unix::PeerUser;
use sqlx::SqliteConnection;

pub use verify::{Broken, Verified, VerifyError, verify};

use crate::ledger::LedgerError;
use crate::ledger::audit::{self, Entry};

/// Who did something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor(String);

tokio::task_local! {
    static ACTING: Actor;
}

/// Does `work` on behalf of `actor`, who is then [`Actor::acting`] in it, but not in tasks that it
/// starts.
pub async fn acting_for<T>(actor: Actor, work: impl Future<Output = T>) -> T {
    ACTING.scope(actor, work).await
}

/// What is told in the audit log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// A device's key may have its certificate.
    Approval,
    /// A CA was announced, and issues from a time on.
    CaCreated,
    /// A CA issues no more and its last list is signed.
    CaRetired,
    /// A revocation list was signed.
    Crl,
    /// A device's key may not have a certificate.
    Denial,
    /// A device was asked to do something.
    Command,
    /// The deployment was made.
    Init,
    /// A first certificate was issued.
    Issue,
    /// A draft became the next model.
    ModelCommit,
    /// An old model became the next.
    ModelRollback,
    /// A device's name has passed to another key of its own.
    Rekey,
    /// A certificate was issued to somebody who had one before.
    Renewal,
    /// A device asked to be let in.
    Request,
    /// A backup was put in place.
    Restore,
    /// A device is no more.
    Revocation,
    /// A token was made.
    TokenCreated,
    /// A token was taken back.
    TokenRevoked,
}

impl Actor {
    /// The origin by itself.
    #[must_use]
    pub fn origin() -> Self {
        Self("origin".to_owned())
    }

    /// A party that has shown its certificate, or proved its key.
    #[must_use]
    pub fn party(identity: &Identity) -> Self {
        Self(format!("{} {}", identity.role, identity.id))
    }

    /// A device that may or may not be what it claims, at `address`.
    #[must_use]
    pub fn stranger(role: Role, address: impl fmt::Display) -> Self {
        Self(format!("{role} at {address}"))
    }

    /// Whoever is at the other end of the admin socket.
    #[must_use]
    pub fn operator(peer: Option<PeerUser>) -> Self {
        match peer {
            Some(PeerUser { uid }) => Self::user(uid),
            None => Self("an unknown user".to_owned()),
        }
    }

    /// Whoever the work under way is done for: see [`acting_for`]. By itself, the origin.
    #[must_use]
    pub fn acting() -> Self {
        ACTING
            .try_with(Self::clone)
            .unwrap_or_else(|_| Self::origin())
    }

    /// Whoever runs this program.
    #[must_use]
    pub fn this_user() -> Self {
        Self::user(rustix::process::getuid().as_raw())
    }

    fn user(uid: u32) -> Self {
        match user_name(uid) {
            Some(name) => Self(format!("user {uid} ({name})")),
            None => Self(format!("user {uid}")),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Event {
    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::CaCreated => "ca-created",
            Self::CaRetired => "ca-retired",
            Self::Crl => "crl",
            Self::Denial => "denial",
            Self::Command => "command",
            Self::Init => "init",
            Self::Issue => "issue",
            Self::ModelCommit => "model-commit",
            Self::ModelRollback => "model-rollback",
            Self::Rekey => "rekey",
            Self::Renewal => "renewal",
            Self::Request => "request",
            Self::Restore => "restore",
            Self::Revocation => "revocation",
            Self::TokenCreated => "token-created",
            Self::TokenRevoked => "token-revoked",
        }
    }

    /// An entry about it: `actor` did it at `at`.
    #[must_use]
    pub fn by(self, actor: &Actor, at: i64) -> Draft {
        Draft(Entry {
            at,
            actor: actor.to_string(),
            event: self.as_str().to_owned(),
            details: Vec::new(),
        })
    }
}

/// An entry that is being written.
#[derive(Clone, Debug)]
pub struct Draft(Entry);

impl Draft {
    /// Adds a detail. What is too long for a name or a reason is cut off.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        let mut value = value.to_string();
        value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX));
        self.0.details.push((name.to_owned(), value));
        self
    }

    /// Adds a detail, if there is one.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds a SHA-256.
    #[must_use]
    pub fn with_digest(self, name: &str, digest: &[u8; 32]) -> Self {
        self.with(name, Digest::from_raw(*digest).hex())
    }

    /// Adds the issuer of something.
    #[must_use]
    pub fn with_issuer(self, issuer: &[u8; 32]) -> Self {
        self.with("issuer", IssuerId::from_bytes(*issuer))
    }

    /// Writes it, in the transaction that does what it tells.
    ///
    /// # Errors
    ///
    /// Fails if the database does: then what it tells must not be done.
    pub async fn append(&self, db: &mut SqliteConnection) -> Result<(), LedgerError> {
        audit::append(db, &self.0).await
    }
}

/// The name of the user `uid` in the system's own list. Users of a directory service have none
/// there: their number is what counts.
fn user_name(uid: u32) -> Option<String> {
    let mut text = String::new();
    let file = File::open("/etc/passwd").ok()?;
    file.take(PASSWD_BYTES_MAX).read_to_string(&mut text).ok()?;
    // passwd(5): name, password, number, …
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number = fields.nth(1)?;
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Longer than any name, digest or serial of ours.
const VALUE_BYTES_MAX: usize = 512;
/// Ten thousand users.
const PASSWD_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests;
