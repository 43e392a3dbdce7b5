//! What an entry of the model says, as JSON within bounds.

use std::collections::BTreeSet;

use content::statement::{
    HealMode, HealRule, InstallMode, Item, Manifest, PathPattern, Script, Stage, Times,
};
use content::{FilesetName, RevisionNumber};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::key::Key;
use super::rule::Rule;

/// What an entry says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// Of a fileset.
    Fileset(FilesetSpec),
    /// Of a group: that it is there, and who is in besides those that are named.
    Group(GroupSpec),
    /// Of a member: nothing more.
    Member,
    /// Of an association.
    Association(Association),
}

/// Which revision of a fileset counts, and how it is installed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "RawSpec", into = "RawSpec")]
pub struct FilesetSpec {
    /// The revision.
    pub revision: RevisionNumber,
    /// The folder on the device.
    pub target: String,
    /// How the folder is shared.
    pub mode: InstallMode,
    /// How paths are healed; the first rule that fits counts.
    pub heal: Vec<HealRule>,
    /// What must be active before, in order of names.
    pub depends: Vec<FilesetName>,
    /// What is run, in order of stages.
    pub scripts: Vec<Script>,
}

/// Who is in a group besides the devices that are named as its members.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// The rule of a smart group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
}

/// When a device holds a fileset.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "RawAssociation", into = "RawAssociation")]
pub struct Association {
    /// Another revision than the fileset's.
    pub revision: Option<RevisionNumber>,
    /// When.
    pub times: Times,
}

/// Why a value cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// It is longer than [`Value::BYTES_MAX`].
    #[error("cannot use what {key} says: it has more than {max} bytes", max = Value::BYTES_MAX)]
    TooLong {
        /// Under which key.
        key: Key,
    },
    /// It says something else than its key wants.
    #[error("cannot use what {key} says")]
    Malformed {
        /// Under which key.
        key: Key,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// What needs nothing said.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Value {
    /// The longest form of one as JSON, in bytes: 64 heal rules and 32 scripts fit four times.
    pub const BYTES_MAX: usize = 128 << 10;

    /// Reads what is said under `key`.
    ///
    /// # Errors
    ///
    /// Fails if it is too long, unknown or out of bounds.
    pub fn decode(key: &Key, json: &str) -> Result<Self, ValueError> {
        if json.len() > Self::BYTES_MAX {
            return Err(ValueError::TooLong { key: key.clone() });
        }
        let read = match key {
            Key::Fileset(_) => serde_json::from_str(json).map(Self::Fileset),
            Key::Group(_) => serde_json::from_str(json).map(Self::Group),
            Key::Member(..) => serde_json::from_str(json).map(|Nothing {}| Self::Member),
            Key::Association(..) => serde_json::from_str(json).map(Self::Association),
        };
        read.map_err(|source| ValueError::Malformed {
            key: key.clone(),
            source,
        })
    }

    /// Its JSON: for the same value the same.
    #[must_use]
    pub fn encode(&self) -> String {
        let json = match self {
            Self::Fileset(spec) => serde_json::to_string(spec),
            Self::Group(group) => serde_json::to_string(group),
            Self::Member => serde_json::to_string(&Nothing {}),
            Self::Association(association) => serde_json::to_string(association),
        };
        json.expect("strings, numbers and lists always encode")
    }

    /// The revision that it names by itself.
    #[must_use]
    pub fn revision(&self) -> Option<RevisionNumber> {
        match self {
            Self::Fileset(spec) => Some(spec.revision),
            Self::Association(association) => association.revision,
            Self::Group(_) | Self::Member => None,
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    revision: u64,
    target: String,
    mode: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    heal: Vec<RawRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    depends: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scripts: Vec<RawScript>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    pattern: String,
    mode: String,
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

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawAssociation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    download_from: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activate_from: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deactivate_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delete_at: Option<i64>,
}

impl TryFrom<RawSpec> for FilesetSpec {
    type Error = String;

    fn try_from(raw: RawSpec) -> Result<Self, String> {
        if !Item::is_target(&raw.target) {
            let target = shown(&raw.target);
            return Err(format!(
                "the target {target:?} is no absolute path without . and .. in it"
            ));
        }
        bounded("heal rules", raw.heal.len(), Manifest::RULES_MAX)?;
        bounded("dependencies", raw.depends.len(), Manifest::DEPENDS_MAX)?;
        bounded("scripts", raw.scripts.len(), Manifest::SCRIPTS_MAX)?;
        let heal = raw.heal.into_iter().map(read_rule);
        let names = raw.depends.iter().map(|name| name.parse::<FilesetName>());
        let depends: Result<BTreeSet<_>, _> = names.collect();
        let scripts = raw.scripts.into_iter().map(read_script);
        let mut scripts: Vec<Script> = scripts.collect::<Result<_, String>>()?;
        // Of one stage they stay as they were given.
        scripts.sort_by_key(|script| script.stage);
        Ok(Self {
            revision: RevisionNumber(raw.revision),
            target: raw.target,
            mode: word("an install mode", &raw.mode, InstallMode::from_word)?,
            heal: heal.collect::<Result<_, String>>()?,
            depends: depends
                .map_err(|error| error.to_string())?
                .into_iter()
                .collect(),
            scripts,
        })
    }
}

fn read_rule(raw: RawRule) -> Result<HealRule, String> {
    let pattern = raw.pattern.parse::<PathPattern>();
    Ok(HealRule {
        pattern: pattern.map_err(|error| error.to_string())?,
        mode: word("a heal mode", &raw.mode, HealMode::from_word)?,
    })
}

fn read_script(raw: RawScript) -> Result<Script, String> {
    let fits = (1..=64).contains(&raw.name.len())
        && raw.bytes <= Manifest::SCRIPT_BYTES_MAX
        && (1..=Manifest::SCRIPT_SECONDS_MAX).contains(&raw.seconds);
    if !fits {
        let name = shown(&raw.name);
        return Err(format!(
            "the script {name:?} is out of bounds: a name of 1 to 64 bytes, 1 MiB, a day"
        ));
    }
    let digest = raw.digest.parse();
    Ok(Script {
        stage: word("a stage", &raw.stage, Stage::from_word)?,
        name: raw.name,
        digest: digest.map_err(|_| "a script's digest is malformed".to_owned())?,
        bytes: raw.bytes,
        seconds: raw.seconds,
    })
}

impl From<FilesetSpec> for RawSpec {
    fn from(spec: FilesetSpec) -> Self {
        let rule = |rule: HealRule| RawRule {
            pattern: rule.pattern.to_string(),
            mode: rule.mode.word().to_owned(),
        };
        let script = |script: Script| RawScript {
            stage: script.stage.word().to_owned(),
            name: script.name,
            digest: script.digest.to_string(),
            bytes: script.bytes,
            seconds: script.seconds,
        };
        Self {
            revision: spec.revision.0,
            target: spec.target,
            mode: spec.mode.word().to_owned(),
            heal: spec.heal.into_iter().map(rule).collect(),
            depends: spec.depends.iter().map(ToString::to_string).collect(),
            scripts: spec.scripts.into_iter().map(script).collect(),
        }
    }
}

impl TryFrom<RawAssociation> for Association {
    type Error = String;

    fn try_from(raw: RawAssociation) -> Result<Self, String> {
        let times = Times {
            download_from: raw.download_from,
            activate_from: raw.activate_from,
            deactivate_at: raw.deactivate_at,
            delete_at: raw.delete_at,
        };
        if !times.are_in_order() {
            return Err(
                "the times are not in order: download, activate, deactivate, delete".into(),
            );
        }
        Ok(Self {
            revision: raw.revision.map(RevisionNumber),
            times,
        })
    }
}

impl From<Association> for RawAssociation {
    fn from(association: Association) -> Self {
        let times = association.times;
        Self {
            revision: association.revision.map(|number| number.0),
            download_from: times.download_from,
            activate_from: times.activate_from,
            deactivate_at: times.deactivate_at,
            delete_at: times.delete_at,
        }
    }
}

fn word<T>(what: &str, text: &str, from: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    from(text).ok_or_else(|| format!("{:?} is not {what}", shown(text)))
}

fn bounded(what: &str, count: usize, max: usize) -> Result<(), String> {
    if count <= max {
        Ok(())
    } else {
        Err(format!("{count} {what} are more than {max}"))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
