//! A whole rotation under a clock that runs ahead: from the announcement of a new root and its CAs
//! to the removal of the old ones.

use std::path::Path;
use std::time::Duration;

use booster::Booster;
use bytes::Bytes;
use certs::{CaCert, IssuerId, RefusalReason, Role, pem};
use http::Request;
use http_body_util::Full;
use origin::authority::rotate::{RotateError, Which, retire, rotate};
use origin::publish::serve::Keep;
use tests::scrape::metric;
use tests::testbed::{CRL_POLL, Testbed, until};
use tests::{fixture, tree};

const DAY: i64 = 86_400;
/// How far the clock jumps: a client that looks in so often renews its certificate in time.
const STEP: i64 = 4 * DAY;
/// How long a new generation is announced.
const OVERLAP: i64 = 21 * DAY;

/// Any port of loopback.
const ANY: &str = "127.0.0.1:0";

/// A deployment in which time passes.
struct Run {
    bed: Testbed,
    booster: Option<Booster>,
    day: i64,
}

impl Run {
    /// A deployment with a booster and the clients `daily` and `rare`.
    async fn start() -> Self {
        let bed = Testbed::start().await.unwrap();
        fixture::tree(&bed.path("tree"), 1).unwrap();
        let booster = bed.booster("booster").await.unwrap();
        for id in ["daily", "rare"] {
            bed.enrol_client(id).await.unwrap();
        }
        Self {
            bed,
            booster: Some(booster),
            day: 0,
        }
    }

    /// Waits until the origin's lists hold for another step of time.
    async fn keep_up(&self) {
        let now = self.bed.clock().now();
        let hold = async || {
            let trust = self.bed.origin().authority().trust();
            let ends = |id| trust.crls().current(id).map(|crl| crl.next_update());
            let issuing = trust.issuing_cas();
            issuing.iter().all(|ca| ends(ca.id()) > Some(now + STEP))
        };
        until(hold, |hold| *hold).await;
    }

    /// Lets a step of time pass. The origin keeps up by itself; the booster, whose timers go by the
    /// real clock, is started again.
    async fn step(&mut self) {
        self.bed.pass(STEP);
        self.day += STEP / DAY;
        self.keep_up().await;
        let Some(booster) = self.booster.take() else {
            return;
        };
        let (data, at) = (self.bed.path("booster"), booster.local_addr());
        let _drained = booster.drain(Duration::from_secs(5)).await;
        let settings = format!(
            "data = {data:?}\ncontent.listen = \"{at}\"\n\
             enrol.listen = {ANY:?}\nops.listen = {ANY:?}\n"
        );
        let file = self.bed.path("booster.toml");
        std::fs::write(&file, settings).unwrap();
        let config = booster::Config::load(&file)
            .unwrap()
            .with_crl_poll(CRL_POLL);
        self.booster = Some(self.bed.start_booster(config, "booster").await.unwrap());
    }

    /// Pulls as the client `id`, from the booster and without a detour.
    async fn pull(&self, id: &str) {
        let (data, target) = (self.bed.path(id), self.bed.path(&format!("{id}-target")));
        let (day, pulled) = (self.day, self.bed.pull(&data, "tools", &target).await);
        let report = pulled.unwrap_or_else(|error| panic!("day {day}, {id}: {error:?}"));
        assert!(report.bypasses.is_empty(), "day {day}, {id}: {report:?}");
        tree::compare(&self.bed.path("tree"), &target).unwrap();
    }

    async fn newcomer(&self, id: &str) {
        self.bed.enrol_client(id).await.unwrap();
        self.pull(id).await;
    }

    async fn end(&self, kind: &str) -> Result<(), RotateError> {
        let ledger = self.bed.origin().authority().ledger();
        let (data, now) = (self.bed.path("origin"), self.bed.clock().now());
        retire(&data, ledger, kind, 1, now).await?;
        self.reload().await;
        Ok(())
    }

    async fn reload(&self) {
        let admin = self.bed.admin();
        let _done: () = admin.post("/authority/reload", &()).await.unwrap();
    }

    async fn keep_one(&self) {
        let keep = serde_json::to_vec(&Keep { keep: 1 }).unwrap();
        let request = Request::put("/filesets/tools/keep").header("host", "larder");
        let request = request.body(Full::new(Bytes::from(keep))).unwrap();
        let sent = self
            .bed
            .admin()
            .send(request, Duration::from_secs(30))
            .await;
        sent.unwrap();
    }

    async fn publish(&self, text: &str) {
        std::fs::write(self.bed.path("tree/news"), text).unwrap();
        self.bed
            .publish("tools", &self.bed.path("tree"))
            .await
            .unwrap();
    }

    /// By what the origin counts. Whoever hangs up in the middle is no concern here: the pulls came
    /// to their end.
    async fn nobody_was_refused(&self) {
        let ops = self.bed.origin().addresses().ops;
        let handshakes = "larder_origin_tls_handshakes_total";
        let reasons = RefusalReason::ALL.into_iter();
        for reason in reasons.filter(|reason| *reason != RefusalReason::Protocol) {
            let label = format!("result=\"{reason}\"");
            let refused = metric(ops, handshakes, &label).await.unwrap();
            assert_eq!(refused, 0, "the origin refused somebody: {reason}");
        }
    }
}

/// The roots and the issuer of the certificate in the data folder of a member.
fn held(data: &Path) -> (Vec<IssuerId>, IssuerId) {
    let read = |name: &str| {
        let text = std::fs::read_to_string(data.join("identity").join(name)).unwrap();
        let certs = pem::to_certs(&text).unwrap();
        certs
            .iter()
            .filter_map(|der| CaCert::parse(der).ok())
            .map(|ca| ca.id())
            .collect::<Vec<_>>()
    };
    (read("roots.pem"), read("cert.pem")[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_root_takes_over_and_no_good_client_is_refused() {
    let mut run = Run::start().await;
    run.publish("before").await;
    run.pull("daily").await;
    let (_, old_issuer) = held(&run.bed.path("daily"));
    let old_root = run.bed.origin().authority().root_pin();

    let ledger = run.bed.origin().authority().ledger().clone();
    let (data, now) = (run.bed.path("origin"), run.bed.clock().now());
    rotate(&data, &ledger, &Which::Root, None, OVERLAP, now)
        .await
        .unwrap();
    run.reload().await;
    let mut switched_at = None;
    loop {
        run.step().await;
        run.pull("daily").await;
        if run.day % 12 == 0 {
            run.pull("rare").await;
        }
        if run.day == 12 {
            run.newcomer("between").await;
        }
        let is_new = run.bed.origin().authority().root_pin() != old_root;
        if is_new && switched_at.is_none() {
            switched_at = Some(run.day);
            run.newcomer("after").await;
            // The booster hears of it by the next step at the latest.
            run.publish("after").await;
        }
        match run.end("node").await {
            Ok(()) => break,
            Err(RotateError::Successor { .. } | RotateError::NotOver { .. }) => {}
            Err(other) => panic!("day {}: {other:?}", run.day),
        }
        assert!(run.day < 100, "the old CAs end at last");
    }
    assert_eq!(switched_at, Some(24));
    run.end("client").await.unwrap();
    let kept = run.end("content").await.unwrap_err();
    assert!(matches!(kept, RotateError::Signed { .. }), "{kept}");
    run.publish("last").await;
    run.keep_one().await;
    run.end("content").await.unwrap();
    run.end("root").await.unwrap();

    for _ in 0..3 {
        run.step().await;
        run.pull("daily").await;
        run.pull("rare").await;
    }
    run.newcomer("late").await;
    let root = IssuerId::from_bytes(run.bed.origin().authority().root_pin());
    for id in ["daily", "rare", "late", "booster"] {
        let (roots, issuer) = held(&run.bed.path(id));
        assert_eq!(roots, [root], "{id}");
        assert_ne!(issuer, old_issuer, "{id}");
    }
    assert_ne!(root, IssuerId::from_bytes(old_root));
    run.nobody_was_refused().await;
    let clients = run.bed.token(Role::Client, true).await.unwrap();
    assert_eq!(IssuerId::from_bytes(clients.pin), root);
}
