//! The settings of the line, as an operator writes them.

use ::config::Rate;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::wan::Schedule;
use crate::wan::schedule::{Days, Limits, TimeOfDay, Window};

/// The section `[wan]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawWan {
    rate: Rate,
    prefetch: Rate,
    zone: String,
    times: Vec<RawTimes>,
}

/// One of its windows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTimes {
    days: String,
    from: String,
    until: String,
    rate: Option<Rate>,
    prefetch: Option<Rate>,
}

impl Default for RawWan {
    fn default() -> Self {
        Self {
            rate: Rate::UNLIMITED,
            prefetch: Rate::UNLIMITED,
            zone: String::new(),
            times: Vec::new(),
        }
    }
}

impl TryFrom<RawWan> for Schedule {
    type Error = String;

    fn try_from(raw: RawWan) -> Result<Self, String> {
        let otherwise = Limits {
            prefetch: raw.prefetch,
            rate: raw.rate,
        };
        check("wan.rate", otherwise)?;
        if raw.times.len() > WINDOWS_MAX {
            return Err(format!("`wan.times` has over {WINDOWS_MAX} entries"));
        }
        let windows: Result<Vec<_>, _> = raw
            .times
            .iter()
            .map(|times| times.window(otherwise))
            .collect();
        Ok(Self::new(otherwise, windows?, zone(&raw.zone)?))
    }
}

impl RawTimes {
    fn window(&self, otherwise: Limits) -> Result<Window, String> {
        let days: Days = self.days.parse().map_err(named("days"))?;
        let from: TimeOfDay = self.from.parse().map_err(named("from"))?;
        let until: TimeOfDay = self.until.parse().map_err(named("until"))?;
        let limits = Limits {
            prefetch: self.prefetch.unwrap_or(otherwise.prefetch),
            rate: self.rate.unwrap_or(otherwise.rate),
        };
        check("wan.times.rate", limits)?;
        Ok(Window {
            days,
            from,
            limits,
            until,
        })
    }
}

fn named<E: std::fmt::Display>(key: &'static str) -> impl Fn(E) -> String {
    move |error| format!("`wan.times.{key}`: {error}")
}

fn check(key: &str, limits: Limits) -> Result<(), String> {
    let slow = |rate: Rate| rate < RATE_MIN;
    if slow(limits.rate) {
        let rate = limits.rate;
        return Err(format!("`{key}` is {rate}: want at least {RATE_MIN}"));
    }
    if slow(limits.prefetch) && limits.prefetch != Rate::bits(0) {
        let (key, rate) = (key.replace("rate", "prefetch"), limits.prefetch);
        return Err(format!("`{key}` is {rate}: want 0, or at least {RATE_MIN}"));
    }
    Ok(())
}

fn zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(TimeZone::system());
    }
    TimeZone::get(name).map_err(|_| {
        format!("`wan.zone` is {name:?}: want a time zone such as Europe/Berlin, or \"\" for the machine's")
    })
}

/// A frame of 256 KiB takes eight seconds: less, and readers give up.
const RATE_MIN: Rate = Rate::bits(256_000);
/// One for each hour of a week.
const WINDOWS_MAX: usize = 7 * 24;
