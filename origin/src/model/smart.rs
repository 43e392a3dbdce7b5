//! Smart groups at work: who is in by their rules.
//!
//! When an inventory comes, its device alone is held against all rules, in the transaction that
//! keeps it. When a rule changes, or for what changes with time, every device is held against the
//! rules in question: read page by page and judged off the runtime; only those who come or go are
//! written, in transactions of their own. Killed at any moment, it begins again: which rules
//! everybody was held against is noted last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use certs::DeviceId;
use content::Digest;
use protocol::Inventory;
use service::{CancellationToken, Report};
use sqlx::SqliteConnection;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info};

use super::key::GroupName;
use super::rule::{Facts, Needs, Rule};
use crate::authority::Authority;
use crate::inventory::Inventories;
use crate::ledger::smart::{self as table, Known};
use crate::ledger::{LedgerError, commit, manifests as due, models};
use crate::manifests::Manifests;

/// Rules by their groups.
pub type Rules = BTreeMap<GroupName, Rule>;

/// Keeps smart groups as their rules say.
#[derive(Debug)]
pub struct SmartGroups {
    authority: Authority,
    every: Duration,
    inventories: Inventories,
    manifests: Manifests,
    /// The last model whose rules everybody was held against.
    settled: Option<u64>,
    timed_at: Option<Instant>,
}

/// What rules make of a device.
#[derive(Debug)]
struct Judged {
    id: DeviceId,
    /// By which inventory.
    digest: Option<Digest>,
    /// The groups that it is in.
    groups: BTreeSet<GroupName>,
}

/// How often to look whether a rule has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Devices that are read at once; with their software, a tenth: that is a megabyte at most.
const PAGE: u32 = 500;
const PAGE_WITH_SOFTWARE: u32 = 50;

impl SmartGroups {
    /// Those of the models of `authority`. What changes with time is looked at `every` so often.
    #[must_use]
    pub fn new(
        authority: Authority,
        inventories: Inventories,
        manifests: Manifests,
        every: Duration,
    ) -> Self {
        Self {
            authority,
            every,
            inventories,
            manifests,
            settled: None,
            timed_at: None,
        }
    }

    /// Works until it is asked to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                looked = self.look() => if let Err(failure) = looked {
                    error!(error = %Report(&failure), "cannot look who is in smart groups");
                },
                // A page is applied or it is not: it is looked again at the next start.
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks once at what there is to be looked at.
    pub(crate) async fn look(&mut self) -> Result<(), LedgerError> {
        let mut db = self.authority.ledger().read().await?;
        let model = models::current(&mut db).await?;
        let now = Instant::now();
        let is_time = self.timed_at.is_none_or(|at| now >= at + self.every);
        if self.settled == Some(model) && !is_time {
            return Ok(());
        }
        let all = table::rules(&mut db).await?;
        let looked = table::looked(&mut db).await?;
        drop(db);
        let is_due = |name: &GroupName, rule: &Rule| {
            let known = looked
                .get(name)
                .is_some_and(|(known, _)| known == rule.as_str());
            !known || (is_time && rule.needs().look)
        };
        let rules: Rules = all
            .iter()
            .filter(|(name, rule)| is_due(name, rule))
            .map(|(name, rule)| (name.clone(), rule.clone()))
            .collect();
        let gone = looked.keys().filter(|name| !all.contains_key(*name));
        let asked: BTreeSet<GroupName> = gone.chain(rules.keys()).cloned().collect();
        if asked.is_empty() || self.pass(&all, &rules, &asked).await? {
            self.settled = Some(model);
            if is_time {
                self.timed_at = Some(now);
            }
        }
        Ok(())
    }

    /// Holds every device against `rules`, of `all` that there are: who is in none of `asked` by
    /// them is let out. Whether it came to its end; it does not if the rules change meanwhile.
    async fn pass(
        &self,
        all: &Rules,
        rules: &Rules,
        asked: &BTreeSet<GroupName>,
    ) -> Result<bool, LedgerError> {
        let ledger = self.authority.ledger();
        let mut pages = Pages::new(rules.clone(), self.inventories.clone());
        let (mut looked_at, mut changed) = (0, 0);
        loop {
            let mut db = ledger.read().await?;
            let judged = pages.next(&mut db, self.authority.clock().now()).await?;
            let Some(judged) = judged else { break };
            let ids: Vec<DeviceId> = judged.iter().map(|it| it.id.clone()).collect();
            let members = table::members(&mut db, &ids).await?;
            drop(db);
            looked_at += judged.len();
            let differs = |it: &Judged| {
                let held = members.get(&it.id).into_iter().flatten();
                !held.filter(|name| asked.contains(*name)).eq(&it.groups)
            };
            let stale: Vec<Judged> = judged.into_iter().filter(differs).collect();
            if stale.is_empty() {
                continue;
            }
            let mut tx = ledger.write().await?;
            if table::rules(&mut tx).await? != *all {
                return Ok(false);
            }
            let moved = apply(&mut tx, &stale, asked).await?;
            commit(tx).await?;
            self.manifests.changed(&moved);
            changed += moved.len();
        }
        let mut tx = ledger.write().await?;
        if table::rules(&mut tx).await? != *all {
            return Ok(false);
        }
        let now = self.authority.clock().now();
        for name in asked {
            table::note_looked(&mut tx, name, rules.get(name), now).await?;
        }
        commit(tx).await?;
        if changed > 0 {
            info!(
                looked_at,
                changed,
                groups = asked.len(),
                "devices changed smart groups"
            );
        }
        Ok(true)
    }
}

/// Every device, held against rules page by page.
struct Pages {
    after: String,
    inventories: Inventories,
    needs: Needs,
    rules: Rules,
}

impl Pages {
    fn new(rules: Rules, inventories: Inventories) -> Self {
        let needs = rules.values().map(Rule::needs);
        Self {
            after: String::new(),
            inventories,
            needs: needs.fold(Needs::default(), |a, b| Needs {
                software: a.software || b.software,
                look: a.look || b.look,
            }),
            rules,
        }
    }

    /// The next page; none after the last.
    async fn next(
        &mut self,
        db: &mut SqliteConnection,
        now: i64,
    ) -> Result<Option<Vec<Judged>>, LedgerError> {
        let with_software = self.needs.software;
        let limit = if with_software {
            PAGE_WITH_SOFTWARE
        } else {
            PAGE
        };
        let page = table::page(db, &self.after, limit, with_software).await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        self.after = last.id.to_string();
        let (rules, inventories) = (self.rules.clone(), self.inventories.clone());
        let judge = move || {
            let one = |known: Known| judge(&rules, known, &inventories, with_software, now);
            page.into_iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let stopping = LedgerError::Malformed {
            what: "a judgement that was cut off",
        };
        let judged = tokio::task::spawn_blocking(judge).await;
        judged.map_err(|_| stopping)?.map(Some)
    }
}

fn judge(
    rules: &Rules,
    known: Known,
    inventories: &Inventories,
    with_software: bool,
    now: i64,
) -> Result<Judged, LedgerError> {
    let inventory = match &known.stored {
        Some(stored) if with_software => stored.unpack()?,
        Some(stored) => stored.facts()?,
        None => Inventory::default(),
    };
    let facts = Facts {
        id: &known.id,
        group: known.group.as_deref(),
        inventory: &inventory,
        told_at: known.stored.as_ref().map(|stored| stored.received_at),
        seen_at: inventories.seen_at(&known.id),
        now,
    };
    Ok(Judged {
        groups: fitting(rules, &facts),
        digest: known.stored.as_ref().map(|stored| stored.digest),
        id: known.id,
    })
}

fn fitting(rules: &Rules, facts: &Facts<'_>) -> BTreeSet<GroupName> {
    let fits = rules.iter().filter(|(_, rule)| rule.holds(facts));
    fits.map(|(name, _)| name.clone()).collect()
}

/// Lets devices into those of the groups `asked` that they were judged to be in, and out of the
/// others; those who came or went. One whose inventory has changed since was judged when it came.
async fn apply(
    db: &mut SqliteConnection,
    judged: &[Judged],
    asked: &BTreeSet<GroupName>,
) -> Result<Vec<DeviceId>, LedgerError> {
    let ids: Vec<DeviceId> = judged.iter().map(|it| it.id.clone()).collect();
    let digests = table::digests_of(db, &ids).await?;
    let members = table::members(db, &ids).await?;
    let (mut come, mut go, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    for it in judged {
        if digests.get(&it.id) != it.digest.as_ref() {
            continue;
        }
        let held = members.get(&it.id).cloned().unwrap_or_default();
        let before = come.len() + go.len();
        let named = |name: &GroupName| (it.id.clone(), name.clone());
        come.extend(it.groups.difference(&held).map(named));
        let left = held.difference(&it.groups);
        go.extend(left.filter(|name| asked.contains(*name)).map(named));
        if come.len() + go.len() > before {
            moved.push(it.id.clone());
        }
    }
    table::change(db, &come, &go).await?;
    due::mark_due(db, &moved).await?;
    Ok(moved)
}

/// Holds the device `id` against all rules, as its new `inventory` says, which is called `digest`
/// and has just been entered; whether it came into a group or left one.
///
/// # Errors
///
/// Fails if the ledger does.
pub(crate) async fn settle(
    db: &mut SqliteConnection,
    id: &DeviceId,
    inventory: &Inventory,
    digest: Digest,
    now: i64,
) -> Result<bool, LedgerError> {
    let rules = table::rules(db).await?;
    let group = table::group_of(db, id).await?;
    let facts = Facts {
        id,
        group: group.as_deref(),
        inventory,
        told_at: Some(now),
        seen_at: Some(now),
        now,
    };
    let judged = Judged {
        id: id.clone(),
        digest: Some(digest),
        groups: fitting(&rules, &facts),
    };
    let asked = rules.keys().cloned().collect();
    let moved = apply(db, &[judged], &asked).await?;
    Ok(!moved.is_empty())
}

/// Who would be in which of the groups of `rules`.
///
/// # Errors
///
/// Fails if the ledger does.
pub async fn predict(
    db: &mut SqliteConnection,
    rules: &Rules,
    inventories: &Inventories,
    now: i64,
) -> Result<BTreeMap<GroupName, BTreeSet<DeviceId>>, LedgerError> {
    let names = rules.keys().map(|name| (name.clone(), BTreeSet::new()));
    let mut found: BTreeMap<GroupName, BTreeSet<DeviceId>> = names.collect();
    let mut pages = Pages::new(rules.clone(), inventories.clone());
    while let Some(page) = pages.next(db, now).await? {
        for it in page {
            for name in it.groups {
                found.entry(name).or_default().insert(it.id.clone());
            }
        }
    }
    Ok(found)
}
