//! The operators' desk: drafts, commits, rollbacks, and what there was.

use std::collections::{BTreeMap, BTreeSet};

use content::Digest;
use content::statement::{Manifest, Script};
use sqlx::SqliteConnection;

use super::error::ModelError;
use super::groups;
use super::key::{GroupName, Key};
use super::plan::{Plan, Predicted, plan};
use super::smart::{self, Rules};
use super::value::Value;
use super::view::{
    Committed, Diff, DraftShown, DraftView, Edit, EntryView, ModelShown, ModelView, ScriptKept,
};
use super::world::{Edits, World};
use crate::audit::{Actor, Event};
use crate::authority::Authority;
use crate::inventory::Inventories;
use crate::ledger::models::{self, Model};
use crate::ledger::{LedgerError, Write, commit, drafts, manifests, scripts};
use crate::manifests::Manifests;

/// Where operators work on the model. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Models {
    pub(super) authority: Authority,
    inventories: Inventories,
    manifests: Manifests,
}

/// The longest reason for a model.
pub(super) const MESSAGE_BYTES_MAX: usize = 1000;
/// Drafts that there can be at a time.
const DRAFTS_MAX: u64 = 1000;
/// Keys that one draft can edit.
const EDITS_MAX: u64 = 1_000_000;
/// Models in one answer.
const MODELS_SHOWN: u32 = 1000;
/// Entries in one answer.
pub const ENTRIES_SHOWN: u32 = 10_000;

impl Models {
    /// The desk of `authority`, whose commits change `manifests`; rules are held against
    /// `inventories`.
    #[must_use]
    pub fn new(authority: Authority, manifests: Manifests, inventories: Inventories) -> Self {
        Self {
            authority,
            inventories,
            manifests,
        }
    }

    /// Every draft.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn drafts(&self) -> Result<Vec<DraftView>, ModelError> {
        let mut db = self.authority.ledger().read().await?;
        let drafts = drafts::list(&mut db).await?;
        Ok(drafts.into_iter().map(DraftView::from).collect())
    }

    /// A draft with its edits.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, or the ledger does.
    pub async fn draft(&self, name: &str) -> Result<DraftShown, ModelError> {
        let mut db = self.authority.ledger().read().await?;
        let draft = found(&mut db, name).await?;
        let edits = drafts::edits(&mut db, name).await?;
        Ok(DraftShown {
            draft: draft.into(),
            edits: edits.iter().map(Edit::new).collect(),
        })
    }

    /// What the draft `name`, or else the current model, says under `key`; none if it is not there
    /// or would be removed.
    ///
    /// # Errors
    ///
    /// Fails if the key is none, or the ledger fails.
    pub async fn said(&self, name: &str, key: &str) -> Result<Option<Edit>, ModelError> {
        let key: Key = key.parse()?;
        let mut db = self.authority.ledger().read().await?;
        let said = match drafts::said(&mut db, name, &key).await? {
            Some(said) => said,
            None => models::said(&mut db, &key).await?,
        };
        Ok(said.map(|value| Edit::new((&key, &Some(value)))))
    }

    /// Puts `wanted` into the draft `name`, which begins with the current model if it is new.
    ///
    /// # Errors
    ///
    /// Fails, and changes nothing, if a name, key or value cannot be used or is too much, or if
    /// the ledger fails.
    pub async fn edit(&self, name: &str, wanted: &[Edit]) -> Result<DraftView, ModelError> {
        name.parse::<GroupName>()?;
        let mut edits = Edits::new();
        for edit in wanted {
            let key: Key = edit.key.parse()?;
            let body = edit.says.as_ref().map(ToString::to_string);
            let value = body.map(|body| Value::decode(&key, &body)).transpose()?;
            edits.insert(key, value);
        }
        let mut tx = self.authority.ledger().write().await?;
        check_scripts(&mut tx, &edits).await?;
        let (base, now) = (models::current(&mut tx).await?, self.now());
        drafts::begin(&mut tx, name, base, &Actor::acting().to_string(), now).await?;
        drafts::edit(&mut tx, name, &edits).await?;
        if drafts::list(&mut tx).await?.len() as u64 > DRAFTS_MAX {
            let what = "drafts";
            return Err(ModelError::TooMany {
                what,
                max: DRAFTS_MAX,
            });
        }
        let draft = found(&mut tx, name).await?;
        if draft.edits > EDITS_MAX {
            let what = "edits in one draft";
            return Err(ModelError::TooMany {
                what,
                max: EDITS_MAX,
            });
        }
        commit(tx).await?;
        Ok(draft.into())
    }

    /// Forgets the draft `name`.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, or the ledger does.
    pub async fn discard(&self, name: &str) -> Result<(), ModelError> {
        let mut tx = self.authority.ledger().write().await?;
        if !drafts::remove(&mut tx, name).await? {
            return Err(no_draft(name));
        }
        Ok(commit(tx).await?)
    }

    /// Lets the draft `name` stand on the current model: whoever asks has seen what others changed.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, or the ledger does.
    pub async fn rebase(&self, name: &str) -> Result<DraftView, ModelError> {
        let mut tx = self.authority.ledger().write().await?;
        let base = models::current(&mut tx).await?;
        drafts::rebase(&mut tx, name, base).await?;
        let draft = found(&mut tx, name).await?;
        commit(tx).await?;
        Ok(draft.into())
    }

    /// What the draft `name` would come to, if it were committed now.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, or the ledger does.
    pub async fn diff(&self, name: &str) -> Result<Diff, ModelError> {
        // All of it as it is now: a commit in between would show a model that never was.
        let mut db = self.authority.ledger().snapshot().await?;
        let draft = found(&mut db, name).await?;
        let conflicts = models::changed_since(&mut db, name, draft.base).await?;
        let edits = drafts::edits(&mut db, name).await?;
        let edits = effective(&mut db, edits).await?;
        let world = models::world(&mut db).await?;
        let predicted = self.predict(&mut db, &world, &edits).await?;
        let plan = plan(&mut db, &world, &edits, &predicted).await?;
        let smart = groups::moves(&mut db, &edits, &predicted).await?;
        let bytes = bytes(&mut db, &plan).await?;
        let keys = edits.iter().map(Edit::change).collect();
        Ok(Diff::new(
            draft.into(),
            world.model,
            keys,
            conflicts,
            smart,
            plan,
            &bytes,
        ))
    }

    /// Makes the draft `name` the next model, and forgets the draft.
    ///
    /// # Errors
    ///
    /// Fails, and changes nothing, if there is no such draft, if others changed the same since it
    /// began, if the result would contradict itself or say nothing new, or if the ledger fails.
    pub async fn commit(&self, name: &str, message: &str) -> Result<Committed, ModelError> {
        let mut tx = self.authority.ledger().write().await?;
        let draft = found(&mut tx, name).await?;
        let keys = models::changed_since(&mut tx, name, draft.base).await?;
        if !keys.is_empty() {
            return Err(ModelError::Conflict {
                draft: draft.name,
                base: draft.base,
                keys,
            });
        }
        let edits = drafts::edits(&mut tx, name).await?;
        let edits = effective(&mut tx, edits).await?;
        drafts::remove(&mut tx, name).await?;
        self.make(tx, &edits, message, None).await
    }

    /// Makes a new model that says what the model `number` did.
    ///
    /// # Errors
    ///
    /// As [`Models::commit`]; above all if revisions that it names are no longer kept.
    pub async fn rollback(&self, number: u64, message: &str) -> Result<Committed, ModelError> {
        let mut tx = self.authority.ledger().write().await?;
        let of_model = models::find(&mut tx, number).await?;
        let of_model = of_model.ok_or(ModelError::NoModel { number })?;
        let edits = models::back_to(&mut tx, number).await?;
        let edits = effective(&mut tx, edits).await?;
        self.make(tx, &edits, message, Some(of_model.number)).await
    }

    async fn make(
        &self,
        mut tx: Write,
        edits: &Edits,
        message: &str,
        of_model: Option<u64>,
    ) -> Result<Committed, ModelError> {
        if !(1..=MESSAGE_BYTES_MAX).contains(&message.trim().len()) {
            return Err(ModelError::Message);
        }
        if edits.is_empty() {
            return Err(ModelError::Nothing);
        }
        let world = models::world(&mut tx).await?;
        // Who is in smart groups follows their rules later, in transactions of its own.
        let plan = plan(&mut tx, &world, edits, &Predicted::new()).await?;
        if !plan.offenders.is_empty() {
            let offenders = plan.offenders;
            return Err(ModelError::Offenders { offenders });
        }
        let (actor, now) = (Actor::acting(), self.now());
        let new = Model {
            number: 0,
            author: actor.to_string(),
            message: message.trim().to_owned(),
            made_at: now,
            changes: edits.len() as u64,
            of_model,
        };
        let model = models::insert(&mut tx, edits, &new).await?;
        for batch in plan.devices.chunks(super::plan::BATCH) {
            manifests::mark_due(&mut tx, batch).await?;
        }
        let event = match of_model {
            Some(_) => Event::ModelRollback,
            None => Event::ModelCommit,
        };
        event
            .by(&actor, now)
            .with("model", model)
            .with_some("of", of_model)
            .with("message", &new.message)
            .with("changes", edits.len())
            .with("devices", plan.devices.len())
            .append(&mut tx)
            .await?;
        // Before anybody hears of it: a restored ledger must be raised above it.
        let published = self.authority.published();
        published.raise(models::COUNTER, model).await?;
        commit(tx).await?;
        self.manifests.model_changed(model, &plan.devices);
        Ok(Committed {
            model,
            changes: edits.len() as u64,
            devices: plan.devices.len() as u64,
            looked_at: plan.looked_at,
        })
    }

    /// The last models, the newest first.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn list(&self, before: Option<u64>) -> Result<Vec<ModelView>, ModelError> {
        let mut db = self.authority.ledger().read().await?;
        let before = before.unwrap_or(u64::MAX);
        let models = models::list(&mut db, before, MODELS_SHOWN).await?;
        Ok(models.into_iter().map(ModelView::from).collect())
    }

    /// A page of the model `number`, or of the current one: what it says under keys after `after`.
    ///
    /// # Errors
    ///
    /// Fails if there is none, or the ledger does.
    pub async fn show(&self, number: Option<u64>, after: &str) -> Result<ModelShown, ModelError> {
        let mut db = self.authority.ledger().read().await?;
        let number = match number {
            Some(number) => number,
            None => models::current(&mut db).await?,
        };
        let model = models::find(&mut db, number).await?;
        let model = model.ok_or(ModelError::NoModel { number })?;
        let entries = models::page(&mut db, number, after, ENTRIES_SHOWN).await?;
        Ok(ModelShown {
            model: model.into(),
            entries: entries.iter().map(EntryView::new).collect(),
        })
    }

    /// Keeps a script, so that filesets can name it.
    ///
    /// # Errors
    ///
    /// Fails if it is too long, or the ledger fails.
    pub async fn keep_script(&self, bytes: &[u8]) -> Result<ScriptKept, ModelError> {
        let max = Manifest::SCRIPT_BYTES_MAX;
        if bytes.len() as u64 > max {
            let what = "bytes of a script";
            return Err(ModelError::TooMany { what, max });
        }
        let mut tx = self.authority.ledger().write().await?;
        let digest = scripts::put(&mut tx, bytes, self.now()).await?;
        commit(tx).await?;
        Ok(ScriptKept {
            digest: digest.to_string(),
            bytes: bytes.len() as u64,
        })
    }

    /// Who will be in the smart groups whose rules `edits` change.
    async fn predict(
        &self,
        db: &mut SqliteConnection,
        world: &World,
        edits: &Edits,
    ) -> Result<Predicted, ModelError> {
        let (mut rules, mut predicted) = (Rules::new(), Predicted::new());
        for (key, value) in edits {
            let Key::Group(name) = key else { continue };
            let new = match value {
                Some(Value::Group(spec)) => spec.rule.as_ref(),
                _ => None,
            };
            match (world.rules.get(name), new) {
                (old, Some(new)) if old != Some(new) => {
                    rules.insert(name.clone(), new.clone());
                }
                (Some(_), None) => {
                    predicted.insert(name.clone(), BTreeSet::new());
                }
                (_, _) => {}
            }
        }
        if !rules.is_empty() {
            let now = self.now();
            predicted.extend(smart::predict(db, &rules, &self.inventories, now).await?);
        }
        Ok(predicted)
    }

    fn now(&self) -> i64 {
        self.authority.clock().now()
    }
}

fn no_draft(name: &str) -> ModelError {
    ModelError::NoDraft {
        draft: name.chars().take(64).collect(),
    }
}

async fn found(db: &mut SqliteConnection, name: &str) -> Result<drafts::Draft, ModelError> {
    let draft = drafts::find(db, name).await?;
    draft.ok_or_else(|| no_draft(name))
}

/// Those of `edits` that change something.
async fn effective(db: &mut SqliteConnection, edits: Edits) -> Result<Edits, ModelError> {
    let mut left = Edits::new();
    for (key, value) in edits {
        if models::said(db, &key).await? != value {
            left.insert(key, value);
        }
    }
    Ok(left)
}

async fn check_scripts(db: &mut SqliteConnection, edits: &Edits) -> Result<(), ModelError> {
    let mut known: BTreeMap<Digest, bool> = BTreeMap::new();
    for (key, value) in edits {
        let (Key::Fileset(fileset), Some(Value::Fileset(spec))) = (key, value) else {
            continue;
        };
        for Script { name, digest, .. } in &spec.scripts {
            let is_kept = match known.get(digest) {
                Some(is_kept) => *is_kept,
                None => scripts::find(db, *digest).await?.is_some(),
            };
            known.insert(*digest, is_kept);
            if !is_kept {
                return Err(ModelError::NoScript {
                    fileset: fileset.clone(),
                    name: name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// What each step of `plan` has a device fetch.
async fn bytes(
    db: &mut SqliteConnection,
    plan: &Plan,
) -> Result<BTreeMap<super::plan::Step, u64>, LedgerError> {
    let mut bytes = BTreeMap::new();
    let mut known = BTreeMap::new();
    for step in plan.steps.keys() {
        let Some(to) = step.to.filter(|_| step.to != step.from) else {
            continue;
        };
        let pair = (step.fileset.clone(), step.from, to);
        let each = match known.get(&pair) {
            Some(each) => *each,
            None => models::bytes_between(db, &step.fileset, step.from, to).await?,
        };
        known.insert(pair, each);
        bytes.insert(step.clone(), each);
    }
    Ok(bytes)
}
