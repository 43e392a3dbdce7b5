//! What edits of the model come to: what they contradict, and what becomes of which device.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use certs::DeviceId;
use content::statement::{Item, Manifest, Payload as _};
use content::{FilesetName, RevisionNumber};
use sqlx::SqliteConnection;

use super::check::{clashes, offenders};
use super::concern::{Concern, concerned};
use super::key::{GroupName, Key, Kind, Whom};
use super::resolve::{Profile, profile, resolve};
use super::value::Value;
use super::world::{Edits, World};
use crate::ledger::models::{self, Belongs};
use crate::ledger::{LedgerError, smart};

/// What edits come to.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What they contradict; they can be committed if there is nothing.
    pub offenders: Vec<String>,
    /// The devices that hold something else afterwards.
    pub devices: Vec<DeviceId>,
    /// How many devices were looked at.
    pub looked_at: u64,
    /// How many devices of which site make which step.
    pub steps: BTreeMap<Step, u64>,
    /// How many devices of each site hold something else; of no site under "".
    pub sites: BTreeMap<String, u64>,
    /// Devices that the edits name and nobody bears yet.
    pub unknown: Vec<DeviceId>,
}

/// What becomes of a fileset on devices of a site: from nothing to a revision, from one to another
/// or to nothing; from a revision to the same if it is held in another way.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Step {
    /// The site: the group of their token.
    pub site: String,
    /// The fileset.
    pub fileset: FilesetName,
    /// What they held.
    pub from: Option<RevisionNumber>,
    /// What they hold.
    pub to: Option<RevisionNumber>,
}

/// What becomes of the devices of one profile.
struct Fate {
    differs: bool,
    moves: Vec<(FilesetName, Option<RevisionNumber>, Option<RevisionNumber>)>,
    clashes: Vec<String>,
}

/// Who would be in smart groups whose rules change.
pub type Predicted = BTreeMap<GroupName, BTreeSet<DeviceId>>;

/// Looks at what `edits` of the model `before`, which is the current one, come to, once those are in
/// smart groups who are `predicted` to be; in the others, those who are now.
///
/// # Errors
///
/// Fails if the ledger does.
pub async fn plan(
    db: &mut SqliteConnection,
    before: &World,
    edits: &Edits,
    predicted: &Predicted,
) -> Result<Plan, LedgerError> {
    let after = before.with(edits);
    let mut plan = Plan {
        offenders: offenders(&after, edits),
        ..Plan::default()
    };
    plan.offenders.extend(orphans(db, edits).await?);
    let named: BTreeSet<DeviceId> = edits
        .iter()
        .filter(|(_, value)| value.is_some())
        .filter_map(|(key, _)| key.device().cloned())
        .collect();
    let named: Vec<DeviceId> = named.into_iter().collect();
    plan.unknown = models::unknown(db, &named).await?;
    let mut concern = concerned(before, &after, edits);
    for (group, will) in predicted {
        let is = smart::members_of(db, group).await?;
        let moves = is.symmetric_difference(will);
        concern.devices.extend(moves.cloned());
    }
    let devices: Vec<DeviceId> = enumerate(db, &concern).await?.into_iter().collect();
    let moved = by_device(edits);
    let mut fates: HashMap<(Profile, Profile), Arc<Fate>> = HashMap::new();
    let mut clashing: BTreeMap<String, (u64, DeviceId)> = BTreeMap::new();
    for batch in devices.chunks(BATCH) {
        for (id, belongs) in models::belonging(db, batch).await? {
            let was = profile(before, belongs.groups.clone(), belongs.own.clone());
            let site = belongs.site.clone().unwrap_or_default();
            let edits = moved.get(&id).map_or(&[][..], Vec::as_slice);
            let edited = edited(belongs, edits, &id, predicted);
            let is = profile(&after, edited.groups, edited.own);
            let fate = match fates.entry((was, is)) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(free) => {
                    let (was, is) = free.key();
                    let fate = Arc::new(fate(resolve(before, was), resolve(&after, is)));
                    Arc::clone(free.insert(fate))
                }
            };
            plan.looked_at += 1;
            for clash in &fate.clashes {
                let seen = clashing.entry(clash.clone());
                seen.or_insert_with(|| (0, id.clone())).0 += 1;
            }
            if fate.differs {
                plan.note(id, site, &fate);
            }
        }
    }
    let clash = |(clash, (count, first)): (String, (u64, DeviceId))| match count {
        1 => format!("{clash} on {first}"),
        _ => format!("{clash} on {count} devices, such as {first}"),
    };
    plan.offenders.extend(clashing.into_iter().map(clash));
    Ok(plan)
}

impl Plan {
    fn note(&mut self, id: DeviceId, site: String, fate: &Fate) {
        for (fileset, from, to) in &fate.moves {
            let step = Step {
                site: site.clone(),
                fileset: fileset.clone(),
                from: *from,
                to: *to,
            };
            *self.steps.entry(step).or_default() += 1;
        }
        *self.sites.entry(site).or_default() += 1;
        self.devices.push(id);
    }
}

/// What would name a group or a fileset that is gone.
async fn orphans(db: &mut SqliteConnection, edits: &Edits) -> Result<Vec<String>, LedgerError> {
    let mut found = Vec::new();
    for (key, _) in edits.iter().filter(|(_, value)| value.is_none()) {
        let named = match key {
            Key::Group(name) => models::naming(db, Kind::Member, None, Some(name)).await?,
            Key::Fileset(name) => {
                models::naming(db, Kind::DeviceAssociation, Some(name), None).await?
            }
            Key::Member(..) | Key::Association(..) => Vec::new(),
        };
        let left = named.iter().filter(|key| !edits.contains_key(*key));
        let left: Vec<&Key> = left.collect();
        if let Some(first) = left.first() {
            let count = left.len();
            found.push(format!(
                "{key} is still named by {count} entries, such as {first}"
            ));
        }
    }
    Ok(found)
}

async fn enumerate(
    db: &mut SqliteConnection,
    concern: &Concern,
) -> Result<BTreeSet<DeviceId>, LedgerError> {
    if concern.everybody {
        let all = models::of_group(db, &GroupName::all()).await?;
        return Ok(all.into_iter().collect());
    }
    let mut found = concern.devices.clone();
    for group in &concern.groups {
        found.extend(models::of_group(db, group).await?);
    }
    for name in &concern.filesets {
        let own = models::naming(db, Kind::DeviceAssociation, Some(name), None).await?;
        found.extend(own.iter().filter_map(|key| key.device().cloned()));
    }
    Ok(found)
}

/// Edits of members and single devices, by device.
fn by_device(edits: &Edits) -> HashMap<DeviceId, Vec<(&Key, Option<&Value>)>> {
    let mut found: HashMap<DeviceId, Vec<(&Key, Option<&Value>)>> = HashMap::new();
    for (key, value) in edits {
        if let Some(device) = key.device() {
            let edits = found.entry(device.clone()).or_default();
            edits.push((key, value.as_ref()));
        }
    }
    found
}

/// Where the device `id` belongs after `edits`.
fn edited(
    mut belongs: Belongs,
    edits: &[(&Key, Option<&Value>)],
    id: &DeviceId,
    predicted: &Predicted,
) -> Belongs {
    for (key, value) in edits {
        match (key, value) {
            (Key::Member(group, _), Some(_)) => {
                belongs.named.insert(group.clone());
            }
            (Key::Member(group, _), None) => {
                // What its token said stays, whatever an operator takes back.
                if belongs.site.as_deref() != Some(group.as_str()) {
                    belongs.named.remove(group);
                }
            }
            (Key::Association(name, Whom::Device(_)), Some(Value::Association(said))) => {
                belongs.own.insert(name.clone(), said.clone());
            }
            (Key::Association(name, Whom::Device(_)), _) => {
                belongs.own.remove(name);
            }
            (Key::Fileset(_) | Key::Group(_) | Key::Association(_, Whom::Group(_)), _) => {}
        }
    }
    for (group, will) in predicted {
        if will.contains(id) {
            belongs.by_rule.insert(group.clone());
        } else {
            belongs.by_rule.remove(group);
        }
    }
    belongs.groups = belongs.named.union(&belongs.by_rule).cloned().collect();
    belongs
}

fn fate(was: Vec<Item>, is: Vec<Item>) -> Fate {
    let mut clashes = clashes(&is);
    let manifest = said(is.clone());
    let bytes = manifest.len();
    if bytes > Manifest::BYTES_MAX - DEVICE_BYTES {
        clashes.push(format!("a manifest of {bytes} bytes is too long"));
    }
    let differs = said(was.clone()) != manifest;
    let was: BTreeMap<FilesetName, Item> = by_name(was);
    let is: BTreeMap<FilesetName, Item> = by_name(is);
    let names: BTreeSet<&FilesetName> = was.keys().chain(is.keys()).collect();
    let moved = |name: &&FilesetName| was.get(*name) != is.get(*name);
    let one = |name: &FilesetName| {
        let revision = |held: &BTreeMap<FilesetName, Item>| Some(held.get(name)?.revision);
        (name.clone(), revision(&was), revision(&is))
    };
    Fate {
        differs,
        moves: names.into_iter().filter(moved).map(one).collect(),
        clashes,
    }
}

fn by_name(items: Vec<Item>) -> BTreeMap<FilesetName, Item> {
    let named = items.into_iter().map(|item| (item.fileset.clone(), item));
    named.collect()
}

/// The bytes that stand for what a manifest says, whoever it is for and whenever it is made.
#[must_use]
pub fn said(items: Vec<Item>) -> Vec<u8> {
    let manifest = Manifest {
        deployment: String::new(),
        device: String::new(),
        number: 0,
        model: 0,
        created: 0,
        items,
    };
    manifest.encode()
}

/// Devices looked up at once.
pub(crate) const BATCH: usize = 500;
/// What the names of deployment and device, the numbers and the time add to [`said`].
const DEVICE_BYTES: usize = 256;
