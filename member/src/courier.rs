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
use tokio::sync::Notify;
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
    /// Whether it could not be, the last time.
    failing: bool,
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
            failing: false,
        }
    }

    /// Takes reports to the first of `sources` that takes them, as they come, until it is stopped.
    /// What waits is written down meanwhile, and at the end.
    pub async fn run(mut self, sources: Vec<Arc<Source>>, stop: CancellationToken) {
        let (refusals, written) = (self.refusals.clone(), Notify::new());
        let bring = bring(&refusals, &sources, &written, &stop);
        tokio::join!(bring, self.keep(&written, &stop));
        self.write().await;
    }

    /// Writes down what waits whenever that has changed, whatever becomes of it: a call to an
    /// origin that cannot be reached takes long, and power cuts do not wait for it. Tells `written`.
    async fn keep(&mut self, written: &Notify, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = self.refusals.changed() => {}
                () = sleep(WRITE_RETRY), if self.failing => {}
                () = stop.cancelled() => return,
            }
            // Whoever knocks once knocks again: one file and one body for the lot.
            tokio::select! {
                () = sleep(GATHER_PAUSE) => {}
                () = stop.cancelled() => return,
            }
            let bytes = self.write().await;
            written.notify_one();
            // A flood of strangers must not become one of writes.
            tokio::select! {
                () = sleep(Duration::from_secs(bytes / WRITE_BYTES_A_SECOND)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Takes to the origin what can be taken within `patience`, and writes down the rest: for a
    /// program that ends.
    pub async fn flush(&mut self, sources: &[Arc<Source>], patience: Duration) {
        let deadline = Instant::now() + patience;
        while let Some(batch) = self.refusals.batch() {
            let sent = send(&self.refusals, &batch, sources, Some(deadline)).await;
            if let Err(failure) = sent {
                info!(error = %Report(&failure), "reports wait for the next run");
                break;
            }
        }
        self.write().await;
    }

    /// Writes down what waits; removes the file when nothing does. How many bytes that took.
    async fn write(&mut self) -> u64 {
        let waiting = self.refusals.waiting();
        let is_empty = waiting.reports.is_empty();
        if is_empty && !self.written {
            return 0;
        }
        let path = self.path.clone();
        let work = tokio::task::spawn_blocking(move || write(&path, &waiting));
        match work.await {
            Ok(Ok(bytes)) => {
                (self.written, self.failing) = (!is_empty, false);
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
async fn bring(
    refusals: &Refusals,
    sources: &[Arc<Source>],
    written: &Notify,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
    loop {
        tokio::select! {
            () = written.notified() => {}
            () = stop.cancelled() => return,
        }
        while refusals.counts().waiting > 0 {
            let sent = async {
                match refusals.batch() {
                    Some(batch) => send(refusals, &batch, sources, None).await,
                    // Counters that go on, and have been told a moment ago.
                    None => Ok(()),
                }
            };
            let sent = tokio::select! {
                sent = sent => sent,
                () = stop.cancelled() => return,
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
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Sends `batch` to the first of `sources` that takes it. Until a `deadline`, each gets its share of
/// the time that is left: the first may be one that never answers.
async fn send(
    refusals: &Refusals,
    batch: &Reports,
    sources: &[Arc<Source>],
    deadline: Option<Instant>,
) -> Result<(), CallError> {
    let mut last = CallError::Unreachable {
        addresses: "the origin".to_owned(),
        source: io::Error::new(io::ErrorKind::NotFound, "no address is known"),
    };
    for (index, source) in sources.iter().enumerate() {
        let share = deadline.map_or(Duration::MAX, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            left / u32::try_from(sources.len() - index).unwrap_or(u32::MAX)
        });
        match timeout(share, source.report(batch)).await {
            Ok(Ok(())) => {
                refusals.delivered(batch);
                return Ok(());
            }
            Ok(Err(failure)) => last = failure,
            Err(_) => {
                last = CallError::Timeout {
                    step: "tell the origin",
                };
            }
        }
    }
    Err(last)
}

fn write(path: &Path, waiting: &Reports) -> io::Result<u64> {
    if waiting.reports.is_empty() {
        RealDisk.remove(path)?;
        return Ok(0);
    }
    let bytes = waiting.encode();
    durable::write(&RealDisk, path, &bytes, 0o600)?;
    Ok(bytes.len() as u64)
}

fn read(path: &Path) -> Option<Reports> {
    let read = RealDisk.read(path, FILE_BYTES_MAX);
    let bytes = read
        .inspect_err(|error| warn!(path = %path.display(), %error, "cannot read what the last run had to report"))
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
/// A quarter of what a cheap flash card writes for years: the largest file takes twelve seconds.
const WRITE_BYTES_A_SECOND: u64 = 256 << 10;
/// When to try again with a disk that was full.
const WRITE_RETRY: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_LONGEST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use certs::tls::Expected;
    use certs::trust::Revocation;
    use certs::{Key, Role, Serial, issue};
    use service::Clock;
    use tokio::net::TcpListener;
    use transport::SourceSettings;
    use transport::source::CallLimits;

    use super::*;

    /// Calls to an origin at the address of `listener`.
    fn source(listener: &TcpListener) -> Arc<Source> {
        let (clock, key) = (Clock::system(), Key::generate().unwrap());
        let serial = Serial::from_random([1; 16]);
        let root = issue::root(&"d1".parse().unwrap(), 1, key, serial, clock.now()).unwrap();
        let trust = crate::identity::new_trust(&[root.cert_der()], clock.now()).unwrap();
        let made = Source::new(SourceSettings {
            addresses: vec![listener.local_addr().unwrap().to_string()],
            expected: Expected::AnyOf(Role::Origin),
            revocation: Revocation::BestEffort,
            trust: Arc::new(trust),
            own: None,
            clock,
            http2: false,
            limits: CallLimits::default(),
            refusals: None,
        });
        Arc::new(made.unwrap())
    }

    #[tokio::test]
    async fn a_way_that_swallows_everything_leaves_time_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::new(Clock::system());
        refusals.notice("clock_skew", "an hour");
        let mut courier = Courier::open(folder.path(), &refusals);
        // They take connections and never say a word.
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let next = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ways = [source(&first), source(&next)];
        courier.flush(&ways, Duration::from_millis(400)).await;
        let tried = timeout(Duration::from_secs(5), next.accept()).await;
        tried.unwrap().unwrap();
    }

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

    /// Waits until the file in `folder` holds as many reports as `count`.
    async fn written(folder: &Path, count: usize) {
        let holds = || read(&folder.join(FILE)).map_or(0, |kept| kept.reports.len());
        let look = async {
            while holds() != count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), look).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_the_origin_is_out_of_reach_is_written_down_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::new(Clock::system());
        let courier = Courier::open(folder.path(), &refusals);
        let stop = CancellationToken::new();
        let run = courier.run(Vec::new(), stop.clone());
        let knock = async {
            refusals.notice("clock_skew", "one");
            // By then it waits for minutes between two tries.
            sleep(BACKOFF_LONGEST * 10).await;
            refusals.notice("clock_skew", "two");
            let begun = Instant::now();
            written(folder.path(), 2).await;
            assert!(begun.elapsed() < Duration::from_millis(1500));
            stop.cancel();
        };
        tokio::join!(run, knock);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_was_full_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let refusals = Refusals::new(Clock::system());
        let courier = Courier::open(&state, &refusals);
        let stop = CancellationToken::new();
        refusals.notice("clock_skew", "an hour");
        let run = courier.run(Vec::new(), stop.clone());
        let later = async {
            sleep(Duration::from_secs(5)).await;
            std::fs::create_dir(&state).unwrap();
            sleep(WRITE_RETRY * 2).await;
            assert!(state.join(FILE).exists());
            stop.cancel();
        };
        tokio::join!(run, later);
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
