//! What models say, contradict and come to.

mod measure;
mod smart;

use std::collections::BTreeSet;

use content::Digest;

use super::check::{clashes, offenders};
use super::concern::concerned;
use super::resolve::{profile, resolve};
use super::value::Value;
use super::world::{Edits, World};
use super::{GroupName, Key, ModelError};
use crate::testing::estate::{Estate, spec};

/// Edits out of lines: `KEY`, `KEY JSON` or `-KEY`.
fn edits(lines: &str) -> Edits {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let edit = |line: &str| {
        if let Some(key) = line.strip_prefix('-') {
            return (key.parse::<Key>().unwrap(), None);
        }
        let (key, says) = line.split_once(' ').unwrap_or((line, "{}"));
        let key: Key = key.parse().unwrap();
        let value = Value::decode(&key, says).unwrap();
        (key, Some(value))
    };
    lines.map(edit).collect()
}

/// A world in which revisions 1 to 3 of a to f are kept.
fn world(lines: &str) -> World {
    let mut world = World::default().with(&edits(lines));
    for name in ["a", "b", "c", "d", "e", "f"] {
        for number in 1..=3 {
            let key = (name.parse().unwrap(), content::RevisionNumber(number));
            let digest = Digest::of(format!("{name}@{number}").as_bytes());
            world.statements.insert(key, digest);
        }
    }
    world
}

fn filesets(names: &str) -> String {
    let spec = |name: char| spec(&name.to_string(), 1) + "\n";
    names.chars().map(spec).collect()
}

#[test]
fn keys_come_back_and_nonsense_does_not() {
    for good in [
        "fileset/tools",
        "group/North_1",
        "member/g/laptop-1",
        "association/tools/device/laptop-1",
        "association/tools/group/all",
    ] {
        assert_eq!(good.parse::<Key>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "fileset",
        "fileset/",
        "fileset/A",
        "fileset/a/b",
        "group/a b",
        "group/all",
        "member/all/x",
        "member/g",
        "member/g/X",
        "association/a/group",
        "association/a/site/x",
        "other/x",
    ] {
        assert!(bad.parse::<Key>().is_err(), "{bad:?} was taken");
    }
}

#[test]
fn values_come_back_and_are_bounded() {
    let key = |text: &str| text.parse::<Key>().unwrap();
    let check = |at: &str, says: &str, expected: bool| {
        let read = Value::decode(&key(at), says);
        assert_eq!(read.is_ok(), expected, "{at} {says}: {read:?}");
        if let Ok(value) = read {
            assert_eq!(Value::decode(&key(at), &value.encode()).unwrap(), value);
        }
    };
    check("group/g", "{}", true);
    check("group/g", r#"{"rule":"x"}"#, false);
    let association = "association/a/group/g";
    check(
        association,
        r#"{"revision":3,"activate_from":5,"delete_at":5}"#,
        true,
    );
    check(association, r#"{"activate_from":5,"delete_at":4}"#, false);
    check(association, r#"{"until":4}"#, false);
    let fileset = |more: &str, expected| {
        let says = format!(r#"{{"revision":1,"target":"/opt/a","mode":"tree"{more}}}"#);
        check("fileset/a", &says, expected);
    };
    fileset("", true);
    fileset(
        r#","heal":[{"pattern":"etc/**","mode":"if-missing"}]"#,
        true,
    );
    fileset(r#","heal":[{"pattern":"/etc","mode":"if-missing"}]"#, false);
    fileset(r#","heal":[{"pattern":"etc","mode":"never"}]"#, false);
    fileset(r#","depends":["b","c"]"#, true);
    fileset(r#","depends":["B"]"#, false);
    fileset(r#","owner":"root""#, false);
    let script = |stage: &str, bytes: u64| {
        let digest = Digest::of(b"x");
        format!(
            r#","scripts":[{{"stage":"{stage}","name":"x","digest":"{digest}","bytes":{bytes},"seconds":9}}]"#
        )
    };
    fileset(&script("preflight", 1 << 20), true);
    fileset(&script("preflight", (1 << 20) + 1), false);
    fileset(&script("sometime", 1), false);
    check(
        "fileset/a",
        r#"{"revision":1,"target":"/opt/../a","mode":"tree"}"#,
        false,
    );
    check(
        "fileset/a",
        r#"{"revision":1,"target":"/opt/a","mode":"flat"}"#,
        false,
    );
}

#[test]
fn a_device_holds_what_it_is_told() {
    let check = |lines: &str, groups: &[&str], own: &str, expected: &str| {
        let world = world(lines);
        let groups = groups.iter().map(|name| name.parse().unwrap());
        let own = edits(own).into_iter().filter_map(|(key, value)| {
            let (Key::Association(name, _), Some(Value::Association(said))) = (key, value) else {
                return None;
            };
            Some((name, said))
        });
        let profile = profile(&world, groups.collect::<BTreeSet<_>>(), own.collect());
        let mut held = Vec::new();
        for item in resolve(&world, &profile) {
            let when = item.times.activate_from.map(|at| format!(":{at}"));
            held.push(format!(
                "{}@{}{}",
                item.fileset,
                item.revision,
                when.unwrap_or_default()
            ));
        }
        assert_eq!(held.join(" "), expected, "{lines}");
    };
    let ab = filesets("abc");
    let said = |more: &str| format!("{ab}\ngroup/g\ngroup/h\n{more}");
    check(&said(""), &["g"], "", "");
    check(&said("association/b/group/all"), &[], "", "b@1");
    check(&said("association/b/group/g"), &[], "", "");
    check(&said("association/b/group/g"), &["g", "x"], "", "b@1");
    // Its own word counts before its groups', theirs by name, and all's last.
    let many = "association/a/group/all {\"revision\":2}
                association/a/group/h {\"revision\":3}
                association/a/group/g";
    check(&said(many), &["g", "h"], "", "a@1");
    check(&said(many), &["h"], "", "a@3");
    check(&said(many), &[], "", "a@2");
    let own = "association/a/device/x {\"revision\":2,\"activate_from\":9}";
    check(&said(many), &["g", "h"], own, "a@2:9");
    // What is needed comes along, as early as the first who needs it.
    let needs = r#"fileset/a {"revision":1,"target":"/a","mode":"tree","depends":["b"]}
                   fileset/b {"revision":2,"target":"/b","mode":"tree","depends":["c"]}"#;
    let own = "association/a/device/x {\"activate_from\":9}";
    check(&said(needs), &[], own, "a@1:9 b@2:9 c@1:9");
    let both = "association/a/device/x {\"activate_from\":9}
                association/b/device/x {\"activate_from\":5}";
    check(&said(needs), &[], both, "a@1:9 b@2:5 c@1:5");
    // A revision that is not kept cannot be held.
    check(
        &said("association/a/group/all {\"revision\":9}"),
        &[],
        "",
        "",
    );
}

#[test]
fn a_change_concerns_those_who_may_hold_something_else() {
    let check =
        |lines: &str, change: &str, groups: &[&str], devices: &[&str], filesets: &[&str]| {
            let (before, change) = (world(lines), edits(change));
            let concern = concerned(&before, &before.with(&change), &change);
            let names = |it: &[&str]| it.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            let found: Vec<_> = concern.groups.iter().map(ToString::to_string).collect();
            assert_eq!(found, names(groups), "{change:?}");
            assert_eq!(concern.everybody, groups.contains(&GroupName::ALL));
            let found: Vec<_> = concern.devices.iter().map(ToString::to_string).collect();
            assert_eq!(found, names(devices), "{change:?}");
            let found: Vec<_> = concern.filesets.iter().map(ToString::to_string).collect();
            assert_eq!(found, names(filesets), "{change:?}");
        };
    let base = filesets("abc") + "group/g\ngroup/h\nassociation/a/group/g\nassociation/b/group/h";
    check(&base, "group/x", &[], &[], &[]);
    check(&base, "member/g/x", &[], &["x"], &[]);
    check(&base, "-member/g/x", &[], &["x"], &[]);
    check(&base, "association/c/device/x", &[], &["x"], &[]);
    check(&base, "association/c/group/h", &["h"], &[], &[]);
    check(&base, "association/c/group/all", &["all"], &[], &[]);
    check(&base, &spec("a", 2), &["g"], &[], &["a"]);
    check(&base, &spec("c", 2), &[], &[], &["c"]);
    check(
        &base,
        "-fileset/a\n-association/a/group/g",
        &["g"],
        &[],
        &["a"],
    );
    // Whoever holds what needs it is concerned, too.
    let needs = r#"fileset/b {"revision":1,"target":"/b","mode":"tree","depends":["c"]}"#;
    check(
        &format!("{base}\n{needs}"),
        &spec("c", 2),
        &["h"],
        &[],
        &["b", "c"],
    );
}

#[test]
fn what_contradicts_itself_is_named() {
    let check = |lines: &str, change: &str, expected: &[&str]| {
        let change = edits(change);
        let found = offenders(&world(lines).with(&change), &change);
        assert_eq!(found, expected, "{lines} {change:?}");
    };
    check(&filesets("a"), "association/a/group/all", &[]);
    check(
        "",
        "association/a/group/g\nassociation/a/device/x {\"revision\":9}\nmember/h/x",
        &[
            "association/a/group/g: fileset/a is not in the model",
            "association/a/group/g: group/g is not in the model",
            "member/h/x: group/h is not in the model",
            "association/a/device/x: fileset/a is not in the model",
            "association/a/device/x names a@9, which is not kept",
        ],
    );
    let needs = |name: &str, other: &str| {
        format!(
            r#"fileset/{name} {{"revision":1,"target":"/{name}","mode":"tree","depends":["{other}"]}}"#
        )
    };
    check(
        "",
        &needs("a", "b"),
        &["fileset/a depends on b, which is not in the model"],
    );
    let circle = format!(
        "{}\n{}\n{}",
        needs("a", "b"),
        needs("b", "a"),
        needs("c", "a")
    );
    check("", &circle, &["filesets depend in a circle: a, b, c"]);
    check(
        "",
        &spec("a", 9),
        &["fileset/a names a@9, which is not kept"],
    );
}

#[test]
fn filesets_that_would_share_a_tree_clash() {
    let check = |lines: &str, expected: &[&str]| {
        let held = "association/a/group/all\nassociation/b/group/all\nassociation/c/group/all";
        let world = world(&format!("{lines}\n{held}"));
        let items = resolve(&world, &profile(&world, [], Default::default()));
        assert_eq!(clashes(&items), expected, "{lines}");
    };
    let at = |name: &str, target: &str, mode: &str| {
        format!("fileset/{name} {{\"revision\":1,\"target\":\"{target}\",\"mode\":\"{mode}\"}}\n")
    };
    let two =
        |a: &str, mode_a: &str, b: &str, mode_b: &str| at("a", a, mode_a) + &at("b", b, mode_b);
    check(&two("/x", "tree", "/y", "tree"), &[]);
    check(&two("/x", "tree", "/x-y", "tree"), &[]);
    check(&two("/x", "merge", "/x/y", "merge"), &[]);
    check(&two("/x", "merge", "/x", "merge"), &[]);
    check(
        &two("/x", "tree", "/x", "merge"),
        &["a (/x) and b (/x) are in each other's way"],
    );
    check(
        &two("/x/y", "tree", "/x", "merge"),
        &["b (/x) and a (/x/y) are in each other's way"],
    );
    let three = two("/x", "tree", "/x-y", "tree") + &at("c", "/x/z", "tree");
    check(&three, &["a (/x) and c (/x/z) are in each other's way"]);
}

#[tokio::test]
async fn two_who_edit_the_same_do_not_overwrite_each_other() {
    let estate = Estate::new().await;
    for name in ["a", "b"] {
        estate.publish(name).await;
    }
    estate
        .commit(&[&spec("a", 1), &spec("b", 1)])
        .await
        .unwrap();
    estate.publish("a").await;
    estate.edit(&[&spec("a", 2)]).await.unwrap();
    let edit = |text: &str| {
        let (key, says) = text.split_once(' ').unwrap();
        super::view::Edit {
            key: key.to_owned(),
            says: Some(serde_json::from_str(says).unwrap()),
        }
    };
    // Another draft about something else is in nobody's way.
    let other = spec("b", 1).replace("tree", "merge");
    estate.models.edit("e", &[edit(&other)]).await.unwrap();
    estate.models.commit("e", "b is shared").await.unwrap();
    assert!(estate.models.diff("d").await.unwrap().conflicts.is_empty());
    let same = spec("a", 2).replace("tree", "merge");
    estate.models.edit("f", &[edit(&same)]).await.unwrap();
    estate.models.commit("f", "a is shared").await.unwrap();
    let refusal = estate.models.commit("d", "mine").await.unwrap_err();
    let ModelError::Conflict { keys, base, .. } = &refusal else {
        panic!("{refusal:?}");
    };
    assert_eq!((&keys[..], *base), (&["fileset/a".to_owned()][..], 1));
    estate.models.rebase("d").await.unwrap();
    assert_eq!(estate.models.commit("d", "mine").await.unwrap().model, 4);
}

#[tokio::test]
async fn a_diff_says_who_gets_loses_and_changes_what() {
    let estate = Estate::new().await;
    for name in ["a", "b", "c"] {
        estate.publish(name).await;
        estate.publish(name).await;
    }
    for name in ["one", "two"] {
        estate.enrol(name).await;
    }
    let edits = [
        &spec("a", 1)[..],
        &spec("b", 1),
        &spec("c", 1),
        "association/a/group/all",
        "association/b/device/one",
    ];
    estate.commit(&edits).await.unwrap();
    let edits = [
        &spec("a", 2)[..],
        "-association/b/device/one",
        "association/c/device/two",
        "association/c/device/ghost",
    ];
    estate.edit(&edits).await.unwrap();
    let diff = estate.models.diff("d").await.unwrap();
    let rows: Vec<_> = diff
        .filesets
        .iter()
        .map(|it| (it.fileset.as_str(), it.gain, it.lose, it.change, it.alter))
        .collect();
    assert_eq!(
        rows,
        [("a", 0, 0, 2, 0), ("b", 0, 1, 0, 0), ("c", 1, 0, 0, 0)]
    );
    assert_eq!((diff.devices, diff.unknown), (2, vec!["ghost".to_owned()]));
    let sites: Vec<_> = diff
        .sites
        .iter()
        .map(|it| (&it.site[..], it.devices))
        .collect();
    assert_eq!(sites, [("north", 2)]);
    assert_eq!(
        estate.models.list(None).await.unwrap().len(),
        1,
        "a diff commits nothing"
    );
}

#[tokio::test]
async fn a_rollback_is_a_new_model_that_says_what_the_old_one_did() {
    let estate = Estate::new().await;
    let one = estate.enrol("one").await;
    estate.publish("a").await;
    estate.publish("b").await;
    let first = [&spec("a", 1)[..], "group/g", "association/a/group/all"];
    estate.commit(&first).await.unwrap();
    assert_eq!(estate.holds(&one).await, ("a@1".to_owned(), 1));
    let second = ["-group/g", &spec("b", 1), "association/b/group/all"];
    estate.commit(&second).await.unwrap();
    assert_eq!(estate.holds(&one).await.0, "a@1 b@1");
    let back = estate.models.rollback(1, "b was wrong").await.unwrap();
    assert_eq!((back.model, back.changes, back.devices), (3, 3, 1));
    assert_eq!(estate.holds(&one).await, ("a@1".to_owned(), 3));
    let shown = async |number| estate.models.show(Some(number), "").await.unwrap().entries;
    assert_eq!(shown(3).await, shown(1).await);
    assert_ne!(shown(2).await, shown(1).await);
    let list = estate.models.list(None).await.unwrap();
    assert_eq!(
        list.iter().map(|it| it.of_model).collect::<Vec<_>>(),
        [Some(1), None, None]
    );
    let refusal = estate.models.rollback(3, "again").await.unwrap_err();
    assert!(matches!(refusal, ModelError::Nothing), "{refusal:?}");
}

#[tokio::test]
async fn a_refused_commit_names_all_and_changes_nothing() {
    let estate = Estate::new().await;
    for name in ["one", "two"] {
        estate.enrol(name).await;
    }
    for name in ["a", "b"] {
        estate.publish(name).await;
    }
    let shared = spec("b", 1).replace("/opt/b", "/opt/a/b");
    let edits = [
        &spec("a", 1)[..],
        &shared,
        "group/g",
        "member/g/one",
        "association/a/group/all",
        "association/b/group/all",
        "association/c/group/all",
    ];
    let refusal = estate.commit(&edits).await.unwrap_err();
    let ModelError::Offenders { offenders } = &refusal else {
        panic!("{refusal:?}");
    };
    let clash = "a (/opt/a) and b (/opt/a/b) are in each other's way on 2 devices, such as one";
    let missing = "association/c/group/all: fileset/c is not in the model";
    assert_eq!(offenders[..], [missing.to_owned(), clash.to_owned()]);
    assert!(estate.models.list(None).await.unwrap().is_empty());
    // What is mended is taken, and a group that is still named cannot go.
    let mend = ["-association/b/group/all", "-association/c/group/all"];
    estate.commit(&mend).await.unwrap();
    let refusal = estate.commit(&["-group/g"]).await.unwrap_err();
    let told = refusal.to_string();
    let expected = "group/g is still named by 1 entries, such as member/g/one";
    assert!(told.ends_with(expected), "{told}");
}
