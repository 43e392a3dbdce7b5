//! One fileset in a manifest.

use super::pattern::PathPattern;
use crate::digest::Digest;
use crate::name::{FilesetName, RevisionNumber};

/// A fileset that a device should hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item {
    /// The fileset.
    pub fileset: FilesetName,
    /// The revision of it.
    pub revision: RevisionNumber,
    /// The digest of that revision's statement.
    pub statement: Digest,
    /// The folder on the device: absolute, normal, 2 to 1024 bytes.
    pub target: String,
    /// How the folder is shared.
    pub mode: InstallMode,
    /// When.
    pub times: Times,
    /// How paths are healed: the first rule whose pattern fits counts. What no rule fits is
    /// [`HealMode::SelfHeal`].
    pub heal: Vec<HealRule>,
    /// Filesets of the same manifest that must be active before this one, in order of their names.
    pub depends: Vec<FilesetName>,
    /// What is run, in order of stages; within a stage in the order given.
    pub scripts: Vec<Script>,
}

/// When a device does what, in Unix seconds. What is none has no bound.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Times {
    /// It may be downloaded from then on.
    pub download_from: Option<i64>,
    /// It becomes active then, if it is there.
    pub activate_from: Option<i64>,
    /// It is taken away from its target then; what was downloaded stays.
    pub deactivate_at: Option<i64>,
    /// It is removed then, with what was downloaded.
    pub delete_at: Option<i64>,
}

impl Times {
    /// All four, in the order of life.
    #[must_use]
    pub fn all(&self) -> [Option<i64>; 4] {
        [
            self.download_from,
            self.activate_from,
            self.deactivate_at,
            self.delete_at,
        ]
    }

    /// Whether those that are given come in the order of life.
    #[must_use]
    pub fn are_in_order(&self) -> bool {
        let given: Vec<i64> = self.all().into_iter().flatten().collect();
        given.is_sorted()
    }
}

/// How a target folder is shared.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum InstallMode {
    /// It is the revision and nothing else.
    Tree,
    /// Others, and other filesets, have files in it.
    Merge,
}

/// How a path is treated where the disk does not agree with the index.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HealMode {
    /// What differs is replaced, what is missing is added.
    SelfHeal,
    /// What is missing is added; what differs was edited, and stays.
    IfMissing,
    /// It is never looked at again, and stays when the fileset goes.
    LeaveBehind,
    /// What is there before the first install stays.
    NeverOverwrite,
    /// What is there before the first install is replaced only if it is older.
    OverwriteIfOlder,
}

/// For which paths which mode.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealRule {
    /// The paths, relative to the target.
    pub pattern: PathPattern,
    /// The mode.
    pub mode: HealMode,
}

/// Something that is run for a fileset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Script {
    /// When.
    pub stage: Stage,
    /// What operators call it: 1 to 64 bytes, for people.
    pub name: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many those are.
    pub bytes: u64,
    /// How long it may run, in seconds.
    pub seconds: u32,
}

/// When a script is run.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Before anything is downloaded: whether the device needs it.
    Requirement,
    /// Before it is installed.
    Preflight,
    /// After it was installed.
    Activation,
    /// After it was activated.
    Postflight,
    /// Whether it works: at activation and at each verify.
    Verification,
    /// Before it is taken away.
    PreUninstall,
    /// After it was taken away.
    PostUninstall,
}

macro_rules! codes {
    ($kind:ident { $($name:ident = $code:literal $word:literal),+ $(,)? }) => {
        impl $kind {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its code in the format.
            #[must_use]
            pub fn code(self) -> u64 {
                match self { $(Self::$name => $code),+ }
            }

            /// The one with that code.
            #[must_use]
            pub fn from_code(code: u64) -> Option<Self> {
                match code { $($code => Some(Self::$name),)+ _ => None }
            }

            /// Its word, as operators write it.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// The one with that word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$name),)+ _ => None }
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

codes!(InstallMode { Tree = 0 "tree", Merge = 1 "merge" });

codes!(HealMode {
    SelfHeal = 0 "self-heal",
    IfMissing = 1 "if-missing",
    LeaveBehind = 2 "leave-behind",
    NeverOverwrite = 3 "never-overwrite",
    OverwriteIfOlder = 4 "overwrite-if-older",
});

codes!(Stage {
    Requirement = 0 "requirement",
    Preflight = 1 "preflight",
    Activation = 2 "activation",
    Postflight = 3 "postflight",
    Verification = 4 "verification",
    PreUninstall = 5 "pre-uninstall",
    PostUninstall = 6 "post-uninstall",
});

impl Item {
    /// The longest target, in bytes.
    pub const TARGET_BYTES_MAX: usize = 1024;

    /// How the path `path`, relative to the target, is healed.
    #[must_use]
    pub fn heal_mode(&self, path: &str) -> HealMode {
        let rule = self.heal.iter().find(|rule| rule.pattern.fits(path));
        rule.map_or(HealMode::SelfHeal, |rule| rule.mode)
    }

    /// Whether `text` can be a target: absolute, not the root of all, with no `.`, `..`, empty
    /// component or NUL.
    #[must_use]
    pub fn is_target(text: &str) -> bool {
        let Some(rest) = text.strip_prefix('/') else {
            return false;
        };
        let normal = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        text.len() <= Self::TARGET_BYTES_MAX && rest.split('/').all(normal)
    }
}
