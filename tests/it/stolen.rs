//! The key of an issuing CA is stolen: what was certified with it is void at once, and everybody
//! comes back by the steps of docs/operating.md.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use booster::Booster;
use certs::{CaKind, RefusalReason, Role};
use client::PullReport;
use member::{EnrolError, EnrolNote, EnrolReport, EnrolRequest, Kind, enrol};
use origin::authority::rotate::{Which, revoke, rotate};
use origin::fleet::DeviceView;
use protocol::Join;
use tests::testbed::{CRL_POLL, PATIENCE, Party, Testbed, until};
use tests::{fixture, tree};

const DAY: i64 = 86_400;

/// Any port of loopback.
const ANY: &str = "127.0.0.1:0";

/// A deployment with a booster and the clients `one` and `two`, which have pulled once.
struct Run {
    bed: Testbed,
    booster: Option<Booster>,
    /// For a client and for a booster, with tokens of one use that let nobody in by themselves.
    joins: [Join; 2],
    pulls: u32,
}

impl Run {
    async fn start() -> Self {
        let bed = Testbed::start().await.unwrap();
        fixture::tree(&bed.path("tree"), 1).unwrap();
        bed.publish("tools", &bed.path("tree")).await.unwrap();
        let booster = Some(bed.booster("booster").await.unwrap());
        let joins = [
            bed.token(Role::Client, false).await.unwrap(),
            bed.token(Role::Booster, false).await.unwrap(),
        ];
        let mut run = Self {
            bed,
            booster,
            joins,
            pulls: 0,
        };
        for id in ["one", "two"] {
            run.bed.enrol_client(id).await.unwrap();
            run.pulls_from_the_booster(id).await;
        }
        run
    }

    /// Steps 1 and 2: `ca rotate KIND --overlap 0s`, `ca retire KIND 1 --stolen`.
    async fn replace(&self, kind: CaKind) {
        let ledger = self.bed.origin().authority().ledger();
        let (data, now) = (self.bed.path("origin"), self.bed.clock().now());
        let (which, admin) = (Which::Issuing(kind), self.bed.admin());
        rotate(&data, ledger, &which, None, 0, now).await.unwrap();
        let _taken_up: () = admin.post("/authority/reload", &()).await.unwrap();
        revoke(&data, ledger, kind, 1, None, now).await.unwrap();
        let _taken_up: () = admin.post("/authority/reload", &()).await.unwrap();
    }

    /// `larder-client enrol JOIN`, or a booster's, in the data folder `data`.
    async fn try_to_enrol(
        &self,
        kind: Kind,
        data: &Path,
        patience: Duration,
    ) -> (Result<EnrolReport, EnrolError>, Vec<EnrolNote>) {
        let join = match kind {
            Kind::Client => self.joins[0].clone(),
            Kind::Booster => self.joins[1].clone(),
        };
        let request = EnrolRequest {
            patience,
            ..EnrolRequest::new(kind, data.to_owned(), join)
        };
        let notes = Mutex::new(Vec::new());
        let note = |note| notes.lock().unwrap().push(note);
        let enrolled = Box::pin(enrol(request, &self.bed.clock(), note)).await;
        (enrolled, notes.into_inner().unwrap())
    }

    /// The same with success: it has a new certificate, its old key and its old name, and a second
    /// time there is nothing to do.
    async fn enrols_anew(&self, kind: Kind, id: &str, why: RefusalReason) {
        let data = self.bed.path(id);
        let before = key(&data);
        let (enrolled, notes) = self.try_to_enrol(kind, &data, PATIENCE).await;
        let report = enrolled.unwrap();
        assert_eq!((report.anew, &report.id[..]), (true, id), "{report:?}");
        let void = EnrolNote::Void { kind, reason: why };
        assert_eq!(notes.first(), Some(&void), "{notes:?}");
        assert_eq!(key(&data), before);
        let (enrolled, notes) = self.try_to_enrol(kind, &data, PATIENCE).await;
        assert!(enrolled.unwrap().already);
        assert_eq!(notes, []);
    }

    async fn pull(&mut self, id: &str) -> anyhow::Result<PullReport> {
        self.pulls += 1;
        let target = self.bed.path(&format!("target-{}", self.pulls));
        let data = self.bed.path(id);
        let report = Box::pin(self.bed.pull(&data, "tools", &target)).await?;
        tree::compare(&self.bed.path("tree"), &target)?;
        Ok(report)
    }

    async fn pulls_from_the_booster(&mut self, id: &str) {
        let report = self.pull(id).await.unwrap();
        assert!(report.bypasses.is_empty(), "{id}: {report:?}");
    }

    fn booster(&self) -> &Booster {
        self.booster.as_ref().expect("the booster is at work")
    }

    async fn stop_booster(&mut self) -> String {
        let booster = self.booster.take().expect("the booster is at work");
        let at = booster.local_addr().to_string();
        let _drained = booster.drain(Duration::from_secs(5)).await;
        at
    }

    /// Starts the booster again where it was.
    async fn start_booster(&mut self, at: &str) {
        let data = self.bed.path("booster");
        let settings = format!(
            "data = {data:?}\ncontent.listen = {at:?}\n\
             enrol.listen = {ANY:?}\nops.listen = {ANY:?}\n"
        );
        let file = self.bed.path("booster.toml");
        std::fs::write(&file, settings).unwrap();
        let config = booster::Config::load(&file).unwrap();
        let config = config.with_crl_poll(CRL_POLL);
        self.booster = Some(self.bed.start_booster(config, "booster").await.unwrap());
    }
}

fn key(data: &Path) -> Vec<u8> {
    std::fs::read(data.join("identity/key.pem")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_client_ca_is_stolen_devices_enrol_anew_with_their_keys() {
    let mut run = Run::start().await;
    let (join, one) = (
        run.bed.join(Role::Client).await.unwrap(),
        run.bed.path("one"),
    );
    let old = Party::of(&one, &join, &run.bed.clock()).await.unwrap();
    let at = run.booster().local_addr().to_string();
    let old = old.source(Role::Booster, "booster", at).unwrap();
    assert_eq!(Party::refusal(&old).await.unwrap(), None);

    run.replace(CaKind::Client).await;
    let refused = async || Party::refusal(&old).await.ok().flatten();
    let refused = until(refused, Option::is_some).await;
    assert_eq!(refused, Some(RefusalReason::Revoked));
    for id in ["one", "two"] {
        let lost = run.pull(id).await.unwrap_err();
        assert!(format!("{lost:#}").contains("(revoked)"), "{lost:#}");
    }

    run.enrols_anew(Kind::Client, "one", RefusalReason::Revoked)
        .await;
    run.pulls_from_the_booster("one").await;
    // The others are none the better for it.
    assert!(run.pull("two").await.is_err());
    run.enrols_anew(Kind::Client, "two", RefusalReason::Revoked)
        .await;
    run.pulls_from_the_booster("two").await;
    // The void certificate got nobody anything, and a revoked key stays out.
    assert!(Party::refusal(&old).await.unwrap().is_some());
    run.bed.revoke("two").await.unwrap();
    let two = run.bed.path("two");
    let (refused, _) = run.try_to_enrol(Kind::Client, &two, PATIENCE).await;
    assert!(matches!(refused, Err(EnrolError::Revoked { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_node_ca_is_stolen_boosters_enrol_anew_and_devices_just_go_on() {
    let mut run = Run::start().await;
    run.replace(CaKind::Node).await;
    // Until the booster is back, devices go to the origin, whose certificate is a new one already.
    let mut round_it = Vec::new();
    while round_it.is_empty() {
        // As soon as the booster, which may hand out lists, has fetched the new one.
        round_it = run.pull("one").await.unwrap().bypasses;
        assert!(run.pulls < 200, "the void booster is believed for ever");
    }
    assert!(round_it[0].reason.contains("revoked"), "{round_it:?}");

    let at = run.stop_booster().await;
    run.enrols_anew(Kind::Booster, "booster", RefusalReason::Revoked)
        .await;
    run.start_booster(&at).await;
    run.pulls_from_the_booster("one").await;
    // This one slept through it all.
    run.pulls_from_the_booster("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_comes_back_too_late_enrols_anew_when_an_operator_approves() {
    let run = Run::start().await;
    let one: PathBuf = run.bed.path("one");
    // 14 days of its certificate, and 30 in which the origin lets it back in by its key alone.
    run.bed.pass(45 * DAY);
    let now = run.bed.clock().now();
    let own = run.bed.origin().authority().own_certificate();
    let renewed = async || own.validity().is_some_and(|(_, ends)| ends > now);
    until(renewed, |renewed| *renewed).await;
    let patience = Duration::ZERO;
    let (waits, notes) = run.try_to_enrol(Kind::Client, &one, patience).await;
    assert!(
        matches!(waits, Err(EnrolError::Pending { .. })),
        "{waits:?}"
    );
    let void = EnrolNote::Void {
        kind: Kind::Client,
        reason: RefusalReason::Expired,
    };
    assert_eq!(notes.first(), Some(&void), "{notes:?}");
    let path = "/devices/one/approve";
    let approved: DeviceView = run.bed.admin().post(path, &()).await.unwrap();
    assert_eq!(approved.id, "one");
    run.enrols_anew(Kind::Client, "one", RefusalReason::Expired)
        .await;
}
