//! What is refused, and what is taken.

use expect_test::{Expect, expect};

use super::*;

fn check(text: &str, expected: Expect) {
    let error = ::config::parse::<Config>(Path::new("b.toml"), text).unwrap_err();
    let error = error.to_string();
    expected.assert_eq(&error.replace("cannot use the settings in b.toml, ", ""));
}

#[test]
fn the_example_holds_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/booster.toml");
    let defaults = Config::with_data("/var/lib/larder-booster".into());
    assert_eq!(Config::load(&example).unwrap(), defaults);
}

#[test]
fn what_cannot_be_is_refused() {
    check("", expect!["line 1: missing field `data`"]);
    check(
        "data = \"d\"",
        expect![[r#"line 1: `data` is "d": want an absolute path"#]],
    );
    check(
        "data = \"/d\"\n[cache]\ndisk = \"1 MiB\"",
        expect!["line 1: `cache.disk` is 1.0 MiB: want at least one pack, 8 MiB"],
    );
    check(
        "data = \"/d\"\n[cache]\ndisk = \"100 MiB\"\nmemory = \"256 MiB\"",
        expect!["line 1: `cache.memory` is 256.0 MiB, over `cache.disk` (100.0 MiB)"],
    );
    check(
        "data = \"/d\"\n[cache]\nfill_memory = \"1 MiB\"",
        expect!["line 1: `cache.fill_memory` is 1.0 MiB: want at least one pack, 8 MiB"],
    );
    check(
        "data = \"/d\"\n[cache]\nfills = 0",
        expect!["line 1: `cache.fills` is 0: want 1 to 64"],
    );
    check(
        "data = \"/d\"\n[cache]\nscrub = \"1m\"",
        expect!["line 1: `cache.scrub` is 1m: want 1h to 365d"],
    );
    check(
        "data = \"/d\"\n[cache]\nscrub_rate = \"1 KiB\"",
        expect!["line 1: `cache.scrub_rate` is 1.0 KiB: want at least 64 KiB in a second"],
    );
    check(
        "data = \"/d\"\n[revocation]\npoll = \"1d\"",
        expect!["line 1: `revocation.poll` is 1d: want 1s to 1h"],
    );
    check(
        "data = \"/d\"\n[revocation]\ngrace = \"31d\"",
        expect!["line 1: `revocation.grace` is 31d: want 0s to 30d"],
    );
    check(
        "data = \"/d\"\n[upstream]\nparents = [\"10.0.0.2:7543\"]",
        expect![[
            r#"line 3, key `upstream.parents`: "10.0.0.2:7543" is no parent: want ID@HOST:PORT, such as oslo@10.0.0.2:7543"#
        ]],
    );
    check(
        "data = \"/d\"\n[content]\nconnections = 0",
        expect!["line 1: `content.connections` is 0: want at least one"],
    );
    check(
        "data = \"/d\"\n[ops]\nport = 1",
        expect!["line 3, key `ops.port`: unknown field `port`, expected `listen`"],
    );
}

#[test]
fn a_line_that_cannot_be_is_refused() {
    check(
        "data = \"/d\"\n[wan]\nrate = \"1 kbit/s\"",
        expect!["line 1: `wan.rate` is 1 kbit/s: want at least 256 kbit/s"],
    );
    check(
        "data = \"/d\"\n[wan]\nprefetch = \"1 kbit/s\"",
        expect!["line 1: `wan.prefetch` is 1 kbit/s: want 0, or at least 256 kbit/s"],
    );
    check(
        "data = \"/d\"\n[wan]\nzone = \"Mars/Olympus\"",
        expect![[
            r#"line 1: `wan.zone` is "Mars/Olympus": want a time zone such as Europe/Berlin, or "" for the machine's"#
        ]],
    );
    check(
        "data = \"/d\"\n[[wan.times]]\ndays = \"weekend\"\nfrom = \"1\"\nuntil = \"2\"",
        expect![[
            r#"line 1: `wan.times.days`: cannot read "weekend": want days, such as mon-fri, "sat, sun" or daily"#
        ]],
    );
}

#[test]
fn the_line_has_limits_by_the_hour() {
    let text = r#"
        data = "/d"
        [wan]
        rate = "20 Mbit/s"
        zone = "Europe/Berlin"
        [[wan.times]]
        days = "mon-fri"
        from = "07:00"
        until = "19:00"
        prefetch = "0"
    "#;
    let config: Config = ::config::parse(Path::new("b.toml"), text).unwrap();
    let shown = |time: &str| {
        let at: jiff::Timestamp = time.parse().unwrap();
        config.wan().at(at.as_second()).to_string()
    };
    let (day, night) = ("2026-11-23T12:00:00Z", "2026-11-23T20:00:00Z");
    assert_eq!(shown(day), "20 Mbit/s in all, 0 ahead of time");
    assert_eq!(shown(night), "20 Mbit/s in all, unlimited ahead of time");
}
