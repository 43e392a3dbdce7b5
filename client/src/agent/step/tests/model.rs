//! A device that is put through everything: it is broken off anywhere, its scripts fail, its
//! manifest changes. Once it is left in peace it is as its last manifest says.

use std::collections::BTreeMap;

use content::statement::{HealMode, HealRule};

use super::*;

/// A place on the disk: a folder, and whose part of it, where it is shared.
type Place = (String, String);

/// What really is on the disk: which revision lies at a place, and what is kept of what lay there
/// before (which may be nothing).
#[derive(Debug, Default)]
struct World {
    at: BTreeMap<Place, (u64, Option<Option<u64>>)>,
    installs: u32,
}

impl World {
    fn place(item: &Item) -> Place {
        let own = match item.mode {
            InstallMode::Merge => item.fileset.to_string(),
            InstallMode::Tree => String::new(),
        };
        (item.target.clone(), own)
    }

    fn perform(&mut self, act: &Act, state: &State) -> Outcome {
        let holding = &state.filesets[&act.fileset];
        let active = holding.active.as_deref();
        match act.what {
            What::Download => {
                return Outcome::Downloaded {
                    locator: Digest::of(b"locator"),
                    sources: Vec::new(),
                };
            }
            What::Install => self.install(&holding.aim.as_ref().unwrap().item),
            What::Confirm => {
                let place = Self::place(active.unwrap());
                self.at.get_mut(&place).unwrap().1 = None;
            }
            What::GoBack => {
                let place = Self::place(active.unwrap());
                let there = self.at.remove(&place);
                let to = there.and_then(|(now, before)| before.unwrap_or(Some(now)));
                if let Some(to) = to {
                    self.at.insert(place, (to, None));
                }
                return Outcome::WentBack { to };
            }
            What::TakeAway => {
                let kept = holding.outgoing.as_deref().or(active).unwrap();
                self.at.remove(&Self::place(kept));
            }
            What::Uninstall => drop(self.at.remove(&Self::place(active.unwrap()))),
            What::Run(_) | What::Adopt | What::Discard | What::Verify => {}
        }
        Outcome::Done
    }

    fn install(&mut self, item: &Item) {
        self.installs += 1;
        let (now, before) = self.at.entry(Self::place(item)).or_insert((0, None));
        if *now != item.revision.0 {
            *before = Some(Some(*now).filter(|now| *now > 0));
            *now = item.revision.0;
        }
    }
}

/// One of many manifests, by chance.
fn any(random: &mut fastrand::Rng) -> String {
    let mut lines: Vec<String> = Vec::new();
    for name in ["a", "b", "c"] {
        if random.u8(..4) == 0 {
            continue;
        }
        let mut line = format!("{name}@{}", random.u8(1..4));
        match random.u8(..4) {
            0 => line += &format!(" /{name}/inner"),
            1 => line += " /shared merge",
            2 => line += &format!(" /{name} merge"),
            _ => {}
        }
        for stage in Stage::ALL {
            if random.u8(..4) == 0 {
                line += &format!(" !{stage}");
            }
        }
        let mut at = 0;
        for time in ["d", "a", "o", "x"] {
            at += random.i64(0..400);
            if random.u8(..5) == 0 {
                line += &format!(" {time}{at}");
            }
        }
        // One may depend on the one before it.
        if let Some(before) = lines.last().filter(|_| random.u8(..3) == 0) {
            let before = before.split('@').next().unwrap();
            line += &format!(" <{before}");
        }
        lines.push(line);
    }
    lines.join("; ")
}

/// How an act goes wrong, if it does.
fn any_end(random: &mut fastrand::Rng, what: What) -> Option<Outcome> {
    let is_script = matches!(what, What::Run(_));
    match random.u8(..8) {
        0 if is_script => exit(1),
        1 if is_script => exit([210, 220][usize::from(random.bool())]),
        // A disk that does not let us put things back is beyond this model.
        2 if what != What::GoBack => Some(failed("no")),
        _ => None,
    }
}

/// What is done at one time, until nothing is left to do, or the device is broken off.
fn live(device: &mut Device, world: &mut World, manifest: &Manifest, chance: &mut fastrand::Rng) {
    for _ in 0..100 {
        device.state.settle(manifest, device.now);
        let Some(act) = next(&device.state, manifest, device.now).act else {
            return;
        };
        if act.what == What::Install {
            let item = manifest.item(&act.fileset).unwrap();
            for name in &item.depends {
                let aim = device.state.filesets[name].aim.as_ref().unwrap();
                assert!(aim.is_settled(), "{act:?} before {name}");
            }
        }
        device.state.begin(&act, manifest, device.now);
        let crash = chance.u8(..8);
        if crash == 0 {
            return device.state.recover();
        }
        let outcome = any_end(chance, act.what);
        let outcome = outcome.unwrap_or_else(|| world.perform(&act, &device.state));
        if crash == 1 {
            // It was done, and nobody has written it down.
            return device.state.recover();
        }
        device.state.end(&act, outcome, manifest, device.now, 0.5);
    }
    panic!("it never comes to rest: {:#?}", device.state.filesets);
}

/// The same in peace: all goes well.
fn rest(device: &mut Device, world: &mut World, manifest: &Manifest) {
    for _ in 0..100 {
        device.state.settle(manifest, device.now);
        let Some(act) = next(&device.state, manifest, device.now).act else {
            return;
        };
        let outcome = world.perform(&act, &device.state);
        device.state.begin(&act, manifest, device.now);
        device.state.end(&act, outcome, manifest, device.now, 0.5);
    }
    panic!("it never comes to rest: {:#?}", device.state.filesets);
}

fn check_seed(seed: u64) -> u32 {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut device, mut world) = (Device::default(), World::default());
    let mut text = any(&mut random);
    for _ in 0..random.u8(1..40) {
        if random.u8(..5) == 0 {
            text = any(&mut random);
        }
        device.now += random.i64(0..200);
        live(&mut device, &mut world, &manifest(&text), &mut random);
    }
    // Left in peace, with every time in the past; and the operator asks once more for what was
    // given up.
    let last = any(&mut random);
    let mut manifest = manifest(&last);
    let ends = manifest
        .items
        .iter()
        .filter(|item| Phase::at(&item.times, i64::MAX) > Phase::Active);
    let ends: Vec<FilesetName> = ends.map(|item| item.fileset.clone()).collect();
    for item in &mut manifest.items {
        // What waits for something that is over waits for ever.
        item.depends.retain(|name| !ends.contains(name));
        item.heal = vec![HealRule {
            pattern: "again".parse().unwrap(),
            mode: HealMode::SelfHeal,
        }];
    }
    for _ in 0..2 {
        device.now += 100_000;
        rest(&mut device, &mut world, &manifest);
    }
    let mut wanted = BTreeMap::new();
    for item in &manifest.items {
        let holding = &device.state.filesets[&item.fileset];
        if Phase::at(&item.times, device.now) != Phase::Active {
            continue;
        }
        // What counts as installed leaves what was there.
        let skipped = holding.aim.as_ref().unwrap().skipped;
        let there = if skipped {
            holding.active.as_deref()
        } else {
            Some(item)
        };
        wanted.extend(there.map(|item| (World::place(item), (item.revision.0, None))));
    }
    let filesets = &device.state.filesets;
    assert_eq!(world.at, wanted, "seed {seed}, by {last}; {filesets:#?}");
    world.installs
}

#[test]
fn a_device_gets_to_where_it_should_be_whatever_happens_on_the_way() {
    let installs: u32 = (0..1000).map(check_seed).sum();
    assert!(installs > 1000, "too little has happened");
}
