//! Which boosters a device is told to ask: those of its site, so that each device has its own order
//! of them, and keeps it.

use std::collections::HashMap;

use certs::DeviceId;
use content::Digest;

/// Boosters by the site that they stand in; those that stand in none, under the empty name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sites {
    boosters: HashMap<String, Vec<String>>,
}

impl Sites {
    /// Boosters by id, each with its site.
    pub fn new<'b>(boosters: impl IntoIterator<Item = (&'b str, &'b str)>) -> Self {
        let mut sites = Self::default();
        for (booster, site) in boosters {
            let there = sites.boosters.entry(site.to_owned()).or_default();
            there.push(booster.to_owned());
        }
        sites
    }

    /// The boosters that `device` should ask, the best first: those of its `site`; those that stand
    /// in none, if it has none or nobody is there. Of several, each device has another first, and
    /// one that comes or goes changes the first of no other (rendezvous hashing, Thaler and
    /// Ravishankar 1998).
    pub fn near(&self, device: &DeviceId, site: Option<&str>) -> Vec<String> {
        let of = |site: &str| self.boosters.get(site).filter(|there| !there.is_empty());
        let there = site.and_then(of).or_else(|| of(""));
        let mut near = there.cloned().unwrap_or_default();
        let weight = |booster: &String| {
            let both = format!("{device} {booster}");
            *Digest::of(both.as_bytes()).as_raw()
        };
        near.sort_by_cached_key(weight);
        near.truncate(NEAR_MAX);
        near
    }
}

/// As many as a device tries.
const NEAR_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(site: Option<&str>, expected: &[&str]) {
        let all = [("b1", "bonn"), ("r1", "rome"), ("b2", "bonn"), ("x", "")];
        let device = "one".parse().unwrap();
        let mut near = Sites::new(all).near(&device, site);
        near.sort_unstable();
        assert_eq!(near, expected, "from {site:?}");
    }

    #[test]
    fn a_device_asks_the_boosters_of_its_site() {
        check(Some("bonn"), &["b1", "b2"]);
        check(Some("rome"), &["r1"]);
        check(Some("oslo"), &["x"]);
        check(None, &["x"]);
    }

    #[test]
    fn devices_are_spread_over_boosters_and_stay_with_theirs() {
        let ids: Vec<String> = (0..5).map(|number| format!("b{number}")).collect();
        let of = |count: usize| Sites::new(ids[..count].iter().map(|id| (id.as_str(), "bonn")));
        let (four, five) = (of(4), of(5));
        let mut firsts = HashMap::<String, u32>::new();
        for number in 0..400 {
            let device = format!("device-{number}").parse().unwrap();
            let first = four.near(&device, Some("bonn")).remove(0);
            let then = five.near(&device, Some("bonn")).remove(0);
            assert!(then == first || then == "b4", "{first} became {then}");
            *firsts.entry(first).or_default() += 1;
        }
        assert!(
            firsts.values().all(|count| (60..140).contains(count)),
            "{firsts:?}"
        );
    }
}
