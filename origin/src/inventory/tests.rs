//! What is kept of devices, and who is asked.

use http_body_util::BodyExt as _;
use protocol::{LOG_BYTES_MAX, Software, System};

use super::*;
use crate::ledger::devices::State;
use crate::testing::estate::{Estate, id};

fn desk(version: &str) -> Inventory {
    Inventory {
        system: System {
            os: "debian".to_owned(),
            ..System::default()
        },
        software: vec![Software {
            name: "bash".to_owned(),
            version: version.to_owned(),
            arch: "amd64".to_owned(),
        }],
        ..Inventory::default()
    }
}

async fn sends(estate: &Estate, peer: &Peer, body: Vec<u8>) -> StatusCode {
    let reply = estate.inventories.answer(peer, &body.into()).await;
    let status = reply.status();
    let _body = reply.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn the_last_log_of_a_client_is_kept_as_text_within_its_bounds() {
    let estate = Estate::new().await;
    let peer = estate.enrol("desk").await;
    let logs = &estate.inventories;
    let sends = async |text: &[u8]| logs.answer_log(&peer, &Bytes::copy_from_slice(text)).await;
    let none = logs.show_log(peer.id()).await.unwrap_err();
    assert_eq!(none.code, Code::NotFound, "{}", none.detail);
    for (text, status) in [
        (&b"one\n"[..], StatusCode::NO_CONTENT),
        (b"two \x1b[31m\n", StatusCode::NO_CONTENT),
        (b"not text: \xff", StatusCode::BAD_REQUEST),
        (
            &vec![b'x'; LOG_BYTES_MAX + 1],
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        (b"", StatusCode::NO_CONTENT),
        (&vec![b'x'; LOG_BYTES_MAX], StatusCode::NO_CONTENT),
    ] {
        assert_eq!(sends(text).await.status(), status, "{} bytes", text.len());
        if text.starts_with(b"two") {
            let shown = logs.show_log(peer.id()).await.unwrap();
            assert_eq!(shown.text, "two \u{1b}[31m\n");
            let printed = shown.to_string();
            assert!(printed.ends_with("\ntwo \u{fffd}[31m"), "{printed:?}");
        }
    }
    let shown = logs.show_log(peer.id()).await.unwrap();
    assert_eq!(shown.text.len(), LOG_BYTES_MAX);
    let more = sends(b"more").await.status();
    assert_eq!(more, StatusCode::TOO_MANY_REQUESTS);
    estate.bed.decide("desk", State::Revoked).await;
    assert_eq!(
        logs.show_log(peer.id()).await.unwrap_err().code,
        Code::NotFound
    );
}

#[tokio::test]
async fn who_names_what_is_not_kept_is_asked_until_it_has_come() {
    let estate = Estate::new().await;
    let peer = estate.enrol("desk").await;
    let (first, second) = (desk("5.1").encode(), desk("5.2").encode());
    let heard = |body: &[u8]| estate.inventories.heard(peer.id(), Some(Digest::of(body)));
    assert!(heard(&first));
    assert!(heard(&first), "it may have been lost on the way");
    assert_eq!(
        sends(&estate, &peer, first.clone()).await,
        StatusCode::NO_CONTENT
    );
    assert!(!heard(&first));
    assert!(heard(&second));
    assert_eq!(
        sends(&estate, &peer, second.clone()).await,
        StatusCode::NO_CONTENT
    );
    assert!(!heard(&second));
    assert!(heard(&first), "the last counts");
    assert!(!estate.inventories.heard(peer.id(), None), "it keeps none");
    let shown = estate.inventories.show(peer.id()).await.unwrap();
    assert_eq!(shown.inventory, desk("5.2"));
    assert_eq!(shown.digest, Digest::of(&second).to_string());
    // The next start knows it.
    let again = estate.inventories_anew().await;
    assert!(!again.heard(peer.id(), Some(Digest::of(&second))));
}

#[tokio::test]
async fn what_is_none_is_refused() {
    let estate = Estate::new().await;
    let peer = estate.enrol("desk").await;
    let mut long = desk("1");
    long.system.os = "x".repeat(300);
    for bad in [
        b"[]".to_vec(),
        Vec::new(),
        vec![b' '; 2 << 20],
        long.encode(),
    ] {
        assert_eq!(sends(&estate, &peer, bad).await, StatusCode::BAD_REQUEST);
    }
    assert!(estate.inventories.show(peer.id()).await.is_err());
    for _ in 0..BURST {
        sends(&estate, &peer, desk("1").encode()).await;
    }
    let status = sends(&estate, &peer, desk("1").encode()).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn nothing_stays_of_who_is_gone() {
    let estate = Estate::new().await;
    let peer = estate.enrol("desk").await;
    let body = desk("1").encode();
    sends(&estate, &peer, body.clone()).await;
    assert!(!estate.inventories.heard(peer.id(), Some(Digest::of(&body))));
    estate.bed.decide("desk", State::Revoked).await;
    assert!(estate.inventories.show(peer.id()).await.is_err());
    // What comes from it after that is not kept.
    let other = Stored::pack(desk("2"), b"x", 0).unwrap();
    estate
        .inventories
        .keep(peer.id(), &desk("2"), &other)
        .await
        .unwrap();
    assert!(estate.inventories.show(peer.id()).await.is_err());
    estate.inventories.refresh().await.unwrap();
    assert!(estate.inventories.heard(peer.id(), Some(Digest::of(&body))));
}

#[tokio::test]
async fn when_a_device_was_heard_outlives_the_origin() {
    let estate = Estate::new().await;
    let peer = estate.enrol("desk").await;
    let _asked = estate.inventories.heard(peer.id(), None);
    // Whom nobody knows is passed over.
    let _asked = estate.inventories.heard(&id("nobody"), None);
    estate.inventories.note_seen().await.unwrap();
    let again = estate.inventories_anew().await;
    let now = estate.bed.authority.clock().now();
    assert_eq!(again.inner.board.seen_at(peer.id()), Some(now));
    assert_eq!(again.inner.board.seen_at(&id("nobody")), None);
}

#[test]
fn a_fleet_that_lost_its_origin_is_not_asked_all_at_once() {
    let board = Board::default();
    let (now, digest) = (Instant::now(), Some(Digest::of(b"x")));
    let asked = |at| {
        let ask = |number: u32| board.heard(&id(&format!("d{number}")), digest, 0, at);
        (0..1000).filter(|number| ask(*number)).count()
    };
    assert_eq!(asked(now), 20);
    assert_eq!(asked(now), 0);
    assert_eq!(asked(now + Duration::from_secs(1)), 20);
}
