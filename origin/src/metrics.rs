//! What the origin counts. Every name begins with `larder_origin_`.

use certs::Trust;
use http::StatusCode;
use service::metrics::{IntCounterVec, IntGauge, IntGaugeVec, MetricsError, Registry};

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
    ca_not_after: IntGaugeVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
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

    /// Counts what became of an enrolment.
    pub fn enrolled(&self, result: &str) {
        self.enrolments.with_label_values(&[result]).inc();
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
        let trust = authority.trust();
        for ca in trust.roots().iter().chain(&trust.issuing_cas()) {
            let name = ca.kind().map_or("root", |kind| label(kind));
            self.ca_not_after
                .with_label_values(&[name])
                .set(ca.not_after());
        }
        for crl in trust.crls().all() {
            let name = issuer_name(trust, crl.issuer());
            let number = i64::try_from(crl.number()).unwrap_or(i64::MAX);
            self.crl_number.with_label_values(&[name]).set(number);
            self.crl_next_update
                .with_label_values(&[name])
                .set(crl.next_update());
        }
    }
}

/// Issuers by kind: their key's digest would say nothing to anybody on a dashboard.
fn issuer_name(trust: &Trust, issuer: certs::IssuerId) -> &'static str {
    trust
        .issuer(issuer)
        .and_then(|ca| ca.kind())
        .map_or("root", label)
}

fn label(kind: certs::CaKind) -> &'static str {
    match kind {
        certs::CaKind::Node => "node",
        certs::CaKind::Client => "client",
        certs::CaKind::Content => "content",
    }
}
