//! Settings that a fileset brings: what an operator may say from afar, within bounds.

use std::path::Path;
use std::time::Duration;

use ::config::{LoadError, Period};
use bytesize::ByteSize;
use serde::Deserialize;
use thiserror::Error;

use super::{Config, INVENTORY_EVERY_MIN, read_check_in, read_site, read_sources};
use crate::choose::SourceAddress;

/// What is said, and what is left as the device has it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Raw")]
pub(crate) struct Delivered {
    check_in_every: Option<Duration>,
    inventory_every: Option<Duration>,
    site: Option<Option<String>>,
    sources: Option<Vec<SourceAddress>>,
    verify_every: Option<Duration>,
    verify_rate: Option<u64>,
}

/// Why settings that a fileset brings cannot be used.
#[derive(Debug, Error)]
pub(crate) enum DeliveredError {
    /// The file says something that is not taken.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It is longer than [`Delivered::BYTES_MAX`].
    #[error(
        "cannot use the settings in {file}: more than {max} bytes",
        file = Delivered::FILE,
        max = Delivered::BYTES_MAX
    )]
    TooLong,
}

impl Delivered {
    /// The file, within the fileset.
    pub(crate) const FILE: &str = "agent.toml";
    /// The longest file, in bytes: a full one has some hundred.
    pub(crate) const BYTES_MAX: usize = 16 << 10;

    /// Reads what a file says.
    ///
    /// # Errors
    ///
    /// Fails if a key is unknown or out of its bounds; the error names the key.
    pub(crate) fn parse(text: &str) -> Result<Self, DeliveredError> {
        if text.len() > Self::BYTES_MAX {
            return Err(DeliveredError::TooLong);
        }
        Ok(::config::parse(Path::new(Self::FILE), text)?)
    }
}

impl Config {
    /// The same, and over it what a fileset says.
    #[must_use]
    pub(crate) fn with(&self, said: Delivered) -> Self {
        Self {
            check_in_every: said.check_in_every.unwrap_or(self.check_in_every),
            inventory_every: said.inventory_every.unwrap_or(self.inventory_every),
            site: said.site.unwrap_or_else(|| self.site.clone()),
            sources: said.sources.unwrap_or_else(|| self.sources.clone()),
            verify_every: said.verify_every.unwrap_or(self.verify_every),
            verify_rate: said.verify_rate.unwrap_or(self.verify_rate),
            ..self.clone()
        }
    }
}

/// The same, as an operator writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    agent: RawAgent,
    site: Option<String>,
    sources: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAgent {
    check_in_every: Option<Period>,
    inventory_every: Option<Period>,
    verify_every: Option<Period>,
    verify_rate: Option<ByteSize>,
}

impl TryFrom<Raw> for Delivered {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let RawAgent {
            check_in_every,
            inventory_every,
            verify_every,
            verify_rate,
        } = raw.agent;
        if let Some(rate) = verify_rate.filter(|rate| (1..RATE_MIN).contains(&rate.as_u64())) {
            let min = ByteSize(RATE_MIN);
            return Err(format!(
                "`agent.verify_rate` is {rate}: want 0 B or at least {min}"
            ));
        }
        Ok(Self {
            check_in_every: check_in_every.map(read_check_in).transpose()?,
            inventory_every: bounded("inventory_every", inventory_every, INVENTORY_EVERY_MIN)?,
            site: raw.site.map(read_site).transpose()?,
            sources: raw.sources.as_deref().map(read_sources).transpose()?,
            verify_every: bounded("verify_every", verify_every, VERIFY_EVERY_MIN)?,
            verify_rate: verify_rate.map(|rate| rate.as_u64()),
        })
    }
}

/// Nothing for never, or something from `min` to [`EVERY_MAX`].
fn bounded(key: &str, every: Option<Period>, min: Duration) -> Result<Option<Duration>, String> {
    match every {
        Some(every) if !every.0.is_zero() && !(min..=EVERY_MAX).contains(&every.0) => {
            let (min, max) = (Period(min), Period(EVERY_MAX));
            Err(format!(
                "`agent.{key}` is {every}: want 0s, or {min} to {max}"
            ))
        }
        every => Ok(every.map(|every| every.0)),
    }
}

/// The longest time between two looks: what is meant to be never says so.
const EVERY_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// A disk that is read without a pause is no good for anything else.
const VERIFY_EVERY_MIN: Duration = Duration::from_secs(600);
/// In a second: below that, a look at a few gigabytes would take a day.
const RATE_MIN: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn own() -> Config {
        let text = "data = \"/d\"\nsite = \"north\"\nsources = [\"b1@10.0.0.1:7443\"]\n\
                    trust.grace = \"1d\"\nagent.verify_every = \"2d\"";
        ::config::parse(Path::new("c.toml"), text).unwrap()
    }

    #[test]
    fn what_is_said_counts_and_all_else_stays_as_the_device_has_it() {
        let check = |text: &str, changes: &dyn Fn(&mut Config)| {
            let mut wanted = own();
            changes(&mut wanted);
            assert_eq!(
                own().with(Delivered::parse(text).unwrap()),
                wanted,
                "{text}"
            );
        };
        check("", &|_| {});
        check("[agent]\nverify_rate = \"1 MiB\"", &|it| {
            it.verify_rate = 1 << 20
        });
        check("sources = []\nsite = \"\"", &|it| {
            (it.sources, it.site) = (Vec::new(), None);
        });
        check(
            "[agent]\ncheck_in_every = \"5m\"\nverify_every = \"0s\"",
            &|it| {
                it.check_in_every = Duration::from_secs(300);
                it.verify_every = Duration::ZERO;
            },
        );
        check("[agent]\ninventory_every = \"90d\"", &|it| {
            it.inventory_every = EVERY_MAX;
        });
    }

    #[test]
    fn a_mistake_is_named() {
        let check = |text: &str, expected: Expect| {
            let error = Delivered::parse(text).unwrap_err();
            expected.assert_eq(&error.to_string());
        };
        check(
            "sites = 1",
            expect![[
                "cannot use the settings in agent.toml, line 1, key `sites`: unknown field `sites`, expected one of `agent`, `site`, `sources`"
            ]],
        );
        check(
            "data = \"/d\"",
            expect![[
                "cannot use the settings in agent.toml, line 1, key `data`: unknown field `data`, expected one of `agent`, `site`, `sources`"
            ]],
        );
        check(
            "site =",
            expect![[
                "cannot use the settings in agent.toml, line 1: string values must be quoted, expected literal string"
            ]],
        );
        check(
            "[agent]\nfields = \"/tmp\"",
            expect![[
                "cannot use the settings in agent.toml, line 2, key `agent.fields`: unknown field `fields`, expected one of `check_in_every`, `inventory_every`, `verify_every`, `verify_rate`"
            ]],
        );
        check(
            "[agent]\ncheck_in_every = \"9s\"",
            expect![[
                "cannot use the settings in agent.toml, line 1: `agent.check_in_every` is 9s: want 0s, or 10s to 1d"
            ]],
        );
        check(
            "[agent]\ncheck_in_every = \"25h\"",
            expect![[
                "cannot use the settings in agent.toml, line 1: `agent.check_in_every` is 1d1h: want 0s, or 10s to 1d"
            ]],
        );
        check(
            "[agent]\nverify_every = \"1s\"",
            expect![[
                "cannot use the settings in agent.toml, line 1: `agent.verify_every` is 1s: want 0s, or 10m to 90d"
            ]],
        );
        check(
            "[agent]\ninventory_every = \"91d\"",
            expect![[
                "cannot use the settings in agent.toml, line 1: `agent.inventory_every` is 91d: want 0s, or 10m to 90d"
            ]],
        );
        check(
            "[agent]\nverify_rate = \"1 KiB\"",
            expect![[
                "cannot use the settings in agent.toml, line 1: `agent.verify_rate` is 1.0 KiB: want 0 B or at least 64.0 KiB"
            ]],
        );
        check(
            "sources = [\"b1\"]",
            expect![[
                r#"cannot use the settings in agent.toml, line 1: `sources`: not a source: "b1"; want ID@HOST:PORT, such as branch-7@10.0.0.2:7443"#
            ]],
        );
        check(
            &" ".repeat(Delivered::BYTES_MAX + 1),
            expect![["cannot use the settings in agent.toml: more than 16384 bytes"]],
        );
    }
}
