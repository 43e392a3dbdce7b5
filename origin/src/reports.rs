//! Reports: whom others refused, and whom we refused ourselves, kept for operators.
//!
//! ```text
//! our listeners ── note ──► Refusals ── a task ──┐
//! boosters, clients ── POST /v1/reports ─────────┴──► ledger ──► `reports list`
//! ```

#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::{Identity, Peer};
use http::{Response, StatusCode};
use protocol::report::Matter;
use protocol::{Code, Fault, Reported, Reports as Body};
use service::{CancellationToken, Clock, Pace, Report};
use thiserror::Error;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep};
use tracing::{error, info};
use transport::{HandshakeSink, Refusals, Refused, Session};

use crate::api::{Reply, fault, too_many};
use crate::authority::Authority;
use crate::ledger::reports::{self as table, Found, Wanted, drops};
use crate::ledger::{Ledger, LedgerError, commit};
use crate::metrics::Metrics;

pub use view::{CertificateClaims, DroppedView, ReportView, ReportsView};

/// Takes reports in, and shows them. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Reports {
    clock: Clock,
    ledger: Ledger,
    metrics: Metrics,
    /// How we are called as a reporter ourselves.
    own_name: String,
    pace: Arc<Pace<Identity>>,
    /// Held while reports are written: in the queue for the ledger's writer they have one place,
    /// however many report, and a revocation waits for no more than one of them.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Which reports an operator wants to see.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Query {
    /// How many at most.
    pub limit: Option<u32>,
    /// Only refusals for this reason, or notices of this kind.
    pub reason: Option<String>,
    /// Only those of this reporter: role and id.
    pub reporter: Option<String>,
    /// Only those that came at this time (Unix seconds) or later.
    pub since: i64,
}

impl Reports {
    /// Keeps reports in the ledger of `authority`.
    #[must_use]
    pub fn new(authority: &Authority, metrics: Metrics) -> Self {
        Self {
            clock: authority.clock().clone(),
            ledger: authority.ledger().clone(),
            metrics,
            own_name: format!("origin/{}", authority.deployment().origin_id),
            pace: Arc::new(Pace::new(STEP, BURST)),
            turn: Arc::default(),
        }
    }

    /// The time by which reports are received, in Unix seconds.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    /// `POST /v1/reports` of `peer`.
    pub async fn answer(&self, peer: &Peer, body: &Bytes) -> Reply {
        let Some(body) = Body::decode(body) else {
            return fault(&Fault::new(Code::BadRequest, "want reports"));
        };
        if let Err(wait) = self.pace.take(peer.identity(), Instant::now()) {
            return too_many("reports come too fast", wait);
        }
        let reporter = table::reporter(peer.identity());
        match self.keep(&reporter, &body).await {
            Ok(true) => {
                let mut reply = Response::new(crate::api::full(Bytes::new()));
                *reply.status_mut() = StatusCode::NO_CONTENT;
                reply
            }
            Ok(false) => fault(&Fault::new(Code::Busy, "that is enough for an hour")),
            Err(failure) => {
                error!(error = %Report(&failure), "cannot keep reports");
                let told = Fault::new(Code::Internal, "the origin cannot take that at the moment");
                fault(&told)
            }
        }
    }

    /// Keeps what our own listeners refuse, as it comes, until it is stopped.
    pub async fn run(self, refusals: Refusals, stop: CancellationToken) {
        let mut is_kept = true;
        loop {
            tokio::select! {
                () = refusals.changed(), if is_kept => {}
                () = sleep(OWN_RETRY), if !is_kept => {}
                () = stop.cancelled() => break,
            }
            is_kept = self.keep_own(&refusals).await;
            // Whoever knocks once knocks again: one transaction for the lot.
            tokio::select! {
                () = sleep(OWN_PAUSE) => {}
                () = stop.cancelled() => break,
            }
        }
        self.keep_own(&refusals).await;
    }

    /// The reports that an operator wants to see, the newest first.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does, or the origin stops meanwhile.
    pub async fn list(&self, query: &Query) -> Result<ReportsView, ListError> {
        let wanted = Wanted {
            reason: query.reason.as_deref(),
            reporter: query.reporter.as_deref(),
            since: query.since,
        };
        let limit = query.limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
        let mut db = self.ledger.read().await?;
        let found = table::list(&mut db, &wanted, limit).await?;
        let reporter = query.reporter.as_deref();
        let dropped = drops::list(&mut db, reporter, query.since, limit).await?;
        drop(db);
        Ok(ReportsView {
            reports: read(found).await?,
            dropped: dropped.into_iter().map(DroppedView::from).collect(),
        })
    }

    /// Forgets what is old, or too much.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn tidy(&self) -> Result<(), LedgerError> {
        let mut tx = self.ledger.write().await?;
        let before = self.clock.now() - KEEP_SECONDS;
        let gone = table::prune(&mut tx, before, ROWS_EACH, ROWS_MAX).await?;
        commit(tx).await?;
        if gone > 0 {
            info!(gone, "forgot old reports");
        }
        Ok(())
    }

    /// Keeps all that waits, in one transaction: who knocks without a pause must not keep us at it
    /// without one. Says whether nothing is left that was there at first.
    async fn keep_own(&self, refusals: &Refusals) -> bool {
        let waiting = refusals.waiting();
        if waiting.reports.is_empty() && refusals.counts().untold == 0 {
            return true;
        }
        match self.keep(&self.own_name, &waiting).await {
            Ok(is_kept) => {
                if is_kept {
                    refusals.delivered(&waiting);
                }
                is_kept
            }
            Err(failure) => {
                error!(error = %Report(&failure), "cannot keep our own reports");
                false
            }
        }
    }

    /// Keeps what `reporter` reports, and says whether that is all of it: what is there already is
    /// counted on, and of the rest as much is kept as one party may report in an hour.
    async fn keep(&self, reporter: &str, body: &Body) -> Result<bool, LedgerError> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let mut tx = self.ledger.write().await?;
        let mut lately = table::count_since(&mut tx, reporter, now - 3600).await?;
        let (mut new, mut is_all) = (Vec::new(), true);
        let mut bypasses = Vec::new();
        for report in &body.reports {
            if let Matter::Bypass(bypass) = &report.matter {
                let (count, bytes) = table::known(&mut tx, reporter, report).await?;
                let times = report.count.saturating_sub(count);
                bypasses.push((bypass.reason, times, bypass.bytes.saturating_sub(bytes)));
            }
            if table::raise(&mut tx, reporter, report).await? {
                continue;
            }
            if lately >= hourly_max(report) {
                if let Matter::Bypass(_) = &report.matter {
                    // It is counted when it comes again.
                    bypasses.pop();
                }
                is_all = false;
                continue;
            }
            table::put(&mut tx, reporter, report, now).await?;
            lately += 1;
            new.push(report);
        }
        let dropped = drops::note(&mut tx, reporter, body.dropped, now).await?;
        commit(tx).await?;
        if reporter != self.own_name {
            self.metrics.members_dropped(dropped);
        }
        for report in new {
            self.metrics.reported(report);
        }
        for (reason, times, bytes) in bypasses {
            self.metrics.bypassed(reason, times, bytes);
        }
        Ok(is_all)
    }
}

/// Why there is no list of reports.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListError {
    /// The ledger failed.
    #[error("cannot list the reports")]
    Ledger(#[from] LedgerError),
    /// The origin stopped meanwhile.
    #[error("cannot show the reports")]
    Show(#[from] JoinError),
}

/// Reads what was found, beside the runtime: ten thousand certificates are to be taken apart.
async fn read(found: Found) -> Result<Vec<ReportView>, ListError> {
    let work = tokio::task::spawn_blocking(move || {
        let kept = found.read()?;
        Ok(kept.iter().map(ReportView::new).collect())
    });
    work.await?
}

/// From how many reports of one party within an hour on one like `report` is too many: strangers
/// who show any number of certificates must not keep those from being heard of who hold a key.
fn hourly_max(report: &Reported) -> i64 {
    if report.matter.is_telling() {
        HOURLY_MAX
    } else {
        UNTELLING_HOURLY_MAX
    }
}

/// A sink that counts with `counting`, and reports through `refusals`.
#[must_use]
pub fn hearing(counting: Arc<dyn HandshakeSink>, refusals: &Refusals) -> Arc<dyn HandshakeSink> {
    Arc::new(Hearing {
        counting,
        refusals: refusals.clone(),
    })
}

struct Hearing {
    counting: Arc<dyn HandshakeSink>,
    refusals: Refusals,
}

impl HandshakeSink for Hearing {
    fn accepted(&self, session: &Session) {
        self.counting.accepted(session);
    }

    fn refused(&self, refused: &Refused) {
        self.counting.refused(refused);
        self.refusals.note(refused);
    }
}

/// Ours wait as long between two bodies.
const STEP: Duration = Duration::from_secs(1);
/// Enough for all that one party gathers, certificates of a usual length included.
const BURST: u32 = 16;
/// Between two transactions for what our own listeners refuse.
const OWN_PAUSE: Duration = Duration::from_millis(500);
/// How long to wait with what could not be kept: the disk is full, or the hour's measure is.
const OWN_RETRY: Duration = Duration::from_secs(60);
/// What one party may report anew within an hour: it merges for an hour, and gathers 256.
const HOURLY_MAX: i64 = 1024;
/// How many of these, if they tell of nobody in particular.
const UNTELLING_HOURLY_MAX: i64 = 768;
/// As long as certificates are remembered after their end.
const KEEP_SECONDS: i64 = 90 * 86_400;
/// Were each with a certificate of its own, some 100 MB with usual ones, and 900 MB with the longest.
const ROWS_MAX: u32 = 100_000;
/// What one party may hold of that: nobody's flood pushes out what others have reported.
const ROWS_EACH: u32 = 10_000;
const LIST_DEFAULT: u32 = 100;
const LIST_MAX: u32 = 10_000;
