//! The booster side by side with other people's servers, on one machine, in one run.
//!
//! Every server gets the same certificates, the same revocation lists, the same objects and one
//! CPU; the load tools have the other. Points are measured round by round, all servers in turn
//! within a round, so that what else happens on the machine hits all alike: the ratio to nginx in
//! the same round is what counts.

mod args;
pub(crate) mod child;
pub(crate) mod gates;
mod ground;
mod herd;
mod link;
mod lists;
mod machine;
mod memory;
pub(crate) mod needs;
mod peers;
mod point;
pub(crate) mod proc;
pub(crate) mod sandbox;
mod soak;
mod table;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use service::Output;

pub use args::Args;
pub use gates::Gate;
pub use herd::Stampede;
pub use machine::Machine;
pub use memory::Held;
pub use peers::Kind;
pub use soak::{Reading, Soaked};
pub use table::{Report, Row, Sample};
pub use tools::Tool;

pub(crate) use ground::{ANY_DISK, free_port, noise, path};

use ground::Ground;
use herd::Kindred;
use peers::Server;
use point::{Point, What};
use table::Taken;

/// Does what `args` say. Says whether all went without a failed request.
///
/// # Errors
///
/// Fails if something is missing, a server does not start, or the time is up.
pub fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    if args.list {
        for point in point::all() {
            output.note(&point);
        }
        return Ok(true);
    }
    let args = args.settled();
    let points = args.points()?;
    needs::check(&args.servers, &points)?;
    if args.stage.is_outside() {
        sandbox::enter(output)?;
    }
    sandbox::prepare(output)?;
    args.stage.keep_to_load_cpu(output);
    let interrupted = sandbox::watch_signals()?;
    let run = Run {
        deadline: Instant::now() + Duration::from_secs(u64::from(args.limit) * 60),
        args,
        interrupted,
        output,
    };
    if let Some(seconds) = run.args.soak {
        return run.soak(&points, Duration::from_secs(u64::from(seconds)));
    }
    let report = run.all(&points)?;
    output.result(&report)?;
    if let Some(file) = &run.args.readme {
        table::write_into(file, &report.to_string())?;
    }
    Ok(report.failures() == 0)
}

/// One run.
struct Run {
    args: Args,
    deadline: Instant,
    interrupted: &'static AtomicBool,
    output: Output,
}

impl Run {
    fn all(&self, points: &[Point]) -> anyhow::Result<Report> {
        let before = Machine::look(&self.args.servers);
        self.output.note(&before);
        let ground = Ground::lay(&self.args, points, self.output)?;
        let mut taken = Taken::default();
        // Servers that differ in their lists do not stand side by side: a million entries are
        // hundreds of megabytes.
        let mut groups: BTreeMap<u32, Vec<Point>> = BTreeMap::new();
        for point in points {
            if let What::Get { .. } | What::Handshake { .. } = point.what {
                let group = groups.entry(point.entries_beside()).or_default();
                group.push(point.clone());
            }
        }
        for (entries, points) in groups {
            self.group(&ground, entries, &points, &mut taken)?;
        }
        self.memory(&ground, points, &mut taken)?;
        self.herds(&ground, points, &mut taken)?;
        Ok(Report::new(&self.args, before, taken))
    }

    /// Runs the booster for long, under everything that changes.
    fn soak(&self, points: &[Point], time: Duration) -> anyhow::Result<bool> {
        let ground = Ground::lay(&self.args, points, self.output)?;
        let soaked = soak::run(&ground, time, self.output, || self.go_on())?;
        self.output.result(&soaked)?;
        Ok(soaked.is_flat())
    }

    /// What came of it, if it went well; else it is noted, and the others go on. What ends the run
    /// ends it.
    fn or_note<T>(
        &self,
        what: &str,
        done: anyhow::Result<T>,
        taken: &mut Taken,
    ) -> anyhow::Result<Option<T>> {
        self.go_on()?;
        match done {
            Ok(done) => Ok(Some(done)),
            Err(failure) => {
                let broken = format!("cannot {what}: {failure:#}");
                self.output.note(&broken);
                taken.broken.push(broken);
                Ok(None)
            }
        }
    }

    /// All points with a list of so many entries, at servers that stand side by side; and those that
    /// are measured beside them.
    fn group(
        &self,
        ground: &Ground,
        entries: u32,
        points: &[Point],
        taken: &mut Taken,
    ) -> anyhow::Result<()> {
        let lists: BTreeSet<u32> = points.iter().map(Point::entries).collect();
        let mut all = BTreeMap::new();
        for list in lists {
            let is_wanted = |kind: Kind| list == entries || kind == Kind::Booster;
            all.insert(list, self.start(ground, list, is_wanted, taken)?);
        }
        let servers = |point: &Point| all[&point.entries()].as_slice();
        for point in points {
            for server in servers(point) {
                let warmed = tools::warm(ground, point, server);
                let what = format!("warm {} for {point}", server.kind);
                self.or_note(&what, warmed, taken)?;
            }
        }
        for round in 1..=self.args.rounds {
            for point in points {
                for server in in_turn(servers(point), round) {
                    for tool in point.tools(&self.args.tools) {
                        let sample = tools::measure(&self.args, ground, point, server, tool);
                        let what = format!("load {} at {point}", server.kind);
                        let Some(sample) = self.or_note(&what, sample, taken)? else {
                            continue;
                        };
                        let sample = Sample { round, ..sample };
                        self.output.note(&sample);
                        taken.samples.push(sample);
                    }
                }
            }
        }
        Ok(())
    }

    /// Those of the servers that are wanted and can check a list of so many entries.
    fn start(
        &self,
        ground: &Ground,
        entries: u32,
        is_wanted: impl Fn(Kind) -> bool,
        taken: &mut Taken,
    ) -> anyhow::Result<Vec<Server>> {
        let mut servers = Vec::new();
        for &kind in &self.args.servers {
            if is_wanted(kind) && kind.can_check(entries) {
                self.output
                    .note(format_args!("starting {kind}, list of {entries} entries"));
                let server = Server::start(kind, ground, entries);
                servers.extend(self.or_note(&format!("start {kind}"), server, taken)?);
            }
        }
        Ok(servers)
    }

    /// Connections that are held, at one server after the other.
    fn memory(&self, ground: &Ground, points: &[Point], taken: &mut Taken) -> anyhow::Result<()> {
        for round in 1..=self.args.long_rounds() {
            for point in points {
                let What::Memory { connections, .. } = point.what else {
                    continue;
                };
                for &kind in in_turn(&self.args.servers, round) {
                    // The others have no gate, and take half a minute each.
                    if self.args.gates && !is_yardstick(kind) && kind != Kind::Booster {
                        continue;
                    }
                    let one = memory::measure(ground, point, kind, connections, round);
                    let what = format!("hold connections at {kind}");
                    if let Some(one) = self.or_note(&what, one, taken)? {
                        self.output.note(&one);
                        taken.held.push(one);
                    }
                }
            }
        }
        Ok(())
    }

    /// Herds, at one server after the other.
    fn herds(&self, ground: &Ground, points: &[Point], taken: &mut Taken) -> anyhow::Result<()> {
        for round in 1..=self.args.long_rounds() {
            for point in points {
                let What::Herd {
                    clients,
                    mbit,
                    object,
                    slow,
                } = point.what
                else {
                    continue;
                };
                let kindred = Kindred {
                    clients,
                    mbit,
                    object,
                    slow,
                };
                let curl = herd::curl(ground, kindred).context("cannot use curl")?;
                for &kind in in_turn(&self.args.servers, round) {
                    // The one would serve the objects from its own disk, the other cannot cache one
                    // that is so large.
                    if matches!(kind, Kind::Nginx | Kind::Haproxy) {
                        continue;
                    }
                    let one = herd::measure(ground, point, kindred, kind, curl, round);
                    let what = format!("let {point} loose on {kind}");
                    if let Some(one) = self.or_note(&what, one, taken)? {
                        self.output.note(&one);
                        taken.herds.push(one);
                    }
                }
            }
        }
        Ok(())
    }

    fn go_on(&self) -> anyhow::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("cannot go on: interrupted");
        }
        if Instant::now() > self.deadline {
            bail!("cannot go on: the time is up; see --limit");
        }
        Ok(())
    }
}

/// All servers, each round beginning with another: whoever comes after a heavy one should not do
/// so every time.
fn in_turn<T>(servers: &[T], round: u32) -> impl Iterator<Item = &T> {
    let skip = round as usize % servers.len().max(1);
    servers.iter().cycle().skip(skip).take(servers.len())
}

/// Whether `kind` is what the others are compared with.
fn is_yardstick(kind: Kind) -> bool {
    kind == Kind::Nginx
}
