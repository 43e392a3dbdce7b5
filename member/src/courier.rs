//! Reports on their way to the origin: written down, sent, and sent again until they have arrived.
//!
//! ```text
//! listener, caller ── note ──► Refusals ── changed ──► Courier ── POST /v1/reports ──► origin
//!                                                         └── state/reports.json, while they wait
//! ```

mod bring;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use content::durable::{self, Disk as _, RealDisk};
use protocol::{Reported, Reports};
use serde::{Deserialize, Serialize};
use service::{CancellationToken, Report};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};
use transport::{Backoff, Refusals, Source};

use bring::Bringer;

/// Takes what was noted to the origin.
#[derive(Debug)]
pub struct Courier {
    path: PathBuf,
    refusals: Refusals,
    /// Whether what an earlier run left has been taken up.
    loaded: bool,
    /// What the file says was given up, and told, if no report is in it.
    kept: Option<(u64, u64)>,
    /// Whether it could not be, the last time.
    failing: bool,
}

/// When something is written down after it has changed.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How long to gather what comes with it.
    before: Duration,
    /// How long to rest after it, besides what its bytes cost.
    after: Duration,
}

impl Courier {
    /// For what is noted in `refusals`, and what an earlier run left in the folder `state`. Touches
    /// no disk: that is taken up when there is first something to do.
    #[must_use]
    pub fn new(state: &Path, refusals: &Refusals) -> Self {
        Self {
            path: state.join(FILE),
            refusals: refusals.clone(),
            loaded: false,
            kept: Some((0, 0)),
            failing: false,
        }
    }

    /// Takes reports to the first of `sources` that takes them, as they come, until it is stopped.
    /// What waits is written down meanwhile, and at the end.
    pub async fn run(mut self, sources: Vec<Arc<Source>>, stop: CancellationToken) {
        self.load().await;
        let (refusals, written) = (self.refusals.clone(), Notify::new());
        let bring = bring_as_they_come(&refusals, &sources, &written, &stop);
        tokio::join!(bring, self.keep(GATHERING, &written, &stop));
        self.write().await;
    }

    /// Does `work`, and writes down what is noted meanwhile, each as it comes: whatever ends this
    /// program in the middle, what was noted before is not lost. Nothing is sent.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.load().await;
        let (over, nobody) = (CancellationToken::new(), Notify::new());
        let work = async {
            let done = work.await;
            over.cancel();
            done
        };
        let (done, ()) = tokio::join!(work, self.keep(AT_ONCE, &nobody, &over));
        // What came at the very end.
        self.write().await;
        done
    }

    /// Takes to the origin what can be taken within `patience`, and writes down the rest: for a
    /// program that ends.
    pub async fn flush(&mut self, sources: &[Arc<Source>], patience: Duration) {
        let (refusals, deadline) = (self.refusals.clone(), Instant::now() + patience);
        self.during(async {
            let mut bringer = Bringer::new(&refusals, sources);
            loop {
                match bringer.bring(Some(deadline)).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(failure) => {
                        info!(error = %Report(&failure), "reports wait for the next run");
                        return;
                    }
                }
            }
        })
        .await;
    }

    /// Whether anything waits, from this run or an earlier one.
    pub async fn has_work(&mut self) -> bool {
        self.load().await;
        self.refusals.counts().is_work()
    }

    /// Takes up what an earlier run left, once.
    async fn load(&mut self) {
        if std::mem::replace(&mut self.loaded, true) {
            return;
        }
        let path = self.path.clone();
        let kept = match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(kept) => kept,
            Err(error) => {
                debug!(%error, "what the last run had to report was not read");
                None
            }
        };
        if let Some(Kept { told, reports }) = kept {
            self.kept = reports
                .reports
                .is_empty()
                .then_some((reports.dropped, told));
            self.refusals.restore(reports, told);
        }
    }

    /// Writes down what waits whenever that has changed, whatever becomes of it: a call to an
    /// origin that cannot be reached takes long, and power cuts do not wait for it. Tells `written`.
    async fn keep(&mut self, pace: Pace, written: &Notify, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = self.refusals.changed() => {}
                () = sleep(WRITE_RETRY), if self.failing => {}
                () = stop.cancelled() => return,
            }
            if !pace.before.is_zero() {
                tokio::select! {
                    () = sleep(pace.before) => {}
                    () = stop.cancelled() => return,
                }
            }
            let bytes = self.write().await;
            written.notify_one();
            // A flood of strangers must not become one of writes.
            let rest = Duration::from_secs(bytes / WRITE_BYTES_A_SECOND);
            tokio::select! {
                () = sleep(rest.max(pace.after)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Writes down what waits, and how many were given up, which goes on from run to run; removes
    /// the file when there is neither. How many bytes that took.
    async fn write(&mut self) -> u64 {
        // In this order, no more is taken for told than was dropped.
        let counts = self.refusals.counts();
        let waiting = Kept {
            told: counts.dropped - counts.untold,
            reports: self.refusals.waiting(),
        };
        let is_empty = waiting.reports.reports.is_empty();
        let kept = is_empty.then_some((waiting.reports.dropped, waiting.told));
        if is_empty && self.kept == kept {
            return 0;
        }
        let path = self.path.clone();
        let work = tokio::task::spawn_blocking(move || write(&path, &waiting));
        match work.await {
            Ok(Ok(bytes)) => {
                (self.kept, self.failing) = (kept, false);
                bytes
            }
            Ok(Err(error)) => {
                let path = self.path.display();
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%path, %error, "cannot write down what waits to be reported");
                }
                0
            }
            Err(error) => {
                debug!(%error, "what waits to be reported was not written down");
                0
            }
        }
    }
}

/// Takes to the origin what waits, each time after `written` has been told.
async fn bring_as_they_come(
    refusals: &Refusals,
    sources: &[Arc<Source>],
    written: &Notify,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
    let mut bringer = Bringer::new(refusals, sources);
    loop {
        tokio::select! {
            () = written.notified() => {}
            () = stop.cancelled() => return,
        }
        while refusals.counts().is_work() {
            let brought = tokio::select! {
                brought = bringer.bring(None) => brought,
                () = stop.cancelled() => return,
            };
            let wait = match brought {
                // Or there are but counters that go on, and have been told a moment ago.
                Ok(_sent) => {
                    backoff.succeeded();
                    BATCH_PAUSE
                }
                Err(failure) => {
                    debug!(error = %Report(&failure), "reports wait for the origin");
                    backoff.failed(fastrand::f64())
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// What lies in the file.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    /// How many of those dropped the origin has been told of.
    #[serde(default)]
    told: u64,
    #[serde(flatten)]
    reports: Reports,
}

fn write(path: &Path, waiting: &Kept) -> io::Result<u64> {
    if waiting.reports.reports.is_empty() && waiting.reports.dropped == 0 {
        RealDisk.remove(path)?;
        return Ok(0);
    }
    let bytes = serde_json::to_vec(waiting).map_err(io::Error::other)?;
    durable::write(&RealDisk, path, &bytes, 0o600)?;
    Ok(bytes.len() as u64)
}

fn read(path: &Path) -> Option<Kept> {
    let read = RealDisk.read(path, FILE_BYTES_MAX);
    let bytes = read
        .inspect_err(|error| warn!(path = %path.display(), %error, "cannot read what the last run had to report"))
        .ok()??;
    let kept: Option<Kept> = serde_json::from_slice(&bytes).ok();
    let Some(mut kept) = kept else {
        warn!(path = %path.display(), "what the last run had to report is damaged: left out");
        return None;
    };
    let reports = &mut kept.reports;
    let all = reports.reports.len();
    reports.reports.retain(Reported::is_in_bounds);
    let damaged = all - reports.reports.len();
    if damaged > 0 {
        warn!(path = %path.display(), damaged, "some of what the last run had to report is damaged: left out");
        reports.dropped = reports.dropped.saturating_add(damaged as u64);
    }
    Some(kept)
}

const FILE: &str = "reports.json";
/// 256 reports with certificates of 8 KiB in base64.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// For a program that runs for long. Whoever knocks once knocks again: one file and one body for the
/// lot. Long enough to gather a burst, short enough for somebody who watches.
const GATHERING: Pace = Pace {
    before: Duration::from_millis(500),
    after: Duration::ZERO,
};
/// For a program that may be ended at any moment, and meets few: ten writes a second at most.
const AT_ONCE: Pace = Pace {
    before: Duration::ZERO,
    after: Duration::from_millis(100),
};
/// Between two bodies: a flood of strangers is not passed on at full speed.
const BATCH_PAUSE: Duration = Duration::from_secs(1);
/// A quarter of what a cheap flash card writes for years: the largest file takes twelve seconds.
const WRITE_BYTES_A_SECOND: u64 = 256 << 10;
/// When to try again with a disk that was full.
const WRITE_RETRY: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_LONGEST: Duration = Duration::from_secs(300);
