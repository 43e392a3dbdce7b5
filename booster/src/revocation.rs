//! Revocation lists: fetched at start and then again and again, written down, put in force.
//!
//! Whoever a list names is put out by the listener as soon as the list is in force.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::{CaCert, CaKind, IssuerId, Trust};
use content::statement::IssuerMinimum;
use member::{State, StateError, standing};
use protocol::{CRL_BYTES_MAX, Route};
use service::{CancellationToken, Clock, Report, Spawner};
use thiserror::Error;
use tokio::time::sleep;
use tracing::{debug, info, warn};
use transport::Source;

use crate::cache::off_runtime;
use crate::catalogue::Lists;
use crate::metrics::Metrics;
use crate::single::SingleFlight;
use crate::upstream::{Fetched, Later, UpstreamError, Upstreams};

/// Keeps the lists of all issuers that we know. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Revocation {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    etags: Mutex<HashMap<IssuerId, String>>,
    /// Whether the last round failed.
    failing: AtomicBool,
    metrics: Metrics,
    polls: SingleFlight<IssuerId, Result<(), Arc<PollError>>>,
    /// The enrolment listener, which tells what issuers there are.
    public: Arc<Source>,
    state: State,
    trust: Arc<Trust>,
    upstreams: Arc<Upstreams>,
}

/// Why a list could not be brought up to date.
#[derive(Debug, Error)]
pub(crate) enum PollError {
    #[error("what came is no list that counts: {why}")]
    Bad { why: String },
    #[error("it could not be written down")]
    State(#[from] StateError),
    #[error("the booster is stopping")]
    Stopping,
    #[error("it could not be fetched")]
    Upstream(#[from] UpstreamError),
}

impl Revocation {
    pub(crate) fn new(
        trust: &Arc<Trust>,
        upstreams: &Arc<Upstreams>,
        public: &Arc<Source>,
        state: &State,
        clock: &Clock,
        spawner: Spawner,
        metrics: &Metrics,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: clock.clone(),
                etags: Mutex::default(),
                failing: AtomicBool::new(false),
                metrics: metrics.clone(),
                polls: SingleFlight::new(spawner),
                public: Arc::clone(public),
                state: state.clone(),
                trust: Arc::clone(trust),
                upstreams: Arc::clone(upstreams),
            }),
        }
    }

    /// Asks for every list once. Says whether all could be brought up to date.
    pub(crate) async fn poll_all(&self) -> bool {
        let trust = &self.shared.trust;
        let before = self.shared.root_lists();
        // Roots first: their lists say which issuing CAs still count.
        let issuers = trust.roots().into_iter().chain(trust.issuing_cas());
        let mut good = self.poll_each(issuers).await;
        if self.shared.root_lists() != before {
            // In place of a CA that it names, another issues.
            self.shared.learn_issuers().await;
            let in_force = |ca: &Arc<CaCert>| trust.crls().current(ca.id());
            let issuing = trust.issuing_cas().into_iter();
            good &= self
                .poll_each(issuing.filter(|ca| in_force(ca).is_none()))
                .await;
        }
        if good && self.shared.failing.swap(false, Ordering::Relaxed) {
            info!("the revocation lists are up to date again");
        }
        self.shared.show();
        good
    }

    /// Asks for the lists of `issuers`. Says whether all could be brought up to date.
    async fn poll_each(&self, issuers: impl Iterator<Item = Arc<CaCert>>) -> bool {
        let mut good = true;
        for issuer in issuers {
            let Err(failure) = self.poll(issuer.id()).await else {
                continue;
            };
            let (ca, error) = (ca_label(issuer.kind()), Report(&*failure));
            // Once is news; after that, the metrics and the health page tell it.
            if good && !self.shared.failing.swap(true, Ordering::Relaxed) {
                warn!(ca, %error, "cannot bring a revocation list up to date");
            } else {
                debug!(ca, %error, "cannot bring a revocation list up to date");
            }
            good = false;
            if matches!(*failure, PollError::Upstream(_)) {
                // Who cannot be reached for one list cannot be reached for the others.
                break;
            }
        }
        good
    }

    /// Asks for every list at each `interval`, until it is stopped.
    pub(crate) async fn run(self, interval: Duration, stop: CancellationToken) {
        loop {
            // Boosters that were started together must not ask together for ever.
            let wait = interval.mul_f64(0.9 + fastrand::f64() / 5.0);
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                _good = self.poll_all() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn poll(&self, issuer: IssuerId) -> Result<(), Arc<PollError>> {
        let polled = self.shared.polls.run(issuer, || {
            let shared = Arc::clone(&self.shared);
            async move { shared.poll(issuer).await.map_err(Arc::new) }
        });
        polled.await.ok_or(PollError::Stopping)?
    }

    /// Sees to it that the list is no older than `minimum`. Says whether it is a new one.
    async fn raise(&self, minimum: IssuerMinimum) -> Result<bool, String> {
        let (trust, issuer) = (&self.shared.trust, IssuerId::from_bytes(minimum.issuer));
        if trust.issuer(issuer).is_none() {
            self.shared.learn_issuers().await;
        }
        let Some(ca) = trust.issuer(issuer) else {
            // Nobody whom we would believe can show a certificate of it.
            return Ok(false);
        };
        let number = || trust.crls().current(issuer).map(|crl| crl.number());
        let before = number();
        if before < Some(minimum.number) {
            self.poll(issuer)
                .await
                .map_err(|failure| Report(&*failure).to_string())?;
        }
        trust.crls().require_number(issuer, minimum.number);
        if number() >= Some(minimum.number) {
            return Ok(number() != before);
        }
        let ca = ca_label(ca.kind());
        let (have, want) = (number().unwrap_or_default(), minimum.number);
        Err(format!(
            "the list of the {ca} CA is number {have}, want {want}"
        ))
    }
}

impl Lists for Revocation {
    fn satisfy<'a>(&'a self, minimums: &'a [IssuerMinimum]) -> Later<'a, Result<bool, String>> {
        Box::pin(async move {
            let mut is_new = false;
            for minimum in minimums {
                is_new |= self.raise(*minimum).await?;
            }
            self.shared.show();
            Ok(is_new)
        })
    }
}

impl Shared {
    async fn poll(&self, issuer: IssuerId) -> Result<(), PollError> {
        let route = Route::Crl(*issuer.as_bytes());
        let etag = self.etags().get(&issuer).cloned();
        // After a restart, the tag that our origin gives the list in force: a guess that costs a
        // few bytes if it is wrong.
        let in_force = self.trust.crls().current(issuer);
        let guess = in_force.map(|crl| standing::etag(crl.digest()));
        let etag = etag.or(guess);
        let fetched = self
            .upstreams
            .fetch(&route, etag.as_deref(), CRL_BYTES_MAX)
            .await?;
        let Fetched::New { etag, bytes } = fetched else {
            return Ok(());
        };
        let (trust, state, now) = (
            Arc::clone(&self.trust),
            self.state.clone(),
            self.clock.now(),
        );
        let taken = off_runtime(move || {
            let crl = trust
                .verify_crl(issuer, &bytes, now)
                .map_err(|failure| PollError::Bad {
                    why: Report(&failure).to_string(),
                })?;
            let number = crl.number();
            let is_new = state.put_crl(&trust, crl)?;
            Ok::<_, PollError>((number, is_new))
        });
        let (number, is_new) = taken.await.ok_or(PollError::Stopping)??;
        if is_new {
            let ca = self.trust.issuer(issuer);
            let ca = ca_label(ca.and_then(|ca| ca.kind()));
            info!(ca, number, "a new revocation list");
        }
        // Only now: a list that was refused must come again.
        if let Some(etag) = etag {
            self.etags().insert(issuer, etag);
        }
        Ok(())
    }

    /// The numbers of the roots' lists in force.
    fn root_lists(&self) -> Vec<Option<u64>> {
        let number =
            |root: &Arc<CaCert>| self.trust.crls().current(root.id()).map(|it| it.number());
        self.trust.roots().iter().map(number).collect()
    }

    /// Asks what issuing CAs there are, and takes those that a root vouches for.
    async fn learn_issuers(&self) {
        match self.public.cacerts().await {
            Ok(certs) => {
                for cert in certs {
                    if let Err(failure) = self.trust.add_issuing_ca(&cert, self.clock.now()) {
                        // The root is among them.
                        debug!(error = %Report(&failure), "passing over a CA certificate");
                    }
                }
            }
            Err(failure) => warn!(error = %Report(&failure), "cannot learn what CAs there are"),
        }
    }

    fn show(&self) {
        let trust = &self.trust;
        for ca in trust.roots().into_iter().chain(trust.issuing_cas()) {
            if let Some(crl) = trust.crls().current(ca.id()) {
                self.metrics
                    .show_list(ca_label(ca.kind()), crl.number(), crl.next_update());
            }
        }
    }

    fn etags(&self) -> MutexGuard<'_, HashMap<IssuerId, String>> {
        self.etags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the metrics and the status call a CA.
pub(crate) fn ca_label(kind: Option<CaKind>) -> &'static str {
    match kind {
        None => "root",
        Some(CaKind::Client) => "client",
        Some(CaKind::Content) => "content",
        Some(CaKind::Node) => "node",
    }
}
