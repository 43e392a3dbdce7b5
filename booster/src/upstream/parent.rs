//! Other boosters that this one asks before the origin.

use std::fmt;
use std::str::FromStr;

use ::config::HostPort;
use certs::DeviceId;
use serde::Deserialize;
use thiserror::Error;

/// A parent booster, as an operator names it: `ID@HOST:PORT`. The id is what it must prove; the
/// address is where it is looked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Parent {
    /// Who it must prove to be.
    pub id: DeviceId,
    /// Where it serves content.
    pub address: HostPort,
}

/// A text that names no parent.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{text:?} is no parent: want ID@HOST:PORT, such as oslo@10.0.0.2:7543")]
pub struct ParseParentError {
    text: String,
}

impl FromStr for Parent {
    type Err = ParseParentError;

    fn from_str(text: &str) -> Result<Self, ParseParentError> {
        let parsed = || {
            let (id, address) = text.split_once('@')?;
            let (id, address) = (id.parse().ok()?, address.parse().ok()?);
            Some(Self { id, address })
        };
        parsed().ok_or_else(|| ParseParentError {
            text: text.to_owned(),
        })
    }
}

impl TryFrom<String> for Parent {
    type Error = ParseParentError;

    fn try_from(text: String) -> Result<Self, ParseParentError> {
        text.parse()
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_has_an_id_and_an_address() {
        let parent: Parent = "oslo@10.0.0.2:7543".parse().unwrap();
        assert_eq!(parent.to_string(), "oslo@10.0.0.2:7543");
        for text in [
            "",
            "10.0.0.2:7543",
            "oslo@10.0.0.2",
            "@10.0.0.2:7543",
            "o slo@h:1",
        ] {
            assert!(text.parse::<Parent>().is_err(), "{text}");
        }
    }
}
