//! Whoever plays a booster, over TCP: what the caller makes of it, hears and reports.

use std::sync::atomic::Ordering;

use certs::Role;
use certs::testing::{BoosterCert, Issuers};
use certs::tls::Expected;
use certs::trust::Revocation;
use protocol::report::{Direction, Matter, Stage};

use super::*;
use crate::listen::Limits;
use crate::source::CallLimits;
use crate::testing::{Bed, Own, Recorder, Records, data};
use crate::{CallError, Listener, Refusals, Source, SourceSettings};

/// A listener that shows `shown` as the booster `oslo`, and a client that looks for that one.
struct Scene {
    listener: Listener,
    recorder: Arc<Recorder>,
    refusals: Refusals,
    source: Source,
}

impl Scene {
    async fn new(shown: BoosterCert) -> Self {
        let bed = Bed::new();
        let issuers = Issuers {
            node: &bed.node,
            client: &bed.client,
        };
        let made = shown.make(issuers, "oslo", bed.clock.now());
        let serial = made.serial();
        let looked_for = bed.own(Role::Booster, "oslo");
        let own = Own {
            cell: made.cell(),
            chain: made.chain,
            key: made.key,
            serial,
            ..looked_for
        };
        let recorder = Arc::new(Recorder::default());
        let limits = Limits::default();
        let listener = bed.listen(&own, data(), limits, &recorder, serve).await;
        let refusals = Refusals::new(bed.clock.clone());
        let source = Source::new(SourceSettings {
            addresses: vec![listener.local_addr().to_string()],
            expected: Expected::Exactly(own.identity.clone()),
            revocation: Revocation::Required,
            trust: Arc::clone(&bed.trust),
            own: Some(bed.own(Role::Client, "laptop-7").cell),
            clock: bed.clock.clone(),
            http2: false,
            limits: CallLimits::default(),
            refusals: Some(refusals.clone()),
        })
        .unwrap();
        if shown == BoosterCert::Revoked {
            bed.publish(&bed.node, 2, &[serial]);
        }
        if shown == BoosterCert::StaleList {
            // The origin has gone beyond the list that the client has.
            bed.trust.crls().require_number(bed.node.id(), 2);
        }
        Self {
            listener,
            recorder,
            refusals,
            source,
        }
    }
}

#[tokio::test]
async fn whoever_plays_the_booster_over_tcp_reads_nothing_and_is_one_report() {
    for shown in BoosterCert::ALL {
        let scene = Scene::new(shown).await;
        let (said, judgement) = (scene.source.hello().await, shown.judgement());
        let Some(reason) = judgement.reason else {
            said.unwrap();
            assert_eq!(scene.refusals.batch(), None, "{shown:?}");
            continue;
        };
        let told = matches!(&said, Err(CallError::Distrusted { reason: it, .. }) if *it == reason);
        assert!(told, "{shown:?}: {said:?}");
        let reports = scene.refusals.batch().unwrap().reports;
        let [report] = &reports[..] else {
            panic!("{shown:?}: {reports:?}")
        };
        let Matter::Refusal(refusal) = &report.matter else {
            panic!("{shown:?}: {report:?}")
        };
        assert_eq!(report.count, 1, "{shown:?}");
        assert_eq!(refusal.direction, Direction::Outbound, "{shown:?}");
        assert_eq!(refusal.stage, Stage::Handshake, "{shown:?}");
        assert_eq!(refusal.reason, reason.as_str(), "{shown:?}");
        assert_eq!(
            refusal.possession_proved, judgement.possession_proved,
            "{shown:?}"
        );
        let address = scene.listener.local_addr().to_string();
        assert_eq!(refusal.remote, address, "{shown:?}");
        assert!(refusal.cert.is_some(), "{shown:?}");
        // It hears that we turned from it, and has read no request.
        let turned = |records: &Records| records.refused.iter().any(|refused| refused.by_peer);
        scene.recorder.until(turned).await;
        let read = scene.listener.metrics().requests.load(Ordering::Relaxed);
        assert_eq!(read, 0, "{shown:?}");
    }
}
