//! What can be typed after `larder-fleetsim`.

use anyhow::bail;
use clap::{Parser, ValueEnum, value_parser};

use crate::stage::Stage;

/// Play a fleet of devices to a real origin and real boosters, on this machine
///
/// Prints what a check-in costs the origin, how long devices wait, and what crosses the lines.
#[derive(Clone, Debug, Parser)]
#[command(name = "larder-fleetsim", version)]
pub struct Args {
    /// What to play, by commas
    #[arg(long, value_enum, value_delimiter = ',',
          default_values = ["kept", "steady", "change", "storm", "rollout", "relayed"])]
    pub scenes: Vec<Scene>,

    /// Devices that check in
    #[arg(long, default_value = "10000", value_parser = value_parser!(u32).range(100..=50_000))]
    pub devices: u32,

    /// Seconds between two check-ins of one device
    #[arg(long, default_value = "120", value_parser = value_parser!(u32).range(15..=3600))]
    pub interval: u32,

    /// Seconds of check-ins in which nothing changes
    #[arg(long, default_value = "120", value_parser = value_parser!(u32).range(10..=7200))]
    pub seconds: u32,

    /// Check-ins on each kept connection: the origin takes six of one device at once, of which the
    /// first visit and the scene that follows have one each
    #[arg(long, default_value = "4", value_parser = value_parser!(u32).range(1..=4))]
    pub rounds: u32,

    /// Check-ins under way at a time on the kept connections
    #[arg(long, default_value = "32", value_parser = value_parser!(u32).range(1..=1024))]
    pub at_a_time: u32,

    /// Boosters of the roll-out, each with a site of its own
    #[arg(long, default_value = "4", value_parser = value_parser!(u32).range(1..=16))]
    pub boosters: u32,

    /// Devices at each site
    #[arg(long, default_value = "50", value_parser = value_parser!(u32).range(1..=250))]
    pub per_site: u32,

    /// Mebibytes that are new in the roll-out's second revision
    #[arg(long, default_value = "16", value_parser = value_parser!(u32).range(1..=256))]
    pub megabytes: u32,

    /// A few hundred devices for a few seconds: does it run at all
    #[arg(long, conflicts_with_all = ["devices", "interval", "seconds", "rounds", "at_a_time",
                                      "boosters", "per_site", "megabytes", "gates"])]
    pub smoke: bool,

    /// Fail if something is slower than was promised, too
    #[arg(long)]
    pub gates: bool,

    /// Where the servers are played
    #[command(flatten)]
    pub stage: Stage,
}

/// What can be played.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Scene {
    /// Unchanged check-ins over connections that stay: what one costs.
    Kept,
    /// All devices at their interval, each time over a new connection; nothing changes.
    Steady,
    /// The same, with a commit for all, new devices, and some that are revoked.
    Change,
    /// The origin is started again, and all devices come at once.
    Storm,
    /// A second revision for all devices behind boosters.
    Rollout,
    /// Agents that check in at their boosters, while nothing changes: what the origin hears.
    Relayed,
}

impl Args {
    /// The same, as a smoke run has it.
    #[must_use]
    pub(super) fn settled(self) -> Self {
        if !self.smoke {
            return self;
        }
        Self {
            devices: 200,
            interval: 6,
            seconds: 4,
            rounds: 1,
            at_a_time: 32,
            boosters: 2,
            per_site: 3,
            megabytes: 4,
            ..self
        }
    }

    /// Whether a scene was asked for.
    pub(super) fn plays(&self, scene: Scene) -> bool {
        self.scenes.contains(&scene)
    }

    /// Fails with the first of our own programs that the scenes need and that is not there.
    pub(super) fn demand_programs(&self) -> anyhow::Result<()> {
        self.stage.program("larder-origin")?;
        if self.plays(Scene::Rollout) || self.plays(Scene::Relayed) {
            self.stage.program("larder-booster")?;
        }
        Ok(())
    }

    /// Fails if every device can have no connection of its own among so many open files.
    pub(super) fn demand_files(&self, open_files: Option<u64>) -> anyhow::Result<()> {
        let needed = u64::from(self.devices) + FILES_BESIDE;
        if let Some(limit) = open_files.filter(|limit| *limit < needed) {
            bail!(
                "cannot play {} devices: {limit} open files are allowed, and they take {needed}: \
                 raise the hard limit (ulimit -Hn), or say --devices {}",
                self.devices,
                limit.saturating_sub(FILES_BESIDE)
            );
        }
        Ok(())
    }
}

/// What the origin has open besides connections of devices, and we ourselves.
const FILES_BESIDE: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_devices_than_open_files_are_refused_at_once() {
        let args = Args::parse_from(["larder-fleetsim", "--devices", "2500"]);
        for (open_files, expected) in [(Some(3500), true), (Some(3499), false), (None, true)] {
            let demanded = args.demand_files(open_files);
            assert_eq!(demanded.is_ok(), expected, "{open_files:?}");
        }
    }

    #[test]
    fn the_booster_is_demanded_by_the_scene_that_needs_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("larder-origin"), "").unwrap();
        let programs = folder.path().to_str().unwrap();
        for (scene, expected) in [("steady", true), ("rollout", false)] {
            let typed = ["larder-fleetsim", "--programs", programs, "--scenes", scene];
            let demanded = Args::parse_from(typed).demand_programs();
            assert_eq!(demanded.is_ok(), expected, "{scene}: {demanded:?}");
        }
    }
}
