//! What the settings must be.

use std::time::Duration;

use ::config::Period;

pub(super) fn check_life(key: &str, life: Period) -> Result<(), String> {
    if (LIFE_MIN..=LIFE_MAX).contains(&life.0) {
        return Ok(());
    }
    let (min, max) = (Period(LIFE_MIN), Period(LIFE_MAX));
    Err(format!("`{key}` is {life}: want {min} to {max}"))
}

pub(super) fn check_connections(connections: u16) -> Result<(), String> {
    if connections > 0 {
        return Ok(());
    }
    Err("`content.connections` is 0: want at least one".to_owned())
}

pub(super) fn check_every(every: Period) -> Result<(), String> {
    let (min, max) = (Duration::from_secs(10), Duration::from_secs(86_400));
    if (min..=max).contains(&every.0) {
        return Ok(());
    }
    Err(format!("`smart_groups.every` is {every}: want 10s to 1d"))
}

pub(super) fn check_interval(interval: Period) -> Result<(), String> {
    // Below, a device would meet the bound of one check-in in ten seconds.
    let (min, max) = (Duration::from_secs(15), Duration::from_secs(86_400));
    if (min..=max).contains(&interval.0) {
        return Ok(());
    }
    Err(format!("`check_in.interval` is {interval}: want 15s to 1d"))
}

pub(super) fn check_retry(wait: Period) -> Result<(), String> {
    let (min, max) = (Duration::from_secs(1), Duration::from_secs(86_400));
    if (min..=max).contains(&wait.0) {
        return Ok(());
    }
    Err(format!("`enrol.retry_after` is {wait}: want 1s to 1d"))
}

pub(super) fn check_rate(key: &str, rate: u32) -> Result<(), String> {
    if (1..=RATE_MAX).contains(&rate) {
        return Ok(());
    }
    Err(format!("`{key}` is {rate}: want 1 to {RATE_MAX}"))
}

/// Shorter, and clocks that differ by minutes lock devices out.
const LIFE_MIN: Duration = Duration::from_secs(3600);
/// Longer, and a certificate that was lost track of is a danger for years.
const LIFE_MAX: Duration = Duration::from_secs(366 * 86_400);
/// More than an origin answers.
const RATE_MAX: u32 = 100_000;
