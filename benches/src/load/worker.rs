//! The loop: ask, read, count, and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::args::Args;
use super::histogram::Histogram;
use super::line::Line;
use super::target::Target;

/// What there is to do, shared by all workers.
pub(super) struct Job {
    shared: Arc<Shared>,
}

struct Shared {
    /// Body bytes, counted as they come.
    bytes: AtomicU64,
    connections: u16,
    duration: Duration,
    paths: Vec<String>,
    /// Requests taken from the supply so far.
    taken: AtomicU64,
    requests_max: u64,
    streams: u16,
    target: Target,
    timeout: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    /// Requests that were under way when the time was up.
    pub(super) cut_off: u64,
    pub(super) elapsed: Duration,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) handshakes: u64,
    pub(super) latency: Histogram,
}

impl Job {
    pub(super) fn new(args: &Args, target: Target, paths: Vec<String>) -> Self {
        let shared = Shared {
            bytes: AtomicU64::new(0),
            connections: args.connections,
            duration: Duration::from_secs(args.duration.into()),
            paths,
            taken: AtomicU64::new(0),
            requests_max: args.requests.unwrap_or(u64::MAX),
            streams: args.streams,
            target,
            timeout: Duration::from_secs(args.timeout.into()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Runs it to the end of the time or of the requests.
    pub(super) async fn run(&self) -> Tally {
        let start = Instant::now();
        let deadline = start + self.shared.duration;
        let mut workers = JoinSet::new();
        for _ in 0..self.shared.connections {
            workers.spawn(connection(Arc::clone(&self.shared), deadline));
        }
        let mut tally = Tally::default();
        while let Some(part) = workers.join_next().await {
            tally.add(part.unwrap_or_else(|panic| Tally::failed(&panic.into())));
        }
        tally.bytes = self.shared.bytes.load(Ordering::Relaxed);
        tally.elapsed = start.elapsed().min(self.shared.duration);
        tally
    }
}

impl Shared {
    /// The next object's path, as long as there is more to do.
    fn next(&self, deadline: Instant) -> Option<&str> {
        if Instant::now() >= deadline {
            return None;
        }
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let path = &self.paths[(number % self.paths.len() as u64) as usize];
        (number < self.requests_max).then_some(path)
    }

    fn is_done(&self, deadline: Instant) -> bool {
        Instant::now() >= deadline || self.taken.load(Ordering::Relaxed) >= self.requests_max
    }
}

impl Tally {
    fn failed(error: &anyhow::Error) -> Self {
        Self {
            errors: 1,
            first_error: Some(format!("{error:#}")),
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.cut_off += other.cut_off;
        self.errors += other.errors;
        self.handshakes += other.handshakes;
        self.latency.add(&other.latency);
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// Keeps one connection busy, and opens it anew when it breaks.
async fn connection(shared: Arc<Shared>, deadline: Instant) -> Tally {
    let mut tally = Tally::default();
    while !shared.is_done(deadline) {
        let line = match timeout_at(deadline, shared.target.connect()).await {
            Err(_) => break,
            Ok(Ok(line)) => line,
            Ok(Err(error)) => {
                tally.add(Tally::failed(&error));
                // A server that turns us away would otherwise be hammered with handshakes.
                sleep_until(deadline.min(Instant::now() + RECONNECT_PAUSE)).await;
                continue;
            }
        };
        tally.handshakes += 1;
        let mut streams = JoinSet::new();
        for share in (1..shared.streams).map_while(|_| line.share()) {
            streams.spawn(requests(Arc::clone(&shared), share, deadline));
        }
        tally.add(requests(Arc::clone(&shared), line, deadline).await);
        while let Some(part) = streams.join_next().await {
            tally.add(part.unwrap_or_else(|panic| Tally::failed(&panic.into())));
        }
    }
    tally
}

/// Sends one request after the other, for as long as the connection holds.
async fn requests(shared: Arc<Shared>, mut line: Line, deadline: Instant) -> Tally {
    let mut tally = Tally::default();
    while let Some(path) = shared.next(deadline) {
        let began = Instant::now();
        let request = timeout(shared.timeout, request(&shared, &mut line, path));
        let failed =
            |error: anyhow::Error| Tally::failed(&error.context(format!("cannot get {path}")));
        match timeout_at(deadline, request).await {
            Ok(done) => match done.context("no whole answer in time").flatten() {
                Ok(status) if status.is_success() => tally.latency.record(began.elapsed()),
                // The server has answered: the connection is as good as before.
                Ok(status) => tally.add(failed(anyhow!("status {status}"))),
                Err(error) => {
                    tally.add(failed(error));
                    return tally;
                }
            },
            Err(_) => {
                tally.cut_off += 1;
                return tally;
            }
        }
    }
    tally
}

async fn request(shared: &Shared, line: &mut Line, path: &str) -> anyhow::Result<StatusCode> {
    let response = line.get(path).await?;
    let status = response.status();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.context("the body broke off")?.data_ref() {
            shared.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
    Ok(status)
}

/// Ten attempts a second on each connection.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
