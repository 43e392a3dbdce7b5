//! What operators see of tokens and devices, over the admin socket.

use std::collections::BTreeMap;

use protocol::Code;

use super::*;
use crate::fleet::{Revocation, RevokedAll, TokenView, Tokens};
use crate::reports::ReportsView;

#[tokio::test]
async fn tokens_are_listed_and_revoked_and_never_shown_again() {
    let served = Served::start().await;
    let new = NewToken {
        role: "client".to_owned(),
        auto_approve: true,
        group: Some("north".to_owned()),
        device: Some("laptop".to_owned()),
        uses: 2,
        ttl_seconds: 60,
    };
    let created: TokenCreated = served.admin.post("/tokens", &new).await.unwrap();
    let join: Join = created.join.parse().unwrap();
    let other = served.join("client", true).await;

    let device = served.device(join.clone()).await;
    assert!(served.enrol(&device, EnrolRole::Client, "laptop").await);
    let listed: Tokens = served.admin.get("/tokens?after=").await.unwrap();
    assert_eq!(listed.tokens.len(), 2);
    let shown = |id: &str| listed.tokens.iter().find(|token| token.id == id);
    let bound = shown(&created.id).unwrap();
    assert_eq!(
        (bound.state.as_str(), bound.uses_left, bound.uses),
        ("good", 1, 2)
    );
    assert_eq!(bound.device.as_deref(), Some("laptop"));
    let secret = join.token.as_ref().unwrap().reveal();
    assert!(!format!("{listed:?}{listed}").contains(&secret));

    let rest = listed.tokens.iter().find(|token| token.id != created.id);
    let path = format!("/tokens/{}/revoke", rest.unwrap().id);
    let gone: TokenView = served.admin.post(&path, &()).await.unwrap();
    assert_eq!(gone.state, "revoked");
    let again = served
        .admin
        .post::<TokenView>(&path, &())
        .await
        .unwrap_err();
    assert!(again.to_string().starts_with("cannot find a token"));
    let malformed = served.admin.post::<TokenView>("/tokens/7/revoke", &());
    let malformed = malformed.await.unwrap_err().to_string();
    assert!(malformed.contains("16 lower-case"), "{malformed}");
    let late = served.device(other).await;
    let source = served.source(&late, late.join.addresses.clone());
    let request = csr::make(&late.key, "late").unwrap();
    let refused = source
        .simple_enroll(EnrolRole::Client, &request, late.join.token.as_ref())
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("(unauthorised)"), "{refused}");
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn many_are_revoked_at_once_or_none_is() {
    let served = Served::start().await;
    for id in ["one", "two"] {
        let device = served.device(served.join("client", true).await).await;
        assert!(served.enrol(&device, EnrolRole::Client, id).await);
    }
    let waits = served.device(served.join("client", false).await).await;
    assert!(!served.enrol(&waits, EnrolRole::Client, "waits").await);
    let wish = |devices: &[&str], reason: &str| Revocation {
        devices: devices.iter().map(|id| (*id).to_owned()).collect(),
        reason: Some(reason.to_owned()),
    };
    let crls = || {
        let all = served.origin.authority().trust().crls().all();
        let numbers = all.iter().map(|crl| (crl.number(), crl.len()));
        numbers.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
    };
    let before = crls();
    for (wish, why) in [
        (
            wish(&["one", "waits", "gone"], "superseded"),
            "cannot revoke any of them: gone (no such device), waits (it is pending: deny it)",
        ),
        (
            wish(&["one"], "boredom"),
            "cannot revoke because of \"boredom\"",
        ),
        (
            wish(&["One"], "superseded"),
            "cannot revoke any of them: \"One\"",
        ),
    ] {
        let refusal = served.admin.post::<RevokedAll>("/revocations", &wish);
        let refusal = refusal.await.unwrap_err().to_string();
        assert!(refusal.starts_with(why), "{refusal}");
    }
    assert_eq!(crls(), before);

    let all = wish(&["one", "two", "one"], "key_compromise");
    let done: RevokedAll = served.admin.post("/revocations", &all).await.unwrap();
    assert_eq!((done.revoked, done.already), (2, 0));
    // One list for both.
    assert_eq!(crls(), (before.0 + 1, before.1 + 2));
    let again: RevokedAll = served.admin.post("/revocations", &all).await.unwrap();
    assert_eq!((again.revoked, again.already), (0, 2));
    let shown: DeviceView = served.admin.get("/devices/two").await.unwrap();
    assert_eq!(shown.revoked_for.as_deref(), Some("key_compromise"));
    assert!(shown.to_string().contains("key_compromise"), "{shown}");
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}

/// Bytes of memory that this process has in use.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
async fn ten_thousand_requests_from_one_address_are_refused_in_flat_memory() {
    let served = Served::start().await;
    let device = served.device(served.join("client", true).await).await;
    let source = served.source(&device, device.join.addresses.clone());
    let request = |n: u32| csr::make(&Key::generate().unwrap(), &format!("d{n}")).unwrap();
    let mut heard = BTreeMap::<&str, u32>::new();
    let mut before = 0;
    for n in 0..10_000_u32 {
        if n == 1000 {
            before = resident();
        }
        let request = request(n);
        let asked = source.simple_enroll(EnrolRole::Client, &request, None);
        let word = match asked.await {
            Ok(Enrolled::Pending { .. }) => "pending",
            Err(CallError::Fault { fault, .. }) => fault.code.name(),
            other => panic!("{other:?}"),
        };
        *heard.entry(word).or_default() += 1;
    }
    let grown = resident().saturating_sub(before);
    // As many wait as may from one address; the burst and a little more hears that, nobody else.
    assert_eq!(heard["pending"], 32, "{heard:?}");
    assert!(heard[Code::TooMany.name()] > 5000, "{heard:?}");
    let pending: Devices = served.admin.get("/devices?state=pending").await.unwrap();
    assert_eq!(pending.devices.len(), 32);
    // Other tests run in this process too; nine thousand bodies would be 590 MB.
    assert!(grown < 64 << 20, "{grown} bytes more after 9000 requests");
    // Who was invited gets in from the same address all the while.
    assert!(served.enrol(&device, EnrolRole::Client, "invited").await);
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn who_asks_for_anothers_name_is_refused_and_reported() {
    let served = Served::start().await;
    let device = served.device(served.join("client", true).await).await;
    assert!(served.enrol(&device, EnrolRole::Client, "laptop").await);
    let thief = served.device(served.join("client", true).await).await;
    let source = served.source(&thief, thief.join.addresses.clone());
    for _ in 0..2 {
        let request = csr::make(&thief.key, "laptop").unwrap();
        let asked = source.simple_enroll(EnrolRole::Client, &request, thief.join.token.as_ref());
        let refusal = asked.await.unwrap_err().to_string();
        assert!(refusal.contains("(conflict)"), "{refusal}");
    }
    let reported = async {
        loop {
            let kept: ReportsView = served
                .admin
                .get("/reports?reason=name_conflict")
                .await
                .unwrap();
            if !kept.reports.is_empty() {
                break kept.to_string();
            }
            tokio::task::yield_now().await;
        }
    };
    let reported = timeout(GRACE, reported).await.unwrap();
    assert!(reported.contains("laptop"), "{reported}");
    assert!(reported.contains("127.0.0.1"), "{reported}");
    assert_eq!(served.origin.drain(GRACE).await, Drained::InTime);
}
