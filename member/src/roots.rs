//! Whom the deployment document names as roots.

use certs::Trust;
use content::statement::Deployment;
use service::Report;
use tracing::{info, warn};

/// Trusts the roots that `document` names, and stops trusting those that it names no more: an
/// older root has vouched for a newer one by having signed the document that named it first.
/// Returns whether anything has changed, which is then to be kept.
///
/// The document must have been verified, and be no older than the one followed before.
pub fn follow(trust: &Trust, document: &Deployment, now: i64) -> bool {
    let mut changed = false;
    for root in &document.roots {
        let known = trust.roots().len();
        if let Err(failure) = trust.add_root(root, now) {
            warn!(error = %Report(&failure), "cannot trust a root of the deployment document");
        }
        changed |= trust.roots().len() != known;
    }
    let is_named = |der: &[u8]| document.roots.iter().any(|named| named == der);
    let roots = trust.roots();
    // One whose named roots all count for nothing must not leave us with none.
    if !roots.iter().any(|root| is_named(root.der())) {
        return changed;
    }
    for root in roots.iter().filter(|root| !is_named(root.der())) {
        match trust.forget_root(root.id()) {
            Ok(forgotten) => changed |= forgotten,
            Err(failure) => warn!(error = %Report(&failure), "cannot forget a root"),
        }
        info!(root = %root.id(), "a root has been retired");
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use certs::{Ca, CrlStore, Key, Serial, issue};
    use content::statement::OriginEntry;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn root(generation: u32) -> Ca {
        let (key, deployment) = (Key::generate().unwrap(), "acme".parse().unwrap());
        let serial = Serial::from_random([u8::try_from(generation).unwrap(); 16]);
        issue::root(&deployment, generation, key, serial, NOW).unwrap()
    }

    fn naming(roots: &[&Ca]) -> Deployment {
        Deployment {
            deployment: "acme".to_owned(),
            version: 1,
            created: NOW,
            roots: roots.iter().map(|root| root.cert_der().to_vec()).collect(),
            origin: OriginEntry {
                id: "origin".to_owned(),
                addresses: Vec::new(),
                enrol_addresses: Vec::new(),
            },
            boosters: Vec::new(),
            protocol_min: 1,
            protocol_max: 1,
        }
    }

    #[test]
    fn roots_come_and_go_as_the_document_says_and_one_always_stays() {
        let [one, two, three] = [root(1), root(2), root(3)];
        let lists = Arc::new(CrlStore::new(Duration::ZERO));
        let trust = Trust::new(&[one.cert_der()], lists, NOW).unwrap();
        let check = |named: &[&Ca], changed: bool, kept: &[&Ca]| {
            assert_eq!(follow(&trust, &naming(named), NOW), changed);
            let ids: Vec<_> = trust.roots().iter().map(|root| root.id()).collect();
            let expected: Vec<_> = kept.iter().map(|root| root.id()).collect();
            assert_eq!(ids, expected);
        };
        check(&[&one], false, &[&one]);
        check(&[&one, &two], true, &[&one, &two]);
        check(&[], false, &[&one, &two]);
        check(&[&two], true, &[&two]);
        check(&[&two], false, &[&two]);
        check(&[&three], true, &[&three]);
    }
}
