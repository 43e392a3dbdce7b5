//! Reports on their way to the origin: written down, sent, and sent again until they have arrived.
//!
//! ```text
//! listener, caller ── note ──► Refusals ── changed ──► Courier ── POST /v1/reports ──► origin
//!                                                         └── state/reports.json, while they wait
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use content::durable::{self, Disk as _, RealDisk};
use protocol::Reports;
use service::{CancellationToken, Report};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use transport::{Backoff, CallError, Refusals, Source};

/// Takes what was noted to the origin.
#[derive(Debug)]
pub struct Courier {
    path: PathBuf,
    refusals: Refusals,
    /// Whether what waits was written down last.
    written: bool,
}

impl Courier {
    /// For what is noted in `refusals`, and what an earlier run left in the folder `state`.
    #[must_use]
    pub fn open(state: &Path, refusals: &Refusals) -> Self {
        let path = state.join(FILE);
        let kept = read(&path);
        let written = kept.is_some();
        if let Some(kept) = kept {
            refusals.restore(kept);
        }
        Self {
            path,
            refusals: refusals.clone(),
            written,
        }
    }

    /// Takes reports to the first of `sources` that takes them, as they come, until it is stopped.
    /// What waits then is written down.
    pub async fn run(mut self, sources: Vec<Arc<Source>>, stop: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        loop {
            tokio::select! {
                () = self.refusals.changed() => {}
                () = stop.cancelled() => break,
            }
            // Whoever knocks once knocks again: one body for the lot.
            tokio::select! {
                () = sleep(GATHER_PAUSE) => {}
                () = stop.cancelled() => break,
            }
            while self.refusals.batch().is_some() {
                self.write().await;
                let sent = tokio::select! {
                    sent = self.send(&sources) => sent,
                    () = stop.cancelled() => break,
                };
                let wait = match sent {
                    Ok(()) => {
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
                    () = stop.cancelled() => break,
                }
            }
            if stop.is_cancelled() {
                break;
            }
            self.write().await;
        }
        self.write().await;
    }

    /// Takes to the origin what can be taken within `patience`, and writes down the rest: for a
    /// program that ends.
    pub async fn flush(&mut self, sources: &[Arc<Source>], patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.refusals.batch().is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.send(sources)).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    info!(error = %Report(&failure), "reports wait for the next run");
                    break;
                }
                Err(_) => {
                    info!("reports wait for the next run");
                    break;
                }
            }
        }
        self.write().await;
    }

    /// Sends one body to the first of `sources` that takes it.
    async fn send(&self, sources: &[Arc<Source>]) -> Result<(), CallError> {
        let Some(batch) = self.refusals.batch() else {
            return Ok(());
        };
        let mut last = CallError::Unreachable {
            addresses: "the origin".to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "no address is known"),
        };
        for source in sources {
            match source.report(&batch).await {
                Ok(()) => {
                    self.refusals.delivered(&batch);
                    return Ok(());
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// Writes down what waits; removes the file when nothing does.
    async fn write(&mut self) {
        let waiting = self.refusals.waiting();
        let is_empty = waiting.reports.is_empty();
        if is_empty && !self.written {
            return;
        }
        let path = self.path.clone();
        let work = tokio::task::spawn_blocking(move || write(&path, &waiting));
        match work.await {
            Ok(Ok(())) => self.written = !is_empty,
            Ok(Err(error)) => warn!(%error, "cannot write down what waits to be reported"),
            Err(error) => debug!(%error, "what waits to be reported was not written down"),
        }
    }
}

fn write(path: &Path, waiting: &Reports) -> io::Result<()> {
    if waiting.reports.is_empty() {
        return RealDisk.remove(path);
    }
    durable::write(&RealDisk, path, &waiting.encode(), 0o600)
}

fn read(path: &Path) -> Option<Reports> {
    let read = RealDisk.read(path, FILE_BYTES_MAX);
    let bytes = read
        .inspect_err(|error| warn!(%error, "cannot read what the last run had to report"))
        .ok()??;
    let kept: Option<Reports> = serde_json::from_slice(&bytes).ok();
    let good = kept.filter(|kept| kept.reports.iter().all(protocol::Reported::is_in_bounds));
    if good.is_none() {
        warn!(path = %path.display(), "what the last run had to report is damaged: left out");
    }
    good
}

const FILE: &str = "reports.json";
/// 256 reports with certificates of 8 KiB in base64.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Long enough to gather a burst, short enough for somebody who watches.
const GATHER_PAUSE: Duration = Duration::from_millis(500);
/// Between two bodies: a flood of strangers is not passed on at full speed.
const BATCH_PAUSE: Duration = Duration::from_secs(1);
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_LONGEST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use service::Clock;

    #[tokio::test]
    async fn what_waits_is_written_down_and_taken_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::new(Clock::system());
        let mut courier = Courier::open(folder.path(), &refusals);
        courier.flush(&[], Duration::ZERO).await;
        assert!(!folder.path().join(FILE).exists(), "nothing waits");
        refusals.notice("renewal_overdue", "since Monday");
        courier.flush(&[], Duration::ZERO).await;
        let waiting = refusals.waiting();

        let next = Refusals::new(Clock::system());
        let mut courier = Courier::open(folder.path(), &next);
        assert_eq!(next.waiting(), waiting);
        // It arrives.
        next.delivered(&next.batch().unwrap());
        courier.flush(&[], Duration::ZERO).await;
        assert!(!folder.path().join(FILE).exists());
    }

    #[tokio::test]
    async fn a_damaged_file_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for damaged in ["{", r#"{"dropped":0,"reports":[{"id":"x"}]}"#] {
            std::fs::write(folder.path().join(FILE), damaged).unwrap();
            let refusals = Refusals::new(Clock::system());
            let _courier = Courier::open(folder.path(), &refusals);
            assert_eq!(refusals.counts().waiting, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_sent_is_kept_when_it_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::new(Clock::system());
        let courier = Courier::open(folder.path(), &refusals);
        let stop = CancellationToken::new();
        refusals.notice("clock_skew", "an hour");
        let run = courier.run(Vec::new(), stop.clone());
        let later = async {
            sleep(Duration::from_secs(60)).await;
            stop.cancel();
        };
        tokio::join!(run, later);
        assert!(folder.path().join(FILE).exists());
    }
}
