//! What has to be done again and again: lists and own certificates renewed before they end, what
//! is over forgotten, the page for operators kept true.

use std::sync::Arc;
use std::time::Duration;

use service::ops::{Check, Health};
use service::{CancellationToken, Report};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};
use transport::{Listener, Refusals};

use super::numbers::Counted;
use crate::api::Api;
use crate::authority::AuthorityError;
use crate::authority::rotate::ROOT_LIST_ALARM;
use crate::check_in::CheckIns;
use crate::documents::{DocumentError, Documents};
use crate::enrol::Enrolment;
use crate::inventory::Inventories;
use crate::ledger::{LedgerError, certificates, commit, devices, results, tokens};
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::reports::Reports;

/// How often to look. What is not due costs nothing; a clock that jumps is followed at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often to forget what is over, and to count the devices, in seconds.
const TIDY_EVERY: i64 = 600;
/// A day, in seconds.
const DAY: i64 = 86_400;
/// Certificates are remembered for so long after their end, for whoever asks what was.
const KEEP_CERTIFICATES: i64 = 90 * 86_400;
/// What was asked of a device and is done is remembered for so long.
const KEEP_COMMANDS: i64 = 90 * DAY;

/// The upkeep of one origin.
pub(super) struct Upkeep {
    authority: Check,
    check_ins: CheckIns,
    counted: [Counted; 2],
    documents: Documents,
    enrolment: Enrolment,
    inventories: Inventories,
    ledger: Check,
    manifests: Manifests,
    metrics: Metrics,
    refusals: Refusals,
    root_lists: Check,
    reports: Reports,
    tidied_at: Mutex<Option<i64>>,
}

#[derive(Debug, Error)]
enum UpkeepError {
    #[error("cannot renew what the authority signs")]
    Authority(#[from] AuthorityError),
    #[error("cannot renew the deployment document")]
    Document(#[from] DocumentError),
    #[error("cannot tidy the ledger")]
    Ledger(#[from] LedgerError),
}

impl Upkeep {
    /// The upkeep of what `api` stands on, and of the numbers of the listeners for content and
    /// enrolment.
    pub(super) fn new(api: &Api, health: &Health, listeners: [&Listener; 2]) -> Self {
        let [content, enrol] = listeners;
        let counted = [(super::CONTENT, content), (super::ENROL, enrol)];
        let counted = counted.map(|(name, listener)| {
            Counted::new(name, Arc::clone(listener.metrics()), &api.metrics)
        });
        Self {
            authority: health.check("authority"),
            check_ins: api.check_ins.clone(),
            counted,
            documents: api.documents.clone(),
            enrolment: api.enrolment.clone(),
            inventories: api.inventories.clone(),
            ledger: health.check("ledger"),
            manifests: api.manifests.clone(),
            metrics: api.metrics.clone(),
            refusals: api.refusals.clone(),
            root_lists: health.check("root lists"),
            reports: api.reports.clone(),
            tidied_at: Mutex::new(None),
        }
    }

    /// Looks again and again until it is asked to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            self.once().await;
        }
        if let Err(failure) = self.check_ins.settle(true).await {
            error!(error = %Report(&failure), "cannot keep where boosters are");
        }
    }

    /// Looks once.
    pub(super) async fn once(&self) {
        note(&self.authority, self.renew().await);
        note(&self.ledger, self.tidy().await);
        self.look_at_root_lists();
        self.metrics.show_trust(self.enrolment.authority());
        self.metrics.show_reports(&self.refusals);
        self.metrics.waiting(self.manifests.waiting());
        self.counted.iter().for_each(Counted::carry_over);
    }

    /// The roots' lists cannot be renewed here: their keys are needed for it.
    fn look_at_root_lists(&self) {
        let authority = self.enrolment.authority();
        let now = authority.clock().now();
        match authority.root_lists_end() {
            Some(ends) if now < ends - ROOT_LIST_ALARM => self.root_lists.pass(),
            Some(ends) if now < ends => {
                let days = (ends - now) / DAY;
                let reason = format!(
                    "the list of a root ends in {days} days, and nobody is let in after it: run \
                     larder-origin ca sign-root-list"
                );
                if self.root_lists.degrade(&reason) {
                    warn!(ends, "{reason}");
                }
            }
            Some(_) => {
                let reason = "the list of a root has ended, and nobody is let in: run \
                              larder-origin ca sign-root-list";
                if self.root_lists.fail(reason) {
                    error!("{reason}");
                }
            }
            None => {
                let reason = "there is no list of a root: run larder-origin ca sign-root-list";
                if self.root_lists.fail(reason) {
                    error!("{reason}");
                }
            }
        }
    }

    async fn renew(&self) -> Result<(), UpkeepError> {
        let authority = self.enrolment.authority();
        self.enrolment.supersede().await?;
        authority.refresh_crls().await?;
        authority.renew_own().await?;
        self.documents.catch_up().await?;
        self.check_ins.settle(false).await?;
        Ok(())
    }

    async fn tidy(&self) -> Result<(), UpkeepError> {
        let authority = self.enrolment.authority();
        let now = authority.clock().now();
        let mut tidied_at = self.tidied_at.lock().await;
        if tidied_at.is_some_and(|at| (at..at + TIDY_EVERY).contains(&now)) {
            return Ok(());
        }
        let ttl = self.enrolment.rules().pending_ttl.as_secs();
        let asked_before = now.saturating_sub_unsigned(ttl);
        let mut tx = authority.ledger().write().await?;
        let gone = tokens::prune(&mut tx, now).await?
            + devices::prune_pending(&mut tx, asked_before).await?
            + certificates::prune(&mut tx, now - KEEP_CERTIFICATES).await?
            + results::prune(&mut tx, now - KEEP_COMMANDS).await?;
        commit(tx).await?;
        if gone > 0 {
            info!(
                gone,
                "forgot tokens, requests, certificates and commands that are over"
            );
        }
        self.reports.tidy().await?;
        self.inventories.note_seen().await?;
        self.inventories.refresh().await?;
        self.metrics.count_devices(authority.ledger()).await?;
        self.documents.refresh().await?;
        *tidied_at = Some(now);
        Ok(())
    }
}

/// Passes a check, or fails it with the reason, which is logged when it is news.
fn note(check: &Check, result: Result<(), UpkeepError>) {
    match result {
        Ok(()) => check.pass(),
        Err(failure) => {
            let reason = Report(&failure).to_string();
            if check.fail(&reason) {
                error!(error = %reason, "upkeep failed");
            }
        }
    }
}
