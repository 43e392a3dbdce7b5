//! A branch whose line is cut: fresh, grace, closed, and back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use booster::Booster;
use booster::offline::Phase;
use certs::tls::Expected;
use certs::trust::Revocation;
use certs::{RefusalReason, Role};
use client::{PullReport, PullRequest, TimestampState};
use member::{Identity, Kind, State};
use protocol::Code;
use tests::link::{Fate, Link};
use tests::scrape::metric;
use tests::testbed::{Testbed, until};
use tests::{fixture, tree};
use transport::source::CallLimits;
use transport::{CallError, Source, SourceSettings};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// What the booster's operator puts up with.
const BOOSTER_GRACE: Duration = Duration::from_secs(3 * 86_400);
/// What the devices' operator puts up with.
const DEVICE_GRACE: Duration = Duration::from_secs(30 * 86_400);

/// An origin at the far end of a line.
struct Far {
    bed: Testbed,
    lines: [Link; 2],
}

impl Far {
    async fn start() -> Self {
        let nowhere = ([127, 0, 0, 1], 1).into();
        let content = Link::open(nowhere, Fate::Pass).await.unwrap();
        let enrol = Link::open(nowhere, Fate::Pass).await.unwrap();
        let bed = Testbed::start_behind(&[content.address()], &[enrol.address()])
            .await
            .unwrap();
        content.lead_to(bed.origin().addresses().content);
        enrol.lead_to(bed.origin().addresses().enrol);
        Self {
            bed,
            lines: [content, enrol],
        }
    }

    fn set(&self, fate: Fate) {
        self.lines.iter().for_each(|line| line.set(fate));
    }

    async fn booster(&self) -> (Booster, booster::Config) {
        let data = self.bed.enrol_booster("booster").await.unwrap();
        let config = booster::Config::on_loopback(data)
            .with_crl_poll(tests::testbed::CRL_POLL)
            .with_crl_grace(BOOSTER_GRACE);
        let booster = self.bed.start_booster(config.clone(), "booster").await;
        (booster.unwrap(), config)
    }

    /// Calls of the device of `data` to the booster, by its own lists of now.
    fn calls(&self, data: &Path, booster: &Booster) -> Source {
        let now = self.bed.clock().now();
        let identity = Identity::load(&data.join("identity"), Kind::Client, DEVICE_GRACE, now);
        let identity = identity.unwrap().unwrap();
        State::new(data.join("state")).load_crls(&identity.trust, now);
        let expected = certs::Identity {
            deployment: identity.name.deployment.clone(),
            role: Role::Booster,
            id: "booster".parse().unwrap(),
        };
        Source::new(SourceSettings {
            addresses: vec![booster.local_addr().to_string()],
            expected: Expected::Exactly(expected),
            revocation: Revocation::Required,
            trust: Arc::clone(&identity.trust),
            own: Some(Arc::clone(&identity.cell)),
            clock: self.bed.clock(),
            http2: true,
            limits: CallLimits::default(),
            refusals: None,
        })
        .unwrap()
    }

    async fn pull_in_grace(&self, data: &Path, target: &Path) -> anyhow::Result<PullReport> {
        let request = PullRequest {
            grace: DEVICE_GRACE,
            ..PullRequest::new(data.to_owned(), "tools".parse()?, target.to_owned())
        };
        Ok(client::pull(request, &self.bed.clock()).await?)
    }

    fn timestamp(&self, data: &Path, grace: Duration) -> TimestampState {
        let status = client::status(data, grace, &self.bed.clock()).unwrap();
        status.timestamp.unwrap().state
    }
}

/// Waits until the booster shows that phase on its metrics page and tells it as its status.
async fn shown(booster: &Booster, config: &booster::Config, phase: Phase) {
    let look = async || {
        booster::status::status(config, &service::Clock::system())
            .await
            .unwrap()
    };
    until(look, |status| status.revocation.phase == phase).await;
    let ops = booster.addresses().ops;
    let state = format!("state=\"{}\"", phase.as_str());
    let look = async || {
        metric(ops, "larder_booster_revocation_state", &state)
            .await
            .ok()
    };
    until(look, |value| *value == Some(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_cut_off_goes_from_fresh_over_grace_to_closed_and_back() {
    let far = Far::start().await;
    let bed = &far.bed;
    fixture::tree(&bed.path("tree"), 2).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let (booster, config) = far.booster().await;
    let (known, stranger) = (
        bed.enrol_client("known").await.unwrap(),
        bed.enrol_client("stranger").await.unwrap(),
    );
    bed.pull(&known, "tools", &bed.path("fresh")).await.unwrap();
    let live = far.calls(&known, &booster);
    live.hello().await.unwrap();
    shown(&booster, &config, Phase::Fresh).await;

    // The line is cut. A day on the timestamp has ended, and the lists have not.
    far.set(Fate::Down);
    bed.pass(DAY + HOUR);
    let report = far
        .pull_in_grace(&known, &bed.path("frozen"))
        .await
        .unwrap();
    tree::compare(&bed.path("tree"), &bed.path("frozen")).unwrap();
    assert!(
        report
            .sources
            .iter()
            .all(|it| it.source.contains("booster"))
    );
    assert_eq!(
        far.timestamp(&known, Duration::ZERO),
        TimestampState::Closed
    );
    assert_eq!(far.timestamp(&known, DEVICE_GRACE), TimestampState::Grace);
    shown(&booster, &config, Phase::Fresh).await;

    // A week on the lists are overdue: who was seen before goes on, and nobody else comes in.
    bed.pass(6 * DAY);
    shown(&booster, &config, Phase::Grace).await;
    live.hello().await.unwrap();
    far.pull_in_grace(&known, &bed.path("grace")).await.unwrap();
    tree::compare(&bed.path("tree"), &bed.path("grace")).unwrap();
    let refused = far.calls(&stranger, &booster).hello().await.unwrap_err();
    assert!(
        matches!(&refused, CallError::Fault { fault, .. } if fault.code == Code::Forbidden),
        "{refused:?}"
    );
    let ops = booster.addresses().ops;
    let age = metric(ops, "larder_booster_crl_age_seconds", "ca=\"client\"").await;
    assert!((7 * DAY..8 * DAY).contains(&(age.unwrap() as i64)));

    // Three days more, and nobody comes in; a live session ends at its next request.
    bed.pass(3 * DAY);
    shown(&booster, &config, Phase::Closed).await;
    let told = live.hello().await.unwrap_err();
    assert!(matches!(told, CallError::Fault { .. }), "{told:?}");
    let refused = far.calls(&known, &booster).hello().await.unwrap_err();
    let unknown = RefusalReason::UnknownIssuer;
    assert!(
        matches!(refused, CallError::Refused { reason } if reason == unknown),
        "{refused:?}"
    );

    // The line is back: all is as it was, and nobody had to do anything.
    far.set(Fate::Pass);
    shown(&booster, &config, Phase::Fresh).await;
    std::fs::write(bed.path("tree/news"), b"after ten days").unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    for data in [&known, &stranger] {
        let target = bed.path(&format!("{}-after", data.file_name().unwrap().display()));
        bed.pull(data, "tools", &target).await.unwrap();
        tree::compare(&bed.path("tree"), &target).unwrap();
        assert_eq!(far.timestamp(data, Duration::ZERO), TimestampState::Fresh);
    }
    // That what was refused meanwhile is reported now, once, is for `reports` to show.
    let _drained = booster.drain(Duration::from_secs(5)).await;
}
