//! What is gathered, merged, bounded and handed over.

use std::sync::atomic::{AtomicI64, Ordering};

use protocol::report::BypassReason;

use super::*;

struct Bed {
    offset: Arc<AtomicI64>,
    refusals: Refusals,
}

impl Bed {
    fn new() -> Self {
        let offset = Arc::new(AtomicI64::new(0));
        let refusals = Refusals::new(Clock::fixed_offset(Arc::clone(&offset)));
        Self { offset, refusals }
    }

    fn pass(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A listener refuses a certificate, told by a byte, from an address.
    fn refuse(&self, remote: &str, cert: u8, possession_proved: bool) {
        self.refusals.note(&Refused {
            remote: format!("{remote}:4000").parse().unwrap(),
            by_peer: false,
            reason: RefusalReason::Revoked,
            stage: Handshake::Failed,
            possession_proved,
            evidence: Some(Evidence {
                cert_sha256: [cert; 32],
                leaf_der: vec![cert; 700],
                possession_proved,
                reason: Some(RefusalReason::Revoked),
            }),
            peer: None,
        });
    }

    fn counts(&self) -> Vec<u64> {
        let reports = self.refusals.batch().unwrap_or_default().reports;
        reports.iter().map(|report| report.count).collect()
    }

    /// What the origin gets, which keeps it.
    fn deliver(&self) -> Reports {
        let batch = self.refusals.batch().unwrap_or_default();
        assert!(batch.encode().len() <= Reports::BYTES_MAX);
        let arrived = Reports::decode(&batch.encode()).unwrap();
        self.refusals.delivered(&arrived);
        arrived
    }
}

#[test]
fn the_same_certificate_from_the_same_network_is_one_report() {
    let bed = Bed::new();
    bed.refuse("10.0.0.1", 1, true);
    bed.refuse("10.0.0.200", 1, true);
    assert_eq!(bed.counts(), [2]);
    // Another network, another certificate, or no proof: another report.
    bed.refuse("10.0.1.1", 1, true);
    bed.refuse("10.0.0.1", 2, true);
    bed.refuse("10.0.0.1", 1, false);
    assert_eq!(bed.counts(), [2, 1, 1, 1]);
}

#[test]
fn what_a_booster_costs_that_is_gone_round_is_added_up() {
    let bed = Bed::new();
    let round = |booster: &str, reason, bytes| {
        let booster = booster.to_owned();
        bed.refusals.bypass(Bypass {
            booster,
            reason,
            bytes,
        });
    };
    round("b1", BypassReason::Timeout, 10);
    round("b1", BypassReason::Timeout, 7);
    round("b1", BypassReason::Resting, 5);
    let arrived = bed.deliver().reports;
    let told = arrived.iter().map(|report| match &report.matter {
        Matter::Bypass(bypass) => (report.count, bypass.reason, bypass.bytes),
        Matter::Notice(_) | Matter::Refusal(_) => panic!("{report:?}"),
    });
    let told: Vec<_> = told.collect();
    assert_eq!(
        told,
        [
            (2, BypassReason::Timeout, 17),
            (1, BypassReason::Resting, 5)
        ]
    );
    round("b1", BypassReason::Timeout, 3);
    bed.pass(70);
    let Matter::Bypass(again) = bed.deliver().reports.remove(0).matter else {
        panic!("it is another matter")
    };
    assert_eq!(again.bytes, 20);
}

#[test]
fn what_has_arrived_is_not_sent_again_and_its_counter_goes_on() {
    let bed = Bed::new();
    bed.refuse("10.0.0.1", 1, true);
    let first = bed.deliver().reports.remove(0);
    assert_eq!(bed.refusals.batch(), None);
    bed.pass(60);
    bed.refuse("10.0.0.1", 1, true);
    let again = bed.deliver().reports.remove(0);
    assert_eq!((&again.id, again.count), (&first.id, 2));
    let cert = |report: &protocol::Reported| match &report.matter {
        Matter::Refusal(refusal) => refusal.cert.clone(),
        Matter::Bypass(_) | Matter::Notice(_) => None,
    };
    assert!(cert(&first).is_some());
    assert_eq!(cert(&again), None, "it has the certificate");
    bed.pass(3600);
    bed.refuse("10.0.0.1", 1, true);
    let next = bed.deliver().reports.remove(0);
    assert_ne!(next.id, first.id, "after an hour, a new one");
    assert_eq!(next.count, 1);
}

#[test]
fn what_comes_while_a_batch_is_under_way_waits_for_the_next() {
    let bed = Bed::new();
    bed.refuse("10.0.0.1", 1, true);
    let under_way = bed.refusals.batch().unwrap();
    bed.refuse("10.0.0.1", 1, true);
    bed.refusals.delivered(&under_way);
    assert_eq!(bed.refusals.waiting().reports[0].count, 2);
    assert_eq!(bed.refusals.batch(), None, "told a moment ago");
    bed.pass(60);
    assert_eq!(bed.counts(), [2]);
}

#[test]
fn what_tells_of_somebody_goes_before_what_tells_of_nobody() {
    let bed = Bed::new();
    for host in 0..100 {
        bed.refuse(&format!("10.0.{host}.1"), 2, false);
    }
    bed.refuse("10.0.0.1", 1, true);
    let batch = bed.refusals.batch().unwrap();
    let proves = |report: &protocol::Reported| match &report.matter {
        Matter::Refusal(refusal) => refusal.possession_proved,
        Matter::Bypass(_) | Matter::Notice(_) => false,
    };
    assert!(batch.reports.len() < 100, "not all fit into a body");
    assert!(proves(&batch.reports[0]));
    // All are written down, the oldest first.
    assert!(bed.refusals.waiting().reports.last().is_some_and(proves));
}

#[test]
fn a_branch_that_is_closed_does_not_push_out_what_was_seen_before() {
    let bed = Bed::new();
    bed.refuse("10.0.0.1", 1, true);
    for device in 0..300_u32 {
        bed.pass(1);
        bed.refusals.note(&Refused {
            remote: "10.0.0.2:4000".parse().unwrap(),
            by_peer: false,
            reason: RefusalReason::CrlStale,
            stage: Handshake::Failed,
            possession_proved: true,
            evidence: Some(Evidence {
                cert_sha256: [device.to_be_bytes(); 8].concat().try_into().unwrap(),
                leaf_der: vec![0; 700],
                possession_proved: true,
                reason: Some(RefusalReason::CrlStale),
            }),
            peer: None,
        });
    }
    assert!(bed.refusals.counts().dropped > 0);
    let first = bed.refusals.batch().unwrap().reports.remove(0);
    assert!(matches!(first.matter, Matter::Refusal(it) if it.reason == "revoked"));
}

#[test]
fn what_is_given_up_is_counted_and_rests_for_its_hour() {
    let bed = Bed::new();
    bed.refuse("10.0.0.1", 1, true);
    bed.refuse("10.0.0.1", 1, true);
    bed.refusals.give_up(&bed.refusals.batch().unwrap());
    bed.refuse("10.0.0.1", 1, true);
    let counts = bed.refusals.counts();
    assert_eq!(
        (counts.waiting, counts.dropped, counts.delivered),
        (0, 3, 0)
    );
    bed.pass(3600);
    bed.refuse("10.0.0.1", 1, true);
    assert_eq!(bed.counts(), [1], "perhaps the origin has learnt by now");
    assert_eq!(bed.deliver().dropped, 3);
}

#[test]
fn a_clock_that_is_set_back_begins_a_new_report() {
    let bed = Bed::new();
    bed.pass(1_000_000);
    bed.refuse("10.0.0.1", 1, true);
    let ahead = bed.deliver().reports.remove(0);
    bed.pass(-1_000_000);
    bed.refuse("10.0.0.1", 1, true);
    let right = bed.deliver().reports.remove(0);
    assert_ne!(right.id, ahead.id);
    assert!(right.first_at < ahead.first_at);
}

#[test]
fn a_notice_given_before_the_last_runs_are_taken_up_is_counted() {
    let bed = Bed::new();
    bed.refusals.notice("renewal_overdue", "since Monday");
    bed.refusals.notice("renewal_overdue", "since Monday");
    let kept = bed.refusals.waiting();
    let next = Bed::new();
    next.refusals.notice("renewal_overdue", "since Monday");
    next.refusals.restore(kept.clone(), 0);
    let arrived = next.deliver().reports.remove(0);
    assert_eq!((arrived.count, &arrived.id), (3, &kept.reports[0].id));
}

#[test]
fn a_flood_of_strangers_pushes_out_strangers_and_is_counted() {
    let bed = Bed::new();
    bed.refuse("10.0.0.1", 1, true);
    for host in 0..400_u32 {
        bed.pass(1);
        bed.refuse(&format!("10.{}.{}.1", 1 + host / 250, host % 250), 2, false);
    }
    let counts = bed.refusals.counts();
    assert_eq!((counts.waiting, counts.dropped), (256, 401 - 256));
    let mut all = Vec::new();
    while let Some(batch) = bed.refusals.batch() {
        assert!(batch.reports.len() <= Reports::COUNT_MAX);
        all.extend(bed.deliver().reports);
    }
    assert_eq!(all.len(), 256);
    let proved = all.iter().filter(
        |report| matches!(&report.matter, Matter::Refusal(refusal) if refusal.possession_proved),
    );
    assert_eq!(proved.count(), 1, "the oldest, but the one that says most");
}

#[test]
fn what_waits_survives_a_restart_once() {
    let bed = Bed::new();
    bed.refuse("10.0.0.1", 1, true);
    bed.refusals.notice("renewal_overdue", &"ä".repeat(400));
    let kept = bed.refusals.waiting();
    let next = Bed::new();
    next.refusals.restore(kept.clone(), 0);
    let arrived = next.deliver();
    let ids = |reports: &Reports| -> Vec<String> {
        let mut ids: Vec<String> = reports.reports.iter().map(|it| it.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&arrived), ids(&kept));
    assert_eq!(next.refusals.batch(), None);
}

#[test]
fn networks_are_those_of_an_office() {
    let check = |ip: &str, expected: &str| assert_eq!(network(ip.parse().unwrap()), expected);
    check("192.0.2.77", "192.0.2.0/24");
    check("::ffff:192.0.2.77", "192.0.2.0/24");
    check("2001:db8:1:2:3::4", "2001:db8:1:2::/64");
}
