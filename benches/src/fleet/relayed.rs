//! Agents that check in at their boosters, while nothing changes: what the origin hears of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use client::{Agent, Config};
use serde::Serialize;
use serde_json::json;
use service::{Clock, Component as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::args::Args;
use super::ground::{Ground, INTERVAL_MIN};
use super::page::caught_up;
use super::rollout::{Member, enrol_all};
use super::site::Booster;

/// Agents behind boosters, and the origin.
#[derive(Clone, Debug, Serialize)]
pub struct Relayed {
    /// Agents: the client's own, each with folders of its own.
    pub devices: usize,
    /// Boosters.
    pub boosters: usize,
    /// Seconds between two check-ins of one agent.
    pub interval: u32,
    /// Seconds until nothing was new any more: from the start of the first agent.
    pub settled_seconds: f64,
    /// Seconds for which it was looked at after that.
    pub seconds: f64,
    /// Check-ins that boosters answered themselves meanwhile.
    pub at_boosters: u64,
    /// Those that they passed on, or could not answer.
    pub beyond: u64,
    /// Requests that the origin had meanwhile, by their kind.
    pub at_origin: BTreeMap<String, u64>,
    /// Of those, requests of devices, and what boosters ask or pass on for one.
    pub for_devices: u64,
    /// Bytes over the origin's content listener, TLS included.
    pub bytes: f64,
    /// Seconds of CPU time that the origin took.
    pub cpu_seconds: f64,
}

/// What has been counted so far.
struct Counts {
    at: Instant,
    at_boosters: u64,
    beyond: u64,
    at_origin: BTreeMap<String, u64>,
    /// Entries on all rosters.
    on_rosters: u64,
}

/// Starts the agents, waits until all have heard all, and looks.
pub(super) async fn play(args: &Args, ground: &Ground) -> anyhow::Result<Relayed> {
    let sites: Vec<String> = (1..=args.boosters)
        .map(|number| format!("r{number}"))
        .collect();
    let mut boosters = Vec::new();
    for site in &sites {
        boosters.push(Booster::start(args, ground, site).await?);
    }
    let members = enrol_all(args, ground, &sites).await?;
    ground.publish(FILESET, 1, 201)?;
    // They hold something, and have nothing to do for it: all have one disk here.
    let later = json!({"download_from": LATER, "activate_from": LATER});
    ground.commit(FILESET, 1, &sites, later).await?;
    let began = Instant::now();
    let agents = start(&members).await?;
    let interval = args.interval.max(INTERVAL_MIN);
    settle(ground, &boosters, members.len(), interval).await?;
    let settled = began.elapsed();
    let (bytes, cpu) = (ground.content_bytes().await?, ground.cpu()?);
    let before = count(ground, &boosters).await?;
    sleep(Duration::from_secs(args.seconds.into())).await;
    let after = count(ground, &boosters).await?;
    let cpu = ground.cpu()?.since(cpu);
    let bytes = ground.content_bytes().await? - bytes;
    end(agents).await;
    let at_origin = after.asked_since(&before);
    let seconds = (after.at - before.at).as_secs_f64();
    Ok(Relayed {
        devices: members.len(),
        boosters: boosters.len(),
        interval,
        settled_seconds: settled.as_secs_f64(),
        seconds,
        at_boosters: after.at_boosters - before.at_boosters,
        beyond: after.beyond - before.beyond,
        for_devices: for_devices(&at_origin, boosters.len(), seconds),
        at_origin,
        bytes,
        cpu_seconds: cpu.as_secs_f64(),
    })
}

async fn start(members: &[Member]) -> anyhow::Result<Vec<Agent>> {
    let mut agents = Vec::new();
    for member in members {
        let config = Config::with_data(member.data.clone());
        let agent = Box::pin(Agent::start(&config, &Clock::system())).await;
        let failed = || format!("cannot start the agent of {}", member.data.display());
        agents.push(agent.with_context(failed)?);
    }
    Ok(agents)
}

async fn end(agents: Vec<Agent>) {
    let mut ending = JoinSet::new();
    for agent in agents {
        ending.spawn(agent.drain(GRACE));
    }
    while ending.join_next().await.is_some() {}
}

/// Waits until all are on rosters, and nobody had anything to say for longer than an interval.
async fn settle(
    ground: &Ground,
    boosters: &[Booster],
    devices: usize,
    interval: u32,
) -> anyhow::Result<()> {
    let quiet = Duration::from_secs_f64(f64::from(interval) * 1.2);
    let deadline = Instant::now() + quiet * 5 + SETTLED_BY;
    let mut last = count(ground, boosters).await?;
    loop {
        let now = count(ground, boosters).await?;
        let elapsed = now.at - last.at;
        let asked = now.asked_since(&last);
        let asked = for_devices(&asked, boosters.len(), elapsed.as_secs_f64());
        let is_quiet = asked == 0 && now.beyond == last.beyond;
        // Who came to another booster first, before it had heard of its own, is on two for a week.
        if is_quiet && now.on_rosters >= devices as u64 && elapsed > quiet {
            return Ok(());
        }
        ensure!(
            now.at < deadline,
            "it does not become quiet: {} entries on rosters for {devices} devices, {:?}",
            now.on_rosters,
            now.at_origin
        );
        if !is_quiet {
            last = now;
        }
        sleep(LOOK).await;
    }
}

impl Counts {
    /// What the origin was asked since `before`.
    fn asked_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let mut asked = self.at_origin.clone();
        for (route, count) in &mut asked {
            *count -= before.at_origin.get(route).copied().unwrap_or_default();
        }
        asked.retain(|_, count| *count > 0);
        asked
    }
}

async fn count(ground: &Ground, boosters: &[Booster]) -> anyhow::Result<Counts> {
    let (mut at_boosters, mut beyond, mut on_rosters) = (0, 0, 0);
    caught_up().await;
    for booster in boosters {
        let page = booster.page().await?;
        for (answer, count) in page.each("larder_booster_check_ins_total", "answer") {
            match answer.as_str() {
                "unchanged" | "told" => at_boosters += count,
                _ => beyond += count,
            }
        }
        on_rosters += page.sum("larder_booster_roster_devices", "") as u64;
    }
    let page = ground.page().await?;
    Ok(Counts {
        at: Instant::now(),
        at_boosters,
        beyond,
        at_origin: page.each("larder_origin_http_requests_total", "route"),
        on_rosters,
    })
}

/// How many of these requests, which came within so many seconds, are of a device, or made for one.
/// Boosters check in for themselves, too, which their devices' check-ins cannot be told from: so
/// many as they make are taken off. A fleet that came itself would make many more.
fn for_devices(requests: &BTreeMap<String, u64>, boosters: usize, seconds: f64) -> u64 {
    let of = |route: &str| requests.get(route).copied().unwrap_or_default();
    let others: u64 = DEVICES_ASK.iter().map(|route| of(route)).sum();
    others + of("check-in").saturating_sub(own_check_ins(boosters, seconds))
}

/// How often boosters check in themselves in so many seconds, at most.
fn own_check_ins(boosters: usize, seconds: f64) -> u64 {
    boosters as u64 * (1 + (seconds / BOOSTER_SECONDS) as u64)
}

impl Relayed {
    /// Waits of a booster that the origin heard in the time that one lasts.
    pub(super) fn waits_each(&self) -> f64 {
        let waits = self.at_origin.get("wait").copied().unwrap_or_default() as f64;
        waits / self.boosters as f64 / (self.seconds / WAIT_SECONDS)
    }

    /// So many would be one wait after the other, and one more for that which was under way.
    pub(super) fn waits_each_max(&self) -> f64 {
        ((1.0 + WAIT_SECONDS / self.seconds) * 100.0).ceil() / 100.0
    }

    /// Whether boosters answered, and the origin heard of no device.
    pub(super) fn is_good(&self) -> bool {
        let looked = self.seconds >= f64::from(self.interval);
        let answered = !looked || self.at_boosters >= self.devices as u64 / 2;
        answered
            && self.beyond == 0
            && self.for_devices == 0
            && self.waits_each() <= self.waits_each_max()
    }
}

impl fmt::Display for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "relayed: {} agents at {} boosters every {} s, quiet after {:.0} s, looked at for \
             {:.0} s\n  check-ins: {} answered by boosters, {} not; requests at the origin for a \
             device: {}, if up to {} check-ins are the boosters' own\n  the origin had {:.0} bytes over TCP, took {:.2} s of CPU, and was asked:",
            self.devices,
            self.boosters,
            self.interval,
            self.settled_seconds,
            self.seconds,
            self.at_boosters,
            self.beyond,
            self.for_devices,
            own_check_ins(self.boosters, self.seconds),
            self.bytes,
            self.cpu_seconds
        )?;
        for (route, count) in &self.at_origin {
            write!(f, " {route} {count}")?;
        }
        if self.at_origin.is_empty() {
            write!(f, " nothing")?;
        }
        Ok(())
    }
}

/// What they hold.
const FILESET: &str = "relayed";
/// When they are to have it, in Unix seconds: in the year 2100.
const LATER: i64 = 4_102_444_800;
/// How long the origin holds a wait (`docs/protocol.md`).
const WAIT_SECONDS: f64 = 55.0;
/// What the origin is asked by a device, or by a booster for one.
const DEVICES_ASK: [&str; 5] = ["hello", "inventory", "relayed", "reports", "statement"];
/// How often a booster says where it is found (`origin::check_in`).
const BOOSTER_SECONDS: f64 = 300.0;
const LOOK: Duration = Duration::from_secs(1);
/// Beyond some intervals: all start at one time on one CPU.
const SETTLED_BY: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(at_origin: &[(&str, u64)], at_boosters: u64, expected: bool) {
        let at_origin = at_origin.iter().map(|(route, n)| ((*route).to_owned(), *n));
        let at_origin: BTreeMap<String, u64> = at_origin.collect();
        let relayed = Relayed {
            devices: 100,
            boosters: 4,
            interval: 120,
            settled_seconds: 1.0,
            seconds: 130.0,
            at_boosters,
            beyond: 0,
            for_devices: for_devices(&at_origin, 4, 130.0),
            at_origin,
            bytes: 1.0,
            cpu_seconds: 0.1,
        };
        assert_eq!(relayed.is_good(), expected, "{relayed}");
    }

    #[test]
    fn a_quiet_branch_is_one_wait_for_each_booster_and_nothing_of_devices() {
        check(&[("wait", 13), ("timestamp", 50)], 108, true);
        check(&[("wait", 14)], 108, false);
        // Boosters check in as well.
        check(&[("wait", 8), ("check-in", 4)], 108, true);
        check(&[("wait", 8), ("check-in", 5)], 108, false);
        check(&[("wait", 8), ("relayed", 1)], 108, false);
        check(&[("wait", 8)], 3, false);
    }
}
