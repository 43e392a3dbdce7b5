//! Which programs it takes, and how to get those that are missing. Nothing is installed.

use std::env;
use std::path::PathBuf;

use anyhow::bail;

use super::peers::Kind;
use super::point::{Point, What};

/// A program, and how to get it on Debian.
pub(crate) type Need = (&'static str, &'static str);

/// Fails with all that is missing.
pub(super) fn check(kinds: &[Kind], points: &[Point]) -> anyhow::Result<()> {
    let mut needs = BASE.to_vec();
    needs.extend(kinds.iter().flat_map(|kind| kind.needs()).copied());
    if points
        .iter()
        .any(|point| matches!(point.what, What::Handshake { .. }))
    {
        needs.push(AB);
    }
    needs.dedup();
    demand(&needs)
}

/// Fails with those of `needs` that are missing.
pub(crate) fn demand(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<String> = needs
        .iter()
        .filter(|(name, _)| find(name).is_none())
        .map(|(name, how)| format!("{name} ({how})"))
        .collect();
    if !missing.is_empty() {
        bail!("cannot run without: {}", missing.join(", "));
    }
    Ok(())
}

/// Where a program lies: servers are often not in a user's path.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut programs = folders.map(|folder| folder.join(name));
    programs.find(|program| program.is_file())
}

/// What every run takes.
pub(crate) const BASE: [Need; 3] = [
    ("ip", "apt-get install iproute2"),
    ("taskset", "apt-get install util-linux"),
    ("unshare", "apt-get install util-linux"),
];
const AB: Need = ("ab", "apt-get install apache2-utils");
