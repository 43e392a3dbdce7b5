//! An origin, boosters and clients on loopback, with keys of their own in a temporary folder.
//!
//! What is large is kept on the heap, since a test's stack is small.

mod party;
mod wait;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use booster::Booster;
use certs::Role;
use client::{PullReport, PullRequest};
use content::FilesetName;
use content::index::CasePolicy;
use content::statement::{Deployment, Statement};
use member::{EnrolRequest, Kind, enrol};
use origin::Origin;
use origin::admin::AdminClient;
use origin::authority::{NewDeployment, init};
use origin::fleet::{DeviceView, NewToken, TokenCreated};
use origin::publish::messages::Committed;
use origin::publish::send::{self, Quiet};
use protocol::Join;
use service::Clock;
use tempfile::TempDir;
use transport::ContentJudge;

pub use party::Party;
pub use wait::until;

/// How long anything in a test may take before it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a booster of a bed asks for revocation lists.
pub const CRL_POLL: Duration = Duration::from_millis(200);

/// Any port of loopback.
const ANY: &str = "127.0.0.1:0";

/// An origin at work, and a place for those who join it.
#[derive(Debug)]
pub struct Testbed {
    /// Where everybody keeps what is his.
    pub folder: TempDir,
    offset: Arc<AtomicI64>,
    origin: Option<Origin>,
    config: origin::config::Config,
}

impl Testbed {
    /// A new deployment with nobody in it.
    ///
    /// # Errors
    ///
    /// Fails if the origin cannot start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at(&[]).await
    }

    /// The same, with an origin that says it serves content at `addresses`: those of links to it.
    ///
    /// # Errors
    ///
    /// Fails if the origin cannot start.
    pub async fn start_at(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        Self::start_behind(addresses, &[]).await
    }

    /// The same, with an origin that says it serves content at `content`, and enrols at `enrol`.
    ///
    /// # Errors
    ///
    /// Fails if the origin cannot start.
    pub async fn start_behind(
        content: &[SocketAddr],
        enrol: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("larder").tempdir()?;
        let offset = Arc::new(AtomicI64::new(0));
        let data = folder.path().join("origin");
        let new = NewDeployment {
            id: "bed".parse()?,
            origin_id: "origin".parse()?,
            host: "127.0.0.1".to_owned(),
        };
        let clock = Clock::fixed_offset(Arc::clone(&offset));
        init(&data, new, clock.now()).await?;
        let texts = |addresses: &[SocketAddr]| -> Vec<String> {
            addresses.iter().map(ToString::to_string).collect()
        };
        let (content, enrol) = (texts(content), texts(enrol));
        let settings = format!(
            "data = {data:?}\nops.listen = {ANY:?}\n\
             enrol.listen = {ANY:?}\nenrol.addresses = {enrol:?}\n\
             content.listen = {ANY:?}\ncontent.addresses = {content:?}\n"
        );
        let file = folder.path().join("origin.toml");
        std::fs::write(&file, settings)?;
        let config = origin::config::Config::load(&file)?;
        let origin = Some(Origin::bind(config.clone(), clock).await?);
        Ok(Self {
            folder,
            offset,
            origin,
            config,
        })
    }

    /// The clock that everybody here goes by.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock::fixed_offset(Arc::clone(&self.offset))
    }

    /// Moves that clock.
    pub fn pass(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The origin.
    ///
    /// # Panics
    ///
    /// Panics while it is stopped.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        self.origin.as_ref().expect("the origin is at work")
    }

    /// A path below the bed's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The way to administer the origin.
    #[must_use]
    pub fn admin(&self) -> AdminClient {
        AdminClient::new(self.config.data())
    }

    /// Ends the origin at once, as a kill does: nothing is drained.
    pub fn kill_origin(&mut self) {
        self.origin = None;
    }

    /// Ends the origin as it should end.
    pub async fn stop(mut self) {
        if let Some(origin) = self.origin.take() {
            let _drained = origin.drain(Duration::from_secs(5)).await;
        }
    }

    /// Starts the origin again, on other ports: links must be led there.
    ///
    /// # Errors
    ///
    /// Fails if it cannot start.
    pub async fn restart_origin(&mut self) -> anyhow::Result<()> {
        // One that was killed a moment ago may still hold its socket.
        let start = async || Origin::bind(self.config.clone(), self.clock()).await;
        self.origin = Some(until(start, Result::is_ok).await?);
        Ok(())
    }

    /// A join string for one party of that `role`, which needs no operator.
    ///
    /// # Errors
    ///
    /// Fails if the origin refuses.
    pub async fn join(&self, role: Role) -> anyhow::Result<Join> {
        self.token(role, true).await
    }

    /// A join string for one party of that `role`.
    ///
    /// # Errors
    ///
    /// Fails if the origin refuses.
    pub async fn token(&self, role: Role, auto_approve: bool) -> anyhow::Result<Join> {
        let new = NewToken {
            role: role.to_string(),
            auto_approve,
            group: Some("north".to_owned()),
            device: None,
            uses: 1,
            ttl_seconds: 3600,
        };
        let created: TokenCreated = self.admin().post("/tokens", &new).await?;
        Ok(created.join.parse()?)
    }

    /// Enrols a client called `id`, and returns its data folder.
    ///
    /// # Errors
    ///
    /// Fails if the origin refuses.
    pub async fn enrol_client(&self, id: &str) -> anyhow::Result<PathBuf> {
        let data = self.path(id);
        let join = self.join(Role::Client).await?;
        let request = EnrolRequest {
            id: Some(id.parse()?),
            patience: PATIENCE,
            ..EnrolRequest::new(Kind::Client, data.clone(), join)
        };
        Box::pin(enrol(request, &self.clock(), |_| {})).await?;
        Ok(data)
    }

    /// Enrols a booster called `id`, and returns its data folder.
    ///
    /// # Errors
    ///
    /// Fails if the origin refuses.
    pub async fn enrol_booster(&self, id: &str) -> anyhow::Result<PathBuf> {
        let data = self.path(id);
        let join = self.join(Role::Booster).await?;
        let request = EnrolRequest {
            id: Some(id.parse()?),
            patience: PATIENCE,
            ..EnrolRequest::new(Kind::Booster, data.clone(), join)
        };
        Box::pin(enrol(request, &self.clock(), |_| {})).await?;
        Ok(data)
    }

    /// Enrols and starts a booster called `id`, and waits until the origin lists it.
    ///
    /// # Errors
    ///
    /// Fails if it cannot start.
    pub async fn booster(&self, id: &str) -> anyhow::Result<Booster> {
        let data = self.enrol_booster(id).await?;
        let config = booster::Config::on_loopback(data).with_crl_poll(CRL_POLL);
        self.start_booster(config, id).await
    }

    /// Starts a booster that has enrolled, and waits until the origin lists it where it listens.
    ///
    /// # Errors
    ///
    /// Fails if it cannot start.
    pub async fn start_booster(
        &self,
        config: booster::Config,
        id: &str,
    ) -> anyhow::Result<Booster> {
        let booster = Box::pin(Booster::bind(config, self.clock())).await?;
        let port = booster.local_addr().port();
        let listed = async || self.booster_addresses(id).unwrap_or_default();
        let here = |addresses: &Vec<String>| {
            addresses
                .iter()
                .any(|address| address.ends_with(&format!(":{port}")))
        };
        until(listed, here).await;
        Ok(booster)
    }

    /// Where the deployment document says that the booster `id` serves.
    fn booster_addresses(&self, id: &str) -> Option<Vec<String>> {
        let judge = ContentJudge::new(Arc::clone(self.origin().authority().trust()));
        let envelope = self.origin().documents().current();
        let document =
            Statement::<Deployment>::open(&envelope.envelope, &judge, self.clock().now()).ok()?;
        let found = document.boosters.iter().find(|booster| booster.id == id)?;
        Some(found.addresses.clone())
    }

    /// Pulls the current revision of `fileset` to `target`, as the client with that data folder.
    ///
    /// # Errors
    ///
    /// Fails as the pull does.
    pub async fn pull(
        &self,
        data: &Path,
        fileset: &str,
        target: &Path,
    ) -> anyhow::Result<PullReport> {
        let request = PullRequest::new(data.to_owned(), fileset.parse()?, target.to_owned());
        Ok(Box::pin(client::pull(request, &self.clock())).await?)
    }

    /// Revokes a device.
    ///
    /// # Errors
    ///
    /// Fails if the origin refuses.
    pub async fn revoke(&self, id: &str) -> anyhow::Result<()> {
        let _now: DeviceView = self
            .admin()
            .post(&format!("/devices/{id}/revoke"), &())
            .await?;
        Ok(())
    }

    /// Publishes a folder.
    ///
    /// # Errors
    ///
    /// Fails as the publish does.
    pub async fn publish(&self, name: &str, folder: &Path) -> anyhow::Result<Committed> {
        let fileset: FilesetName = name.parse()?;
        let request = send::Request {
            fileset,
            folder: folder.to_owned(),
            case_policy: CasePolicy::Unique,
        };
        let socket = &self.origin().addresses().admin;
        let published = send::publish(socket, request, Arc::new(Quiet)).await;
        published.context("cannot publish")
    }
}
