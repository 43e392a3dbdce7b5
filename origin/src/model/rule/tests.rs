//! What rules say, and of whom.

use std::cmp::Ordering;

use expect_test::{Expect, expect};
use protocol::{Disk, FilesetHeld, FilesetState, Inventory, Software, System};

use super::*;

fn desk() -> Inventory {
    let package = |name: &str, version: &str| Software {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: String::new(),
    };
    let held = FilesetHeld {
        revision: 3,
        state: FilesetState::Active,
    };
    Inventory {
        system: System {
            hostname: "desk-7".to_owned(),
            os: "debian".to_owned(),
            os_version: "12".to_owned(),
            kernel: "6.1.0-9-amd64".to_owned(),
            cpus: 4,
            memory: 8 << 30,
            ..System::default()
        },
        disks: vec![Disk {
            mount: "/".to_owned(),
            kind: "ext4".to_owned(),
            size: 100 << 30,
            free: 9 << 30,
        }],
        software: vec![
            package("openssl", "3.0.9-1"),
            package("linux-image", "6.1.0-9"),
            package("linux-image", "6.1.0-13"),
            package("libstdc++6", "12.2.0"),
        ],
        filesets: [("tools".to_owned(), held)].into(),
        fields: [("room".to_owned(), "Haus 3".to_owned())].into(),
    }
}

fn holds(rule: &str, inventory: &Inventory, seen_at: Option<i64>) -> bool {
    let id = "desk".parse().unwrap();
    let facts = Facts {
        id: &id,
        group: Some("north"),
        inventory,
        told_at: None,
        seen_at,
        now: 100 * 86_400,
    };
    rule.parse::<Rule>().unwrap().holds(&facts)
}

#[test]
fn a_device_is_in_if_what_it_says_fits() {
    for yes in [
        "os = debian",
        "os = debian and os.version >= 12 and not os.version >= 13",
        "os.version < 100",
        "os = arch or (os = debian and os.version = 12)",
        "os = debian or os = arch and os = none",
        "not (os = debian and os = arch)",
        "hostname ~ desk-*",
        "hostname ~ \"?esk-?\"",
        "software.openssl < 3.0.15",
        "software.linux-image = 6.1.0-13 and software.linux-image = 6.1.0-9",
        "software.libstdc++6 > 12.1",
        "has software.openssl and not has software.vim",
        "fileset.tools = active",
        "field.room = \"Haus 3\"",
        "memory >= 8GiB and memory < 9GiB and cpus = 4",
        "disk.free < 10GiB",
        "disk.size = 100GiB",
        "seen > 7d and seen < 11d and has seen",
        "not has told",
        "id = desk and group = north",
        "kernel >= 6.1.0-8-amd64",
        // What is not there is neither equal nor unequal.
        "not (software.vim != 1) and not (software.vim = 1)",
        "not os.name = \"\"",
    ] {
        assert!(holds(yes, &desk(), Some(90 * 86_400)), "{yes}");
    }
    let nobody = Inventory::default();
    for no in [
        "os = debian",
        "os != debian",
        "cpus < 5",
        "disk.free < 1TB",
        "seen > 1d",
    ] {
        assert!(!holds(no, &nobody, None), "{no}");
    }
    assert!(
        holds("seen < 1s", &nobody, Some(i64::MAX)),
        "a clock was set back"
    );
}

#[test]
fn versions_are_in_order() {
    // Each before the next.
    let order = [
        "",
        "1.0~~",
        "1.0~rc1",
        "1.0",
        "1.0-1",
        "1.0-1.1",
        "1.0a",
        "1.0+b1",
        "1.0.1",
        "1.2",
        "1.10",
        "1.10-2",
        "1.10-10",
        "2",
        "20240101",
        "99999999999999999999999",
        "1:0.1",
        "1:0.1-2",
        "2:0",
    ];
    for (at, a) in order.iter().enumerate() {
        for (other, b) in order.iter().enumerate() {
            assert_eq!(version::order(a, b), at.cmp(&other), "{a:?} and {b:?}");
        }
    }
    for (a, b) in [("1.0", "1.00"), ("0:1", "1"), ("1-0", "1"), ("1.", "1.0")] {
        assert_eq!(version::order(a, b), Ordering::Equal, "{a} and {b}");
    }
}

#[test]
fn patterns_end() {
    let check = |pattern: &str, text: &str, expected| {
        assert_eq!(glob::fits(pattern, text), expected, "{pattern} and {text}");
    };
    check("", "", true);
    check("", "a", false);
    check("*", "", true);
    check("a*b*c", "aXbYbZc", true);
    check("a*b*c", "aXbYcZ", false);
    check("?", "ü", true);
    check("?", "", false);
    check(&format!("{}b", "a*".repeat(100)), &"a".repeat(256), false);
}

#[test]
fn what_is_no_rule_says_where_and_why() {
    let check = |text: &str, expected: Expect| {
        expected.assert_eq(&text.parse::<Rule>().unwrap_err().to_string());
    };
    check(
        "",
        expect!["cannot use the rule at character 1: want a field, not, has or a parenthesis"],
    );
    check(
        "os",
        expect!["cannot use the rule at character 3: want one of = != < <= > >= ~"],
    );
    check(
        "os =",
        expect!["cannot use the rule at character 5: want a value"],
    );
    check(
        "os = a b",
        expect!["cannot use the rule at character 8: want and, or, or nothing more"],
    );
    check(
        "(os = a",
        expect!["cannot use the rule at character 8: want and, or, or a closing parenthesis"],
    );
    check(
        "os = \"a",
        expect!["cannot use the rule at character 6: the quotes are never closed"],
    );
    check(
        "os = a & os = b",
        expect!["cannot use the rule at character 8: '&' can only stand in quotes"],
    );
    check(
        "mood = good",
        expect![
            "cannot use the rule at character 1: there is no field mood: want one of id, group, hostname, os, os.version, os.name, kernel, arch, agent, cpus, memory, disk.free, disk.size, seen, told, software.NAME, fileset.NAME, field.NAME"
        ],
    );
    check(
        "memory > much",
        expect!["cannot use the rule at character 10: want a size, such as 8GiB"],
    );
    check(
        "seen > long",
        expect!["cannot use the rule at character 8: want a time, such as 7d"],
    );
    check(
        "seen = 7d",
        expect!["cannot use the rule at character 6: that cannot be asked of this field"],
    );
    check(
        "cpus ~ 4",
        expect!["cannot use the rule at character 6: that cannot be asked of this field"],
    );
    let deep = format!("{}os = a{}", "(".repeat(40), ")".repeat(40));
    check(
        &deep,
        expect!["cannot use the rule at character 34: it is nested over 32 deep"],
    );
    check(
        &"not ".repeat(1000),
        expect!["cannot use the rule at character 133: it is nested over 32 deep"],
    );
    check(
        &vec!["os=a"; 257].join(" or "),
        expect!["cannot use the rule at character 2049: it has more than 256 tests"],
    );
    check(
        &"x".repeat(5000),
        expect!["cannot use the rule at character 0: it has more than 4096 bytes"],
    );
}

#[test]
fn a_rule_knows_what_it_needs() {
    let check = |text: &str, software, look| {
        let needs = text.parse::<Rule>().unwrap().needs();
        assert_eq!(needs, Needs { software, look }, "{text}");
    };
    check("os = a", false, false);
    check("os = a and not (has software.x or os = b)", true, false);
    check("os = a or seen > 1d", false, true);
    check("group = a", false, true);
}
