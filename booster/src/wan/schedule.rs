//! How much of the line may be taken, by the hour of the week where the booster stands.

use std::fmt;
use std::str::FromStr;

use ::config::Rate;
use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use thiserror::Error;

/// What may come over the line at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Of what is fetched before anybody asks for it; 0: nothing.
    pub prefetch: Rate,
    /// Of everything together.
    pub rate: Rate,
}

/// Limits that hold at certain hours of the week.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// The days on which it begins.
    pub days: Days,
    /// When it begins.
    pub from: TimeOfDay,
    /// What holds then.
    pub limits: Limits,
    /// When it ends: on the next day, if this is not after `from`.
    pub until: TimeOfDay,
}

/// The limits of a week. The first window that holds decides, else what holds otherwise.
///
/// Windows go by the clock on the wall: where that is put forward or back, so are they.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    otherwise: Limits,
    windows: Vec<Window>,
    zone: TimeZone,
}

/// Some days of the week: `"mon-fri"`, `"sat, sun"`, `"daily"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Days {
    /// A bit a day, the lowest for Monday.
    bits: u8,
}

/// A time of the day, in minutes: `"07:30"`; `"24:00"` is its end.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TimeOfDay {
    minutes: u16,
}

/// Why a text is not what it should be.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("cannot read {text:?}: want {want}")]
pub struct ScheduleError {
    text: String,
    want: &'static str,
}

impl Schedule {
    /// These windows, in a time `zone`.
    #[must_use]
    pub fn new(otherwise: Limits, windows: Vec<Window>, zone: TimeZone) -> Self {
        Self {
            otherwise,
            windows,
            zone,
        }
    }

    /// The same limits at all hours.
    #[must_use]
    pub fn constant(limits: Limits) -> Self {
        Self::new(limits, Vec::new(), TimeZone::UTC)
    }

    /// What holds at `now` (Unix seconds).
    #[must_use]
    pub fn at(&self, now: i64) -> Limits {
        // A time that no calendar has: nobody has said anything about it.
        let Ok(now) = Timestamp::from_second(now) else {
            return self.otherwise;
        };
        let local = self.zone.to_datetime(now);
        let minutes = u16::from(local.hour().unsigned_abs()) * 60;
        let minutes = minutes + u16::from(local.minute().unsigned_abs());
        let holds = |window: &&Window| window.holds(local.weekday(), TimeOfDay { minutes });
        let window = self.windows.iter().find(holds);
        window.map_or(self.otherwise, |window| window.limits)
    }
}

impl Window {
    fn holds(&self, day: Weekday, at: TimeOfDay) -> bool {
        if self.from < self.until {
            return self.days.has(day) && (self.from..self.until).contains(&at);
        }
        let begun_today = self.days.has(day) && at >= self.from;
        let begun_yesterday = self.days.has(day.previous()) && at < self.until;
        begun_today || begun_yesterday
    }
}

impl Days {
    fn has(self, day: Weekday) -> bool {
        self.bits & bit(day) != 0
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

impl FromStr for Days {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let refusal = || ScheduleError {
            text: text.to_owned(),
            want: "days, such as mon-fri, \"sat, sun\" or daily",
        };
        if text.trim() == "daily" {
            return Ok(Self { bits: 0x7f });
        }
        let mut bits = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = day(first).ok_or_else(refusal)?;
            let last = day(last).ok_or_else(refusal)?;
            let days = first.cycle_forward().take(7);
            let count = days.take_while(|&day| day != last).count() + 1;
            bits |= first.cycle_forward().take(count).map(bit).sum::<u8>();
        }
        Ok(Self { bits })
    }
}

fn day(text: &str) -> Option<Weekday> {
    let name = text.trim().to_ascii_lowercase();
    let days = Weekday::Monday.cycle_forward().take(7);
    DAYS.iter()
        .zip(days)
        .find_map(|(known, day)| (*known == name).then_some(day))
}

impl FromStr for TimeOfDay {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let refusal = || ScheduleError {
            text: text.to_owned(),
            want: "a time of the day, such as 07:30",
        };
        let two_digits = |part: &str| -> Option<u16> {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok())?
        };
        let (hours, minutes) = text.split_once(':').ok_or_else(refusal)?;
        match (two_digits(hours), two_digits(minutes)) {
            (Some(24), Some(0)) => Ok(Self { minutes: DAY }),
            (Some(hours @ 0..24), Some(minutes @ 0..60)) => Ok(Self {
                minutes: hours * 60 + minutes,
            }),
            _ => Err(refusal()),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in all, {} ahead of time", self.rate, self.prefetch)
    }
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Minutes of a day by the clock.
const DAY: u16 = 24 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICE: Rate = Rate::bits(5);
    const NIGHT: Rate = Rate::bits(7);

    fn window(days: &str, from: &str, until: &str, rate: Rate) -> Window {
        Window {
            days: days.parse().unwrap(),
            from: from.parse().unwrap(),
            until: until.parse().unwrap(),
            limits: Limits {
                rate,
                prefetch: Rate::bits(0),
            },
        }
    }

    fn check(local: &str, offset: &str, expected: Rate) {
        let otherwise = Limits {
            rate: Rate::UNLIMITED,
            prefetch: Rate::UNLIMITED,
        };
        let windows = vec![
            window("mon-fri", "08:00", "18:00", OFFICE),
            window("fri", "22:00", "06:00", NIGHT),
        ];
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let schedule = Schedule::new(otherwise, windows, zone);
        let at: Timestamp = format!("{local}{offset}").parse().unwrap();
        assert_eq!(schedule.at(at.as_second()).rate, expected, "{local}");
    }

    #[test]
    fn windows_go_by_the_clock_on_the_wall() {
        // Winter: an hour ahead of UTC.
        check("2026-11-23T07:59:59", "+01", Rate::UNLIMITED);
        check("2026-11-23T08:00:00", "+01", OFFICE);
        check("2026-11-23T17:59:59", "+01", OFFICE);
        check("2026-11-23T18:00:00", "+01", Rate::UNLIMITED);
        // Summer: two hours.
        check("2026-07-06T06:30:00", "+00", OFFICE);
        check("2026-07-06T05:30:00", "+00", Rate::UNLIMITED);
        // At the weekend nobody is there.
        check("2026-11-28T12:00:00", "+01", Rate::UNLIMITED);
    }

    #[test]
    fn a_window_may_pass_midnight() {
        check("2026-11-27T21:59:59", "+01", Rate::UNLIMITED);
        check("2026-11-27T22:00:00", "+01", NIGHT);
        check("2026-11-28T05:59:59", "+01", NIGHT);
        check("2026-11-28T06:00:00", "+01", Rate::UNLIMITED);
        check("2026-11-28T22:00:00", "+01", Rate::UNLIMITED);
        // On Friday itself, before dawn, it is still Thursday's night.
        check("2026-11-27T05:00:00", "+01", Rate::UNLIMITED);
    }

    #[test]
    fn a_time_out_of_all_calendars_has_no_window() {
        let limits = Limits {
            rate: OFFICE,
            prefetch: NIGHT,
        };
        assert_eq!(Schedule::constant(limits).at(i64::MAX), limits);
    }

    #[test]
    fn days_and_times_are_read_or_refused() {
        let days = |text: &str| text.parse::<Days>().map(|days| days.bits).ok();
        let cases = [
            ("mon", Some(0b1)),
            ("mon-fri", Some(0b1_1111)),
            ("Sat, Sun", Some(0b110_0000)),
            ("fri-mon", Some(0b111_0001)),
            ("daily", Some(0x7f)),
            ("mon-sun", Some(0x7f)),
            ("", None),
            ("mon-", None),
            ("weekend", None),
            ("mon,", None),
        ];
        for (text, expected) in cases {
            assert_eq!(days(text), expected, "{text:?}");
        }
        let time = |text: &str| text.parse::<TimeOfDay>().map(|time| time.minutes).ok();
        let cases = [
            ("00:00", Some(0)),
            ("07:30", Some(450)),
            ("24:00", Some(1440)),
            ("24:01", None),
            ("7:30", None),
            ("07:60", None),
            ("07", None),
            ("+7:30", None),
        ];
        for (text, expected) in cases {
            assert_eq!(time(text), expected, "{text:?}");
        }
    }
}
