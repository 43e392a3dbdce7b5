//! Every refused handshake is one report at the origin, whoever refused and whenever it can be told.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use booster::Booster;
use certs::testing::{leaf_params_at, sign};
use certs::tls::{CertCell, Expected};
use certs::trust::Revocation;
use certs::{Ca, CaKind, Identity, Key, RefusalReason, Role, Serial, issue, keyfile};
use origin::reports::{ReportView, ReportsView};
use service::Drained;
use tests::fixture;
use tests::link::{Fate, Link};
use tests::testbed::{Party, Testbed, until};
use transport::source::CallLimits;
use transport::{CallError, Listener, Source, SourceSettings};

/// A chain and its key, as somebody shows it.
struct Shown {
    chain: Vec<Vec<u8>>,
    key: Key,
}

/// What the operator sees, the newest first.
async fn listed(bed: &Testbed) -> Vec<ReportView> {
    let path = "/reports?within=86400&limit=1000";
    let view: ReportsView = bed.admin().get(path).await.unwrap();
    view.reports
}

/// The reports of `reporter`, once they are as many as `count`.
async fn of(bed: &Testbed, reporter: &str, count: usize) -> Vec<ReportView> {
    let look = async || {
        let mut all = listed(bed).await;
        all.retain(|report| report.reporter == reporter);
        all
    };
    until(look, |all| all.len() >= count).await
}

/// A CA of the bed's deployment, with its key.
fn own_ca(bed: &Testbed, kind: CaKind) -> Ca {
    let cas = bed.origin().authority().trust().issuing_cas();
    let ca = cas.iter().find(|ca| ca.kind() == Some(kind)).unwrap();
    let name = kind.as_str().to_lowercase();
    let key = keyfile::load(&bed.path(&format!("origin/keys/{name}-g1.pem"))).unwrap();
    Ca::load(ca.der(), key).unwrap()
}

fn serial() -> Serial {
    Serial::from_random(certs::key::random().unwrap())
}

fn name(bed: &Testbed, role: Role, id: &str) -> Identity {
    Identity {
        deployment: bed.origin().authority().deployment().id.clone(),
        role,
        id: id.parse().unwrap(),
    }
}

/// A leaf of `ca` that is in order as far as the CA goes.
fn mint(name: &Identity, ca: &Ca, now: i64, life: Duration) -> Shown {
    let key = Key::generate().unwrap();
    let leaf = issue::leaf(name, key.spki_der(), ca, serial(), now, life).unwrap();
    Shown {
        chain: vec![leaf, ca.cert_der().to_vec()],
        key,
    }
}

/// The issuing CA of somebody else's deployment, of the same name or not.
fn foreign_ca(deployment: &str, kind: CaKind, now: i64) -> Ca {
    let name = deployment.parse().unwrap();
    let root = issue::root(&name, 1, Key::generate().unwrap(), serial(), now).unwrap();
    issue::issuing_ca(kind, 1, &root, Key::generate().unwrap(), serial(), now).unwrap()
}

/// The identity in a data folder.
fn enrolled(data: &Path) -> Shown {
    let text = std::fs::read_to_string(data.join("identity/cert.pem")).unwrap();
    Shown {
        chain: certs::pem::to_certs(&text).unwrap(),
        key: keyfile::load(&data.join("identity/key.pem")).unwrap(),
    }
}

/// A leaf of `ca` for the wrong purpose.
fn for_servers(name: &Identity, ca: &Ca, now: i64) -> Shown {
    /// serverAuth, 1.3.6.1.5.5.7.3.1.
    const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
    let own = sign(&leaf_params_at(name, &[SERVER], now), ca);
    Shown {
        chain: own.chain,
        key: own.key,
    }
}

/// Calls to the booster that show `shown`, whatever it is.
fn knock(bed: &Testbed, party: &Party, booster: &Booster, shown: Option<&Shown>) -> Source {
    let cell = |it: &Shown| Arc::new(CertCell::new(&it.chain, &it.key).unwrap());
    Source::new(SourceSettings {
        addresses: vec![booster.local_addr().to_string()],
        expected: Expected::Exactly(name(bed, Role::Booster, "booster")),
        revocation: Revocation::Required,
        trust: Arc::clone(party.trust()),
        own: shown.map(cell),
        clock: bed.clock(),
        http2: false,
        limits: CallLimits::default(),
        refusals: None,
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_certificates_knock_at_a_booster_and_each_refusal_is_one_report() {
    use RefusalReason as Why;
    let bed = Testbed::start().await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let good = enrolled(&bed.enrol_client("good").await.unwrap());
    let revoked = enrolled(&bed.enrol_client("revoked").await.unwrap());
    bed.revoke("revoked").await.unwrap();
    let (now, week) = (bed.clock().now(), Duration::from_secs(7 * 86_400));
    let ca = own_ca(&bed, CaKind::Client);
    let stranger = foreign_ca("stranger", CaKind::Client, now);
    let impostor = foreign_ca(ca.cert().deployment().as_str(), CaKind::Client, now);
    let client = |id| name(&bed, Role::Client, id);
    let expired = mint(&client("expired"), &ca, now - 300, Duration::ZERO);
    let early = mint(&client("early"), &ca, now + 86_400, week);
    let elsewhere = Identity {
        deployment: "stranger".parse().unwrap(),
        ..client("foreign")
    };
    let foreign = mint(&elsewhere, &stranger, now, week);
    let false_one = mint(&client("false"), &impostor, now, week);
    let server = for_servers(&client("server"), &ca, now);
    let node = own_ca(&bed, CaKind::Node);
    let other = mint(&name(&bed, Role::Booster, "other"), &node, now, week);
    // Until the booster has the list that names the revoked one.
    let party = Party::stranger(&bed.join(Role::Client).await.unwrap(), &bed.clock())
        .await
        .unwrap();
    let number = || booster.metrics().crl_number.with_label_values(&["client"]);
    until(async || number().get(), |number| *number >= 2).await;

    let guests = [
        ("revoked", Some(&revoked), Why::Revoked, true),
        ("expired", Some(&expired), Why::Expired, false),
        ("early", Some(&early), Why::NotYetValid, false),
        ("foreign", Some(&foreign), Why::UnknownIssuer, false),
        ("false", Some(&false_one), Why::BadSignature, false),
        ("server", Some(&server), Why::WrongEku, false),
        ("a booster", Some(&other), Why::WrongRole, true),
        ("none", None, Why::NoCertificate, false),
    ];
    for (guest, shown, why, _) in &guests {
        let refused = knock(&bed, &party, &booster, *shown).hello().await;
        let told = matches!(refused, Err(CallError::Refused { .. }));
        assert!(told, "{guest} ({why}): {refused:?}");
    }
    let welcome = knock(&bed, &party, &booster, Some(&good));
    assert_eq!(welcome.hello().await.unwrap().id, "booster");

    let mut reports = of(&bed, "booster/booster", guests.len()).await;
    for (guest, shown, why, proved) in &guests {
        let is_his = |report: &ReportView| {
            let digest = |it: &&Shown| content::Digest::of(&it.chain[0]).hex();
            report.cert_sha256 == shown.as_ref().map(digest)
        };
        let at = reports.iter().position(is_his);
        let report = reports.remove(at.unwrap_or_else(|| panic!("{guest}: {reports:?}")));
        assert_eq!(report.reason.as_deref(), Some(why.as_str()), "{guest}");
        assert_eq!(report.count, 1, "{guest}");
        assert_eq!(report.possession_proved, Some(*proved), "{guest}");
        assert!(report.remote.unwrap().starts_with("127.0.0.1:"), "{guest}");
        let claims = report.claims_unverified.map(|it| it.serial);
        assert_eq!(claims.is_some(), shown.is_some(), "{guest}");
    }
    assert_eq!(
        reports,
        [],
        "one report each, and none of the guest in order"
    );
    let _drained = booster.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reports_whoever_stands_in_for_its_booster() {
    let bed = Testbed::start().await.unwrap();
    fixture::tree(&bed.path("tree"), 1).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    // Another client, with its own certificate, where the booster should be.
    let client = bed.enrol_client("one").await.unwrap();
    let fake = bed.enrol_client("fake").await.unwrap();
    let join = bed.join(Role::Client).await.unwrap();
    let fake = Party::of(&fake, &join, &bed.clock()).await.unwrap();
    let settings = fake.listen_settings(&[Role::Client]).unwrap();
    let silence = |_, _| async { http::Response::new(transport::Body::empty()) };
    let any = ([127, 0, 0, 1], 0).into();
    let listener = Listener::bind(any, settings, silence, Arc::new(()))
        .await
        .unwrap();
    let mut request =
        client::PullRequest::new(client.clone(), "tools".parse().unwrap(), bed.path("target"));
    request.sources = vec![
        format!("booster@{}", listener.local_addr())
            .parse()
            .unwrap(),
    ];
    let report = client::pull(request, &bed.clock()).await.unwrap();
    assert_eq!(report.bypasses.len(), 1, "{:?}", report.bypasses);

    // Whom it met, and that it went round the booster for that.
    let mut reports = of(&bed, "client/one", 2).await;
    reports.sort_by_key(|report| report.kind == "bypass");
    let [report, bypass] = &reports[..] else {
        panic!("{reports:?}");
    };
    assert_eq!(bypass.kind, "bypass");
    assert_eq!(bypass.reason.as_deref(), Some("distrusted"));
    assert_eq!(bypass.booster.as_deref(), Some("booster"));
    assert_eq!(report.direction.as_deref(), Some("outbound"));
    assert_eq!(report.reason.as_deref(), Some("wrong_eku"));
    assert_eq!(
        report.party.as_deref(),
        Some("spiffe://bed.larder.internal/booster/booster")
    );
    assert_eq!(
        listener.drain(Duration::from_secs(5)).await,
        Drained::InTime
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_in_the_middle_of_a_pull_reports_whom_it_had_met() {
    let nowhere = ([127, 0, 0, 1], 9).into();
    let line = Link::open(nowhere, Fate::Pass).await.unwrap();
    let bed = Testbed::start_at(&[line.address()]).await.unwrap();
    line.lead_to(bed.origin().addresses().content);
    fixture::tree(&bed.path("tree"), 1).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let data = bed.enrol_client("one").await.unwrap();
    let fake = bed.enrol_client("fake").await.unwrap();
    let join = bed.join(Role::Client).await.unwrap();
    let fake = Party::of(&fake, &join, &bed.clock()).await.unwrap();
    let settings = fake.listen_settings(&[Role::Client]).unwrap();
    let silence = |_, _| async { http::Response::new(transport::Body::empty()) };
    let any = ([127, 0, 0, 1], 0).into();
    let listening = Listener::bind(any, settings, silence, Arc::new(()));
    let listener = listening.await.unwrap();

    // It turns from the false booster, and then waits for an origin that does not answer.
    line.set(Fate::Hold);
    let source = format!("booster@{}", listener.local_addr());
    let (target, at) = (bed.path("target"), data.display().to_string());
    let shown = target.display().to_string();
    let words = ["pull", "tools", &shown, "--data", &at, "--source", &source];
    let mut client = Command::new(env!("CARGO_BIN_EXE_party"));
    let client = client.arg("client").args(words).stdin(Stdio::null());
    let client = client.stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = client.spawn().unwrap();
    let file = data.join("state/reports.json");
    assert!(until(async || file.exists(), |exists| *exists).await);
    assert!(client.try_wait().unwrap().is_none(), "it is in the middle");
    client.kill().unwrap();
    client.wait().unwrap();
    assert!(file.exists());

    line.set(Fate::Pass);
    bed.pull(&data, "tools", &target).await.unwrap();
    let reports = of(&bed, "client/one", 1).await;
    let reasons: Vec<_> = reports.iter().map(|it| it.reason.as_deref()).collect();
    assert_eq!(reasons, [Some("wrong_eku")], "{reports:?}");
    assert!(!file.exists());
    let _drained = listener.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_wait_on_disk_while_the_line_is_cut_and_arrive_once() {
    // An origin that comes back has other ports: the link leads there.
    let nowhere = ([127, 0, 0, 1], 9).into();
    let line = Link::open(nowhere, Fate::Pass).await.unwrap();
    let mut bed = Testbed::start_at(&[line.address()]).await.unwrap();
    line.lead_to(bed.origin().addresses().content);
    let booster = bed.booster("booster").await.unwrap();
    let party = Party::stranger(&bed.join(Role::Client).await.unwrap(), &bed.clock())
        .await
        .unwrap();
    bed.kill_origin();
    let refused = knock_without(&party, &booster).await;
    assert!(refused, "a stranger is refused while the line is cut");
    let waiting = || booster.metrics().reports_waiting.get();
    until(async || waiting(), |waiting| *waiting == 1).await;
    // A stop in between: what waits is on disk.
    let _drained = booster.drain(Duration::from_secs(5)).await;
    assert!(bed.path("booster/state/reports.json").exists());
    bed.restart_origin().await.unwrap();
    line.lead_to(bed.origin().addresses().content);
    let config = booster::Config::on_loopback(bed.path("booster"));
    let booster = bed.start_booster(config, "booster").await.unwrap();
    let reports = of(&bed, "booster/booster", 1).await;
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0].reason.as_deref(), Some("no_certificate"));
    let gone = async || bed.path("booster/state/reports.json").exists();
    until(gone, |exists| !exists).await;
    let _drained = booster.drain(Duration::from_secs(5)).await;
    assert_eq!(of(&bed, "booster/booster", 1).await.len(), 1, "once");
}

/// Whether a booster refuses a stranger in so many words.
async fn knock_without(party: &Party, booster: &Booster) -> bool {
    let address = booster.local_addr().to_string();
    let source = party.source(Role::Booster, "booster", address).unwrap();
    matches!(source.hello().await, Err(CallError::Refused { .. }))
}
