//! How often what boosters say is written.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use ::content::statement::{Deployment, Statement};
use http::StatusCode;
use http::header::RETRY_AFTER;
use transport::ContentJudge;

use super::*;

mod device;
mod relayed;
use crate::documents::Addresses;
use crate::enrol::{Decision, Request};
use crate::ledger::devices;
use crate::testing::estate::Estate;
use crate::testing::request;

struct Branch {
    estate: Estate,
    check_ins: CheckIns,
    documents: Documents,
    peer: Peer,
}

impl Branch {
    async fn new() -> Self {
        let estate = Estate::new().await;
        let bed = &estate.bed;
        let (key, token) = (
            certs::Key::generate().unwrap(),
            bed.token_of(Role::Booster).await,
        );
        let asked = Request {
            role: Role::Booster,
            ..request(&key, "berlin", Some(token))
        };
        let Decision::Issued(held) = bed.enrolment.enrol(asked).await.unwrap() else {
            panic!("pending");
        };
        let (trust, now) = (bed.authority.trust(), bed.authority.clock().now());
        let peer = trust.verify_client(&held.der, &[], now).unwrap();
        let addresses = Addresses {
            content: vec!["origin.example:1".to_owned()],
            enrol: Vec::new(),
        };
        let documents = Documents::open(bed.authority.clone(), addresses, 1)
            .await
            .unwrap();
        Self {
            check_ins: estate.check_ins(&documents),
            estate,
            documents,
            peer,
        }
    }

    async fn says(&self, port: u16, now: Instant) {
        let at = at(port);
        self.check_ins.take(self.peer.id(), at, now).await.unwrap();
    }

    async fn settle(&self, now: Instant) {
        self.check_ins.settle_at(now, false).await.unwrap();
    }

    /// The version of the document, and where it says that the booster is.
    fn told(&self) -> (u64, String) {
        let judge = ContentJudge::new(Arc::clone(self.estate.bed.authority.trust()));
        let sealed = self.documents.current();
        let now = self.estate.bed.authority.clock().now();
        let told = Statement::<Deployment>::open(&sealed.envelope, &judge, now).unwrap();
        let at = told.boosters.iter().flat_map(|it| it.addresses.clone());
        (told.version, at.collect())
    }
}

fn at(port: u16) -> BoosterAddresses {
    BoosterAddresses {
        content: vec![format!("10.0.0.1:{port}")],
        enrol: Vec::new(),
    }
}

fn place(port: u16) -> String {
    at(port).content.concat()
}

#[tokio::test]
async fn a_booster_that_says_something_else_each_time_has_a_document_a_minute() {
    let at_once = u64::from(WRITES_AT_ONCE);
    let branch = Branch::new().await;
    let (first, _) = branch.told();
    let begun = Instant::now();
    let after = |seconds| begun + Duration::from_secs(seconds);
    branch.says(1, begun).await;
    assert_eq!(
        branch.told(),
        (first + 1, place(1)),
        "news are told at once"
    );
    // One that is restarted a few times is found each time.
    for seconds in 1..at_once {
        let port = 1 + u16::try_from(seconds % 2).unwrap();
        branch.says(port, after(seconds)).await;
        assert_eq!(branch.told(), (first + 1 + seconds, place(port)));
    }
    let told = branch.told();
    for seconds in at_once..50 {
        let port = 1 + u16::try_from(seconds % 2).unwrap();
        branch.says(port, after(seconds)).await;
        branch.settle(after(seconds)).await;
    }
    assert_eq!(branch.told(), told);
    // What it said last is what counts in the end, and it has a document a minute from now on.
    branch.says(3, after(50)).await;
    branch.settle(after(60)).await;
    assert_eq!(branch.told(), (told.0 + 1, place(3)));
    branch.says(4, after(61)).await;
    assert_eq!(branch.told(), (told.0 + 1, place(3)));
    branch.settle(after(120)).await;
    assert_eq!(branch.told(), (told.0 + 2, place(4)));
    // Until it has said nothing new for a minute.
    branch.settle(after(180)).await;
    branch.says(5, after(181)).await;
    assert_eq!(branch.told(), (told.0 + 3, place(5)));
}

#[tokio::test]
async fn who_says_the_same_writes_nothing() {
    let branch = Branch::new().await;
    let begun = Instant::now();
    branch.says(1, begun).await;
    let written = branch.told();
    // The writer is held by somebody else: whoever wants to write would wait for it.
    let tx = branch.estate.bed.authority.ledger().write().await.unwrap();
    for minutes in 1..5 {
        let now = begun + Duration::from_secs(60 * minutes);
        let said = tokio::time::timeout(Duration::from_secs(5), branch.says(1, now));
        said.await.unwrap();
    }
    drop(tx);
    assert_eq!(branch.told(), written);
}

#[tokio::test]
async fn what_waits_is_written_at_a_stop_and_what_was_taken_back_is_not() {
    let branch = Branch::new().await;
    let begun = Instant::now();
    for port in [4, 3, 2, 1] {
        branch.says(port, begun).await;
    }
    let (version, _) = branch.told();
    branch.says(2, begun).await;
    branch.says(1, begun).await;
    branch.check_ins.settle(true).await.unwrap();
    assert_eq!(branch.told(), (version, place(1)));
    branch.says(2, begun).await;
    branch.check_ins.settle(true).await.unwrap();
    assert_eq!(branch.told(), (version + 1, place(2)));
    let mut db = branch.estate.bed.authority.ledger().read().await.unwrap();
    let known = devices::find(&mut db, branch.peer.id()).await.unwrap();
    assert_eq!(known.unwrap().role, Role::Booster);
}

#[tokio::test]
async fn an_address_that_could_not_be_signed_is_told_as_soon_as_it_can_be() {
    let branch = Branch::new().await;
    let begun = Instant::now();
    let before = branch.told();
    branch.estate.bed.refuse_marks(true);
    let said = branch.check_ins.take(branch.peer.id(), at(1), begun);
    said.await.unwrap_err();
    // It says the same once more, which is nothing new to the ledger.
    branch.says(1, begun).await;
    branch.documents.catch_up().await.unwrap_err();
    assert_eq!(branch.told(), before);
    branch.estate.bed.refuse_marks(false);
    branch.documents.catch_up().await.unwrap();
    let told = branch.told();
    assert_eq!(told.1, place(1));
    branch.documents.catch_up().await.unwrap();
    assert_eq!(branch.told(), told, "signed once");
}

/// Polls `future` whenever it is woken, but no more than `times`: whether it came to its end. What a
/// caller gets done before it hangs up is a matter of that, and never of how fast the machine is.
async fn poll_up_to(times: u16, future: impl Future<Output = ()>) -> bool {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn an_address_whose_booster_hangs_up_is_told_nevertheless() {
    let branch = Branch::new().await;
    let before = branch.told();
    let mut written_unheard = 0;
    // Each gets a little further than the one before, until one has heard to the end.
    for polls in 1.. {
        let now = Instant::now() + SETTLE * 2 * u32::from(polls);
        let heard = poll_up_to(polls, branch.says(polls, now)).await;
        // What it has left behind is written before anybody else writes.
        drop(branch.estate.bed.authority.ledger().write().await.unwrap());
        branch.documents.catch_up().await.unwrap();
        let known = branch.documents.booster(branch.peer.id()).await.unwrap();
        let known = known.map_or_else(String::new, |at| at.content.concat());
        assert_eq!(branch.told().1, known);
        if heard {
            assert_eq!(known, place(polls));
            break;
        }
        written_unheard += u16::from(known == place(polls));
    }
    assert!(written_unheard > 0, "none has hung up between the two");
    assert!(branch.told().0 > before.0 + 1);
}

#[tokio::test]
async fn who_checks_in_without_a_pause_is_told_when_to_come_again() {
    let branch = Branch::new().await;
    let body = CheckIn {
        release: "0.1.0".to_owned(),
        booster: Some(at(1)),
        held: None,
    };
    let body = body.encode();
    let mut refused = None;
    for _ in 0..=BURST {
        let reply = branch.check_ins.answer(&branch.peer, &body).await;
        refused = (reply.status() == StatusCode::TOO_MANY_REQUESTS).then_some(reply);
    }
    let refused = refused.unwrap();
    let wait: u64 = refused.headers()[RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=13).contains(&wait), "{wait}");
}
