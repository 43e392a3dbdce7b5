//! The rosters of boosters: which manifest is the current one of each device that comes to one,
//! signed, so that the booster can prove it.
//!
//! Who comes where is known in memory alone: a booster says it again when it finds its devices
//! missing, as after a start of ours.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certs::{DeviceId, Role};
use content::statement::{RosterHead, seal};
use content::{Digest, Roster, RosterEntry};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Manifests;
use super::board::Standing;
use crate::authority::AuthorityError;
use crate::ledger::LedgerError;
use crate::ledger::devices::{self, State as Stage};

/// Why there is no roster.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RosterError {
    /// It could not be signed.
    #[error("cannot sign a roster")]
    Authority(#[from] AuthorityError),
    /// The origin stops.
    #[error("cannot make a roster: the origin is stopping")]
    Stopping(#[from] tokio::task::JoinError),
}

/// A roster, signed.
#[derive(Debug)]
pub struct Sealed {
    /// The envelope of its head.
    pub envelope: Vec<u8>,
    /// The digest of its list.
    pub list: Digest,
    /// The list.
    pub bytes: Vec<u8>,
    head: RosterHead,
    /// Whose manifest each is.
    owners: HashMap<Digest, DeviceId>,
}

/// Who comes to which booster.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    boosters: HashMap<DeviceId, Kept>,
    /// To which boosters a device comes.
    places: HashMap<DeviceId, Vec<DeviceId>>,
    closed: bool,
}

#[derive(Debug)]
struct Kept {
    /// Who comes, and when the booster last said so.
    devices: BTreeMap<DeviceId, Instant>,
    /// What was signed, the last first: as [`SIGNED_MAX`] says.
    signed: VecDeque<Arc<Sealed>>,
    /// Counts what may have changed since.
    changes: watch::Sender<u64>,
}

/// A head that is older is signed anew: a third of what devices take for fresh.
const HEAD_SECONDS: i64 = 600;
/// How long one counts at most: as long as a timestamp.
const LIFETIME_SECONDS: i64 = 86_400;
/// Who was not named for so long has gone elsewhere. Boosters name each in every hour in which it
/// comes, and devices come once a day at least.
const FORGET: Duration = Duration::from_secs(36 * 3600);
/// Rosters of a booster whose lists are kept. It is given a head and asks for the list that this
/// names; meanwhile its next wait may have had another one signed.
const SIGNED_MAX: usize = 3;

impl Rosters {
    /// Takes note that something else may hold for `id`.
    pub(super) fn touched(&self, id: &DeviceId) {
        let state = self.state();
        for booster in state.places.get(id).into_iter().flatten() {
            if let Some(kept) = state.boosters.get(booster) {
                kept.changes.send_modify(|changes| *changes += 1);
            }
        }
    }

    /// Takes note that something else may hold for everybody.
    pub(super) fn all_touched(&self) {
        for kept in self.state().boosters.values() {
            kept.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Ends all waits.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.all_touched();
    }

    fn join(&self, booster: &DeviceId, devices: &[DeviceId], now: Instant) {
        let mut state = self.state();
        let State {
            boosters, places, ..
        } = &mut *state;
        let kept = boosters.entry(booster.clone()).or_default();
        let is_gone = |at: &Instant| now.saturating_duration_since(*at) >= FORGET;
        let gone = kept.devices.iter().filter(|(_, at)| is_gone(at));
        let gone: Vec<DeviceId> = gone.map(|(id, _)| id.clone()).collect();
        for id in gone {
            kept.devices.remove(&id);
            if let Some(at) = places.get_mut(&id) {
                at.retain(|at| at != booster);
            }
        }
        for id in devices {
            if kept.devices.len() >= Roster::DEVICES_MAX && !kept.devices.contains_key(id) {
                continue;
            }
            if kept.devices.insert(id.clone(), now).is_none() {
                places.entry(id.clone()).or_default().push(booster.clone());
            }
        }
        places.retain(|_, at| !at.is_empty());
        kept.changes.send_modify(|changes| *changes += 1);
    }

    /// What tells of changes for `booster`.
    fn follow(&self, booster: &DeviceId) -> watch::Receiver<u64> {
        let mut state = self.state();
        let kept = state.boosters.entry(booster.clone()).or_default();
        kept.changes.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            devices: BTreeMap::new(),
            signed: VecDeque::new(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Manifests {
    /// Takes note that `devices` come to `booster`, as far as they are clients of ours, and says who
    /// these are.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn join(
        &self,
        booster: &DeviceId,
        devices: &[DeviceId],
    ) -> Result<Vec<DeviceId>, LedgerError> {
        let mut db = self.inner.authority.ledger().read().await?;
        let found = devices::doomed(&mut db, devices).await?;
        let is_ours = |it: &devices::Doomed| {
            it.role == Some(Role::Client) && it.state == Some(Stage::Enrolled)
        };
        let ours = found.into_iter().filter(is_ours).map(|it| it.id);
        let ours: Vec<DeviceId> = ours.collect();
        self.inner.rosters.join(booster, &ours, Instant::now());
        Ok(ours)
    }

    /// The roster of `booster`, whose devices are to come every `every`: the one that was signed
    /// last, or a new one if that is old or says something else.
    ///
    /// # Errors
    ///
    /// Fails if the signature does.
    pub async fn roster(
        &self,
        booster: &DeviceId,
        every: Duration,
    ) -> Result<Arc<Sealed>, RosterError> {
        let (devices, last) = {
            let mut state = self.inner.rosters.state();
            let kept = state.boosters.entry(booster.clone()).or_default();
            let devices: Vec<DeviceId> = kept.devices.keys().cloned().collect();
            (devices, kept.signed.front().cloned())
        };
        let model = self.inner.model.load(Ordering::Relaxed);
        let (inner, id) = (Arc::clone(&self.inner), booster.clone());
        let work = move || {
            let entry = |id: DeviceId| entry(&id, inner.board.standing(&id));
            let roster = Roster::new(devices.into_iter().map(entry).collect());
            let now = inner.authority.clock().now();
            let head = RosterHead {
                deployment: inner.authority.deployment().id.to_string(),
                booster: id.to_string(),
                model,
                count: roster.entries().len() as u64,
                root: roster.root(),
                list: Digest::of(&roster.encode()),
                every: every.as_secs(),
                issued: now,
                expires: now + LIFETIME_SECONDS,
            };
            if let Some(last) = last.filter(|last| still_says(&last.head, &head)) {
                return Ok((last, false));
            }
            let envelope = seal(&head, |message| inner.authority.sign_content(message))?;
            let owner = |entry: &RosterEntry| Some((entry.manifest?, entry.device.parse().ok()?));
            let sealed = Sealed {
                envelope,
                list: head.list,
                bytes: roster.encode(),
                owners: roster.entries().iter().filter_map(owner).collect(),
                head,
            };
            Ok::<_, AuthorityError>((Arc::new(sealed), true))
        };
        let (sealed, is_new) = tokio::task::spawn_blocking(work).await??;
        if is_new {
            self.inner.metrics.roster_signed();
            let mut state = self.inner.rosters.state();
            if let Some(kept) = state.boosters.get_mut(booster) {
                kept.signed.truncate(SIGNED_MAX - 1);
                kept.signed.push_front(Arc::clone(&sealed));
            }
        }
        Ok(sealed)
    }

    /// What tells of changes for `booster`, from now on.
    #[must_use]
    pub fn follow(&self, booster: &DeviceId) -> watch::Receiver<u64> {
        self.inner.rosters.follow(booster)
    }

    /// Whether the origin stops, so that nobody should wait.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.inner.rosters.state().closed
    }

    /// The last roster that was signed for `booster` and of which that is true.
    pub(super) fn recent(
        &self,
        booster: &DeviceId,
        is_it: impl Fn(&Sealed) -> bool,
    ) -> Option<Arc<Sealed>> {
        let state = self.inner.rosters.state();
        let mut signed = state.boosters.get(booster)?.signed.iter();
        signed.find(|sealed| is_it(sealed)).cloned()
    }

    /// Whose manifest is called `digest`, of those on the last rosters of `booster`.
    pub(super) fn owner(&self, booster: &DeviceId, digest: &Digest) -> Option<DeviceId> {
        let names = |sealed: &Sealed| sealed.owners.contains_key(digest);
        self.recent(booster, names)?.owners.get(digest).cloned()
    }
}

impl Sealed {
    /// The model in force when it was signed.
    #[must_use]
    pub fn model(&self) -> u64 {
        self.head.model
    }
}

/// Whether `last` will do for what `head` would say. The number of the model is for people; that
/// there is one at all decides who may read what.
fn still_says(last: &RosterHead, head: &RosterHead) -> bool {
    let age = head.issued - last.issued;
    last.list == head.list
        && last.every == head.every
        && (last.model == 0) == (head.model == 0)
        && (0..HEAD_SECONDS).contains(&age)
}

fn entry(id: &DeviceId, standing: Standing) -> RosterEntry {
    let asked = standing.commands.iter().map(|command| command.id).max();
    let manifest = standing.manifest;
    RosterEntry {
        device: id.to_string(),
        model: manifest.as_ref().map_or(0, |it| it.model),
        number: manifest.as_ref().map_or(0, |it| it.number),
        manifest: manifest.map(|it| it.digest),
        asked: asked.unwrap_or(0),
    }
}
