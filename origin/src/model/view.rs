//! Models as an operator sees them: as JSON, or as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::key::Key;
use super::plan::{Plan, Step};
use super::value::Value;
use crate::fleet::time;
use crate::ledger::drafts::Draft;
use crate::ledger::models::Model;

/// What is put under a key, or that it is removed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The key.
    pub key: String,
    /// What it says; none if it is removed.
    pub says: Option<serde_json::Value>,
}

/// What a model says under a key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EntryView {
    /// The key.
    pub key: String,
    /// What it says.
    pub says: serde_json::Value,
}

/// A draft.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DraftView {
    /// Its name.
    pub name: String,
    /// The model that it began from; 0 for none.
    pub base: u64,
    /// Who began it.
    pub author: String,
    /// When, in Unix seconds.
    pub made_at: i64,
    /// How many keys it edits.
    pub edits: u64,
}

/// A draft with its edits.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DraftShown {
    /// The draft.
    pub draft: DraftView,
    /// What it edits, by key.
    pub edits: Vec<Edit>,
}

/// A model.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ModelView {
    /// Its number.
    pub model: u64,
    /// Who committed it.
    pub author: String,
    /// When, in Unix seconds.
    pub made_at: i64,
    /// Why.
    pub message: String,
    /// How many keys it changed.
    pub changes: u64,
    /// Which one it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_model: Option<u64>,
}

/// A model with what it says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ModelShown {
    /// The model.
    pub model: ModelView,
    /// Its entries, by key.
    pub entries: Vec<EntryView>,
}

/// A script that is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ScriptKept {
    /// Its digest.
    pub digest: String,
    /// Its length.
    pub bytes: u64,
}

/// What came of a commit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Committed {
    /// The new model.
    pub model: u64,
    /// How many keys it changed.
    pub changes: u64,
    /// How many devices get a new manifest.
    pub devices: u64,
    /// How many could have.
    pub looked_at: u64,
}

/// What a draft would come to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Diff {
    /// The draft.
    pub draft: DraftView,
    /// The current model.
    pub model: u64,
    /// The keys that change: `+` is put, `-` removed.
    pub changes: Vec<String>,
    /// What others changed since the draft began.
    pub conflicts: Vec<String>,
    /// Smart groups whose rules change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smart: Vec<SmartDiff>,
    /// What the result would contradict.
    pub offenders: Vec<String>,
    /// How many devices would get a new manifest.
    pub devices: u64,
    /// Devices that the draft names and nobody bears yet.
    pub unknown: Vec<String>,
    /// By fileset.
    pub filesets: Vec<FilesetDiff>,
    /// By site: the group of their token; "" if they have none.
    pub sites: Vec<SiteDiff>,
    /// What all devices together would fetch.
    pub bytes: u64,
    /// What would cross the lines, if each site has one booster.
    pub line_bytes: u64,
}

/// What becomes of a smart group.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SmartDiff {
    /// Its name.
    pub group: String,
    /// Its rule, if it will have one.
    pub rule: Option<String>,
    /// Devices that will be in by it.
    pub members: u64,
    /// Devices that will come in.
    pub come: u64,
    /// Devices that will be out.
    pub go: u64,
}

/// What becomes of a fileset.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FilesetDiff {
    /// Its name.
    pub fileset: String,
    /// Devices that would get it.
    pub gain: u64,
    /// Devices that would lose it.
    pub lose: u64,
    /// Devices that would get another revision.
    pub change: u64,
    /// Devices that would hold the same revision in another way.
    pub alter: u64,
    /// What all devices together would fetch, at most: packs that the old revision lacks.
    pub bytes: u64,
}

/// What becomes of a site.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SiteDiff {
    /// Its name.
    pub site: String,
    /// Devices that would get a new manifest.
    pub devices: u64,
    /// What its devices would fetch.
    pub bytes: u64,
    /// What would cross its line, if it has one booster.
    pub line_bytes: u64,
}

impl Edit {
    pub(super) fn new((key, value): (&Key, &Option<Value>)) -> Self {
        Self {
            key: key.to_string(),
            says: value.as_ref().map(says),
        }
    }

    pub(super) fn change((key, value): (&Key, &Option<Value>)) -> String {
        let sign = if value.is_some() { '+' } else { '-' };
        format!("{sign}{key}")
    }
}

impl EntryView {
    pub(super) fn new((key, value): &(Key, Value)) -> Self {
        Self {
            key: key.to_string(),
            says: says(value),
        }
    }
}

fn says(value: &Value) -> serde_json::Value {
    serde_json::from_str(&value.encode()).expect("what we encode is JSON")
}

impl From<Draft> for DraftView {
    fn from(draft: Draft) -> Self {
        Self {
            name: draft.name,
            base: draft.base,
            author: draft.author,
            made_at: draft.made_at,
            edits: draft.edits,
        }
    }
}

impl From<Model> for ModelView {
    fn from(model: Model) -> Self {
        Self {
            model: model.number,
            author: model.author,
            made_at: model.made_at,
            message: model.message,
            changes: model.changes,
            of_model: model.of_model,
        }
    }
}

impl Diff {
    pub(super) fn new(
        draft: DraftView,
        model: u64,
        changes: Vec<String>,
        conflicts: Vec<String>,
        smart: Vec<SmartDiff>,
        plan: Plan,
        bytes: &BTreeMap<Step, u64>,
    ) -> Self {
        let sites: Vec<SiteDiff> = plan
            .sites
            .iter()
            .map(|(site, devices)| SiteDiff::new(site, *devices, &plan.steps, bytes))
            .collect();
        Self {
            draft,
            model,
            changes,
            conflicts,
            smart,
            devices: plan.devices.len() as u64,
            unknown: plan.unknown.iter().map(ToString::to_string).collect(),
            filesets: filesets(&plan.steps, bytes),
            bytes: sites.iter().map(|site| site.bytes).sum(),
            line_bytes: sites.iter().map(|site| site.line_bytes).sum(),
            sites,
            offenders: plan.offenders,
        }
    }
}

impl SiteDiff {
    fn new(
        site: &str,
        devices: u64,
        steps: &BTreeMap<Step, u64>,
        bytes: &BTreeMap<Step, u64>,
    ) -> Self {
        // A pack crosses the line once: of devices that come from different revisions, those that
        // lack most bring it.
        let mut once: BTreeMap<_, u64> = BTreeMap::new();
        let mut all = 0;
        for (step, count) in steps.iter().filter(|(step, _)| step.site == site) {
            let each = bytes.get(step).copied().unwrap_or(0);
            all += each * count;
            let most = once.entry((&step.fileset, step.to)).or_default();
            *most = each.max(*most);
        }
        Self {
            site: site.to_owned(),
            devices,
            bytes: all,
            line_bytes: once.into_values().sum(),
        }
    }
}

fn filesets(steps: &BTreeMap<Step, u64>, bytes: &BTreeMap<Step, u64>) -> Vec<FilesetDiff> {
    let names: BTreeSet<&str> = steps.keys().map(|step| step.fileset.as_str()).collect();
    let diff = |name: &str| {
        let mut diff = FilesetDiff {
            fileset: name.to_owned(),
            ..FilesetDiff::default()
        };
        let mine = steps
            .iter()
            .filter(|(step, _)| step.fileset.as_str() == name);
        for (step, count) in mine {
            let slot = match (step.from, step.to) {
                (None, _) => &mut diff.gain,
                (Some(_), None) => &mut diff.lose,
                (from, to) if from == to => &mut diff.alter,
                (Some(_), Some(_)) => &mut diff.change,
            };
            *slot += count;
            diff.bytes += bytes.get(step).copied().unwrap_or(0) * count;
        }
        diff
    };
    names.into_iter().map(diff).collect()
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.says {
            Some(says) => write!(f, "+{} {says}", self.key),
            None => write!(f, "-{}", self.key),
        }
    }
}

impl fmt::Display for DraftView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, edits, base) = (&self.name, self.edits, self.base);
        let (author, at) = (&self.author, time(self.made_at));
        write!(
            f,
            "{name}: {edits} edits on model {base}, begun by {author} at {at}"
        )
    }
}

impl fmt::Display for DraftShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draft.fmt(f)?;
        self.edits
            .iter()
            .try_for_each(|edit| write!(f, "\n  {edit}"))
    }
}

impl fmt::Display for ModelView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (model, changes, at) = (self.model, self.changes, time(self.made_at));
        write!(
            f,
            "{model:>6}  {at}  {:<24} {changes:>6} changes  ",
            self.author
        )?;
        // A message is an operator's own text; it stays on its line.
        write!(f, "{}", self.message.escape_debug())?;
        match self.of_model {
            Some(of) => write!(f, " (back to {of})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ModelShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)?;
        let mut entries = self.entries.iter();
        entries.try_for_each(|entry| write!(f, "\n  {} {}", entry.key, entry.says))
    }
}

impl fmt::Display for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            model,
            changes,
            devices,
            looked_at,
        } = self;
        write!(
            f,
            "model {model}: {changes} changes, a new manifest for {devices} of {looked_at} devices"
        )
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes| bytesize::ByteSize(bytes).to_string();
        write!(f, "{} (current: model {})", self.draft, self.model)?;
        for change in self.changes.iter().take(CHANGES_SHOWN) {
            write!(f, "\n  {change}")?;
        }
        if self.changes.len() > CHANGES_SHOWN {
            write!(f, "\n  and {} more", self.changes.len() - CHANGES_SHOWN)?;
        }
        for row in &self.smart {
            let rule = row.rule.as_deref().unwrap_or("no rule");
            let (group, all, come, go) = (&row.group, row.members, row.come, row.go);
            write!(
                f,
                "\nsmart group {group}: {rule}\n  {all} devices: {come} come, {go} go"
            )?;
        }
        if !self.filesets.is_empty() {
            write!(
                f,
                "\n{:<24} {:>8} {:>8} {:>8} {:>8} {:>12}",
                "FILESET", "GAIN", "LOSE", "CHANGE", "ALTER", "FETCH"
            )?;
        }
        for row in &self.filesets {
            let fetch = size(row.bytes);
            write!(
                f,
                "\n{:<24} {:>8} {:>8} {:>8} {:>8} {fetch:>12}",
                row.fileset, row.gain, row.lose, row.change, row.alter
            )?;
        }
        if !self.sites.is_empty() {
            write!(
                f,
                "\n{:<24} {:>8} {:>12} {:>12}",
                "SITE", "DEVICES", "FETCH", "LINE"
            )?;
        }
        for row in &self.sites {
            let site = if row.site.is_empty() { "-" } else { &row.site };
            let (fetch, line) = (size(row.bytes), size(row.line_bytes));
            write!(f, "\n{site:<24} {:>8} {fetch:>12} {line:>12}", row.devices)?;
        }
        write!(f, "\n{} devices get a new manifest", self.devices)?;
        for id in &self.unknown {
            write!(f, "\n  nobody is called {id} yet")?;
        }
        for key in &self.conflicts {
            write!(f, "\n  cannot commit: others changed {key}")?;
        }
        for offender in &self.offenders {
            write!(f, "\n  cannot commit: {offender}")?;
        }
        Ok(())
    }
}

/// Keys listed as text; JSON has them all.
const CHANGES_SHOWN: usize = 50;
