//! The booster side by side with other people's servers, on one machine, in one run.
//!
//! Every server gets the same certificates, the same revocation lists, the same objects and one
//! CPU; the load tools have the other. Points are measured round by round, all servers in turn
//! within a round, so that what else happens on the machine hits all alike: the ratio to nginx in
//! the same round is what counts.

mod args;
mod child;
mod ground;
mod herd;
mod link;
mod lists;
mod machine;
mod memory;
mod needs;
mod peers;
mod point;
mod proc;
mod sandbox;
mod table;
mod tools;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use service::Output;

pub use args::Args;
pub use herd::Stampede;
pub use machine::Machine;
pub use memory::Held;
pub use peers::Kind;
pub use table::{Report, Row, Sample};
pub use tools::Tool;

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
    let args = args.or_smoke();
    let points = args.points()?;
    needs::check(&args.servers, &points)?;
    if !args.inside && !args.no_namespace {
        sandbox::enter(output)?;
    }
    sandbox::prepare(output)?;
    let interrupted = sandbox::watch_signals()?;
    let run = Run {
        deadline: Instant::now() + Duration::from_secs(u64::from(args.limit) * 60),
        args,
        interrupted,
        output,
    };
    let report = run.all(&points)?;
    output.result(&report)?;
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
                let group = groups.entry(point.entries()).or_default();
                group.push(point.clone());
            }
        }
        for (entries, points) in groups {
            self.group(&ground, entries, &points, &mut taken.samples)?;
        }
        self.memory(&ground, points, &mut taken.held)?;
        self.herds(&ground, points, &mut taken.herds)?;
        Ok(Report::new(&self.args, before, taken))
    }

    /// All points with a list of so many entries, at servers that stand side by side.
    fn group(
        &self,
        ground: &Ground,
        entries: u32,
        points: &[Point],
        samples: &mut Vec<Sample>,
    ) -> anyhow::Result<()> {
        let mut servers = Vec::new();
        for kind in &self.args.servers {
            if kind.can_check(entries) {
                self.output
                    .note(format_args!("starting {kind}, list of {entries} entries"));
                let server = Server::start(*kind, ground, entries);
                servers.push(server.with_context(|| format!("cannot start {kind}"))?);
            }
        }
        for point in points {
            for server in &servers {
                self.warm(ground, point, server)?;
            }
        }
        for round in 1..=self.args.rounds {
            for point in points {
                for server in in_turn(&servers, round) {
                    for tool in point.tools(&self.args.tools) {
                        self.go_on()?;
                        let sample = tools::measure(&self.args, ground, point, server, tool)
                            .with_context(|| format!("cannot load {} at {point}", server.kind))?;
                        let sample = Sample { round, ..sample };
                        self.output.note(&sample);
                        samples.push(sample);
                    }
                }
            }
        }
        Ok(())
    }

    /// Connections that are held, at one server after the other.
    fn memory(
        &self,
        ground: &Ground,
        points: &[Point],
        held: &mut Vec<Held>,
    ) -> anyhow::Result<()> {
        for round in 1..=self.args.rounds {
            for point in points {
                let What::Memory { connections, .. } = point.what else {
                    continue;
                };
                for &kind in in_turn(&self.args.servers, round) {
                    self.go_on()?;
                    let one = memory::measure(ground, point, kind, connections, round)
                        .with_context(|| format!("cannot hold connections at {kind}"))?;
                    self.output.note(&one);
                    held.push(one);
                }
            }
        }
        Ok(())
    }

    /// Herds, at one server after the other.
    fn herds(
        &self,
        ground: &Ground,
        points: &[Point],
        herds: &mut Vec<Stampede>,
    ) -> anyhow::Result<()> {
        for round in 1..=self.args.rounds {
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
                    // It would serve the objects from its own disk.
                    if kind == Kind::Nginx {
                        continue;
                    }
                    self.go_on()?;
                    let one = herd::measure(ground, point, kindred, kind, curl, round)
                        .with_context(|| format!("cannot let a herd loose on {kind}"))?;
                    self.output.note(&one);
                    herds.push(one);
                }
            }
        }
        Ok(())
    }

    /// Fills caches: each object once, and connections as the point wants them.
    fn warm(&self, ground: &Ground, point: &Point, server: &Server) -> anyhow::Result<()> {
        self.go_on()?;
        tools::warm(ground, point, server)
            .with_context(|| format!("cannot warm {} for {point}", server.kind))
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
