//! Memory for each connection that is held and does nothing.

use std::fmt;

use serde::Serialize;

use super::ground::Ground;
use super::peers::{Kind, Server};
use super::point::Point;
use super::table::median;
use super::tools;

/// One server that held connections once.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// What was measured.
    pub point: String,
    /// At whom.
    pub server: Kind,
    /// In which round.
    pub round: u32,
    /// How many connections.
    pub connections: u32,
    /// Proportional set size of all its processes, after a first few requests.
    pub pss_before_bytes: u64,
    /// The same, while all connections are held.
    pub pss_bytes: u64,
}

impl Held {
    pub(super) fn kib_each(&self) -> f64 {
        let grown = self.pss_bytes.saturating_sub(self.pss_before_bytes);
        grown as f64 / 1024.0 / f64::from(self.connections)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "round {} {:<18} {:<12} {:.1} KiB each, {:.1} MiB before",
            self.round,
            self.point,
            self.server,
            self.kib_each(),
            self.pss_before_bytes as f64 / f64::from(1 << 20)
        )
    }
}

/// Starts a server for this alone, and has it hold connections.
pub(super) fn measure(
    ground: &Ground,
    point: &Point,
    kind: Kind,
    connections: u32,
    round: u32,
) -> anyhow::Result<Held> {
    let server = Server::start(kind, ground, 0)?;
    tools::warm(ground, point, &server)?;
    let pss_before_bytes = server.pss()?;
    let pss_bytes = tools::hold(ground, point, &server, connections, || server.pss())?;
    Ok(Held {
        point: point.to_string(),
        server: kind,
        round,
        connections,
        pss_before_bytes,
        pss_bytes,
    })
}

/// Writes a table of the medians, with the ratio to nginx in the same round.
pub(super) fn write(held: &[Held], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if held.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\n| point | server | KiB each | MiB before | ratio |\n|---|---|---|---|---|"
    )?;
    let mut seen: Vec<(&str, Kind)> = Vec::new();
    for one in held {
        let key = (one.point.as_str(), one.server);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let same: Vec<&Held> = held
            .iter()
            .filter(|other| (other.point.as_str(), other.server) == key)
            .collect();
        let each = median(same.iter().map(|held| held.kib_each()).collect());
        let before = same.iter().map(|held| held.pss_before_bytes as f64);
        let before = median(before.collect()) / f64::from(1 << 20);
        let ratios = same.iter().filter_map(|mine| {
            let nginx = held.iter().find(|other| {
                super::is_yardstick(other.server)
                    && (other.round, &other.point) == (mine.round, &mine.point)
            })?;
            Some(mine.kib_each() / nginx.kib_each())
        });
        let ratio = median(ratios.collect());
        writeln!(
            f,
            "| {} | {} | {each:.1} | {before:.1} | {ratio:.2} |",
            one.point, one.server
        )?;
    }
    Ok(())
}
