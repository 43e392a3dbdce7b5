//! A device that changes its key, over real sockets.

use std::pin::pin;

use certs::Verdict;
use tokio::time::{advance, pause, resume, sleep};

use super::*;
use crate::enrol::SUPERSEDE_DELAY;

#[tokio::test]
async fn a_call_under_the_new_key_ends_the_certificate_of_the_old_one() {
    let served = Served::start().await;
    let mut device = served.device(served.join("client", true).await).await;
    assert!(served.enrol(&device, EnrolRole::Client, "laptop").await);
    let now = served.clock.now();
    let old = device.cell.chain_der().remove(0);
    let old = device.trust.verify_client(&old, &[], now).unwrap();

    let new = Key::generate().unwrap();
    let request = csr::make(&new, "laptop").unwrap();
    let known = served.source(&device, device.join.addresses.clone());
    let asked = known.simple_reenroll(EnrolRole::Client, &request).await;
    let Enrolled::Issued(certs) = asked.unwrap() else {
        panic!("pending");
    };
    let accepted = accept(&device.trust, &certs, &new, Role::Client, now).unwrap();
    device.cell = Arc::new(CertCell::new(&accepted.chain_der, &new).unwrap());
    let trust = Arc::clone(served.origin.authority().trust());
    let verdict = || trust.crls().lookup(old.issuer(), old.serial(), now);

    assert_eq!(verdict(), Verdict::Good);
    let hello = served.content(&device).hello().await.unwrap();
    assert_eq!(hello.id, "origin");
    skip(SUPERSEDE_DELAY).await;
    let ended = async {
        while verdict() == Verdict::Good {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(GRACE, pin!(ended)).await.unwrap();
    served.content(&device).hello().await.unwrap();
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}

/// Lets that time pass at once.
async fn skip(time: Duration) {
    pause();
    advance(time).await;
    resume();
}
