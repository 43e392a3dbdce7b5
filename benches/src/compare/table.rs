//! What came of it: samples, their medians, and the ratio to nginx in the same round.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fmt, fs};

use anyhow::Context as _;
use serde::Serialize;

use super::args::Args;
use super::gates::{self, Gate};
use super::herd::{self, Stampede};
use super::is_yardstick;
use super::machine::{self, Machine};
use super::memory::{self, Held};
use super::peers::Kind;
use super::tools::Tool;

/// One server, loaded once at one point.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// What was measured.
    pub point: String,
    /// At whom.
    pub server: Kind,
    /// With what.
    pub tool: Tool,
    /// In which round.
    pub round: u32,
    /// Body bytes that came.
    pub bytes: u64,
    /// CPU seconds of all processes of the server.
    pub cpu_seconds: f64,
    /// Requests that failed.
    pub errors: u64,
    /// Why the first of them did.
    pub first_error: Option<String>,
    /// Of the last minute, when it was done.
    pub load_average: f64,
    /// Bytes of the object.
    pub object_bytes: u64,
    /// Half of all requests were done in so many milliseconds.
    pub p50_ms: f64,
    /// 99 of a hundred were.
    pub p99_ms: f64,
    /// Requests that were answered in full; of a run of packs, each pack counts.
    pub requests: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it is requests that cost, not bytes.
    #[serde(skip)]
    pub(super) whole_requests: bool,
}

/// The medians of one server at one point.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub point: String,
    /// At whom.
    pub server: Kind,
    /// With what.
    pub tool: Tool,
    /// How many rounds.
    pub rounds: usize,
    /// CPU seconds for each gibibyte of bodies; none for handshakes.
    pub cpu_seconds_per_gib: Option<f64>,
    /// CPU microseconds for each object (of a run of packs: for all of it) or handshake.
    pub cpu_us_per_object: f64,
    /// Gibibytes of bodies a second; none for handshakes.
    pub gib_per_second: Option<f64>,
    /// Objects or handshakes a second.
    pub objects_per_second: f64,
    /// Median of the rounds' medians, in milliseconds; of a run of packs: of one pack.
    pub p50_ms: f64,
    /// Median of the rounds' 99th percentiles, likewise.
    pub p99_ms: f64,
    /// What it costs by what nginx costs in the same round with the same tool: the median.
    pub ratio: Option<f64>,
    /// The least and the greatest of those ratios.
    pub ratio_range: Option<(f64, f64)>,
    /// Requests that failed, of all rounds.
    pub errors: u64,
    /// Why the first of them did.
    pub first_error: Option<String>,
}

/// What a run prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// Load average at the end.
    pub load_average_after: f64,
    /// Seconds of load a sample.
    pub seconds: u32,
    /// The medians.
    pub rows: Vec<Row>,
    /// All samples.
    pub samples: Vec<Sample>,
    /// Memory of connections that are held.
    pub held: Vec<Held>,
    /// Herds.
    pub herds: Vec<Stampede>,
    /// What was promised of the booster, and what it came to.
    pub gates: Vec<Gate>,
    /// What could not be measured.
    pub broken: Vec<String>,
}

/// What a run has measured so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) broken: Vec<String>,
    pub(super) samples: Vec<Sample>,
    pub(super) held: Vec<Held>,
    pub(super) herds: Vec<Stampede>,
}

impl Sample {
    /// Objects that came, as bytes tell: the part of one that the end cut off counts as a part.
    fn objects(&self) -> f64 {
        match self.whole_requests {
            true => self.requests as f64,
            false => self.bytes as f64 / self.object_bytes as f64,
        }
    }

    fn cpu_us_per_object(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.objects()
    }

    fn gib(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 30)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (us, load) = (self.cpu_us_per_object(), self.load_average);
        write!(
            f,
            "round {} {:<18} {:<12} {:<11} {us:>9.1} us each, {:>9.1}/s, {} errors, load {load:.1}",
            self.round,
            self.point,
            self.server,
            self.tool,
            self.objects() / self.seconds,
            self.errors
        )
    }
}

impl Report {
    pub(super) fn new(args: &Args, machine: Machine, taken: Taken) -> Self {
        let Taken {
            broken,
            samples,
            held,
            herds,
        } = taken;
        let mut order: Vec<(&str, Tool, Kind)> = Vec::new();
        let mut groups: BTreeMap<(&str, Tool, Kind), Vec<&Sample>> = BTreeMap::new();
        for sample in &samples {
            let key = (sample.point.as_str(), sample.tool, sample.server);
            if !groups.contains_key(&key) {
                order.push(key);
            }
            groups.entry(key).or_default().push(sample);
        }
        order.sort_by_key(|(point, tool, _)| {
            let first = samples.iter().position(|sample| sample.point == *point);
            (first, *tool)
        });
        let row = |key: &(&str, Tool, Kind)| {
            let yardstick = groups
                .iter()
                .find(|((point, tool, kind), _)| {
                    (point, tool) == (&key.0, &key.1) && is_yardstick(*kind)
                })
                .map(|(_, samples)| samples.as_slice());
            row(&groups[key], yardstick.unwrap_or_default())
        };
        let rows: Vec<Row> = order.iter().map(row).collect();
        Self {
            gates: gates::judge(&rows, &held, &herds),
            broken,
            machine,
            load_average_after: machine::load_average(),
            seconds: args.seconds,
            rows,
            samples,
            held,
            herds,
        }
    }

    fn write_rows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "| point | server | tool | CPU s/GiB | CPU us each | GiB/s | each/s | p50 ms | p99 ms \
             | ratio (range) |\n|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            write!(
                f,
                "| {} | {} | {} | {} | {:.1} | {} | {:.0} | {:.2} | {:.2} | ",
                row.point,
                row.server,
                row.tool,
                or_dash(row.cpu_seconds_per_gib),
                row.cpu_us_per_object,
                or_dash(row.gib_per_second),
                row.objects_per_second,
                row.p50_ms,
                row.p99_ms
            )?;
            match row.ratio.zip(row.ratio_range) {
                Some((ratio, (least, most))) => write!(f, "{ratio:.2} ({least:.2}-{most:.2})")?,
                None => write!(f, "-")?,
            }
            match (&row.first_error, row.errors) {
                (_, 0) => writeln!(f, " |")?,
                (Some(error), errors) => writeln!(f, " {errors} FAILED: {error} |")?,
                (None, errors) => writeln!(f, " {errors} FAILED |")?,
            }
        }
        Ok(())
    }

    /// Requests that failed.
    pub(super) fn failures(&self) -> u64 {
        let requests: u64 = self.rows.iter().map(|row| row.errors).sum();
        // How others serve a herd is what is measured, not what has to go well.
        let ours = self
            .herds
            .iter()
            .filter(|herd| herd.server == Kind::Booster);
        let clients: usize = ours.map(|herd| herd.failed).sum();
        requests + (clients + self.broken.len()) as u64
    }
}

/// The medians of samples that differ in their round only.
fn row(samples: &[&Sample], yardstick: &[&Sample]) -> Row {
    let first = samples[0];
    let of = |what: fn(&Sample) -> f64| median(samples.iter().map(|sample| what(sample)).collect());
    let of_bytes = |what: fn(&Sample) -> f64| (!first.whole_requests).then(|| of(what));
    let ratios: Vec<f64> = samples
        .iter()
        .filter_map(|sample| {
            let mut same = yardstick.iter().filter(|other| other.round == sample.round);
            Some(sample.cpu_us_per_object() / same.next()?.cpu_us_per_object())
        })
        .collect();
    let least = ratios.iter().copied().reduce(f64::min);
    let greatest = ratios.iter().copied().reduce(f64::max);
    Row {
        point: first.point.clone(),
        server: first.server,
        tool: first.tool,
        rounds: samples.len(),
        cpu_seconds_per_gib: of_bytes(|sample| sample.cpu_seconds / sample.gib()),
        cpu_us_per_object: of(Sample::cpu_us_per_object),
        gib_per_second: of_bytes(|sample| sample.gib() / sample.seconds),
        objects_per_second: of(|sample| sample.objects() / sample.seconds),
        p50_ms: of(|sample| sample.p50_ms),
        p99_ms: of(|sample| sample.p99_ms),
        ratio: (!ratios.is_empty()).then(|| median(ratios)),
        ratio_range: least.zip(greatest),
        errors: samples.iter().map(|sample| sample.errors).sum(),
        first_error: samples.iter().find_map(|sample| sample.first_error.clone()),
    }
}

/// The middle one; of an even number, the mean of the middle two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\nload average at the end {:.1}; {} s a sample; medians of the rounds; \
             ratio = CPU by nginx's in the same round\n",
            self.machine, self.load_average_after, self.seconds
        )?;
        self.write_rows(f)?;
        memory::write(&self.held, f)?;
        herd::write(&self.herds, f)?;
        gates::write(&self.gates, f)?;
        self.broken
            .iter()
            .try_for_each(|broken| writeln!(f, "\n{broken}"))
    }
}

/// Puts `text` in place of what stands between the two lines of a file that are meant for it.
///
/// # Errors
///
/// Fails if the file has no such lines, or as the disk does.
pub(super) fn write_into(file: &Path, text: &str) -> anyhow::Result<()> {
    let failed = || format!("cannot write the tables into {}", file.display());
    let old = fs::read_to_string(file).with_context(failed)?;
    let new = between(&old, text)
        .context("it has no place for them")
        .with_context(failed)?;
    fs::write(file, new).with_context(failed)
}

/// `old` with `text` between its two lines.
fn between(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        text.trim()
    ))
}

const BEGIN: &str = "<!-- larder-compare: begin -->";
const END: &str = "<!-- larder-compare: end -->";

fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_the_place_of_those_before() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = format!("a\n{BEGIN}\n\n| new |\n\n{END}\nb\n");
        assert_eq!(between(&old, "| new |\n"), Some(new.clone()));
        assert_eq!(between(&new, "| new |"), Some(new));
        assert_eq!(between("nothing", "| new |"), None);
    }

    #[test]
    fn a_median_is_the_middle() {
        for (values, middle) in [
            (vec![3.0], 3.0),
            (vec![9.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 2.0, 3.0], 2.5),
        ] {
            assert_eq!(median(values), middle);
        }
    }
}
