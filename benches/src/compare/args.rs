//! What can be typed after `larder-compare`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Parser, ValueEnum as _, value_parser};

use super::peers::Kind;
use super::point::{self, Point};
use super::tools::Tool;
use crate::stage::Stage;

/// Load the booster and other people's servers in turn, and compare what they cost
///
/// Installs nothing. Wants root, or a system that lets users make namespaces.
#[derive(Clone, Debug, Parser)]
#[command(name = "larder-compare", version)]
pub struct Args {
    /// Points whose names begin so, as --list shows them [default: all]
    #[arg(value_name = "POINT")]
    pub wanted: Vec<String>,

    /// Print the names of all points, and end
    #[arg(long)]
    pub list: bool,

    /// Servers, by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["nginx", "booster"])]
    pub servers: Vec<Kind>,

    /// Load tools, by commas; handshakes are always made by ab
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["larder-load"])]
    pub tools: Vec<Tool>,

    /// Rounds: every server is loaded once a round at each point
    #[arg(long, default_value = "5", value_parser = value_parser!(u32).range(1..=99))]
    pub rounds: u32,

    /// Seconds of load of one server at one point in one round
    #[arg(long, default_value = "3", value_parser = value_parser!(u32).range(1..=300))]
    pub seconds: u32,

    /// Rounds of what takes long: memory and herds [default: as --rounds]
    #[arg(long, value_name = "ROUNDS", value_parser = value_parser!(u32).range(1..=99))]
    pub long_rounds: Option<u32>,

    /// Give up after so many minutes
    #[arg(long, value_name = "MINUTES", default_value = "120",
          value_parser = value_parser!(u32).range(1..=1440))]
    pub limit: u32,

    /// Two points, one round, a second each: does it run at all
    #[arg(long, conflicts_with_all = ["wanted", "rounds", "seconds", "gates", "soak"])]
    pub smoke: bool,

    /// What the gates name, at all servers, in less than half an hour: 2 seconds a sample, five
    /// rounds, of memory and herds one
    #[arg(long, conflicts_with_all = ["wanted", "rounds", "seconds", "servers", "soak"])]
    pub gates: bool,

    /// Instead of comparing, run the booster for so many seconds under revisions, evictions and
    /// clients that vanish, and fail if its memory or its files grow
    #[arg(long, value_name = "SECONDS", conflicts_with = "wanted",
          value_parser = value_parser!(u32).range(20..=86_400))]
    pub soak: Option<u32>,

    /// Write the tables into FILE as well, between its lines "larder-compare: begin" and "… end"
    #[arg(long, value_name = "FILE")]
    pub readme: Option<PathBuf>,

    /// Leave the folder of the run where it is, with everybody's settings and logs
    #[arg(long)]
    pub keep: bool,

    /// Where the servers are played
    #[command(flatten)]
    pub stage: Stage,
}

impl Args {
    /// The points that are wanted.
    pub(super) fn points(&self) -> anyhow::Result<Vec<Point>> {
        let mut points = point::all();
        if self.smoke {
            points.retain(Point::is_smoke);
        } else if self.gates {
            points.retain(Point::has_gate);
        } else if self.soak.is_some() {
            points.truncate(1);
        } else if !self.wanted.is_empty() {
            let begins = |point: &Point| {
                let name = point.to_string();
                self.wanted.iter().any(|wanted| name.starts_with(wanted))
            };
            points.retain(begins);
        }
        ensure!(!points.is_empty(), "cannot find such a point: see --list");
        Ok(points)
    }

    /// The same, as a smoke run or one for the gates has it.
    #[must_use]
    pub(super) fn settled(self) -> Self {
        if self.smoke {
            return Self {
                rounds: 1,
                seconds: 1,
                limit: 2,
                ..self
            };
        }
        if self.gates {
            return Self {
                long_rounds: self.long_rounds.or(Some(1)),
                seconds: 2,
                servers: Kind::value_variants().to_vec(),
                ..self
            };
        }
        if self.soak.is_some() {
            let minutes = self.soak.unwrap_or(0) / 60 + 10;
            return Self {
                limit: self.limit.max(minutes),
                servers: vec![Kind::Booster],
                ..self
            };
        }
        self
    }

    /// Rounds of what takes long.
    pub(super) fn long_rounds(&self) -> u32 {
        self.long_rounds.unwrap_or(self.rounds)
    }
}
