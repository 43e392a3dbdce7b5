//! Looks at what is active.

use super::*;

#[test]
fn a_verify_looks_at_all_that_is_active_and_then_it_is_done() {
    let mut device = Device::default();
    device.run("a@1; b@1; c@1 a9", |_| None);
    let command = protocol::Command {
        id: 4,
        what: protocol::CommandKind::Verify,
    };
    device.state.hear(command.clone());
    assert!(device.state.done.is_empty());
    let done = device.run("a@1; b@1; c@1 a9", |act| {
        let note = "f is gone".to_owned();
        (act == "verify b").then_some(Outcome::Damaged { note })
    });
    assert_eq!(done, "verify a, verify b");
    assert_eq!(device.told("b"), "damaged@1: f is gone");
    assert!(device.state.done.contains(&4));
    // Told again, it is not done again.
    device.state.told(&[], &[4]);
    device.state.hear(command);
    assert_eq!(device.run("a@1; b@1; c@1 a9", |_| None), "");
    assert!(device.state.done.contains(&4));
}
