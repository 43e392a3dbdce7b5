//! What a device says of what it holds, and what it is told to do.

use content::{Digest, FilesetName};
use serde::{Deserialize, Serialize};

/// What a client holds, as far as it knows, and how it went.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Held {
    /// The model of the manifest that it goes by; 0 before the first.
    pub model: u64,
    /// The name of that manifest: the digest of its envelope. None before the first.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::maybe")]
    pub manifest: Option<Digest>,
    /// What it understands beyond this protocol version: at most 16 words of at most 32 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// What became of filesets since it was last heard: at most [`Held::RESULTS_MAX`]. What is
    /// told twice counts once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<FilesetResult>,
    /// The commands that it has done, by their ids: at most [`Held::DONE_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<u64>,
    /// The digest of the [`Inventory`](crate::Inventory) that it would send now, as its bytes; none
    /// if it keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::maybe")]
    pub inventory: Option<Digest>,
}

impl Held {
    /// The most results in one check-in; the others wait for the next.
    pub const RESULTS_MAX: usize = 64;
    /// The most commands that are said to be done at once.
    pub const DONE_MAX: usize = 64;

    pub(super) fn fits(&self) -> bool {
        let word = |word: &String| (1..=32).contains(&word.len());
        self.capabilities.len() <= 16
            && self.capabilities.iter().all(word)
            && self.results.len() <= Self::RESULTS_MAX
            && self.results.iter().all(FilesetResult::fits)
            && self.done.len() <= Self::DONE_MAX
    }
}

/// What became of one fileset on a device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FilesetResult {
    /// The fileset.
    #[serde(with = "text")]
    pub fileset: FilesetName,
    /// Its revision.
    pub revision: u64,
    /// What it is now.
    pub state: FilesetState,
    /// When that was, in Unix seconds by the device's clock.
    pub at: i64,
    /// Why, where it is not well: at most 256 bytes, untrusted text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Where its bytes came from: at most 8 sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceBytes>,
}

impl FilesetResult {
    /// The longest note, in bytes.
    pub const NOTE_BYTES_MAX: usize = 256;
    /// The most sources that are named.
    pub const SOURCES_MAX: usize = 8;

    fn fits(&self) -> bool {
        self.note.len() <= Self::NOTE_BYTES_MAX
            && self.sources.len() <= Self::SOURCES_MAX
            && self.sources.iter().all(|source| source.id.len() <= 63)
    }
}

/// What a fileset is on a device.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilesetState {
    /// For a time or another fileset, or for a requirement that is not met.
    Waiting,
    /// Bytes are on their way.
    Downloading,
    /// All bytes are there; it is not active.
    Downloaded,
    /// It is installed as it should be.
    Active,
    /// It was active, and its time is over; its bytes are still there.
    Inactive,
    /// It could not be installed, or its verification failed; what was active before is again.
    Failed,
    /// It is installed and differs from what it should be, and could not be healed.
    Damaged,
    /// It is gone.
    Removed,
}

impl FilesetState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Downloading,
        Self::Downloaded,
        Self::Active,
        Self::Inactive,
        Self::Failed,
        Self::Damaged,
        Self::Removed,
    ];

    /// Its word, as it travels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Downloading => "downloading",
            Self::Downloaded => "downloaded",
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Damaged => "damaged",
            Self::Removed => "removed",
        }
    }

    /// The one with that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// How many bytes came from one party.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SourceBytes {
    /// Its id: a booster's or the origin's.
    pub id: String,
    /// Bytes of bodies.
    pub bytes: u64,
}

/// The manifest that a device should go by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CurrentManifest {
    /// The model.
    pub model: u64,
    /// Its number, which only rises for one device.
    pub number: u64,
    /// Its name, to be asked for at `/v1/statements/…`.
    #[serde(with = "text")]
    pub digest: Digest,
}

/// Something that an operator asks of a device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Command {
    /// Rises for one device. A command is told until the device says that it is done.
    pub id: u64,
    /// What.
    pub what: CommandKind,
}

/// What can be asked of a device.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandKind {
    /// Look at every file of every active fileset, and heal.
    Verify,
    /// Get a new certificate.
    Renew,
    /// Show the end of the log.
    Log,
    /// A word of a later protocol: it counts as done.
    #[serde(other)]
    Unknown,
}

impl CommandKind {
    /// Those that can be given.
    pub const ALL: [Self; 3] = [Self::Verify, Self::Renew, Self::Log];

    /// Its word, as it travels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Renew => "renew",
            Self::Log => "log",
            Self::Unknown => "unknown",
        }
    }

    /// The one with that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// What has a text form travels in it.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }

    pub(super) mod maybe {
        use super::{Deserializer, Display, FromStr, Serializer};

        pub(in super::super) fn serialize<T: Display, S: Serializer>(
            value: &Option<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => serializer.collect_str(value),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, T, D>(
            deserializer: D,
        ) -> Result<Option<T>, D::Error>
        where
            T: FromStr<Err: Display>,
            D: Deserializer<'de>,
        {
            super::deserialize(deserializer).map(Some)
        }
    }
}
