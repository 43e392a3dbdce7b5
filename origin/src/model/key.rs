//! What an entry of the model is filed under.

use std::fmt;
use std::str::FromStr;

use certs::DeviceId;
use content::FilesetName;
use thiserror::Error;

/// The name of a group: 1 to 63 of `A–Z`, `a–z`, `0–9`, `.`, `_` and `-`, as in a token.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GroupName(Box<str>);

impl GroupName {
    /// The group that every device is in.
    pub const ALL: &'static str = "all";

    /// It as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group that every device is in.
    #[must_use]
    pub fn all() -> Self {
        Self(Self::ALL.into())
    }

    /// Whether it is the group that every device is in.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.as_str() == Self::ALL
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GroupName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=63).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err(KeyError::new(text, "a group's name"))
        }
    }
}

/// What an entry is filed under: one thing that can be said, so that two who say different things
/// never meet.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Key {
    /// `fileset/NAME`: which revision counts, and how it is installed.
    Fileset(FilesetName),
    /// `group/NAME`: that it is there.
    Group(GroupName),
    /// `member/GROUP/DEVICE`: that the device belongs to the group.
    Member(GroupName, DeviceId),
    /// `association/NAME/device/ID` and `association/NAME/group/GROUP`: that they hold it.
    Association(FilesetName, Whom),
}

/// Whom an association means.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Whom {
    /// One device.
    Device(DeviceId),
    /// The devices of a group.
    Group(GroupName),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id) => write!(f, "device/{id}"),
            Self::Group(name) => write!(f, "group/{name}"),
        }
    }
}

impl FromStr for Whom {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bad = |_| KeyError::new(text, "device/ID or group/NAME");
        match text.split_once('/') {
            Some(("device", id)) => id.parse().map(Self::Device).map_err(bad),
            Some(("group", name)) => name.parse().map(Self::Group),
            Some(_) | None => Err(KeyError::new(text, "device/ID or group/NAME")),
        }
    }
}

impl Key {
    /// The longest key as text, in bytes: an association of the longest names.
    pub const BYTES_MAX: usize = 160;

    /// The words that kinds of keys are stored under.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Fileset(_) => Kind::Fileset,
            Self::Group(_) => Kind::Group,
            Self::Member(..) => Kind::Member,
            Self::Association(_, Whom::Device(_)) => Kind::DeviceAssociation,
            Self::Association(_, Whom::Group(_)) => Kind::GroupAssociation,
        }
    }

    /// The fileset that it names.
    #[must_use]
    pub fn fileset(&self) -> Option<&FilesetName> {
        match self {
            Self::Fileset(name) | Self::Association(name, _) => Some(name),
            Self::Group(_) | Self::Member(..) => None,
        }
    }

    /// The group that it names.
    #[must_use]
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Self::Group(name) | Self::Member(name, _) | Self::Association(_, Whom::Group(name)) => {
                Some(name)
            }
            Self::Fileset(_) | Self::Association(_, Whom::Device(_)) => None,
        }
    }

    /// The device that it names.
    #[must_use]
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Member(_, id) | Self::Association(_, Whom::Device(id)) => Some(id),
            Self::Fileset(_) | Self::Group(_) | Self::Association(_, Whom::Group(_)) => None,
        }
    }
}

/// A kind of key, as the ledger finds entries by it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `fileset/…`
    Fileset,
    /// `group/…`
    Group,
    /// `member/…`
    Member,
    /// `association/…/device/…`
    DeviceAssociation,
    /// `association/…/group/…`
    GroupAssociation,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fileset => "fileset",
            Self::Group => "group",
            Self::Member => "member",
            Self::DeviceAssociation => "device-association",
            Self::GroupAssociation => "group-association",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fileset(name) => write!(f, "fileset/{name}"),
            Self::Group(name) => write!(f, "group/{name}"),
            Self::Member(group, device) => write!(f, "member/{group}/{device}"),
            Self::Association(name, whom) => write!(f, "association/{name}/{whom}"),
        }
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let fileset = |name: &str| {
            let parsed = name.parse::<FilesetName>();
            parsed.map_err(|_| KeyError::new(name, "a fileset's name"))
        };
        let key = match text.split_once('/') {
            Some(("fileset", name)) => Self::Fileset(fileset(name)?),
            Some(("group", name)) => Self::Group(name.parse()?),
            Some(("member", rest)) => {
                let (group, device) = rest
                    .split_once('/')
                    .ok_or_else(|| KeyError::new(text, "member/GROUP/DEVICE"))?;
                let device = device.parse();
                let device = device.map_err(|_| KeyError::new(text, "a device's name"))?;
                Self::Member(group.parse()?, device)
            }
            Some(("association", rest)) => {
                let (name, whom) = rest
                    .split_once('/')
                    .ok_or_else(|| KeyError::new(text, "association/NAME/…"))?;
                Self::Association(fileset(name)?, whom.parse()?)
            }
            Some(_) | None => return Err(KeyError::new(text, "a key of the model")),
        };
        // What everybody is in needs nobody's word, and cannot be taken away.
        let of_all = matches!(&key, Self::Group(name) | Self::Member(name, _) if name.is_all());
        if of_all {
            return Err(KeyError::new(
                text,
                "another group than all, which all are in",
            ));
        }
        Ok(key)
    }
}

/// A text that is no key.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("cannot use {got:?}: want {want}")]
pub struct KeyError {
    got: String,
    want: &'static str,
}

impl KeyError {
    fn new(got: &str, want: &'static str) -> Self {
        let got = got.chars().take(Key::BYTES_MAX).collect();
        Self { got, want }
    }
}
