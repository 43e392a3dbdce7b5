//! What the tests of this room share: an authority in a temporary folder, on a clock of its own.

pub(crate) mod estate;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use certs::{Key, Role, csr};
use protocol::Token;
use service::Clock;
use tempfile::TempDir;

use crate::LEDGER_FILE;
use crate::authority::{Authority, NewDeployment, init};
use crate::config::Config;
use crate::enrol::{EnrolError, Enrolment, Request};
use crate::ledger::devices::{self, State};
use crate::ledger::{Ledger, commit, tokens};

/// A day in seconds.
pub(crate) const DAY: i64 = 86_400;

/// An authority, and what it stands on.
pub(crate) struct Bed {
    pub(crate) authority: Authority,
    pub(crate) enrolment: Enrolment,
    pub(crate) folder: TempDir,
    offset: Arc<AtomicI64>,
}

impl Bed {
    /// A new deployment.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::fixed_offset(Arc::clone(&offset));
        init(folder.path(), new_deployment(), clock.now())
            .await
            .unwrap();
        let authority = open(folder.path(), clock).await.unwrap();
        let rules = config(folder.path()).enrol().clone();
        let enrolment = Enrolment::new(authority.clone(), rules);
        Self {
            authority,
            enrolment,
            folder,
            offset,
        }
    }

    /// The same, with its enrolment on the authority as it is now.
    pub(crate) fn reopened(self) -> Self {
        let rules = config(self.folder.path()).enrol().clone();
        let enrolment = Enrolment::new(self.authority.clone(), rules);
        Self { enrolment, ..self }
    }

    /// Opens the same data folder once more, as the next start does.
    pub(crate) async fn reopen(&self) -> Result<Authority, crate::authority::AuthorityError> {
        open(self.folder.path(), self.authority.clock().clone()).await
    }

    /// Moves the clock.
    pub(crate) fn pass(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A token for one client.
    pub(crate) async fn token(&self, auto_approve: bool) -> Token {
        self.new_token(Role::Client, auto_approve, None).await
    }

    /// A token that lets one client in, which must be called `device` if that is said.
    pub(crate) async fn token_for(&self, device: Option<&str>) -> Token {
        self.new_token(Role::Client, true, device).await
    }

    /// A token that lets one party of that role in.
    pub(crate) async fn token_of(&self, role: Role) -> Token {
        self.new_token(role, true, None).await
    }

    async fn new_token(&self, role: Role, auto_approve: bool, device: Option<&str>) -> Token {
        let token = Token::new(certs::key::random().unwrap());
        let now = self.authority.clock().now();
        let record = tokens::Token {
            role,
            auto_approve,
            group: Some("north".to_owned()),
            device: device.map(|id| id.parse().unwrap()),
            uses: 1,
            uses_left: 1,
            created_at: now,
            expires_at: now + DAY,
        };
        let mut tx = self.authority.ledger().write().await.unwrap();
        let digest = content::Digest::of(token.as_bytes());
        tokens::insert(&mut tx, digest.as_raw(), &record)
            .await
            .unwrap();
        commit(tx).await.unwrap();
        token
    }

    /// Moves the device `id` to `state`, as an operator does.
    pub(crate) async fn decide(&self, id: &str, state: State) {
        let mut tx = self.authority.ledger().write().await.unwrap();
        let at = Some(self.authority.clock().now());
        devices::change(&mut tx, &id.parse().unwrap(), state, at)
            .await
            .unwrap();
        commit(tx).await.unwrap();
    }

    /// How far the device `id` has come.
    pub(crate) async fn stage(&self, id: &str) -> &'static str {
        let mut db = self.authority.ledger().read().await.unwrap();
        let now = self.authority.clock().now();
        let found = devices::find_staged(&mut db, &id.parse().unwrap(), now).await;
        found.unwrap().unwrap().1.as_str()
    }

    /// Revokes the client `id`.
    pub(crate) async fn revoke(&self, id: &str) {
        let tx = self.authority.ledger().write().await.unwrap();
        let whom = [(Role::Client, id.parse().unwrap())];
        let reason = certs::crl::RevocationReason::Unspecified;
        self.authority.revoke(tx, &whom, reason).await.unwrap();
    }

    /// Lets no number be published, as by a disk that refuses; or all again. No mode stops root.
    pub(crate) fn refuse_marks(&self, refuse: bool) {
        let at = |name| self.folder.path().join(name);
        let (path, aside) = (at("published.cbor"), at("aside"));
        if refuse {
            fs::rename(&path, &aside).unwrap();
            fs::create_dir_all(path.join("in the way")).unwrap();
        } else {
            fs::remove_dir_all(&path).unwrap();
            fs::rename(&aside, &path).unwrap();
        }
    }

    /// `key` asks for a certificate as the client `id`; what it hears.
    pub(crate) async fn ask(&self, key: &Key, id: &str, token: Option<&Token>) -> String {
        let request = request(key, id, token.cloned());
        told(self.enrolment.enrol(request).await)
    }
}

/// A request of the client `id`.
pub(crate) fn request(key: &Key, id: &str, token: Option<Token>) -> Request {
    let csr = csr::parse(&csr::make(key, id).unwrap()).unwrap();
    Request {
        role: Role::Client,
        csr,
        token,
        address: IpAddr::from([192, 0, 2, 1]),
        claims: None,
    }
}

/// A decision in a word or two.
pub(crate) fn told(asked: Result<crate::enrol::Decision, EnrolError>) -> String {
    match asked {
        Ok(crate::enrol::Decision::Issued(certificate)) => format!("issued {}", certificate.holder),
        Ok(crate::enrol::Decision::Pending) => "pending".to_owned(),
        Err(refusal) => refusal.label().to_owned(),
    }
}

/// What a test's deployment is called.
pub(crate) fn new_deployment() -> NewDeployment {
    NewDeployment {
        id: "acme".parse().unwrap(),
        origin_id: "origin".parse().unwrap(),
        host: "127.0.0.1".to_owned(),
    }
}

/// Settings for a test.
pub(crate) fn config(data: &Path) -> Config {
    Config::on_loopback(data.to_owned())
}

async fn open(data: &Path, clock: Clock) -> Result<Authority, crate::authority::AuthorityError> {
    let ledger = Ledger::open(&data.join(LEDGER_FILE)).await?;
    Authority::open(data, ledger, config(data).certificates().clone(), clock).await
}
