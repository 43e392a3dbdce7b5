//! Clients that come, fetch what is current, all or some of it, check every byte, and go: some of
//! them in the middle of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use content::{Digest, FilesetName, PackId};
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::args::Args;
use super::checker::Checker;
use super::fileset;
use super::target::Target;

/// Clients that come and go, and what has become of them so far.
#[derive(Debug)]
pub(crate) struct Churn {
    /// How many are there at a time.
    clients: u16,
    phase: watch::Sender<Phase>,
    busy: AtomicUsize,
    bytes: AtomicU64,
    failures: Mutex<Vec<String>>,
    vanished: AtomicU64,
    visits: AtomicU64,
}

/// What clients are to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Come and go.
    Run,
    /// Stay away for a while.
    Rest,
    /// Come no more.
    End,
}

/// What has become of clients so far.
#[derive(Clone, Debug)]
pub(crate) struct Come {
    /// Bytes of packs that were checked.
    pub(crate) bytes: u64,
    /// Why those failed that did.
    pub(crate) failures: Vec<String>,
    /// How many left in the middle of it, as they meant to.
    pub(crate) vanished: u64,
    /// How many got all that they wanted.
    pub(crate) visits: u64,
}

impl Churn {
    pub(crate) fn new(clients: u16) -> Self {
        Self {
            clients,
            phase: watch::Sender::new(Phase::Run),
            busy: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            failures: Mutex::default(),
            vanished: AtomicU64::new(0),
            visits: AtomicU64::new(0),
        }
    }

    /// From now on they do that.
    pub(crate) fn go(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// How many are there now.
    pub(crate) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    pub(crate) fn come(&self) -> Come {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        Come {
            bytes: self.bytes.load(Ordering::Relaxed),
            failures: failures.clone(),
            vanished: self.vanished.load(Ordering::Relaxed),
            visits: self.visits.load(Ordering::Relaxed),
        }
    }

    /// Has clients come and go until they are told to come no more: by turns as each of `all` says.
    ///
    /// # Errors
    ///
    /// Fails if they cannot even begin.
    pub(crate) fn run(self: &Arc<Self>, all: &[Args]) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(async {
            let mut ways = Vec::new();
            for args in all {
                let name = args.fileset.clone().context("want a fileset")?;
                ways.push((Target::find(args).await?, name));
            }
            let mut clients = JoinSet::new();
            for number in 0..self.clients {
                let (target, name) = ways[usize::from(number) % ways.len()].clone();
                clients.spawn(Arc::clone(self).client(number, target, name));
            }
            while let Some(client) = clients.join_next().await {
                client.context("a client panicked")?;
            }
            Ok(())
        })
    }

    async fn client(self: Arc<Self>, number: u16, target: Target, name: FilesetName) {
        let mut random = fastrand::Rng::with_seed(u64::from(number));
        let mut phase = self.phase.subscribe();
        loop {
            let told = phase.wait_for(|phase| *phase != Phase::Rest).await;
            // Whoever tells is ourselves.
            let told = told.map_or(Phase::End, |told| *told);
            if told == Phase::End {
                return;
            }
            self.busy.fetch_add(1, Ordering::Relaxed);
            let visit = timeout(PATIENCE, self.visit(&mut random, &target, &name)).await;
            self.busy.fetch_sub(1, Ordering::Relaxed);
            match visit.context("it took too long").flatten() {
                Ok(true) => drop(self.visits.fetch_add(1, Ordering::Relaxed)),
                Ok(false) => drop(self.vanished.fetch_add(1, Ordering::Relaxed)),
                Err(failure) => self.failed(&failure),
            }
            sleep(Duration::from_millis(random.u64(..PAUSE_MILLIS))).await;
        }
    }

    /// One visit. False if the client left in the middle of it.
    async fn visit(
        &self,
        random: &mut fastrand::Rng,
        target: &Target,
        name: &FilesetName,
    ) -> anyhow::Result<bool> {
        let paths = fileset::paths(target, name).await?;
        // One in three wants but some of it, as one who updates.
        let step = if random.u8(..3) == 0 { 3 } else { 1 };
        let leaves_at = (random.u8(..3) == 0).then(|| random.u64(1..LEAVES_BY));
        let (mut line, mut bytes) = (target.connect().await?, 0);
        for path in paths.iter().step_by(step) {
            let id = path.rsplit_once('/').map_or("", |(_, id)| id);
            let mut checker = Checker::new(&[PackId(Digest::from_hex(id)?)], true);
            let response = line.get(path).await?;
            let status = response.status();
            ensure!(status.is_success(), "cannot get {path}: status {status}");
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.with_context(|| format!("{path} broke off"))?;
                let Some(data) = frame.data_ref() else {
                    continue;
                };
                checker.take(data)?;
                bytes += data.len() as u64;
                self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                if leaves_at.is_some_and(|at| bytes >= at) {
                    return Ok(false);
                }
            }
            checker.finish()?;
        }
        Ok(true)
    }

    fn failed(&self, failure: &anyhow::Error) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < FAILURES_MAX {
            failures.push(format!("{failure:#}"));
        }
    }
}

/// How long one may take for all that there is.
const PATIENCE: Duration = Duration::from_secs(120);
/// They stay away for less than that.
const PAUSE_MILLIS: u64 = 400;
/// Who leaves in the middle of it has got less than that.
const LEAVES_BY: u64 = 40 << 20;
/// More are not kept.
const FAILURES_MAX: usize = 100;
