//! A fleet in one process: tens of thousands of devices with keys of their own, which check in at a
//! real origin over real TLS, hear of commits, get their manifests and are revoked; and hundreds
//! that pull, verify and install behind real boosters. All of it on loopback.
//!
//! What is simulated is the device around the wire: those that only check in keep no files, and
//! open a connection when they need one. Those behind boosters pull with the client's own code.

mod args;
mod change;
mod device;
mod devices;
mod enrol;
mod ground;
mod kept;
mod page;
mod relayed;
mod report;
mod rollout;
mod site;
mod steady;
mod storm;

use std::time::Duration;

use anyhow::{Context as _, bail};
use service::Output;
use service::signal::Stop;
use tokio::time::Instant;

use crate::compare::{Machine, needs, sandbox};

pub use args::{Args, Scene};
pub use change::{Changed, Revoked};
pub use kept::Kept;
pub use relayed::Relayed;
pub use report::{Report, Took};
pub use rollout::{Rolled, SiteDone};
pub use steady::Steady;
pub use storm::{First, Stormed};

use devices::Fleet;
use ground::Ground;

/// Plays the scenes that `args` name. Says whether all went as it should.
///
/// # Errors
///
/// Fails if something is missing, a server does not start, or a device is refused that should not
/// be.
pub fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    let args = args.settled();
    needs::demand(&needs::BASE)?;
    args.demand_programs()?;
    args.demand_files(service::raise_open_files())?;
    if args.stage.is_outside() {
        sandbox::enter(output)?;
    }
    sandbox::prepare(output)?;
    args.stage.keep_to_load_cpu(output);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Whoever is interrupted ends its servers and takes its folder away.
        let mut stop = Stop::listen().context("cannot handle signals")?;
        tokio::select! {
            played = Box::pin(play(&args, output)) => played,
            () = stop.requested() => bail!("interrupted"),
        }
    })
}

async fn play(args: &Args, output: Output) -> anyhow::Result<bool> {
    let mut report = Report::new(Machine::look(&[]));
    output.note(report.machine.to_string().trim_end());
    let played = Box::pin(play_all(args, output, &mut report)).await;
    if !args.smoke {
        // So few devices tell nothing of speed.
        report.judge();
    }
    // What was measured before something failed is told all the same.
    if played.is_ok() || report.has_any() {
        output.result(&report)?;
    }
    played.map(|()| report.is_good(args.gates))
}

async fn play_all(args: &Args, output: Output, report: &mut Report) -> anyhow::Result<()> {
    let mut ground = Ground::lay(args).await?;
    let all = [Scene::Kept, Scene::Steady, Scene::Change, Scene::Storm];
    if all.into_iter().any(|scene| args.plays(scene)) {
        play_fleet(args, &mut ground, output, report).await?;
    }
    if args.plays(Scene::Rollout) {
        let devices = args.boosters * args.per_site;
        output.note(format_args!(
            "rollout: a second revision for {devices} devices behind {} boosters",
            args.boosters
        ));
        report.rollout = Some(Box::pin(rollout::play(args, &ground)).await?);
    }
    if args.plays(Scene::Relayed) {
        let devices = args.boosters * args.per_site;
        output.note(format_args!(
            "relayed: {devices} agents that check in at {} boosters, for {} s",
            args.boosters, args.seconds
        ));
        report.relayed = Some(Box::pin(relayed::play(args, &ground)).await?);
    }
    Ok(())
}

/// The scenes of devices that only check in.
async fn play_fleet(
    args: &Args,
    ground: &mut Ground,
    output: Output,
    report: &mut Report,
) -> anyhow::Result<()> {
    output.note(format_args!("enrolment of {} devices", args.devices));
    let began = Instant::now();
    let mut fleet = Fleet::enrol(ground, args.devices).await?;
    report.enrolled_per_second = Some(per_second(args.devices.into(), began.elapsed()));
    output.note("first visits: everybody comes for its manifest");
    report.first = Some(storm::first(ground, &mut fleet).await?);
    if args.plays(Scene::Kept) {
        output.note("kept: check-ins over connections that stay");
        report.kept = Some(kept::play(args, ground, &fleet).await?);
    }
    if args.plays(Scene::Steady) {
        output.note(format_args!(
            "steady: everybody every {} s, for {} s",
            args.interval, args.seconds
        ));
        report.steady = Some(steady::play(args, ground, &mut fleet).await?);
    }
    if args.plays(Scene::Change) {
        output.note("change: a commit for everybody, new devices, and some that are revoked");
        report.change = Some(change::play(args, ground, &mut fleet).await?);
    }
    if args.plays(Scene::Storm) {
        output.note("storm: the origin starts again, and everybody comes at once");
        report.storm = Some(storm::play(ground, &mut fleet).await?);
    }
    Ok(())
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}
