//! The origin at work: its listeners, its admin socket, its upkeep.

mod content;
mod handle;
mod numbers;
mod stock;
#[cfg(test)]
mod tests;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use certs::Role;
use certs::tls::{self, TlsError};
use serde::Serialize;
use service::metrics::{MetricsError, Registry};
use service::ops::{self, Health, Ops};
use service::unix::{self, UnixServer};
use service::{Clock, Component, Drained, Tasks};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;
use transport::listen::{self, Limits};
use transport::{HandshakeSink, ListenSettings, Listener, Refusals};

use crate::LEDGER_FILE;
use crate::admin::{Admin, BODY_BYTES_MAX, SOCKET_FILE};
use crate::api::{Api, UnderWay};
use crate::authority::{Authority, AuthorityError};
use crate::check_in::{CheckIns, Keeper};
use crate::config::{self, Config};
use crate::documents::{Addresses, DocumentError, Documents};
use crate::enrol::Enrolment;
use crate::fleet::Fleet;
use crate::inventory::Inventories;
use crate::ledger::{Ledger, LedgerError};
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::model::{Models, SmartGroups};
use crate::publish::intake::Intake;
use crate::reports::{Reports, hearing};
use stock::StockCheck;
use upkeep::Upkeep;

/// An origin that serves.
#[derive(Debug)]
pub struct Origin {
    admin: UnixServer,
    authority: Authority,
    bound: Bound,
    content: Listener,
    documents: Documents,
    enrol: Listener,
    health: Health,
    intake: Intake,
    manifests: Manifests,
    ops: Ops,
    tasks: Tasks,
}

/// Where an origin listens.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Bound {
    /// The admin socket.
    pub admin: PathBuf,
    /// Content, over mutual TLS.
    pub content: SocketAddr,
    /// Enrolment.
    pub enrol: SocketAddr,
    /// Operators.
    pub ops: SocketAddr,
}

/// Why an origin cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The admin socket cannot be opened.
    #[error("cannot open the admin socket")]
    Admin(#[from] unix::BindError),
    /// The authority cannot work.
    #[error("cannot start the authority")]
    Authority(#[from] AuthorityError),
    /// What is needed for content cannot be used.
    #[error("cannot open the content")]
    Content(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The deployment document cannot be signed.
    #[error("cannot make the deployment document")]
    Document(#[from] DocumentError),
    /// There is no ledger.
    #[error("cannot open the ledger")]
    Ledger(#[from] LedgerError),
    /// A listener cannot be opened.
    #[error("cannot open a listener")]
    Listen(#[from] listen::BindError),
    /// The metrics cannot be registered.
    #[error("cannot register the metrics")]
    Metrics(#[from] MetricsError),
    /// There is nothing in the data folder.
    #[error(
        "cannot find a deployment in {data}: run larder-origin init first",
        data = data.display()
    )]
    NotInitialised {
        /// The data folder.
        data: PathBuf,
    },
    /// The operators' listener cannot be opened.
    #[error("cannot open the operators' listener")]
    Ops(#[from] ops::BindError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
}

/// What the handlers get once everything is there.
#[derive(Debug)]
struct Parts {
    admin: Admin,
    api: Api,
}

impl Origin {
    /// Starts the origin of `config`. When this returns, it listens.
    ///
    /// # Errors
    ///
    /// Fails if there is no deployment in the data folder, if its keys or its ledger cannot be
    /// used, or if an address cannot be listened on.
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, StartError> {
        let data = config.data();
        let ledger_path = data.join(LEDGER_FILE);
        if !ledger_path.exists() {
            return Err(StartError::NotInitialised {
                data: data.to_owned(),
            });
        }
        let registry = Registry::new("larder_origin");
        let metrics = Metrics::register(&registry)?;
        // Whoever comes before everything is there is told to come back.
        let parts: Arc<OnceLock<Parts>> = Arc::default();
        // First of all: it tells us whether another origin serves this folder.
        let handler = handle::admin(Arc::clone(&parts));
        let admin = UnixServer::bind(&data.join(SOCKET_FILE), BODY_BYTES_MAX, handler).await?;
        let ledger = Ledger::open(&ledger_path).await?;
        let lives = config.certificates().clone();
        let authority = Authority::open(data, ledger, lives, clock).await?;
        let refusals = Refusals::new(authority.clock().clone());
        let hearing = |listener| hearing(metrics.sink(listener), &refusals);
        let (content, enrol) = open_doors(&config, &authority, &hearing, &parts).await?;
        let health = Health::new();
        let ops = Ops::bind(config.ops(), health.clone(), registry.clone()).await?;
        let bound = Bound {
            admin: admin.path().to_owned(),
            content: content.local_addr(),
            enrol: enrol.local_addr(),
            ops: ops.local_addr(),
        };
        let documents = open_documents(&config, &authority, &bound).await?;
        let tasks = Tasks::new();
        let made = furnish(
            &config,
            &authority,
            &documents,
            &tasks,
            metrics,
            refusals.clone(),
        );
        let (ready, intake) = made.await?;
        let upkeep = Upkeep::new(&ready.api, &health, [&content, &enrol]);
        upkeep.once().await;
        tasks.start("upkeep", |stop| upkeep.run(stop));
        let reports = ready.api.reports.clone();
        tasks.start("reports", |stop| reports.run(refusals, stop));
        take_stock(&intake, &health, &tasks).await;
        let manifests = ready.api.manifests.clone();
        parts
            .set(ready)
            .expect("the parts are set here alone, and once");
        Ok(Self {
            admin,
            authority,
            bound,
            content,
            documents,
            enrol,
            health,
            intake,
            manifests,
            ops,
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Bound {
        &self.bound
    }

    /// Its authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Its deployment document.
    #[must_use]
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Where it takes in what is published.
    #[must_use]
    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Its listener for content.
    #[must_use]
    pub fn content_listener(&self) -> &Listener {
        &self.content
    }

    /// Its listener for enrolment.
    #[must_use]
    pub fn enrol_listener(&self) -> &Listener {
        &self.enrol
    }

    /// Waits until a part ended that should not have, and names it.
    pub async fn any_ended(&self) -> &'static str {
        tokio::select! {
            part = self.admin.any_ended() => part,
            part = self.content.any_ended() => part,
            part = self.enrol.any_ended() => part,
            part = self.ops.any_ended() => part,
            part = self.tasks.any_ended() => part,
        }
    }

    /// Stops taking work, lets what is under way end for at most `grace`, and cuts off the rest.
    pub async fn drain(self, grace: Duration) -> Drained {
        self.health.stopping();
        self.manifests.stop_waiting();
        let (content, enrol, admin) = tokio::join!(
            self.content.drain(grace),
            self.enrol.drain(grace),
            self.admin.drain(grace),
        );
        let tasks = self.tasks.drain(grace).await;
        self.authority.ledger().close().await;
        // Last, so that an operator sees the rest.
        let ops = self.ops.drain(OPS_GRACE.min(grace)).await;
        [enrol, admin, tasks, ops]
            .into_iter()
            .fold(content, Drained::and)
    }
}

impl Component for Origin {
    async fn any_ended(&self) -> &'static str {
        Self::any_ended(self).await
    }

    async fn drain(self, grace: Duration) -> Drained {
        Self::drain(self, grace).await
    }
}

/// Opens the listeners for content and for enrolment.
async fn open_doors(
    config: &Config,
    authority: &Authority,
    hearing: &impl Fn(&'static str) -> Arc<dyn HandshakeSink>,
    parts: &Arc<OnceLock<Parts>>,
) -> Result<(Listener, Listener), StartError> {
    let kind = tls::Listener::Data {
        roles: ROLES.to_vec(),
    };
    let mut open = settings(authority, &kind)?;
    open.limits.connections_max = config.connections_max();
    let content = Listener::bind(
        config.content().listen,
        open,
        handle::content(Arc::clone(parts)),
        hearing(CONTENT),
    );
    let kind = tls::Listener::Enrol {
        roles: ROLES.to_vec(),
    };
    let enrol = Listener::bind(
        config.enrol().listener.listen,
        settings(authority, &kind)?,
        handle::enrol(Arc::clone(parts)),
        hearing(ENROL),
    );
    Ok((content.await?, enrol.await?))
}

/// Begins to hold the packs against the ledger, and waits a while for the result: whoever publishes
/// should be asked for what is missing.
async fn take_stock(intake: &Intake, health: &Health, tasks: &Tasks) {
    let stock = StockCheck::new(intake.clone(), health);
    let (told, taken) = oneshot::channel();
    tasks.start("stock", |stop| stock.run(told, stop));
    // A disk that takes longer goes on beside us: until then `/ready` says that it is not known.
    let _late = timeout(STOCK_PATIENCE, taken).await.is_err();
}

/// Puts together what the handlers need.
async fn furnish(
    config: &Config,
    authority: &Authority,
    documents: &Documents,
    tasks: &Tasks,
    metrics: Metrics,
    refusals: Refusals,
) -> Result<(Parts, Intake), StartError> {
    let spawner = tasks.spawner();
    let made = content::open(config, authority, documents, spawner.clone()).await?;
    let fleet = Fleet::new(authority.clone(), documents.clone());
    let (manifests, builder) = Manifests::open(authority.clone(), metrics.clone()).await?;
    tasks.start("manifests", |stop| builder.run(stop));
    let reports = Reports::new(authority, metrics.clone());
    let opened = Inventories::open(authority.clone(), manifests.clone(), metrics.clone());
    let inventories = opened.await?;
    let smart = SmartGroups::new(
        authority.clone(),
        inventories.clone(),
        manifests.clone(),
        config.smart_groups_every(),
    );
    tasks.start("smart-groups", |stop| smart.run(stop));
    let admin = Admin {
        content: made.admin,
        fleet,
        inventories: inventories.clone(),
        manifests: manifests.clone(),
        metrics: metrics.clone(),
        models: Models::new(authority.clone(), manifests.clone(), inventories.clone()),
        reports: reports.clone(),
        spawner,
    };
    let enrolment = Enrolment::new(authority.clone(), config.enrol().clone());
    let (keep, keeper) = Keeper::new(authority.clone(), manifests.clone());
    tasks.start("results", |stop| keeper.run(stop));
    let api = Api {
        check_ins: CheckIns::new(
            documents.clone(),
            manifests.clone(),
            inventories.clone(),
            keep,
            metrics.clone(),
            config.check_in_interval(),
        ),
        content: made.api,
        documents: documents.clone(),
        enrolment,
        inventories,
        lists: UnderWay::default(),
        manifests,
        metrics,
        refusals,
        reports,
    };
    Ok((Parts { admin, api }, made.intake))
}

fn settings(authority: &Authority, kind: &tls::Listener) -> Result<ListenSettings, TlsError> {
    let clock = authority.clock().clone();
    let time = tls::time_from({
        let clock = clock.clone();
        move || clock.now()
    });
    let trust = Arc::clone(authority.trust());
    let config = tls::server_config(kind, &trust, authority.own_certificate(), &time)?;
    Ok(ListenSettings {
        tls: Arc::new(config),
        trust,
        clock,
        limits: Limits::default(),
    })
}

async fn open_documents(
    config: &Config,
    authority: &Authority,
    bound: &Bound,
) -> Result<Documents, DocumentError> {
    let host = &authority.deployment().host;
    let content = reached_at(config.content(), host, bound.content.port());
    let enrol = reached_at(&config.enrol().listener, host, bound.enrol.port());
    let protocol_min = config.enrol().protocol_min;
    let addresses = Addresses { content, enrol };
    Documents::open(authority.clone(), addresses, protocol_min).await
}

/// Where others reach a listener: at the addresses of the settings, else at `host` and `port`.
#[must_use]
pub fn reached_at(listener: &config::Listener, host: &str, port: u16) -> Vec<String> {
    if listener.addresses.is_empty() {
        let brackets = host.contains(':') && !host.starts_with('[');
        vec![if brackets {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }]
    } else {
        listener.addresses.iter().map(ToString::to_string).collect()
    }
}

/// What the listeners are called on the metrics page.
const CONTENT: &str = "content";
const ENROL: &str = "enrol";
/// Who may connect.
const ROLES: [Role; 2] = [Role::Booster, Role::Client];
/// A start waits no longer for a look at all packs; a hundred thousand take a second or two.
const STOCK_PATIENCE: Duration = Duration::from_secs(20);
/// Nobody's scrape takes longer.
const OPS_GRACE: Duration = Duration::from_secs(1);
