//! What can be set, and what is refused.

use expect_test::{Expect, expect};

use super::*;

fn check(text: &str, expected: Expect) {
    let error = ::config::parse::<Config>(Path::new("o.toml"), text).unwrap_err();
    expected.assert_eq(
        &error
            .to_string()
            .replace("cannot use the settings in o.toml, ", ""),
    );
}

#[test]
fn the_example_holds_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/origin.toml");
    let defaults = Config::with_data("/var/lib/larder-origin".into());
    assert_eq!(Config::load(&example).unwrap(), defaults);
}

#[test]
fn what_cannot_be_is_refused() {
    check("", expect!["line 1: missing field `data`"]);
    check(
        "data = \"/d\"\n[certificates]\nclient = \"1m\"",
        expect!["line 1: `certificates.client` is 1m: want 1h to 366d"],
    );
    check(
        "data = \"/d\"\n[check_in]\ninterval = \"10s\"",
        expect!["line 1: `check_in.interval` is 10s: want 15s to 1d"],
    );
    check(
        "data = \"/d\"\n[content]\nconnections = 0",
        expect!["line 1: `content.connections` is 0: want at least one"],
    );
    check(
        "data = \"d\"",
        expect![[r#"line 1: `data` is "d": want an absolute path"#]],
    );
    check(
        "data = \"/d\"\n[enrol]\npending_max = 3",
        expect!["line 1: `enrol.pending_per_address_max` is over `enrol.pending_max`"],
    );
    check(
        "data = \"/d\"\n[enrol]\nprotocol_min = 9",
        expect!["line 1: `enrol.protocol_min` is 9: this release speaks 1 to 1"],
    );
}
