//! Fresh, grace, closed: what a booster does without new revocation lists.

use protocol::Code;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::*;
use crate::offline::Phase;

impl Bed {
    fn with_grace(&self, days: i64) -> Config {
        let grace = Duration::from_secs((days * DAY) as u64);
        self.config().with_crl_grace(grace)
    }

    /// Lets time pass in which the origin signs nothing.
    fn pass(&self, seconds: i64) {
        self.origin.offset.fetch_add(seconds, Ordering::Relaxed);
    }
}

/// Waits until the booster shows that phase, in all places where it is shown.
async fn shown(booster: &Booster, config: &Config, phase: Phase) {
    let state = &booster.metrics().revocation_state;
    soon(async {
        while state.with_label_values(&[phase.as_str()]).get() != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let sum = Phase::ALL.map(|each| state.with_label_values(&[each.as_str()]).get());
    assert_eq!(sum.iter().sum::<i64>(), 1);
    let status = soon(status(config, &Clock::system())).await.unwrap();
    assert_eq!(status.revocation.phase, phase);
    let named = |checks: &[(String, String)]| checks.iter().any(|(it, _)| it.contains("lists"));
    assert_eq!(named(&status.degraded), phase == Phase::Grace, "{status:?}");
    assert_eq!(named(&status.failing), phase == Phase::Closed, "{status:?}");
}

/// Whether the relay leads anywhere: a connection that does stays open.
async fn relays(booster: &Booster) -> bool {
    let mut stream = TcpStream::connect(booster.addresses().enrol).await.unwrap();
    let (mut first, moment) = ([0; 1], Duration::from_millis(300));
    let read = tokio::time::timeout(moment, stream.read(&mut first));
    !matches!(read.await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn overdue_lists_let_in_whom_they_know_and_then_nobody_and_a_new_one_everybody() {
    let bed = Bed::start().await;
    let config = bed.with_grace(2);
    let (known, stranger) = (bed.origin.device("known"), bed.origin.device("stranger"));
    let booster = soon(Booster::bind(config.clone(), bed.origin.clock.clone()))
        .await
        .unwrap();
    let call = |device| {
        let address = booster.local_addr().to_string();
        bed.origin.patient(device, address)
    };
    let live = call(&known);
    bed.get(&live).await;
    shown(&booster, &config, Phase::Fresh).await;
    assert!(relays(&booster).await);

    bed.pass(DAY + 100);
    shown(&booster, &config, Phase::Grace).await;
    bed.get(&live).await;
    bed.get(&call(&known)).await;
    let refused = bed.read(&call(&stranger)).await.unwrap_err();
    assert!(
        matches!(&refused, CallError::Fault { fault, .. } if fault.code == Code::Forbidden),
        "{refused:?}"
    );
    assert!(!relays(&booster).await, "nobody enrols now");
    let age = booster
        .metrics()
        .crl_age
        .with_label_values(&["client"])
        .get();
    assert!((DAY..2 * DAY).contains(&age), "{age}");

    bed.pass(2 * DAY);
    shown(&booster, &config, Phase::Closed).await;
    let told = bed.read(&live).await.unwrap_err();
    assert!(
        matches!(&told, CallError::Fault { fault, .. } if fault.code == Code::Busy),
        "a live session ends at its next request: {told:?}"
    );
    let refused = bed.read(&call(&known)).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused { .. }), "{refused:?}");

    bed.origin.shared.sign_lists(2, certs::CaKind::Client, &[]);
    shown(&booster, &config, Phase::Fresh).await;
    bed.get(&call(&known)).await;
    bed.get(&call(&stranger)).await;
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_booster_that_starts_in_grace_remembers_whom_it_saw() {
    let mut bed = Bed::start().await;
    let (known, stranger) = (bed.origin.device("known"), bed.origin.device("stranger"));
    let booster = bed.boost().await;
    bed.get(&bed.client(&known, &booster)).await;
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
    bed.origin.stop().await;
    bed.pass(DAY + 100);
    let at_rest = status(&bed.config(), &bed.origin.clock).await.unwrap();
    assert_eq!(at_rest.revocation.phase, Phase::Closed, "without grace");

    let config = bed.with_grace(2);
    let booster = soon(Booster::bind(config.clone(), bed.origin.clock.clone()))
        .await
        .unwrap();
    shown(&booster, &config, Phase::Grace).await;
    let address = booster.local_addr().to_string();
    let told = status(&config, &Clock::system()).await.unwrap().to_string();
    assert!(
        told.contains("only clients that were seen before"),
        "{told}"
    );
    bed.get(&bed.origin.patient(&known, address.clone())).await;
    let refused = bed.origin.patient(&stranger, address).hello().await;
    assert!(
        matches!(refused, Err(CallError::Fault { .. })),
        "{refused:?}"
    );
    let counted = &booster.metrics().handshakes_refused;
    assert_eq!(counted.with_label_values(&["crl_stale"]).get(), 1);
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

/// A booster in grace that was visited by `device`, and what it answers it once it has `changed`.
async fn in_grace(
    changed: impl AsyncFnOnce(&Bed, &mut Device, &Booster),
) -> Result<protocol::Hello, CallError> {
    let bed = Bed::start().await;
    let config = bed.with_grace(2);
    let mut device = bed.origin.device("laptop");
    // What starts a booster is large, and two of these are on one test's stack.
    let bound = Box::pin(Booster::bind(config.clone(), bed.origin.clock.clone()));
    let booster = soon(bound).await.unwrap();
    let address = booster.local_addr().to_string();
    soon(bed.origin.client(&device, address.clone()).hello())
        .await
        .unwrap();
    changed(&bed, &mut device, &booster).await;
    bed.pass(DAY + 100);
    shown(&booster, &config, Phase::Grace).await;
    let answer = soon(bed.origin.patient(&device, address).hello()).await;
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
    answer
}

#[tokio::test]
async fn in_grace_a_client_is_known_by_the_key_of_its_renewed_certificate() {
    let renewed = async |bed: &Bed, device: &mut Device, _: &Booster| {
        *device = bed.origin.renewed(device, "laptop");
    };
    in_grace(renewed).await.unwrap();
}

#[tokio::test]
async fn in_grace_nobody_is_known_by_a_name_alone_or_by_a_key_alone() {
    let forbidden = |answer: Result<_, CallError>| {
        let refused = answer.unwrap_err();
        assert!(
            matches!(&refused, CallError::Fault { fault, .. } if fault.code == Code::Forbidden),
            "{refused:?}"
        );
    };
    let rekeyed = async |bed: &Bed, device: &mut Device, _: &Booster| {
        *device = bed.origin.device("laptop");
    };
    forbidden(Box::pin(in_grace(rekeyed)).await);
    let renamed = async |bed: &Bed, device: &mut Device, _: &Booster| {
        *device = bed.origin.renewed(device, "another");
    };
    forbidden(Box::pin(in_grace(renamed)).await);
}

#[tokio::test]
async fn in_grace_a_key_whose_certificate_was_revoked_is_not_known_by_its_next() {
    let revoked = async |bed: &Bed, device: &mut Device, booster: &Booster| {
        revoke(bed, booster, device.serial).await;
        *device = bed.origin.renewed(device, "laptop");
    };
    let refused = in_grace(revoked).await.unwrap_err();
    assert!(
        matches!(&refused, CallError::Fault { fault, .. } if fault.code == Code::Forbidden),
        "{refused:?}"
    );
}

/// Revokes a client's certificate by list 2, and waits until the booster has that.
async fn revoke(bed: &Bed, booster: &Booster, serial: certs::Serial) {
    let client = certs::CaKind::Client;
    bed.origin.shared.sign_lists(2, client, &[serial]);
    let number = || booster.metrics().crl_number.with_label_values(&["client"]);
    until(async || number().get(), |number| *number == 2).await;
}

#[tokio::test]
async fn who_asks_on_and_on_in_grace_is_one_refusal() {
    let bed = Bed::start().await;
    let (config, device) = (bed.with_grace(2), bed.origin.device("laptop"));
    let booster = soon(Booster::bind(config.clone(), bed.origin.clock.clone()))
        .await
        .unwrap();
    let call = |device| {
        let address = booster.local_addr().to_string();
        bed.origin.patient(device, address)
    };
    // A session that goes on, of a key that is not known any more.
    let live = call(&device);
    soon(live.hello()).await.unwrap();
    let next = bed.origin.renewed(&device, "laptop");
    soon(call(&next).hello()).await.unwrap();
    revoke(&bed, &booster, next.serial).await;
    bed.pass(DAY + 100);
    shown(&booster, &config, Phase::Grace).await;
    let hammer = (0..50).map(|_| live.hello());
    let answers = soon(futures_util::future::join_all(hammer)).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    let counted = &booster.metrics().handshakes_refused;
    let refused = counted.with_label_values(&["crl_stale"]).get();
    let sessions = booster.metrics().handshakes_accepted.get();
    assert!(
        (1..sessions).contains(&refused),
        "{refused} refusals of {sessions} sessions"
    );
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}
