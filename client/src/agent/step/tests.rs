//! What comes next, as tables; and a device that is put through everything, and always gets there.

mod model;
mod settings;
mod verify;

use content::statement::{InstallMode, Item, Manifest, Script, Stage, Times};
use content::{Digest, FilesetName, RevisionNumber};

use super::*;
use crate::agent::ended::Outcome;

/// What `text` says in short: `NAME@REVISION`, then words: `/target`, `merge`, `<OTHER` (needs it),
/// `d5 a6 o7 x8` (times of download, activation, deactivation, deletion), `!STAGE` (a script).
pub(crate) fn item(text: &str) -> Item {
    let mut words = text.split_whitespace();
    let (name, revision) = words.next().unwrap().split_once('@').unwrap();
    let mut item = Item {
        fileset: name.parse().unwrap(),
        revision: RevisionNumber(revision.parse().unwrap()),
        statement: Digest::of(format!("{name}@{revision}").as_bytes()),
        target: format!("/{name}"),
        mode: InstallMode::Tree,
        times: Times::default(),
        heal: Vec::new(),
        depends: Vec::new(),
        scripts: Vec::new(),
    };
    for word in words {
        let (kind, rest) = word.split_at(1);
        let time = || Some(rest.parse().unwrap());
        match kind {
            "/" => item.target = word.to_owned(),
            "<" => item.depends.push(rest.parse().unwrap()),
            "!" => item.scripts.push(script(Stage::from_word(rest).unwrap())),
            "d" => item.times.download_from = time(),
            "a" => item.times.activate_from = time(),
            "o" => item.times.deactivate_at = time(),
            "x" => item.times.delete_at = time(),
            _ => item.mode = InstallMode::from_word(word).unwrap(),
        }
    }
    item.scripts.sort_by_key(|script| script.stage);
    item
}

fn script(stage: Stage) -> Script {
    Script {
        stage,
        name: stage.to_string(),
        digest: Digest::of(stage.word().as_bytes()),
        bytes: 1,
        seconds: 60,
    }
}

/// The manifest with these items, a line each.
pub(crate) fn manifest(text: &str) -> Manifest {
    let lines = text
        .split(';')
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let mut items: Vec<Item> = lines.map(item).collect();
    items.sort_by(|one, other| one.fileset.cmp(&other.fileset));
    Manifest {
        deployment: "d1".to_owned(),
        device: "one".to_owned(),
        number: 1,
        model: 1,
        created: 0,
        items,
    }
}

/// An act in short: `what NAME`.
fn short(act: &Act) -> String {
    let what = if let What::Run(stage) = act.what {
        stage.to_string()
    } else {
        format!("{:?}", act.what).to_lowercase()
    };
    format!("{what} {}", act.fileset)
}

/// A device, and what happens to its scripts.
#[derive(Default)]
struct Device {
    state: State,
    now: i64,
}

impl Device {
    /// Goes on until nothing is left to do at this time; tells what was done. `fate` says how an
    /// act ends; none for well.
    fn run(&mut self, text: &str, fate: impl Fn(&str) -> Option<Outcome>) -> String {
        let manifest = manifest(text);
        let mut done = Vec::new();
        for _ in 0..100 {
            self.state.settle(&manifest, self.now);
            let Some(act) = next(&self.state, &manifest, self.now).act else {
                return done.join(", ");
            };
            let shown = short(&act);
            let outcome = fate(&shown).unwrap_or_else(|| self.well(&act));
            self.state.begin(&act, &manifest, self.now);
            // What is written is what is read.
            let written = serde_json::to_vec(&self.state).unwrap();
            let read: State = serde_json::from_slice(&written).unwrap();
            assert_eq!(read, self.state);
            self.state.end(&act, outcome, &manifest, self.now, 1.0);
            done.push(shown);
        }
        panic!("it never ends: {}", done.join(", "));
    }

    fn well(&self, act: &Act) -> Outcome {
        match act.what {
            What::Download => Outcome::Downloaded {
                locator: Digest::of(b"locator"),
                sources: Vec::new(),
            },
            What::GoBack => {
                let previous = self.state.filesets[&act.fileset].previous.as_ref();
                let to = previous.map(|kept| kept.revision.0);
                Outcome::WentBack { to }
            }
            What::Adopt => Outcome::Adopted {
                text: String::new(),
            },
            What::Run(_)
            | What::Install
            | What::Confirm
            | What::TakeAway
            | What::Uninstall
            | What::Discard
            | What::Verify => Outcome::Done,
        }
    }

    fn told(&self, name: &str) -> String {
        let name: FilesetName = name.parse().unwrap();
        let result = &self.state.results[&name];
        let note = if result.note.is_empty() { "" } else { ": " };
        format!(
            "{}@{}{note}{}",
            result.state.word(),
            result.revision,
            result.note
        )
    }
}

fn exit(code: i32) -> Option<Outcome> {
    let note = format!("exit {code}");
    Some(Outcome::Exit {
        code: Some(code),
        note,
    })
}

/// One moment after the other: (time, manifest, what is done then).
type Moment<'a> = (i64, &'a str, &'a str);

/// Plays `moments`; an act that is named in `codes` ends with that exit code.
#[track_caller]
fn check_with(codes: &[(&str, i32)], moments: &[Moment<'_>]) -> Device {
    let mut device = Device::default();
    for (now, manifest, expected) in moments {
        device.now = *now;
        let done = device.run(manifest, |act| {
            let code = codes.iter().find(|(name, _)| *name == act);
            code.and_then(|(_, code)| exit(*code))
        });
        assert_eq!(done, *expected, "at {now} by {manifest}");
    }
    device
}

#[track_caller]
fn check(moments: &[Moment<'_>]) -> Device {
    check_with(&[], moments)
}

#[test]
fn times_are_kept() {
    let text = "a@1 d10 a20 o30 x40";
    let device = check(&[
        (5, text, ""),
        (10, text, "download a"),
        (19, text, ""),
        (20, text, "install a, confirm a"),
        (30, text, "uninstall a"),
        (39, text, ""),
        (40, text, ""),
    ]);
    assert_eq!(device.told("a"), "removed@1");
    let at = |now: i64| {
        let mut device = Device {
            now,
            ..Device::default()
        };
        device.run(text, |_| None);
        next(&device.state, &manifest(text), now).look_again_at
    };
    let asked: Vec<_> = [5, 10, 15, 20, 30, 40].map(at).into();
    assert_eq!(
        asked,
        [Some(10), Some(20), Some(20), Some(30), Some(40), None]
    );
}

#[test]
fn what_is_downloaded_and_is_deleted_before_it_was_active_is_discarded() {
    let device = check(&[
        (0, "a@1 a20", "download a"),
        (1, "", "discard a"),
        (2, "", ""),
    ]);
    assert_eq!(device.told("a"), "removed@1");
    assert_eq!(device.state.filesets.len(), 0);
}

#[test]
fn a_fileset_that_leaves_is_taken_away_between_its_scripts() {
    let scripts = "a@1 !requirement !preflight !activation !postflight !verification \
                   !pre-uninstall !post-uninstall";
    let device = check(&[
        (
            0,
            scripts,
            "requirement a, download a, preflight a, install a, activation a, postflight a, \
             verification a, confirm a",
        ),
        (1, "", "pre-uninstall a, uninstall a, post-uninstall a"),
        (2, "", ""),
    ]);
    assert_eq!(device.told("a"), "removed@1");
}

#[test]
fn a_new_revision_takes_the_old_ones_place() {
    let device = check(&[
        (0, "a@1", "download a, install a, confirm a"),
        (1, "a@2 d5 a9", ""),
        (5, "a@2 d5 a9", "download a"),
        (9, "a@2 d5 a9", "install a, confirm a"),
        // The same content by another manifest asks for nothing.
        (10, "a@2 o50 !verification", ""),
    ]);
    assert_eq!(device.told("a"), "active@2");
}

#[test]
fn what_comes_waits_for_what_it_depends_on() {
    check(&[
        (0, "a@1 <b; b@1 a5", "download a, download b"),
        (
            5,
            "a@1 <b; b@1 a5",
            "install b, confirm b, install a, confirm a",
        ),
        (6, "", "uninstall a, uninstall b"),
    ]);
    // It goes by the name, and a fileset that is called earlier goes later if another needs it.
    check(&[
        (
            0,
            "a@1; b@1 <a",
            "download a, install a, confirm a, download b, install b, confirm b",
        ),
        (6, "", "uninstall b, uninstall a"),
    ]);
}

#[test]
fn requirements_are_asked_before_anything_that_hangs_on_them_is_fetched() {
    let text = "a@1 <b !requirement; b@1";
    check(&[(
        0,
        text,
        "requirement a, download a, download b, install b, confirm b, install a, confirm a",
    )]);
    let device = check_with(
        &[("requirement a", 1)],
        &[(0, text, "requirement a, download b, install b, confirm b")],
    );
    assert_eq!(device.told("a"), "waiting@1: exit 1");
}

#[test]
fn exit_codes_say_what_becomes_of_it() {
    let text = "a@1 !preflight; b@1 <a";
    // Counts as installed, and nothing is.
    let device = check_with(
        &[("preflight a", 210)],
        &[(
            0,
            text,
            "download a, preflight a, download b, install b, confirm b",
        )],
    );
    assert_eq!(
        device.told("a"),
        "active@1: a script says that it counts as installed"
    );
    // Never again, until the manifest says something else of it.
    let device = check_with(
        &[("preflight a", 220)],
        &[
            (0, text, "download a, preflight a, download b"),
            (9999, text, ""),
            (10_000, "a@1 !preflight; b@1 <a; c@1 a99999", "download c"),
            (
                10_001,
                "a@1 !preflight a7; b@1 <a",
                "preflight a, discard c",
            ),
        ],
    );
    assert_eq!(device.told("a"), "failed@1: exit 220");
    // Two minutes later.
    check_with(
        &[("preflight a", 7)],
        &[
            (0, "a@1 !preflight", "download a, preflight a"),
            (119, "a@1 !preflight", ""),
            (120, "a@1 !preflight", "preflight a"),
            (239, "a@1 !preflight", ""),
            (240, "a@1 !preflight", "preflight a"),
        ],
    );
}

#[test]
fn a_script_can_delay_a_removal_and_not_prevent_it() {
    let text = "a@1 !pre-uninstall";
    let gone = "pre-uninstall a, uninstall a";
    let first = (0, text, "download a, install a, confirm a");
    check_with(&[("pre-uninstall a", 220)], &[first, (1, "", gone)]);
    let mut moments = vec![first];
    moments.extend((0..30).map(|at| (1 + at * 120, "", "pre-uninstall a")));
    moments.push((1 + 30 * 120, "", gone));
    check_with(&[("pre-uninstall a", 1)], &moments);
}

#[test]
fn what_fails_after_it_was_installed_makes_way_for_what_was_there_before() {
    let device = check_with(
        &[("verification a", 1)],
        &[
            (0, "a@1", "download a, install a, confirm a"),
            (
                1,
                "a@2 !verification",
                "download a, install a, verification a, goback a",
            ),
            (120, "a@2 !verification", ""),
            (
                121,
                "a@2 !verification",
                "install a, verification a, goback a",
            ),
            // And longer each time.
            (360, "a@2 !verification", ""),
            (
                361,
                "a@2 !verification",
                "install a, verification a, goback a",
            ),
            (400, "a@3", "download a, install a, confirm a"),
        ],
    );
    assert_eq!(device.told("a"), "active@3");
    let mut device = Device::default();
    device.run("a@1", |_| None);
    device.run("a@2 !activation", |act| {
        if act == "activation a" { exit(3) } else { None }
    });
    assert_eq!(device.told("a"), "failed@2: exit 3");
    let holding = device.state.filesets.values().next().unwrap();
    assert_eq!(holding.active.as_ref().unwrap().revision.0, 1);
}

#[test]
fn what_two_filesets_have_is_never_missing_while_one_hands_over_to_the_other() {
    let merge = "download b, install b, confirm b, uninstall a";
    check(&[
        (0, "a@1 /t merge", "download a, install a, confirm a"),
        (1, "b@1 /t/u merge", merge),
    ]);
    check(&[
        (0, "a@1 /t", "download a, install a, confirm a"),
        (1, "b@1 /t", merge),
    ]);
    // There is no room for both: the old one goes at once.
    check(&[
        (0, "a@1 /t", "download a, install a, confirm a"),
        (
            1,
            "b@1 /t/u",
            "uninstall a, download b, install b, confirm b",
        ),
    ]);
    // Not due yet: the old one goes when it has to.
    check(&[
        (0, "a@1 /t merge", "download a, install a, confirm a"),
        (1, "b@1 /t merge a9", "uninstall a, download b"),
    ]);
    // It stays as long as the new one may come, and goes when that has failed for good.
    let text = "b@1 /t merge !preflight";
    check_with(
        &[("preflight b", 1)],
        &[
            (0, "a@1 /t merge", "download a, install a, confirm a"),
            (1, text, "download b, preflight b"),
            (9, text, ""),
        ],
    );
    check_with(
        &[("preflight b", 220)],
        &[
            (0, "a@1 /t merge", "download a, install a, confirm a"),
            (1, text, "download b, preflight b, uninstall a"),
        ],
    );
    // Who would wait in a circle does not.
    check(&[
        (0, "a@1 /t merge", "download a, install a, confirm a"),
        (
            1,
            "b@1 /t merge <c; c@1 /t/c",
            "uninstall a, download b, download c, install c, confirm c, install b, confirm b",
        ),
    ]);
}

#[test]
fn a_fileset_that_moves_leaves_its_old_place_when_it_can() {
    check(&[
        (0, "a@1 /old", "download a, install a, confirm a"),
        (
            1,
            "a@1 /new",
            "download a, install a, confirm a, takeaway a",
        ),
        (2, "a@1 /new/inner a9", "download a"),
        (9, "a@1 /new/inner a9", "takeaway a, install a, confirm a"),
        (
            10,
            "a@1 /new/inner merge",
            "download a, takeaway a, install a, confirm a",
        ),
        (11, "", "uninstall a"),
    ]);
}

#[test]
fn a_manifest_that_changes_its_mind_is_followed() {
    let mut device = Device::default();
    device.run("a@1", |_| None);
    // In the middle of a fileset that is not confirmed.
    let text = "a@2 !activation";
    let broken = device.run(text, |act| (act == "activation a").then(|| failed("no")));
    assert_eq!(broken, "download a, install a, activation a, goback a");
    // In the middle of a removal.
    let going = "a@1 !pre-uninstall";
    let mut device = Device::default();
    device.run(going, |_| None);
    let stuck = device.run("", |act| (act == "uninstall a").then(|| failed("busy")));
    assert_eq!(stuck, "pre-uninstall a, uninstall a");
    assert_eq!(device.told("a"), "failed@1: busy");
    let back = device.run(going, |_| None);
    assert_eq!(back, "download a, install a, confirm a");
    assert_eq!(device.told("a"), "active@1");
}

fn failed(note: &str) -> Outcome {
    Outcome::Failed {
        note: note.to_owned(),
    }
}
