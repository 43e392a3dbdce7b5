//! Tests of who gets a certificate.

use certs::{Key, Role, csr};

use crate::ledger::commit;
use crate::ledger::devices::{self, State};
use crate::testing::{Bed, DAY, request, told};

#[tokio::test]
async fn a_token_lets_one_device_in_and_no_more() {
    let bed = Bed::new().await;
    let token = bed.token(true).await;
    let (one, two) = (Key::generate().unwrap(), Key::generate().unwrap());
    assert_eq!(bed.ask(&one, "one", Some(&token)).await, "issued one");
    assert_eq!(bed.ask(&two, "two", Some(&token)).await, "unauthorised");
    // The same key gets the same certificate, although the token is used up.
    let issue = || async {
        let asked = bed
            .enrolment
            .enrol(request(&one, "one", Some(token.clone())))
            .await;
        match asked.unwrap() {
            super::Decision::Issued(certificate) => certificate.serial,
            super::Decision::Pending => panic!("pending"),
        }
    };
    assert_eq!(issue().await, issue().await);
}

#[tokio::test]
async fn a_wrong_token_leaves_no_trace() {
    let bed = Bed::new().await;
    let key = Key::generate().unwrap();
    let wrong = protocol::Token::new([7; 16]);
    assert_eq!(bed.ask(&key, "one", Some(&wrong)).await, "unauthorised");
    let token = bed.token(true).await;
    bed.pass(2 * DAY);
    assert_eq!(bed.ask(&key, "one", Some(&token)).await, "unauthorised");
    // A client's token is worth nothing to somebody who wants to be a booster.
    let mut as_booster = request(&key, "one", Some(bed.token(true).await));
    as_booster.role = Role::Booster;
    assert_eq!(told(bed.enrolment.enrol(as_booster).await), "unauthorised");
    let mut db = bed.authority.ledger().read().await.unwrap();
    assert_eq!(devices::list(&mut db, None, "", 10, 0).await.unwrap(), []);
}

#[tokio::test]
async fn a_replayed_token_and_one_for_another_name_hear_what_everybody_hears() {
    let bed = Bed::new().await;
    let (good, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    let bound = bed.token_for(Some("desk")).await;
    let told = async |key: &Key, id: &str, token: &protocol::Token| {
        let asked = bed.enrolment.enrol(request(key, id, Some(token.clone())));
        asked.await.map_err(|refusal| refusal.fault())
    };
    let for_another_name = told(&other, "other", &bound).await.unwrap_err();
    assert!(told(&good, "desk", &bound).await.is_ok());
    let replayed = told(&other, "other", &bound).await.unwrap_err();
    let unknown = protocol::Token::new([7; 16]);
    let unknown = told(&other, "other", &unknown).await.unwrap_err();
    assert_eq!(replayed, unknown);
    assert_eq!(for_another_name, unknown);
}

#[tokio::test]
async fn without_a_token_an_operator_decides() {
    let bed = Bed::new().await;
    let (good, bad) = (Key::generate().unwrap(), Key::generate().unwrap());
    assert_eq!(bed.ask(&good, "good", None).await, "pending");
    assert_eq!(bed.ask(&bad, "bad", None).await, "pending");
    for (id, state) in [("good", State::Approved), ("bad", State::Denied)] {
        bed.decide(id, state).await;
    }
    assert_eq!(bed.ask(&good, "good", None).await, "issued good");
    assert_eq!(bed.ask(&bad, "bad", None).await, "denied");
}

#[tokio::test]
async fn who_waits_may_bring_a_token_later() {
    let bed = Bed::new().await;
    let key = Key::generate().unwrap();
    assert_eq!(bed.ask(&key, "one", None).await, "pending");
    assert_eq!(
        bed.ask(&key, "one", Some(&bed.token(true).await)).await,
        "issued one"
    );
}

#[tokio::test]
async fn a_name_belongs_to_its_first_key() {
    let bed = Bed::new().await;
    let (one, two) = (Key::generate().unwrap(), Key::generate().unwrap());
    assert_eq!(bed.ask(&one, "one", None).await, "pending");
    let token = bed.token(true).await;
    assert_eq!(bed.ask(&two, "one", Some(&token)).await, "conflict");
    assert_eq!(bed.ask(&one, "two", None).await, "conflict");
    assert_eq!(bed.ask(&two, "origin", None).await, "conflict");
    assert_eq!(bed.ask(&two, "Not A Name", None).await, "bad-request");
    // The conflict did not use up the token.
    assert_eq!(bed.ask(&two, "two", Some(&token)).await, "issued two");
}

#[tokio::test]
async fn a_revoked_name_passes_to_a_new_key_only_through_an_operator() {
    let bed = Bed::new().await;
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    assert_eq!(
        bed.ask(&old, "one", Some(&bed.token(true).await)).await,
        "issued one"
    );
    bed.revoke("one").await;
    assert_eq!(
        bed.ask(&old, "one", Some(&bed.token(true).await)).await,
        "revoked"
    );
    assert_eq!(
        bed.ask(&new, "one", Some(&bed.token(true).await)).await,
        "pending"
    );
}

#[tokio::test]
async fn a_known_device_comes_back_by_itself_until_its_grace_is_over() {
    let bed = Bed::new().await;
    let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    let token = bed.token(true).await;
    assert_eq!(bed.ask(&key, "one", Some(&token)).await, "issued one");
    // 14 days of its certificate, and 30 of grace.
    bed.pass(43 * DAY);
    assert_eq!(bed.stage("one").await, "expired");
    assert_eq!(bed.ask(&key, "one", None).await, "issued one");
    assert_eq!(bed.stage("one").await, "enrolled");
    bed.pass(8 * DAY);
    assert_eq!(bed.stage("one").await, "renewing");

    bed.pass(37 * DAY);
    assert_eq!(bed.ask(&key, "one", None).await, "pending");
    // Its old token does not help it, and its name is still its own.
    assert_eq!(bed.ask(&key, "one", Some(&token)).await, "pending");
    let fresh = bed.token(true).await;
    assert_eq!(bed.ask(&other, "one", Some(&fresh)).await, "conflict");
    // It gives up, and is forgotten only by the queue.
    let mut tx = bed.authority.ledger().write().await.unwrap();
    let later = bed.authority.clock().now() + 1;
    assert_eq!(devices::prune_pending(&mut tx, later).await.unwrap(), 0);
    commit(tx).await.unwrap();
    assert_eq!(bed.stage("one").await, "expired");
    assert_eq!(bed.ask(&other, "one", Some(&fresh)).await, "conflict");

    assert_eq!(bed.ask(&key, "one", None).await, "pending");
    bed.decide("one", State::Approved).await;
    assert_eq!(bed.ask(&key, "one", None).await, "issued one");
    // Or somebody vouches for it with a new token.
    bed.pass(45 * DAY);
    assert_eq!(bed.ask(&key, "one", None).await, "pending");
    let fresh = bed.token(true).await;
    assert_eq!(bed.ask(&key, "one", Some(&fresh)).await, "issued one");
}

#[tokio::test]
async fn the_queue_is_bounded_for_one_address() {
    let bed = Bed::new().await;
    let each = bed.enrolment.rules().pending_per_address_max;
    for n in 0..each {
        let key = Key::generate().unwrap();
        assert_eq!(bed.ask(&key, &format!("d{n}"), None).await, "pending");
    }
    let key = Key::generate().unwrap();
    assert_eq!(bed.ask(&key, "late", None).await, "busy");
    // A token vouches for its bearer, and another address is another queue.
    assert_eq!(
        bed.ask(&key, "late", Some(&bed.token(false).await)).await,
        "pending"
    );
    let mut elsewhere = request(&Key::generate().unwrap(), "far", None);
    elsewhere.address = [192, 0, 2, 2].into();
    assert_eq!(told(bed.enrolment.enrol(elsewhere).await), "pending");
}

#[tokio::test]
async fn who_speaks_too_old_a_version_is_told_to_upgrade() {
    let bed = Bed::new().await;
    let mut rules = bed.enrolment.rules().clone();
    rules.protocol_min = 2;
    let strict = super::Enrolment::new(bed.authority.clone(), rules);
    let told = |enrolment: &super::Enrolment, stated: Option<&str>| {
        let mut headers = http::HeaderMap::new();
        if let Some(stated) = stated {
            headers.insert(protocol::VERSION_HEADER, stated.parse().unwrap());
        }
        let checked = enrolment.check_version(&headers);
        checked.map_err(|refusal| refusal.fault().to_string())
    };
    let refused = "this program speaks version 1 of the protocol, and this deployment wants at \
                   least 2: upgrade it (too-old)";
    for (stated, expected) in [
        (None, Err(refused.to_owned())),
        (Some("1"), Err(refused.to_owned())),
        (Some("x"), Err(refused.to_owned())),
        (Some("2"), Ok(())),
        (Some("3"), Ok(())),
    ] {
        assert_eq!(told(&strict, stated), expected, "{stated:?}");
        assert_eq!(told(&bed.enrolment, stated), Ok(()), "{stated:?}");
    }
}

#[tokio::test]
async fn a_good_token_is_counted_apart_from_its_address() {
    let bed = Bed::new().await;
    let mut rules = bed.enrolment.rules().clone();
    (rules.rate_per_address, rules.burst_per_address) = (1, 1);
    let tight = super::Enrolment::new(bed.authority.clone(), rules);
    let route = protocol::Route::Enrol(protocol::EnrolRole::Client);
    let admit = async |token: Option<&protocol::Token>| {
        let mut headers = http::HeaderMap::new();
        if let Some(token) = token {
            let secret = format!("larder:{}", token.reveal());
            let secret = certs::pkcs7::to_base64(secret.as_bytes());
            let basic = format!("Basic {secret}").parse().unwrap();
            headers.insert(http::header::AUTHORIZATION, basic);
        }
        let address = [192, 0, 2, 1].into();
        let admitted = tight.admit(Some(&route), &headers, address, None).await;
        admitted.map_err(|refusal| refusal.label())
    };
    let invented = protocol::Token::new([7; 16]);
    assert_eq!(admit(Some(&invented)).await, Ok(()));
    assert_eq!(admit(None).await, Err("too-many"));
    assert_eq!(admit(Some(&invented)).await, Err("too-many"));
    let good = bed.token(true).await;
    assert_eq!(admit(Some(&good)).await, Ok(()));
    assert_eq!(admit(Some(&good)).await, Err("too-many"));
    assert_eq!(admit(Some(&bed.token(true).await)).await, Ok(()));
}

#[tokio::test]
async fn renewal_takes_the_old_key_or_a_new_one() {
    let bed = Bed::new().await;
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let asked = bed
        .enrolment
        .enrol(request(&old, "one", Some(bed.token(true).await)))
        .await;
    let super::Decision::Issued(certificate) = asked.unwrap() else {
        panic!("pending")
    };
    let now = bed.authority.clock().now();
    let peer = bed
        .authority
        .trust()
        .verify_client(&certificate.der, &[], now)
        .unwrap();
    let renew = |key: &Key, id: &str, role| {
        let csr = csr::parse(&csr::make(key, id).unwrap()).unwrap();
        let (enrolment, peer) = (bed.enrolment.clone(), peer.clone());
        async move { told(enrolment.renew(role, &csr, &peer).await) }
    };
    bed.pass(7 * DAY);
    assert_eq!(renew(&old, "one", Role::Client).await, "issued one");
    assert_eq!(renew(&new, "one", Role::Client).await, "issued one");
    // The same once more, by somebody who did not hear the answer.
    assert_eq!(renew(&new, "one", Role::Client).await, "issued one");
    assert_eq!(renew(&new, "two", Role::Client).await, "conflict");
    assert_eq!(renew(&new, "one", Role::Booster).await, "conflict");
    // The old key is nobody's now, and the name is taken.
    assert_eq!(bed.ask(&old, "one", None).await, "conflict");
    bed.revoke("one").await;
    assert_eq!(renew(&new, "one", Role::Client).await, "revoked");
}
