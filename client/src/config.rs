//! The client's settings, and the file that an operator writes.

mod delivered;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::{LoadError, Period};
use content::statement::Item;
use serde::Deserialize;
use service::logs;

use crate::choose::{ParseSourceError, SourceAddress};

pub(crate) use delivered::Delivered;

/// What the client is told: usable as it stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Raw")]
pub struct Config {
    approval_wait: Duration,
    check_in_every: Duration,
    data: PathBuf,
    fields: PathBuf,
    grace: Duration,
    inventory_every: Duration,
    log_filter: String,
    log_format: logs::Format,
    settings: String,
    site: Option<String>,
    sources: Vec<SourceAddress>,
    through_boosters: bool,
    verify_every: Duration,
    verify_rate: u64,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read or used; the error names the line and the key.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        ::config::load(path)
    }

    /// The defaults, with the data folder `data`.
    #[must_use]
    pub fn with_data(data: PathBuf) -> Self {
        let log = RawLog::default();
        Self {
            approval_wait: APPROVAL_WAIT,
            check_in_every: Duration::ZERO,
            data,
            fields: FIELDS.into(),
            grace: Duration::ZERO,
            inventory_every: INVENTORY_EVERY,
            log_filter: log.filter,
            log_format: log.format,
            settings: SETTINGS.to_owned(),
            site: None,
            sources: Vec::new(),
            through_boosters: true,
            verify_every: VERIFY_EVERY,
            verify_rate: VERIFY_RATE,
        }
    }

    /// Where everything is kept.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The site that this device is in.
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        self.site.as_deref()
    }

    /// Whom to ask before the origin, instead of those whom the deployment names.
    #[must_use]
    pub fn sources(&self) -> &[SourceAddress] {
        &self.sources
    }

    /// Whether the agent checks in at boosters before it asks the origin.
    #[must_use]
    pub fn through_boosters(&self) -> bool {
        self.through_boosters
    }

    /// How long enrolment waits for an operator.
    #[must_use]
    pub fn approval_wait(&self) -> Duration {
        self.approval_wait
    }

    /// For how long a timestamp or a revocation list counts after its end, if nobody has a newer
    /// one.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// How often the agent checks in, in seconds; none for as often as the origin says.
    pub(crate) fn check_in_every(&self) -> Option<i64> {
        let seconds = i64::try_from(self.check_in_every.as_secs()).ok()?;
        Some(seconds).filter(|seconds| *seconds > 0)
    }

    /// The target of filesets that bring settings; none if no fileset may.
    pub(crate) fn settings(&self) -> Option<&str> {
        Some(&*self.settings).filter(|folder| !folder.is_empty())
    }

    /// How often the agent looks at everything that is active, in seconds; none for never.
    pub(crate) fn verify_every(&self) -> Option<i64> {
        let seconds = i64::try_from(self.verify_every.as_secs()).ok()?;
        Some(seconds).filter(|seconds| *seconds > 0)
    }

    /// How often the agent takes stock of the device, in seconds; none for never.
    pub(crate) fn inventory_every(&self) -> Option<i64> {
        let seconds = i64::try_from(self.inventory_every.as_secs()).ok()?;
        Some(seconds).filter(|seconds| *seconds > 0)
    }

    /// Where scripts lie that find out custom fields of the inventory.
    pub(crate) fn fields(&self) -> &Path {
        &self.fields
    }

    /// How many bytes it reads from the disk for that in a second; none for as fast as it goes.
    pub(crate) fn verify_rate(&self) -> Option<u64> {
        Some(self.verify_rate).filter(|rate| *rate > 0)
    }

    /// Text or JSON.
    #[must_use]
    pub fn log_format(&self) -> logs::Format {
        self.log_format
    }

    /// What of the log is let through.
    #[must_use]
    pub fn log_filter(&self) -> &str {
        &self.log_filter
    }
}

/// The same, as an operator writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    agent: RawAgent,
    #[serde(default)]
    approval_wait: Option<Period>,
    data: PathBuf,
    #[serde(default)]
    log: RawLog,
    #[serde(default)]
    site: String,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    trust: RawTrust,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAgent {
    check_in_every: Period,
    fields: PathBuf,
    inventory_every: Period,
    settings: String,
    through_boosters: bool,
    verify_every: Period,
    verify_rate: bytesize::ByteSize,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            check_in_every: Period(Duration::ZERO),
            fields: FIELDS.into(),
            inventory_every: Period(INVENTORY_EVERY),
            settings: SETTINGS.to_owned(),
            through_boosters: true,
            verify_every: Period(VERIFY_EVERY),
            verify_rate: bytesize::ByteSize(VERIFY_RATE),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTrust {
    grace: Period,
}

impl Default for RawTrust {
    fn default() -> Self {
        Self {
            grace: Period(Duration::ZERO),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    filter: String,
    format: logs::Format,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            // A command's result is its own report: the log tells of trouble alone.
            filter: "warn".to_owned(),
            format: logs::Format::Text,
        }
    }
}

impl TryFrom<Raw> for Config {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        if !raw.data.is_absolute() {
            return Err(format!(
                "`data` is {}, want an absolute path",
                raw.data.display()
            ));
        }
        let every = raw.agent.inventory_every;
        if !every.0.is_zero() && every.0 < INVENTORY_EVERY_MIN {
            let min = Period(INVENTORY_EVERY_MIN);
            return Err(format!(
                "`agent.inventory_every` is {every}: want 0s or at least {min}"
            ));
        }
        let check_in_every = read_check_in(raw.agent.check_in_every)?;
        let settings = raw.agent.settings;
        if !settings.is_empty() && !Item::is_target(&settings) {
            return Err(format!(
                "`agent.settings` is {settings:?}: want an absolute path without . and .. in it"
            ));
        }
        let site = read_site(raw.site)?;
        let sources = read_sources(&raw.sources)?;
        let grace = raw.trust.grace;
        if grace.0 > GRACE_MAX {
            let max = Period(GRACE_MAX);
            return Err(format!("`trust.grace` is {grace}: want at most {max}"));
        }
        Ok(Self {
            approval_wait: raw.approval_wait.map_or(APPROVAL_WAIT, |wait| wait.0),
            check_in_every,
            data: raw.data,
            fields: raw.agent.fields,
            grace: grace.0,
            inventory_every: every.0,
            log_filter: raw.log.filter,
            log_format: raw.log.format,
            settings,
            site,
            sources,
            through_boosters: raw.agent.through_boosters,
            verify_every: raw.agent.verify_every.0,
            verify_rate: raw.agent.verify_rate.0,
        })
    }
}

/// How often to check in; nothing for as often as the origin says.
fn read_check_in(every: Period) -> Result<Duration, String> {
    if !every.0.is_zero() && !(CHECK_IN_EVERY_MIN..=CHECK_IN_EVERY_MAX).contains(&every.0) {
        let (min, max) = (Period(CHECK_IN_EVERY_MIN), Period(CHECK_IN_EVERY_MAX));
        return Err(format!(
            "`agent.check_in_every` is {every}: want 0s, or {min} to {max}"
        ));
    }
    Ok(every.0)
}

/// A site; none if the text is empty.
fn read_site(site: String) -> Result<Option<String>, String> {
    // The longest that a deployment document holds.
    if site.len() > 63 {
        return Err("`site` is longer than 63 bytes".to_owned());
    }
    Ok(Some(site).filter(|site| !site.is_empty()))
}

fn read_sources(sources: &[String]) -> Result<Vec<SourceAddress>, String> {
    if sources.len() > SOURCES_MAX {
        return Err(format!("`sources` names more than {SOURCES_MAX}"));
    }
    let sources = sources.iter().map(|source| source.parse());
    let sources: Result<_, ParseSourceError> = sources.collect();
    sources.map_err(|error| format!("`sources`: {error}"))
}

/// The origin lets one device come so often at the most.
const CHECK_IN_EVERY_MIN: Duration = Duration::from_secs(10);
/// Whoever comes less often could not be asked for anything within a day.
const CHECK_IN_EVERY_MAX: Duration = Duration::from_secs(24 * 3600);
/// Where filesets that bring settings have their target.
const SETTINGS: &str = "/etc/larder/settings";
/// The life of a signer's certificate, without which no timestamp counts.
const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Where scripts for custom fields lie.
const FIELDS: &str = "/etc/larder/fields.d";
/// How often stock is taken of the device.
const INVENTORY_EVERY: Duration = Duration::from_secs(3600);
/// The origin hears one device's inventory so often at the most.
const INVENTORY_EVERY_MIN: Duration = Duration::from_secs(600);
/// More are never asked.
const SOURCES_MAX: usize = 8;
/// How often everything is looked at.
const VERIFY_EVERY: Duration = Duration::from_secs(24 * 3600);
/// In a second: a disk has other things to do, and 100 GiB take an hour and a half.
const VERIFY_RATE: u64 = 20 << 20;
/// As long as the origin keeps a request by default.
const APPROVAL_WAIT: Duration = Duration::from_secs(14 * 24 * 3600);

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn the_example_says_what_the_defaults_are() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/client.toml");
        let config = Config::load(&example).unwrap();
        assert_eq!(config, Config::with_data("/var/lib/larder-client".into()));
    }

    #[test]
    fn a_mistake_is_named() {
        let check = |text: &str, expected: Expect| {
            let error = ::config::parse::<Config>(Path::new("c.toml"), text).unwrap_err();
            expected.assert_eq(&error.to_string());
        };
        check(
            "data = \"here\"",
            expect![
                "cannot use the settings in c.toml, line 1: `data` is here, want an absolute path"
            ],
        );
        check(
            "data = \"/d\"\ntrust.grace = \"31d\"",
            expect![
                "cannot use the settings in c.toml, line 1: `trust.grace` is 31d: want at most 30d"
            ],
        );
        check(
            "data = \"/d\"\nsite = 1",
            expect![
                "cannot use the settings in c.toml, line 2, key `site`: invalid type: integer `1`, expected a string"
            ],
        );
    }
}
