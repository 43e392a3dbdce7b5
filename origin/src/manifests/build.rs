//! Makes the manifests that are due.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use certs::DeviceId;
use content::Digest;
use content::statement::{Item, Manifest, seal};
use service::{CancellationToken, Report};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use super::{Ask, Inner};
use crate::authority::{Authority, AuthorityError};
use crate::ledger::manifests::{self as table, Made};
use crate::ledger::{LedgerError, commit, counters, models};
use crate::model::World;
use crate::model::plan::said;
use crate::model::resolve::{Profile, profile, resolve};
use crate::published::PublishedError;

/// Makes manifests, one batch after the other.
#[derive(Debug)]
pub struct Builder {
    asked: mpsc::Receiver<Ask>,
    inner: Arc<Inner>,
    /// The model as it was read last: it changes with each commit and in no other way.
    world: Option<Arc<World>>,
}

/// Why manifests could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// One could not be signed.
    #[error("cannot sign a manifest")]
    Authority(#[from] AuthorityError),
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// The highest number could not be kept.
    #[error("cannot keep the numbers of manifests")]
    Published(#[from] PublishedError),
    /// A task of ours was cut off.
    #[error("cannot go on: the origin is stopping")]
    Stopping(#[from] JoinError),
}

/// Devices in one transaction: it takes some 30 ms, in which nobody else writes.
const BATCH: usize = 256;
/// How often to look for devices that came in by another way than a commit.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What devices of a profile hold.
struct Held {
    items: Vec<Item>,
    said: Digest,
}

impl Builder {
    pub(super) fn new(inner: Arc<Inner>, asked: mpsc::Receiver<Ask>) -> Self {
        Self {
            asked,
            inner,
            world: None,
        }
    }

    /// Makes what is due until it is asked to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asks = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                ask = self.asked.recv() => asks.extend(ask),
                () = self.inner.kick.notified() => {}
                _ = ticks.tick() => {}
            }
            while !stop.is_cancelled() {
                match self.step(&mut asks).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(failure) => {
                        error!(error = %Report(&failure), "cannot make manifests");
                        // Who asked is told what held until now. The rest is tried again.
                        asks.clear();
                        break;
                    }
                }
            }
        }
    }

    /// Makes one batch: for those who ask first. Whether there may be more.
    async fn step(&mut self, asks: &mut Vec<Ask>) -> Result<bool, BuildError> {
        while asks.len() < BATCH
            && let Ok(ask) = self.asked.try_recv()
        {
            asks.push(ask);
        }
        let wanted: BTreeSet<DeviceId> = asks.iter().map(|ask| ask.device.clone()).collect();
        let mut db = self.inner.authority.ledger().read().await?;
        let due = table::due(&mut db, BATCH as u32).await?;
        let count = table::count_due(&mut db).await?;
        drop(db);
        self.inner.metrics.manifests_due(count);
        let room = BATCH.saturating_sub(wanted.len());
        let mut devices = wanted.clone();
        devices.extend(due.iter().take(room).cloned());
        if devices.is_empty() {
            return Ok(false);
        }
        self.build(&devices, &wanted).await?;
        for ask in asks.drain(..) {
            // Whoever asked may have gone.
            let _gone = ask.tell.send(());
        }
        Ok(due.len() > room || !self.asked.is_empty())
    }

    /// Makes the manifests of `devices` that say something else than before; of `wanted`, even the
    /// first that says nothing.
    async fn build(
        &mut self,
        devices: &BTreeSet<DeviceId>,
        wanted: &BTreeSet<DeviceId>,
    ) -> Result<(), BuildError> {
        let ids: Vec<DeviceId> = devices.iter().cloned().collect();
        let authority = self.inner.authority.clone();
        let mut tx = authority.ledger().write().await?;
        // What is found due from here on may not be in what this transaction sees.
        let dues = self.inner.board.dues();
        let model = models::current(&mut tx).await?;
        let world = match self.world.take().filter(|world| world.model == model) {
            Some(world) => world,
            None => Arc::new(models::world(&mut tx).await?),
        };
        self.world = Some(Arc::clone(&world));
        let mut held: HashMap<Profile, Arc<Held>> = HashMap::new();
        let mut before: BTreeMap<DeviceId, Made> = BTreeMap::new();
        for made in table::of(&mut tx, &ids).await? {
            before.insert(made.device.clone(), made);
        }
        let floor = counters::all(&mut tx).await?;
        let floor = floor.get(table::FLOOR).copied().unwrap_or(0);
        let mut new: Vec<(Made, Arc<Held>)> = Vec::new();
        for (device, belongs) in models::belonging(&mut tx, &ids).await? {
            let profile = profile(&world, belongs.groups, belongs.own);
            let held = held.entry(profile);
            let held = held.or_insert_with_key(|profile| Arc::new(hold(&world, profile)));
            let last = before.get(&device);
            let is_first = last.is_none() && (wanted.contains(&device) || !held.items.is_empty());
            if model == 0 || !(is_first || last.is_some_and(|last| last.said != held.said)) {
                continue;
            }
            let number = last.map_or(floor, |last| last.number.max(floor)) + 1;
            let made = Made {
                device,
                number,
                model,
                digest: held.said,
                said: held.said,
                made_at: authority.clock().now(),
            };
            new.push((made, Arc::clone(held)));
        }
        let signed = sign(&authority, new).await?;
        for (made, envelope) in &signed {
            table::put(&mut tx, made, envelope).await?;
        }
        table::done(&mut tx, &ids).await?;
        if let Some(highest) = signed.iter().map(|(made, _)| made.number).max() {
            counters::raise(&mut tx, table::COUNTER, highest).await?;
            // Before it is served: a restored ledger must be raised above it.
            self.keep(highest).await?;
        }
        commit(tx).await?;
        self.inner.board.unchanged(&ids, dues);
        for (made, _) in &signed {
            self.inner.board.made(made, dues);
            self.inner.rosters.touched(&made.device);
        }
        self.inner.metrics.manifests_built(signed.len() as u64);
        debug!(
            looked_at = ids.len(),
            made = signed.len(),
            model,
            "manifests"
        );
        Ok(())
    }

    /// Keeps the highest number outside the ledger, if it is one.
    async fn keep(&self, number: u64) -> Result<(), PublishedError> {
        let published = self.inner.authority.published();
        let mark = published.marks().get(table::COUNTER).copied();
        if mark.is_none_or(|mark| mark < number) {
            published.raise(table::COUNTER, number).await?;
        }
        Ok(())
    }
}

fn hold(world: &World, profile: &Profile) -> Held {
    let items = resolve(world, profile);
    let said = Digest::of(&said(items.clone()));
    Held { items, said }
}

/// Signs manifests, off the runtime: a batch takes ten milliseconds.
async fn sign(
    authority: &Authority,
    new: Vec<(Made, Arc<Held>)>,
) -> Result<Vec<(Made, Vec<u8>)>, BuildError> {
    let authority = authority.clone();
    let work = move || {
        let deployment = authority.deployment().id.to_string();
        let sign = |(mut made, held): (Made, Arc<Held>)| {
            let manifest = Manifest {
                deployment: deployment.clone(),
                device: made.device.to_string(),
                number: made.number,
                model: made.model,
                created: made.made_at,
                items: held.items.clone(),
            };
            let envelope = seal(&manifest, |message| authority.sign_content(message))?;
            made.digest = Digest::of(&envelope);
            Ok((made, envelope))
        };
        new.into_iter()
            .map(sign)
            .collect::<Result<Vec<_>, BuildError>>()
    };
    tokio::task::spawn_blocking(work).await?
}
