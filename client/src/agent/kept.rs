//! An item of a manifest as it is kept on disk: whoever takes a fileset away needs to know how it
//! came, and by then its manifest may be gone.

use content::statement::{HealMode, HealRule, InstallMode, Item, Script, Stage, Times};
use content::{Digest, FilesetName, RevisionNumber};
use serde::{Deserialize, Serialize};

/// What a manifest said of one fileset.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub(crate) struct Kept(Item);

impl Kept {
    /// Whether going from this to `item` asks for nothing to be fetched, installed or run: what
    /// counts later alone may differ (times, dependencies, heal rules, scripts of later stages).
    pub(crate) fn is_same_work(&self, item: &Item) -> bool {
        let early = |item: &Item| -> Vec<Script> {
            let early = |script: &&Script| script.stage <= Stage::Postflight;
            item.scripts.iter().filter(early).cloned().collect()
        };
        self.is_same_content(item) && early(&self.0) == early(item)
    }

    /// The same place with another revision of the fileset, of which only the number is known.
    pub(crate) fn of_revision(&self, number: u64) -> Self {
        if self.0.revision.0 == number {
            return self.clone();
        }
        Self(Item {
            revision: RevisionNumber(number),
            statement: Digest::of(&[]),
            ..self.0.clone()
        })
    }

    /// Whether both are one revision at one place.
    pub(crate) fn is_same_content(&self, item: &Item) -> bool {
        self.0.revision == item.revision
            && self.0.statement == item.statement
            && self.is_same_place(item)
    }

    /// Whether both lie in one folder in one manner.
    pub(crate) fn is_same_place(&self, item: &Item) -> bool {
        self.0.target == item.target && self.0.mode == item.mode
    }
}

impl std::ops::Deref for Kept {
    type Target = Item;

    fn deref(&self) -> &Item {
        &self.0
    }
}

impl From<&Item> for Kept {
    fn from(item: &Item) -> Self {
        Self(item.clone())
    }
}

/// The same, as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    fileset: String,
    revision: u64,
    statement: String,
    target: String,
    mode: String,
    #[serde(default, skip_serializing_if = "is_unbound")]
    times: [Option<i64>; 4],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    heal: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    depends: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scripts: Vec<RawScript>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawScript {
    stage: String,
    name: String,
    digest: String,
    bytes: u64,
    seconds: u32,
}

fn is_unbound(times: &[Option<i64>; 4]) -> bool {
    times.iter().all(Option::is_none)
}

impl From<Kept> for Raw {
    fn from(Kept(item): Kept) -> Self {
        let heal = item.heal.iter();
        let scripts = item.scripts.iter().map(|script| RawScript {
            stage: script.stage.to_string(),
            name: script.name.clone(),
            digest: script.digest.to_string(),
            bytes: script.bytes,
            seconds: script.seconds,
        });
        Self {
            fileset: item.fileset.to_string(),
            revision: item.revision.0,
            statement: item.statement.to_string(),
            times: item.times.all(),
            mode: item.mode.to_string(),
            heal: heal
                .map(|rule| (rule.pattern.to_string(), rule.mode.to_string()))
                .collect(),
            depends: item.depends.iter().map(FilesetName::to_string).collect(),
            scripts: scripts.collect(),
            target: item.target,
        }
    }
}

impl TryFrom<Raw> for Kept {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let [download_from, activate_from, deactivate_at, delete_at] = raw.times;
        let heal = raw.heal.iter().map(|(pattern, mode)| {
            Ok(HealRule {
                pattern: parsed(pattern)?,
                mode: known(mode, HealMode::from_word)?,
            })
        });
        let scripts = raw.scripts.iter().map(|script| {
            Ok(Script {
                stage: known(&script.stage, Stage::from_word)?,
                name: script.name.clone(),
                digest: parsed(&script.digest)?,
                bytes: script.bytes,
                seconds: script.seconds,
            })
        });
        Ok(Self(Item {
            fileset: parsed(&raw.fileset)?,
            revision: RevisionNumber(raw.revision),
            statement: parsed(&raw.statement)?,
            mode: known(&raw.mode, InstallMode::from_word)?,
            times: Times {
                download_from,
                activate_from,
                deactivate_at,
                delete_at,
            },
            heal: heal.collect::<Result<_, String>>()?,
            depends: raw
                .depends
                .iter()
                .map(|name| parsed(name))
                .collect::<Result<_, String>>()?,
            scripts: scripts.collect::<Result<_, String>>()?,
            target: raw.target,
        }))
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn known<T>(word: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    find(word).ok_or_else(|| format!("{word:?} is not known"))
}
