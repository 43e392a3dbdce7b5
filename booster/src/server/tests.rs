//! A booster between a small origin and its clients, over real sockets on loopback.

mod clocks;
mod document;
mod offline;
mod origin;
mod reload;

use std::sync::atomic::{AtomicI64, Ordering};

use certs::RefusalReason;
use content::pack::BuiltPack;
use member::{
    DataError, EnrolError, EnrolNote, EnrolReport, EnrolRequest, Kind, StandingError, enrol,
};
use protocol::CheckIn;
use protocol::report::{Matter, Stage};
use tempfile::TempDir;
use transport::{CallError, Source};

use super::*;
use crate::status::status;
use crate::testing::{fileset, pack, soon, until};
use origin::{DAY, Device, Origin};

const GRACE: Duration = Duration::from_secs(20);

/// A booster that has enrolled.
struct Bed {
    folder: TempDir,
    origin: Origin,
    pack: BuiltPack,
}

impl Bed {
    async fn start() -> Self {
        Self::with(pack(1)).await
    }

    async fn with(pack: BuiltPack) -> Self {
        let origin = Origin::start().await;
        let source = Arc::clone(&origin.source).with(&[&pack]);
        assert!(source.pack_bytes(pack.header.id()).is_some());
        origin.author.lock().unwrap().publish(&[&pack]);
        let bed = Self {
            folder: tempfile::tempdir().unwrap(),
            origin,
            pack,
        };
        assert!(!bed.enrol().await.already);
        bed
    }

    async fn enrol(&self) -> EnrolReport {
        let request = EnrolRequest {
            kind: Kind::Booster,
            advertise: vec!["berlin.example:7543".parse().unwrap()],
            data: self.folder.path().join("booster"),
            id: Some("berlin".parse().unwrap()),
            join: self.origin.join(),
            patience: Duration::from_secs(60),
        };
        soon(enrol(request, &self.origin.clock, drop))
            .await
            .unwrap()
    }

    fn config(&self) -> Config {
        let config = Config::on_loopback(self.folder.path().join("booster"));
        config.with_crl_poll(Duration::from_secs(1))
    }

    async fn boost(&self) -> Booster {
        let bound = Booster::bind(self.config(), self.origin.clock.clone());
        soon(bound).await.unwrap()
    }

    fn client(&self, device: &Device, booster: &Booster) -> Source {
        self.origin.client(device, booster.local_addr().to_string())
    }

    /// Gets the pack as a client, and holds it to what it should be.
    async fn get(&self, source: &Source) {
        let got = self.read(source).await.unwrap();
        assert!(got == self.pack.bytes, "other bytes were served");
    }

    /// The refusals that the origin has heard of, once they are as many as `count`.
    async fn reported(&self, count: usize) -> Vec<(Stage, String, bool)> {
        let heard = || {
            let bodies = self.origin.shared.reported.lock().unwrap();
            let reports = bodies.iter().flat_map(|body| &body.reports);
            let refusals = reports.filter_map(|report| match &report.matter {
                Matter::Refusal(it) => Some((it.stage, it.reason.clone(), it.possession_proved)),
                Matter::Bypass(_) | Matter::Notice(_) => None,
            });
            refusals.collect::<Vec<_>>()
        };
        until(async || heard(), |heard| heard.len() >= count).await
    }

    async fn read(&self, source: &Source) -> Result<Vec<u8>, CallError> {
        let id = self.pack.header.id();
        let mut body = soon(source.pack(&fileset(), &id, None, false)).await?;
        let mut got = Vec::new();
        while let Some(piece) = soon(body.next()).await? {
            got.extend_from_slice(&piece);
        }
        Ok(got)
    }
}

#[tokio::test]
async fn a_booster_enrols_serves_and_starts_again_without_its_origin() {
    let mut bed = Bed::start().await;
    assert!(bed.enrol().await.already);
    let device = bed.origin.device("laptop");
    let booster = bed.boost().await;
    let second = Booster::bind(bed.config(), bed.origin.clock.clone()).await;
    assert!(matches!(
        second,
        Err(BindError::Open(OpenError::Data(DataError::Busy { .. })))
    ));
    let client = bed.client(&device, &booster);
    assert_eq!(soon(client.hello()).await.unwrap().id, "berlin");
    bed.get(&client).await;
    let counted = booster.counted();
    let total = bed.pack.bytes.len() as u64;
    assert_eq!(
        (counted.served_pack_bytes, counted.upstream_pack_bytes),
        (total, total)
    );
    let shown = status(&bed.config(), &Clock::system()).await.unwrap();
    assert!(shown.running && shown.lists.len() == 4, "{shown:?}");
    let number = |ca| booster.metrics().crl_number.with_label_values(&[ca]).get();
    assert_eq!(["root", "node", "client", "content"].map(number), [1; 4]);
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);

    bed.origin.stop().await;
    let shown = status(&bed.config(), &bed.origin.clock).await.unwrap();
    assert!(!shown.running && shown.id == "berlin", "{shown:?}");
    let booster = bed.boost().await;
    let client = bed.client(&device, &booster);
    bed.get(&client).await;
    assert_eq!(bed.origin.source.asks().len(), 1);
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn revoking_a_client_ends_its_download_and_nobody_elses() {
    let bed = Bed::start().await;
    let (good, bad) = (bed.origin.device("good"), bed.origin.device("bad"));
    let booster = bed.boost().await;
    let id = bed.pack.header.id();
    bed.origin
        .source
        .gate_at(bed.pack.header.frame_range(2).start);
    let (good_client, bad_client) = (bed.client(&good, &booster), bed.client(&bad, &booster));
    let name = fileset();
    let mut staying = soon(good_client.pack(&name, &id, None, false))
        .await
        .unwrap();
    let mut leaving = soon(bad_client.pack(&name, &id, None, false))
        .await
        .unwrap();
    bed.origin.revoke(2, &[bad.serial]);
    let put_out = soon(async {
        loop {
            match leaving.next().await {
                Ok(piece) => assert!(piece.is_some(), "the download went on to its end"),
                Err(failure) => return failure,
            }
        }
    });
    put_out.await;
    let refused = soon(bed.client(&bad, &booster).hello()).await.unwrap_err();
    let revoked = RefusalReason::Revoked;
    assert!(
        matches!(refused, CallError::Refused { reason } if reason == revoked),
        "{refused:?}"
    );
    bed.origin.source.gate_at(u64::MAX);
    let mut got = 0;
    while let Some(piece) = soon(staying.next()).await.unwrap() {
        got += piece.len();
    }
    assert_eq!(got, bed.pack.bytes.len());
    let counted = &booster.metrics().handshakes_refused;
    assert!(counted.with_label_values(&["revoked"]).get() >= 2);
    // One for the session that was put out, one for the handshake.
    let mut stages = bed.reported(2).await;
    stages.sort_by_key(|(stage, ..)| *stage == Stage::Session);
    let expected = |stage| (stage, "revoked".to_owned(), true);
    assert_eq!(stages, [Stage::Handshake, Stage::Session].map(expected));
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_booster_that_slept_for_a_month_recovers_unaided() {
    let bed = Bed::start().await;
    let booster = bed.boost().await;
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
    bed.origin.pass(30, 2);
    let booster = bed.boost().await;
    let device = bed.origin.device("laptop");
    let client = bed.client(&device, &booster);
    assert_eq!(soon(client.hello()).await.unwrap().id, "berlin");
    let shown = status(&bed.config(), &Clock::system()).await.unwrap();
    assert!(shown.certificate_expires > bed.origin.clock.now() + 10 * DAY);
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_booster_whose_clock_fell_back_goes_on_from_the_last_time_it_knows() {
    let bed = Bed::start().await;
    let booster = bed.boost().await;
    let device = bed.origin.device("laptop");
    bed.get(&bed.client(&device, &booster)).await;
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
    // Its battery has died: to its own clock, nobody's certificate has begun.
    let offset = Arc::new(AtomicI64::new(-30 * DAY));
    let behind = Clock::fixed_offset(offset);
    let booster = soon(Booster::bind(bed.config(), behind)).await.unwrap();
    bed.get(&bed.client(&device, &booster)).await;
    soon(booster.catalogue().current()).await.unwrap();
    let failing = async || booster.health.failing();
    until(failing, |failing| failing.is_empty()).await;
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_of_its_life() {
    let bed = Bed::start().await;
    bed.origin.pass(9, 2);
    let booster = bed.boost().await;
    let config = bed.config();
    let now = bed.origin.clock.now();
    let expires = async || {
        let shown = status(&config, &Clock::system()).await;
        shown.unwrap().certificate_expires
    };
    until(expires, |expires| *expires >= now + 13 * DAY).await;
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn a_new_certificate_that_does_not_work_leaves_the_old_one_and_the_origin_hears_of_it() {
    let bed = Bed::start().await;
    bed.origin.pass(10, 2);
    let device = bed.origin.device("laptop");
    let before = status(&bed.config(), &bed.origin.clock).await.unwrap();
    bed.origin.shared.spoils.store(true, Ordering::Relaxed);
    let booster = bed.boost().await;
    let overdue = || {
        let bodies = bed.origin.shared.reported.lock().unwrap();
        let mut reports = bodies.iter().flat_map(|body| &body.reports);
        reports.any(|report| {
            matches!(&report.matter, Matter::Notice(notice) if notice.kind == "renewal_overdue")
        })
    };
    until(async || overdue(), |overdue| *overdue).await;
    assert_eq!(booster.metrics().certificate_overdue.get(), 1);
    let after = status(&bed.config(), &Clock::system()).await.unwrap();
    assert_eq!(after.certificate_expires, before.certificate_expires);
    bed.get(&bed.client(&device, &booster)).await;
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn the_origin_is_told_where_clients_find_the_booster() {
    let bed = Bed::start().await;
    let booster = bed.boost().await;
    let said = soon(async {
        loop {
            let said = bed
                .origin
                .shared
                .checked_in
                .lock()
                .unwrap()
                .first()
                .cloned();
            match said {
                Some(said) => return said,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let said = CheckIn::decode(&said.await).unwrap().booster.unwrap();
    assert_eq!(said.content, ["berlin.example:7543"]);
    assert_eq!(said.enrol, [booster.addresses().enrol.to_string()]);
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn enrolment_waits_for_an_operator_and_goes_through_a_booster() {
    let bed = Bed::start().await;
    let booster = bed.boost().await;
    bed.origin.shared.vetting.store(true, Ordering::Relaxed);
    let mut join = bed.origin.join();
    join.addresses = vec![booster.addresses().enrol.to_string()];
    let folder = tempfile::tempdir().unwrap();
    let request = EnrolRequest {
        kind: Kind::Booster,
        advertise: Vec::new(),
        data: folder.path().join("booster"),
        id: Some("paris".parse().unwrap()),
        join,
        patience: Duration::from_secs(60),
    };
    let vetting = &bed.origin.shared.vetting;
    // The operator approves as soon as there is something to approve.
    let approve = |note| {
        if matches!(note, EnrolNote::Pending { .. }) {
            vetting.store(false, Ordering::Relaxed);
        }
    };
    let report = soon(enrol(request, &bed.origin.clock, approve))
        .await
        .unwrap();
    assert_eq!((&report.id[..], report.already), ("paris", false));
    assert_eq!(booster.drain(GRACE).await, Drained::InTime);
}

#[tokio::test]
async fn an_origin_whose_certificate_is_revoked_is_sent_no_token() {
    let bed = Bed::start().await;
    let enrolments = &bed.origin.shared.enrolments;
    assert_eq!(enrolments.load(Ordering::Relaxed), 1);
    bed.origin.revoke_itself(2);
    let folder = tempfile::tempdir().unwrap();
    let request = EnrolRequest {
        kind: Kind::Booster,
        advertise: Vec::new(),
        data: folder.path().join("booster"),
        id: Some("paris".parse().unwrap()),
        join: bed.origin.join(),
        patience: Duration::from_secs(60),
    };
    let refused = soon(enrol(request, &bed.origin.clock, drop))
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            EnrolError::Standing(StandingError::Call(CallError::Distrusted {
                reason: RefusalReason::Revoked,
                ..
            }))
        ),
        "{refused:?}"
    );
    assert_eq!(enrolments.load(Ordering::Relaxed), 1, "nothing was sent");
}

#[tokio::test]
async fn a_wrong_pin_is_told_nothing() {
    let bed = Bed::start().await;
    let mut join = bed.origin.join();
    join.pin = [1; 32];
    let folder = tempfile::tempdir().unwrap();
    let request = EnrolRequest {
        kind: Kind::Booster,
        advertise: Vec::new(),
        data: folder.path().join("booster"),
        id: Some("paris".parse().unwrap()),
        join,
        patience: Duration::from_secs(60),
    };
    let refused = soon(enrol(request, &bed.origin.clock, drop))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, EnrolError::FirstContact { .. }),
        "{refused}"
    );
    assert!(!folder.path().join("booster/identity/cert.pem").exists());
}
