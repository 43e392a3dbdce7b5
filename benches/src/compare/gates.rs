//! What was promised of the booster, held against what was measured.

use std::fmt;

use serde::Serialize;

use super::herd::Stampede;
use super::is_yardstick;
use super::memory::Held;
use super::peers::Kind;
use super::table::{Row, median};

/// A promise: the lower the figure, the better.
#[derive(Clone, Debug, Serialize)]
pub struct Gate {
    /// What was promised.
    pub what: String,
    /// What it came to.
    pub measured: f64,
    /// What it must not exceed.
    pub gate: f64,
    /// What is wished for.
    pub target: Option<f64>,
}

/// All promises of which something was measured.
pub(super) fn judge(rows: &[Row], held: &[Held], herds: &[Stampede]) -> Vec<Gate> {
    let mut gates = Vec::new();
    let mut add = |what: String, measured: Option<f64>, gate: f64, target: Option<f64>| {
        gates.extend(measured.map(|measured| Gate {
            what,
            measured,
            gate,
            target,
        }));
    };
    let row = |point: &str| {
        let mut ours = rows.iter().filter(|row| row.server == Kind::Booster);
        ours.find(|row| row.point == point)
    };
    for (point, gate, target) in RATIOS {
        let ratio = row(point).and_then(|row| row.ratio);
        add(
            format!("{point}: CPU by nginx's"),
            ratio,
            gate,
            Some(target),
        );
    }
    let (empty, million) = (row(EMPTY_BESIDE), row(MILLION));
    let longer = empty.zip(million);
    let longer = longer.map(|(one, other)| other.cpu_us_per_object / one.cpu_us_per_object);
    let what = "handshake: CPU with a million entries by that with none".to_owned();
    add(what, longer, 1.10, Some(1.05));
    for (point, what) in [(EMPTY, "of eight at once"), (ALONE, "alone")] {
        let p50 = row(point).map(|row| row.p50_ms);
        add(format!("handshake: p50 in ms, {what}"), p50, 6.0, Some(3.0));
    }
    for point in ["memory/h1/c10000", "memory/h2/c10000"] {
        let what = format!("{point}: memory by nginx's");
        add(what, memory_ratio(held, point), 1.1, Some(0.75));
    }
    for herd in herds.iter().filter(|herd| herd.server == Kind::Booster) {
        for (what, measured, gate, target) in of_herd(herd, herds) {
            add(format!("{}: {what}", herd.point), measured, gate, target);
        }
    }
    gates
}

type Promise = (&'static str, Option<f64>, f64, Option<f64>);

/// What was promised of a herd: of those over a thin line more than of the others.
fn of_herd(herd: &Stampede, herds: &[Stampede]) -> Vec<Promise> {
    let at_ats = herds.iter().find(|other| {
        (other.server, &other.point, other.round) == (Kind::Ats, &herd.point, herd.round)
    });
    let by_ats = at_ats.map(|ats| herd.all_seconds / ats.all_seconds);
    let without = herd.point.strip_suffix("/slow").and_then(|point| {
        let same = |other: &&Stampede| {
            (other.server, other.round) == (herd.server, herd.round) && other.point == point
        };
        herds.iter().find(same)
    });
    let slowed = without.map(|without| herd.all_seconds / without.all_seconds);
    let mut promises = vec![
        ("pack bytes upstream", herd.pack_ratio, 1.005, None),
        ("all, by Traffic Server's", by_ats, 1.0, None),
        ("all, by that without the slow one", slowed, 1.25, None),
    ];
    if !herd.point.contains("/1000mbit") {
        let first = herd.first_p99_seconds / herd.alone_first_seconds;
        let all = herd.all_seconds / herd.curl_seconds;
        let peak = (herd.peak_bytes >> 20) as f64;
        promises.extend([
            (
                "p99 of the first frame by one client's alone",
                Some(first),
                2.0,
                None,
            ),
            ("all, by one curl's", Some(all), 1.10, Some(1.05)),
            ("peak memory in MiB", Some(peak), 256.0, None),
        ]);
    }
    promises
}

/// Memory for each connection by nginx's in the same round: the median.
fn memory_ratio(held: &[Held], point: &str) -> Option<f64> {
    let ratio = |one: &Held| {
        let nginx = held.iter().find(|other| {
            is_yardstick(other.server) && (&other.point, other.round) == (&one.point, one.round)
        })?;
        Some(one.kib_each() / nginx.kib_each())
    };
    let ours = held
        .iter()
        .filter(|one| one.server == Kind::Booster && one.point == point);
    let ratios: Vec<f64> = ours.filter_map(ratio).collect();
    (!ratios.is_empty()).then(|| median(ratios))
}

/// Writes a table of the promises.
pub(crate) fn write(gates: &[Gate], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if gates.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\n| promise | measured | gate | target | kept |\n|---|---|---|---|---|"
    )?;
    for gate in gates {
        let target = gate
            .target
            .map_or_else(String::new, |target| format!("{target:.2}"));
        let kept = match (gate.measured <= gate.gate, gate.target) {
            (false, _) => "no",
            (true, Some(target)) if gate.measured <= target => "with the target",
            (true, _) => "yes",
        };
        let Gate {
            what,
            measured,
            gate,
            ..
        } = gate;
        writeln!(f, "| {what} | {measured:.3} | {gate} | {target} | {kept} |")?;
    }
    Ok(())
}

/// Points, each with its gate and its target.
const RATIOS: [(&str, f64, f64); 8] = [
    ("get/4KiB/h1/c8", 1.0, 0.8),
    ("get/4KiB/h2/c8", 0.9, 0.65),
    ("get/64KiB/h1/c8", 0.65, 0.5),
    ("get/1MiB/h1/c8", 0.60, 0.45),
    ("get/1MiB/h2/c8", 0.70, 0.50),
    ("get/4MiB/h1/c8", 0.60, 0.45),
    ("get/4MiB/h2/c8", 0.70, 0.50),
    (EMPTY, 0.50, 0.40),
];
const EMPTY: &str = "handshake/crl0";
const EMPTY_BESIDE: &str = "handshake/crl0/beside-crl1000000";
const ALONE: &str = "handshake/crl0/c1";
const MILLION: &str = "handshake/crl1000000";
