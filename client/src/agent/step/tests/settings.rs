//! Filesets that bring settings: tried by a check-in before they are confirmed.

use super::*;

const FOLDER: &str = "/s";

/// A device on which filesets at `/s` bring settings: what they are called.
fn device() -> Device {
    let mut device = Device::default();
    device.state.settings_at = Some(FOLDER.to_owned());
    device
}

/// The same, which has gone by those of `a@1` for a while.
fn settled() -> Device {
    let mut device = device();
    device.adopt("a@1 /s");
    device.try_out("a@1 /s", None);
    device.adopt("a@1 /s");
    device
}

impl Device {
    /// Does what `text` asks for; what a revision brings is its name.
    fn adopt(&mut self, text: &str) -> String {
        let wanted = text
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        self.run(text, |act| {
            let text = wanted.clone();
            act.starts_with("adopt")
                .then_some(Outcome::Adopted { text })
        })
    }

    fn try_out(&mut self, text: &str, failure: Option<&str>) {
        self.state.tried(failure, &manifest(text), self.now);
    }

    fn in_force(&self) -> &str {
        let adopted = self.state.in_force(Some(FOLDER));
        adopted.map_or("", |adopted| adopted.text.as_str())
    }
}

#[test]
fn settings_are_confirmed_once_a_check_in_has_worked_under_them() {
    let mut device = device();
    let done = device.adopt("a@1 /s; b@1");
    assert_eq!(
        done,
        "download a, install a, adopt a, download b, install b, confirm b"
    );
    assert_eq!(device.in_force(), "a@1");
    assert!(device.state.is_on_trial());
    // Killed here, it is still on trial.
    device.state.recover();
    assert_eq!(device.adopt("a@1 /s; b@1"), "");
    device.try_out("a@1 /s; b@1", None);
    assert_eq!(device.adopt("a@1 /s; b@1"), "confirm a");
    assert_eq!(device.told("a"), "active@1");
    assert!(!device.state.is_on_trial());
    // The next ones take their place, and with the fileset they go.
    assert_eq!(
        device.adopt("a@2 /s"),
        "uninstall b, download a, install a, adopt a"
    );
    assert_eq!(device.in_force(), "a@2");
    device.try_out("a@2 /s", None);
    device.adopt("a@2 /s");
    assert_eq!(device.state.adopted.len(), 1);
    assert_eq!(device.adopt(""), "uninstall a");
    assert_eq!((device.in_force(), device.state.adopted.len()), ("", 0));
}

#[test]
fn settings_under_which_no_check_in_works_go_back_and_are_tried_again_later() {
    let mut device = settled();
    device.adopt("a@2 /s");
    device.try_out("a@2 /s", Some("nobody"));
    device.try_out("a@2 /s", Some("nobody"));
    assert_eq!(device.in_force(), "a@2");
    device.try_out("a@2 /s", Some("nobody"));
    // Before anything else is done.
    assert_eq!(device.in_force(), "");
    assert_eq!(device.adopt("a@2 /s"), "goback a");
    assert_eq!(device.in_force(), "a@1");
    assert_eq!(
        device.told("a"),
        "failed@2: with these settings, 3 check-ins failed: nobody"
    );
    // What was tried counts once.
    device.try_out("a@2 /s", Some("nobody"));
    device.now = 119;
    assert_eq!(device.adopt("a@2 /s"), "");
    device.now = 120;
    assert_eq!(device.adopt("a@2 /s"), "install a, adopt a");
    assert_eq!(device.in_force(), "a@2");
    // Two that fail are not three, if one works between them.
    device.try_out("a@2 /s", Some("nobody"));
    device.try_out("a@2 /s", None);
    device.adopt("a@2 /s");
    assert_eq!(device.told("a"), "active@2");
}

#[test]
fn settings_that_cannot_be_used_go_back_at_once_and_for_good() {
    let mut device = settled();
    let bad = |act: &str| {
        let note = "line 2".to_owned();
        (act == "adopt a").then_some(Outcome::Unusable { note })
    };
    let done = device.run("a@2 /s", bad);
    assert_eq!(done, "download a, install a, adopt a, goback a");
    assert_eq!(device.in_force(), "a@1");
    assert_eq!(device.told("a"), "failed@2: line 2");
    device.now = 1_000_000;
    assert_eq!(device.run("a@2 /s", bad), "");
    // The first of all goes back to what the device says itself.
    let mut device = self::device();
    device.run("a@1 /s", bad);
    assert_eq!((device.in_force(), device.state.filesets.len()), ("", 1));
    assert_eq!(device.told("a"), "failed@1: line 2");
}

#[test]
fn settings_that_cannot_be_put_away_are_not_in_force() {
    let mut device = settled();
    device.adopt("a@2 /s");
    for _ in 0..3 {
        device.try_out("a@2 /s", Some("nobody"));
    }
    let stuck = |act: &str| {
        let note = "the disk is full".to_owned();
        (act == "goback a").then_some(Outcome::Failed { note })
    };
    assert_eq!(device.run("a@2 /s", stuck), "goback a");
    assert_eq!(device.in_force(), "");
    // They are tried again as if they had just come.
    device.now = 100_000;
    assert_eq!(device.adopt("a@2 /s"), "download a, install a, adopt a");
    assert!(device.state.is_on_trial());
}

#[test]
fn nobody_tries_what_an_operator_has_taken_back_meanwhile() {
    let mut device = settled();
    device.adopt("a@2 /s");
    assert!(device.state.is_on_trial());
    assert_eq!(
        device.adopt("a@1 /s"),
        "goback a, download a, install a, adopt a"
    );
    assert_eq!(device.in_force(), "a@1");
    assert_eq!(device.adopt(""), "uninstall a, discard a");
    assert_eq!(device.in_force(), "");
}

#[test]
fn elsewhere_a_file_of_that_name_is_a_file() {
    let mut device = device();
    assert_eq!(device.adopt("a@1 /t"), "download a, install a, confirm a");
    assert_eq!(device.in_force(), "");
    let mut none = Device::default();
    assert_eq!(none.adopt("a@1 /s"), "download a, install a, confirm a");
}
