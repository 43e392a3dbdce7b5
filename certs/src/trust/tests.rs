//! What is derived from trust, and for how long it holds.

use super::*;
use crate::issue;
use crate::testing::{self, Bed};

/// A change, and whether what was derived before it has to be derived anew.
fn check(what: &str, is_news: bool, change: impl FnOnce(&Bed)) {
    let bed = Bed::new();
    let basis = bed.trust.basis();
    assert!(bed.trust.stands_on(&basis));
    change(&bed);
    assert_eq!(bed.trust.stands_on(&basis), !is_news, "{what}");
    assert!(bed.trust.stands_on(&bed.trust.basis()));
}

#[test]
fn what_was_derived_holds_until_a_root_a_ca_or_a_list_changes() {
    let trust = |bed: &Bed| Arc::clone(&bed.trust);
    check("nothing", false, |_| {});
    check("a new list", true, |bed| bed.publish(&bed.client, 2, &[]));
    check("a list that is called outdated", true, |bed| {
        trust(bed).crls().require_number(bed.client.id(), 2);
    });
    check("a list that is dropped", true, |bed| {
        trust(bed).crls().forget(bed.client.id());
    });
    check("another root", true, |bed| {
        let (key, serial) = (testing::new_key(), testing::serial());
        let root = issue::root(&testing::deployment(), 2, key, serial, bed.now()).unwrap();
        trust(bed).add_root(root.cert_der(), bed.now()).unwrap();
    });
    check("another issuing CA", true, |bed| {
        let (key, serial) = (testing::new_key(), testing::serial());
        let ca = issue::issuing_ca(CaKind::Client, 2, &bed.root, key, serial, bed.now());
        let ca = ca.unwrap();
        trust(bed).add_issuing_ca(ca.cert_der(), bed.now()).unwrap();
    });
}
