//! What is printed at the end, and what it is held against.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::change::Changed;
use super::kept::Kept;
use super::relayed::Relayed;
use super::rollout::Rolled;
use super::steady::Steady;
use super::storm::{First, Stormed};
use crate::compare::Machine;
use crate::compare::gates::{self, Gate};
use crate::load::Histogram;

/// All that was played.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// Devices that enrolled in a second.
    pub enrolled_per_second: Option<f64>,
    /// Everybody's first visit.
    pub first: Option<First>,
    /// Unchanged check-ins over kept connections.
    pub kept: Option<Kept>,
    /// Everybody at the interval.
    pub steady: Option<Steady>,
    /// The same while things change.
    pub change: Option<Changed>,
    /// Everybody at once.
    pub storm: Option<Stormed>,
    /// A roll-out behind boosters.
    pub rollout: Option<Rolled>,
    /// Agents at their boosters.
    pub relayed: Option<Relayed>,
    /// What was promised, held against that.
    pub gates: Vec<Gate>,
}

/// Within which time so many of a hundred were done, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Took {
    /// Half of them.
    pub p50: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// All of them.
    pub max: f64,
}

impl Took {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let millis = |took: Duration| took.as_secs_f64() * 1000.0;
        Self {
            p50: millis(histogram.quantile(0.5)),
            p99: millis(histogram.quantile(0.99)),
            max: millis(histogram.longest()),
        }
    }
}

impl Report {
    /// That of a run which has not played anything yet.
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine,
            enrolled_per_second: None,
            first: None,
            kept: None,
            steady: None,
            change: None,
            storm: None,
            rollout: None,
            relayed: None,
            gates: Vec::new(),
        }
    }

    /// Whether anything was measured.
    pub(super) fn has_any(&self) -> bool {
        self.first.is_some() || self.rollout.is_some() || self.relayed.is_some()
    }

    /// Holds what was measured against what was promised.
    pub(super) fn judge(&mut self) {
        let kept = self.kept.as_ref().map(|kept| kept.cpu_us_each);
        let steady = self.steady.as_ref().map(|steady| steady.latency_ms.p99);
        let line = self.rollout.as_ref().map(|rolled| rolled.line_ratio);
        let relayed = self.relayed.as_ref();
        let promises = [
            (
                "unchanged check-in over a kept connection: CPU in us",
                kept,
                60.0,
            ),
            (
                "check-in at the interval, new connections: p99 in ms",
                steady,
                100.0,
            ),
            (
                "roll-out: bytes from the origin by new packs and boosters",
                line,
                1.02,
            ),
            (
                "relayed: requests at the origin for a device while nothing changes",
                relayed.map(|relayed| relayed.for_devices as f64),
                0.0,
            ),
            (
                "relayed: waits at the origin by boosters, in 55 s",
                relayed.map(Relayed::waits_each),
                relayed.map_or(1.0, Relayed::waits_each_max),
            ),
        ];
        let gates = promises.into_iter().filter_map(|(what, measured, gate)| {
            Some(Gate {
                what: what.to_owned(),
                measured: measured?,
                gate,
                target: None,
            })
        });
        self.gates = gates.collect();
    }

    /// Whether everybody was served as they should be; and whether what was promised was kept, if
    /// that counts. A busy machine has done nothing wrong.
    pub(super) fn is_good(&self, gates_count: bool) -> bool {
        let gates = self.gates.iter().all(|gate| gate.measured <= gate.gate);
        let steady = self
            .steady
            .as_ref()
            .is_none_or(|it| it.failed == 0 && it.news == 0);
        let change = self.change.as_ref().is_none_or(Changed::is_good);
        let rollout = self.rollout.as_ref().is_none_or(Rolled::is_good);
        let relayed = self.relayed.as_ref().is_none_or(Relayed::is_good);
        steady && change && rollout && relayed && (gates || !gates_count)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine.to_string().trim_end())?;
        let rows = [
            self.first.as_ref().map(First::row),
            self.kept.as_ref().map(Kept::row),
            self.steady.as_ref().map(Steady::row),
            self.change.as_ref().map(Changed::row),
            self.storm.as_ref().map(Stormed::row),
        ];
        if rows.iter().any(Option::is_some) {
            writeln!(f, "\n{HEADING}")?;
        }
        for row in rows.into_iter().flatten() {
            writeln!(f, "{row}")?;
        }
        let enrolled = self.enrolled_per_second;
        let enrolled = enrolled.map(|rate| format!("\nenrolment: {rate:.0} devices a second"));
        let parts = [
            enrolled,
            self.kept.as_ref().map(ToString::to_string),
            self.steady.as_ref().map(ToString::to_string),
            self.change.as_ref().map(ToString::to_string),
            self.storm.as_ref().map(ToString::to_string),
            self.rollout.as_ref().map(|rolled| format!("\n{rolled}")),
            self.relayed.as_ref().map(|relayed| format!("\n{relayed}")),
        ];
        for part in parts.into_iter().flatten() {
            writeln!(f, "{part}")?;
        }
        gates::write(&self.gates, f)
    }
}

/// What is measured alike in all scenes of devices that check in: a line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) scene: &'static str,
    /// Visits or check-ins.
    pub(super) visits: u64,
    pub(super) per_second: f64,
    /// The origin's CPU time for one, in microseconds.
    pub(super) cpu_us_each: Option<f64>,
    pub(super) bytes_each: Option<f64>,
    pub(super) took: Took,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |it: Option<f64>, digits: usize| {
            it.map_or_else(|| "-".to_owned(), |it| format!("{it:.digits$}"))
        };
        let (cpu, bytes) = (number(self.cpu_us_each, 1), number(self.bytes_each, 0));
        let Took { p50, p99, max } = self.took;
        write!(
            f,
            "{:<14}{:>9}{:>10.1}{cpu:>11}{bytes:>12}{p50:>10.2}{p99:>10.2}{max:>10.2}",
            self.scene, self.visits, self.per_second
        )
    }
}

/// Over the rows: CPU is the origin's, bytes are those over TCP both ways, TLS included.
const HEADING: &str =
    "scene            visits  visits/s  CPU us/vis   bytes/vis    p50 ms    p99 ms    max ms";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cpu_us_each: f64, failed: u64, expected: [bool; 2]) {
        let took = Took::default();
        let mut report = Report::new(Machine::look(&[]));
        report.kept = Some(Kept {
            at_a_time: 1,
            connections: 10,
            check_ins: 40,
            per_second: 1.0,
            cpu_us_each,
            bytes_each: 1.0,
            latency_ms: took,
            peak_bytes: 1,
        });
        report.steady = Some(Steady {
            devices: 10,
            interval: 120,
            seconds: 1.0,
            check_ins: 1,
            per_second: 1.0,
            cpu_us_each: 900.0,
            cpu_percent: 1.0,
            bytes_each: 1.0,
            latency_ms: took,
            news: 0,
            failed,
            first_failure: None,
        });
        report.judge();
        let good = [false, true].map(|gates_count| report.is_good(gates_count));
        assert_eq!(good, expected, "{report}");
    }

    #[test]
    fn who_is_not_served_counts_always_and_what_is_slow_if_it_shall() {
        check(59.9, 0, [true, true]);
        check(60.1, 0, [true, false]);
        check(10.0, 1, [false, false]);
    }
}
