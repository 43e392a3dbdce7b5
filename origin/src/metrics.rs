//! What the origin counts. Every name begins with `larder_origin_`.

use std::collections::BTreeMap;
use std::sync::Arc;

use certs::{Crl, RefusalReason};
use http::StatusCode;
use protocol::Reported;
use protocol::report::{BypassReason, Matter};
use service::metrics::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, MetricsError, Registry};
use tracing::debug;
use transport::{Handshake, HandshakeSink, Refusals, Refused, Session};

use crate::authority::Authority;
use crate::ledger::devices::{self, State};
use crate::ledger::{Ledger, LedgerError};

/// The origin's numbers. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    decisions: IntCounterVec,
    enrolments: IntCounterVec,
    devices: IntGaugeVec,
    certificate_not_after: IntGauge,
    crl_number: IntGaugeVec,
    crl_next_update: IntGaugeVec,
    handshakes: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    sessions: IntGaugeVec,
    sessions_ended: IntCounterVec,
    ca_not_after: IntGaugeVec,
    reports: IntCounterVec,
    reports_dropped: IntCounterVec,
    reports_waiting: IntGauge,
    bypasses: IntCounterVec,
    bypass_bytes: IntCounterVec,
    fleet: FleetMetrics,
}

/// The numbers of models, manifests and check-ins.
#[derive(Clone, Debug)]
struct FleetMetrics {
    check_ins: IntCounterVec,
    inventories: IntCounterVec,
    manifests_built: IntCounter,
    manifests_due: IntGauge,
    model: IntGauge,
    rosters: IntCounter,
    waiting: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let (reports, reports_dropped, reports_waiting) = of_reports(registry)?;
        let (bypasses, bypass_bytes) = of_bypasses(registry)?;
        Ok(Self {
            requests: registry.counters(
                "http_requests_total",
                "Requests answered, by listener, kind of route and status.",
                &["listener", "route", "code"],
            )?,
            decisions: registry.counters(
                "device_decisions_total",
                "What operators decided about devices.",
                &["verdict"],
            )?,
            enrolments: registry.counters(
                "enrolments_total",
                "Enrolments and renewals, by what became of them.",
                &["result"],
            )?,
            devices: registry.gauges("devices", "Devices, by state.", &["state"])?,
            certificate_not_after: registry.gauge(
                "tls_certificate_not_after_timestamp_seconds",
                "When the origin's own certificate ends.",
            )?,
            crl_number: registry.gauges(
                "tls_crl_number",
                "Number of the revocation list in force, by issuer.",
                &["issuer"],
            )?,
            crl_next_update: registry.gauges(
                "tls_crl_next_update_timestamp_seconds",
                "Until when the revocation list in force may be relied on, by issuer.",
                &["issuer"],
            )?,
            handshakes: registry.counters(
                "tls_handshakes_total",
                "Handshakes, by listener and result: accepted, or why not.",
                &["listener", "result"],
            )?,
            received: registry.counters(
                "http_received_bytes_total",
                "Bytes received over TCP, TLS included, by listener.",
                &["listener"],
            )?,
            sent: registry.counters(
                "http_sent_bytes_total",
                "Bytes sent over TCP, TLS included, by listener.",
                &["listener"],
            )?,
            sessions: registry.gauges(
                "tls_sessions",
                "Sessions open, by listener.",
                &["listener"],
            )?,
            sessions_ended: registry.counters(
                "tls_sessions_ended_total",
                "Sessions that were ended because of their certificate, by listener and reason.",
                &["listener", "reason"],
            )?,
            reports,
            reports_dropped,
            reports_waiting,
            bypasses,
            bypass_bytes,
            fleet: of_fleet(registry)?,
            ca_not_after: registry.gauges(
                "tls_ca_not_after_timestamp_seconds",
                "When the certificate of the root or an issuing CA ends.",
                &["issuer"],
            )?,
        })
    }

    /// Counts an answer.
    pub fn answered(&self, listener: &str, route: &str, status: StatusCode) {
        self.requests
            .with_label_values(&[listener, route, status.as_str()])
            .inc();
    }

    /// Counts the handshakes of `listener`.
    #[must_use]
    pub fn sink(&self, listener: &'static str) -> Arc<dyn HandshakeSink> {
        // A number that is not there yet cannot be watched for its first rise.
        for reason in RefusalReason::ALL {
            let labels = [listener, reason.as_str()];
            self.handshakes.with_label_values(&labels).inc_by(0);
            self.sessions_ended.with_label_values(&labels).inc_by(0);
        }
        self.handshakes
            .with_label_values(&[listener, "accepted"])
            .inc_by(0);
        Arc::new(Sink {
            listener,
            metrics: self.clone(),
        })
    }

    /// Bytes received and sent by `listener`, and its open sessions.
    #[must_use]
    pub fn listener(&self, listener: &str) -> (IntCounter, IntCounter, IntGauge) {
        (
            self.received.with_label_values(&[listener]),
            self.sent.with_label_values(&[listener]),
            self.sessions.with_label_values(&[listener]),
        )
    }

    /// Counts what became of an enrolment.
    pub fn enrolled(&self, result: &str) {
        self.enrolments.with_label_values(&[result]).inc();
    }

    /// Counts a report that is new. What a reporter calls by a word that we do not know is counted
    /// as `other`: labels are ours to choose.
    pub fn reported(&self, report: &Reported) {
        let reason = match &report.matter {
            Matter::Refusal(refusal) => refusal
                .reason
                .parse()
                .map_or("other", RefusalReason::as_str),
            Matter::Notice(_) => "notice",
            Matter::Bypass(_) => "bypass",
        };
        self.reports.with_label_values(&[reason]).inc();
    }

    /// Counts how often a booster was gone round, and what that has cost.
    pub fn bypassed(&self, reason: BypassReason, times: u64, bytes: u64) {
        let labels = [reason.as_str()];
        self.bypasses.with_label_values(&labels).inc_by(times);
        self.bypass_bytes.with_label_values(&labels).inc_by(bytes);
    }

    /// How often boosters were gone round for that reason, and what that has cost.
    #[cfg(test)]
    pub(crate) fn bypass_counts(&self, reason: BypassReason) -> (u64, u64) {
        let labels = [reason.as_str()];
        let times = self.bypasses.with_label_values(&labels).get();
        (times, self.bypass_bytes.with_label_values(&labels).get())
    }

    /// Counts refusals that members had to give up.
    pub fn members_dropped(&self, count: u64) {
        self.reports_dropped
            .with_label_values(&["members"])
            .inc_by(count);
    }

    /// Shows what became of the reports of the origin itself.
    pub fn show_reports(&self, own: &Refusals) {
        let own = own.counts();
        let dropped = self.reports_dropped.with_label_values(&["origin"]);
        dropped.inc_by(own.dropped.saturating_sub(dropped.get()));
        let waiting = i64::try_from(own.waiting).unwrap_or(i64::MAX);
        self.reports_waiting.set(waiting);
    }

    /// Counts a check-in by what it was told.
    pub fn checked_in(&self, answer: &str) {
        self.fleet.check_ins.with_label_values(&[answer]).inc();
    }

    /// Counts an inventory by what became of it.
    pub fn inventory(&self, result: &str) {
        self.fleet.inventories.with_label_values(&[result]).inc();
    }

    /// Counts manifests that were made.
    pub fn manifests_built(&self, count: u64) {
        self.fleet.manifests_built.inc_by(count);
    }

    /// Counts a head of a roster that was signed.
    pub fn roster_signed(&self) {
        self.fleet.rosters.inc();
    }

    /// Shows how many manifests are due.
    pub fn manifests_due(&self, count: i64) {
        self.fleet.manifests_due.set(count);
    }

    /// Shows the number of the model.
    pub fn model_is(&self, number: u64) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.fleet.model.set(number);
    }

    /// Shows how many devices wait for a change.
    pub fn waiting(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.fleet.waiting.set(count);
    }

    /// Counts what an operator decided.
    pub fn decided(&self, verdict: &str) {
        self.decisions.with_label_values(&[verdict]).inc();
    }

    /// Shows how many devices are in each state.
    ///
    /// # Errors
    ///
    /// Fails if the ledger does.
    pub async fn count_devices(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        let counts = devices::count_by_state(&mut *ledger.read().await?).await?;
        for state in State::ALL {
            let count = counts
                .iter()
                .find(|(found, _)| *found == state)
                .map_or(0, |(_, n)| *n);
            self.devices.with_label_values(&[state.as_str()]).set(count);
        }
        Ok(())
    }

    /// Shows how the authority's certificates and lists stand.
    pub fn show_trust(&self, authority: &Authority) {
        if let Some((_, not_after)) = authority.own_certificate().validity() {
            self.certificate_not_after.set(not_after);
        }
        let (trust, active) = (authority.trust(), authority.ca_certificates());
        let cas = trust.roots().into_iter().chain(trust.issuing_cas());
        let cas = cas.filter(|ca| active.iter().any(|der| der == ca.der()));
        // Of two generations of a kind, that which needs somebody sooner.
        let mut shown: BTreeMap<&str, (i64, Vec<Arc<Crl>>)> = BTreeMap::new();
        for ca in cas {
            let name = ca.kind().map_or("root", label);
            let (ends, crls) = shown.entry(name).or_insert((i64::MAX, Vec::new()));
            *ends = ca.not_after().min(*ends);
            crls.extend(trust.crls().current(ca.id()));
        }
        for (name, (ends, crls)) in shown {
            self.ca_not_after.with_label_values(&[name]).set(ends);
            if let Some(number) = crls.iter().map(|crl| crl.number()).max() {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                self.crl_number.with_label_values(&[name]).set(number);
            }
            if let Some(until) = crls.iter().map(|crl| crl.next_update()).min() {
                self.crl_next_update.with_label_values(&[name]).set(until);
            }
        }
    }
}

/// The numbers of models, manifests and check-ins.
fn of_fleet(registry: &Registry) -> Result<FleetMetrics, MetricsError> {
    Ok(FleetMetrics {
        check_ins: registry.counters(
            "check_ins_total",
            "Check-ins, by what they were told.",
            &["answer"],
        )?,
        inventories: registry.counters(
            "inventories_total",
            "Inventories that came, by what became of them.",
            &["result"],
        )?,
        manifests_built: registry.counter(
            "manifests_built_total",
            "Manifests that were made and signed.",
        )?,
        manifests_due: registry.gauge(
            "manifests_due",
            "Devices whose manifest may no longer say what the model does.",
        )?,
        model: registry.gauge("model_number", "Number of the current model.")?,
        rosters: registry.counter(
            "rosters_signed_total",
            "Rosters of boosters that were signed, changed or not.",
        )?,
        waiting: registry.gauge("devices_waiting", "Devices that wait for a change.")?,
    })
}

/// The numbers of reports: kept, dropped, waiting.
fn of_reports(
    registry: &Registry,
) -> Result<(IntCounterVec, IntCounterVec, IntGauge), MetricsError> {
    let kept = registry.counters(
        "reports_total",
        "Reports that were kept, by reason of a refusal or kind of a notice.",
        &["reason"],
    )?;
    let dropped = registry.counters(
        "reports_dropped_total",
        "Refusals whose report was given up, by the origin itself or by members.",
        &["by"],
    )?;
    let waiting = registry.gauge(
        "reports_waiting",
        "Reports of the origin itself that wait to be kept.",
    )?;
    Ok((kept, dropped, waiting))
}

/// The numbers of boosters that were gone round: how often, and the bytes.
fn of_bypasses(registry: &Registry) -> Result<(IntCounterVec, IntCounterVec), MetricsError> {
    let times = registry.counters(
        "bypasses_total",
        "How often devices went round a booster, by why.",
        &["reason"],
    )?;
    let bytes = registry.counters(
        "bypass_bytes_total",
        "Bytes that came from the origin instead of a booster that was gone round, by why.",
        &["reason"],
    )?;
    for reason in BypassReason::ALL {
        times.with_label_values(&[reason.as_str()]).inc_by(0);
        bytes.with_label_values(&[reason.as_str()]).inc_by(0);
    }
    Ok((times, bytes))
}

/// Counts one listener's handshakes.
struct Sink {
    listener: &'static str,
    metrics: Metrics,
}

impl HandshakeSink for Sink {
    fn accepted(&self, _session: &Session) {
        self.metrics
            .handshakes
            .with_label_values(&[self.listener, "accepted"])
            .inc();
    }

    fn refused(&self, refused: &Refused) {
        let labels = [self.listener, refused.reason.as_str()];
        match refused.stage {
            Handshake::Failed => self.metrics.handshakes.with_label_values(&labels).inc(),
            Handshake::Registered | Handshake::InSession => {
                self.metrics.sessions_ended.with_label_values(&labels).inc();
            }
        }
        let peer = refused
            .peer
            .as_ref()
            .map(|peer| peer.identity().to_string());
        debug!(remote = %refused.remote, reason = %refused.reason, ?peer, "refused a session");
    }
}

/// CAs by kind: their key's digest would say nothing to anybody on a dashboard.
fn label(kind: certs::CaKind) -> &'static str {
    match kind {
        certs::CaKind::Node => "node",
        certs::CaKind::Client => "client",
        certs::CaKind::Content => "content",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_for_each_listener() {
        let registry = Registry::new("larder_origin");
        let metrics = Metrics::register(&registry).unwrap();
        let sinks = ["content", "enrol"].map(|listener| metrics.sink(listener));
        let refused = |stage| Refused {
            by_peer: false,
            reason: RefusalReason::Revoked,
            remote: ([192, 0, 2, 1], 9).into(),
            stage,
            possession_proved: true,
            evidence: None,
            peer: None,
        };
        sinks[1].refused(&refused(Handshake::Failed));
        sinks[0].refused(&refused(Handshake::InSession));
        let page = registry.page().unwrap();
        let check = |name: &str, label: &str, expected: [(&str, u32); 2]| {
            for (listener, count) in expected {
                for reason in RefusalReason::ALL {
                    let count = if reason == RefusalReason::Revoked {
                        count
                    } else {
                        0
                    };
                    let labels = format!("listener=\"{listener}\",{label}=\"{reason}\"");
                    let line = format!("larder_origin_{name}{{{labels}}} {count}\n");
                    assert!(page.contains(&line), "no {line}in {page}");
                }
            }
        };
        check(
            "tls_handshakes_total",
            "result",
            [("content", 0), ("enrol", 1)],
        );
        check(
            "tls_sessions_ended_total",
            "reason",
            [("content", 1), ("enrol", 0)],
        );
    }
}
