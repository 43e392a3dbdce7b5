//! Groups as operators see them.

use std::fmt;

use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use super::desk::Models;
use super::error::ModelError;
use super::key::{GroupName, Key, KeyError};
use super::plan::Predicted;
use super::value::Value;
use super::view::SmartDiff;
use super::world::Edits;
use crate::fleet::time;
use crate::ledger::{LedgerError, models, smart};

/// A group.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GroupRow {
    /// Its name.
    pub group: String,
    /// Its rule, if it is a smart group.
    pub rule: Option<String>,
}

/// A group, and who is in.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GroupShown {
    /// Its name.
    pub group: String,
    /// Its rule, if it is a smart group.
    pub rule: Option<String>,
    /// When all devices were held against the rule as it is, in Unix seconds; none if that is still
    /// being done.
    pub looked_at: Option<i64>,
    /// Devices that are in by the rule.
    pub by_rule: Vec<String>,
    /// Devices that are in because the model or their token says so.
    pub named: Vec<String>,
}

impl Models {
    /// The groups of the current model.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn groups(&self) -> Result<Vec<GroupRow>, ModelError> {
        let mut db = self.authority.ledger().snapshot().await?;
        let world = models::world(&mut db).await?;
        let row = |name: &GroupName| GroupRow {
            group: name.to_string(),
            rule: world.rules.get(name).map(ToString::to_string),
        };
        Ok(world.groups.iter().map(row).collect())
    }

    /// The group `name` of the current model, or of tokens.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, or the ledger does.
    pub async fn group(&self, name: &str) -> Result<GroupShown, ModelError> {
        let name: GroupName = name.parse().map_err(|error: KeyError| error)?;
        let mut db = self.authority.ledger().snapshot().await?;
        let rule = smart::rules(&mut db).await?.remove(&name);
        let looked = smart::looked(&mut db).await?.remove(&name);
        let by_rule = smart::members_of(&mut db, &name).await?;
        let named = models::named(&mut db, &name).await?;
        let is_there = models::said(&mut db, &Key::Group(name.clone()))
            .await?
            .is_some();
        if !is_there && named.is_empty() && !name.is_all() {
            return Err(ModelError::NoGroup { name });
        }
        let looked =
            looked.filter(|(known, _)| rule.as_ref().is_some_and(|rule| rule.as_str() == known));
        Ok(GroupShown {
            group: name.to_string(),
            rule: rule.map(String::from),
            looked_at: looked.map(|(_, at)| at),
            by_rule: by_rule.iter().map(ToString::to_string).collect(),
            named: named.iter().map(ToString::to_string).collect(),
        })
    }
}

/// What becomes of the groups of `predicted`, whose rules `edits` change.
pub(super) async fn moves(
    db: &mut SqliteConnection,
    edits: &Edits,
    predicted: &Predicted,
) -> Result<Vec<SmartDiff>, LedgerError> {
    let mut found = Vec::new();
    for (name, will) in predicted {
        let is = smart::members_of(db, name).await?;
        let rule = match edits.get(&Key::Group(name.clone())) {
            Some(Some(Value::Group(spec))) => spec.rule.as_ref(),
            Some(_) | None => None,
        };
        found.push(SmartDiff {
            group: name.to_string(),
            rule: rule.map(ToString::to_string),
            members: will.len() as u64,
            come: will.difference(&is).count() as u64,
            go: is.difference(will).count() as u64,
        });
    }
    Ok(found)
}

impl fmt::Display for GroupRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<24} {}",
            self.group,
            self.rule.as_deref().unwrap_or("-")
        )
    }
}

impl fmt::Display for GroupShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.group)?;
        if let Some(rule) = &self.rule {
            write!(f, "\n  rule       {rule}")?;
            let looked = self.looked_at.map(time);
            let looked = looked.unwrap_or_else(|| "still being looked at".to_owned());
            write!(f, "\n  looked at  {looked}")?;
            write!(f, "\n  by rule    {} devices", self.by_rule.len())?;
        }
        for id in &self.by_rule {
            write!(f, "\n    {id}")?;
        }
        write!(f, "\n  named      {} devices", self.named.len())?;
        self.named.iter().try_for_each(|id| write!(f, "\n    {id}"))
    }
}
