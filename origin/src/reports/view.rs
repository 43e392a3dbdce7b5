//! Reports as an operator sees them: as JSON, or as text. Texts of strangers are escaped in both.

use std::fmt;

use certs::describe::{describe, harmless};
use jiff::Timestamp;
use protocol::report::{Direction, Matter, Refusal, Stage};
use serde::{Deserialize, Serialize};

use crate::ledger::reports::Kept;
use crate::ledger::reports::drops::Dropped;

/// Reports, the newest first.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReportsView {
    /// Them.
    pub reports: Vec<ReportView>,
    /// Who had to give up some.
    pub dropped: Vec<DroppedView>,
}

/// How many refusals a reporter gave up, mostly for want of room: they are nowhere among the
/// reports.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DroppedView {
    /// Who: role and id.
    pub reporter: String,
    /// How many, over all its runs.
    pub count: u64,
    /// When the origin last heard of more, in Unix seconds.
    pub last_at: i64,
}

impl From<Dropped> for DroppedView {
    fn from(dropped: Dropped) -> Self {
        Self {
            reporter: dropped.reporter,
            count: u64::try_from(dropped.total).unwrap_or_default(),
            last_at: dropped.last_at,
        }
    }
}

/// A report. Times are Unix seconds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReportView {
    /// Who reported: role and id, from its certificate.
    pub reporter: String,
    /// When it came, by the origin's clock.
    pub received_at: i64,
    /// When it was seen first, by the reporter's clock.
    pub first_at: i64,
    /// When it was seen last.
    pub last_at: i64,
    /// How often.
    pub count: u64,
    /// `refusal`, `bypass`, or the kind of a notice.
    pub kind: String,
    /// What a notice says.
    pub detail: Option<String>,
    /// Why somebody was refused, or a booster was gone round.
    pub reason: Option<String>,
    /// The booster that was gone round.
    #[serde(default)]
    pub booster: Option<String>,
    /// Bytes that came from the origin instead.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// `inbound` if it had called the reporter, `outbound` if the reporter had called it.
    pub direction: Option<String>,
    /// `handshake`, `registered` or `session`: how far it had come.
    pub stage: Option<String>,
    /// Whether it proved that it holds the key of its certificate: if not, blame nobody.
    pub possession_proved: Option<bool>,
    /// Where it was.
    pub remote: Option<String>,
    /// Who it was, if that was established; of `outbound`, who was expected there.
    pub party: Option<String>,
    /// SHA-256 of the certificate that it showed.
    pub cert_sha256: Option<String>,
    /// What that certificate says of itself, unverified.
    pub claims_unverified: Option<CertificateClaims>,
}

/// What a certificate says of itself. Times are Unix seconds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateClaims {
    /// Its serial, in hexadecimal digits.
    pub serial: String,
    /// Whom it is for.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// When it begins.
    pub not_before: i64,
    /// When it ends.
    pub not_after: i64,
}

impl ReportView {
    pub(super) fn new(kept: &Kept) -> Self {
        let report = &kept.report;
        let mut view = Self {
            reporter: kept.reporter.clone(),
            received_at: kept.received_at,
            first_at: report.first_at,
            last_at: report.last_at,
            count: report.count,
            kind: "refusal".to_owned(),
            detail: None,
            reason: None,
            booster: None,
            bytes: None,
            direction: None,
            stage: None,
            possession_proved: None,
            remote: None,
            party: None,
            cert_sha256: None,
            claims_unverified: None,
        };
        match &report.matter {
            Matter::Notice(notice) => {
                view.kind.clone_from(&notice.kind);
                view.detail = Some(harmless(&notice.detail));
            }
            Matter::Refusal(refusal) => view.take(refusal),
            Matter::Bypass(bypass) => {
                "bypass".clone_into(&mut view.kind);
                view.reason = Some(bypass.reason.as_str().to_owned());
                view.booster = Some(harmless(&bypass.booster));
                view.bytes = Some(bypass.bytes);
            }
        }
        view
    }

    fn take(&mut self, refusal: &Refusal) {
        let direction = match refusal.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        let stage = match refusal.stage {
            Stage::Handshake => "handshake",
            Stage::Registered => "registered",
            Stage::Session => "session",
        };
        let claims = refusal.cert_der().and_then(|der| describe(&der));
        self.reason = Some(refusal.reason.clone());
        self.direction = Some(direction.to_owned());
        self.stage = Some(stage.to_owned());
        self.possession_proved = Some(refusal.possession_proved);
        self.remote = Some(harmless(&refusal.remote));
        self.party = refusal.party.as_deref().map(harmless);
        self.cert_sha256.clone_from(&refusal.cert_sha256);
        self.claims_unverified = claims.map(|it| CertificateClaims {
            serial: it.serial,
            subject: it.subject,
            issuer: it.issuer,
            not_before: it.not_before,
            not_after: it.not_after,
        });
    }

    /// The line that says what happened.
    fn headline(&self) -> String {
        let Some(reason) = &self.reason else {
            let detail = self.detail.as_deref().unwrap_or_default();
            return format!("{}: {detail}", self.kind);
        };
        if let Some(booster) = &self.booster {
            let bytes = bytesize::ByteSize(self.bytes.unwrap_or_default());
            return format!("went round booster {booster}: {reason}, {bytes} from the origin");
        }
        let remote = self.remote.as_deref().unwrap_or_default();
        let whom = match self.direction.as_deref() {
            Some("outbound") => format!("turned from {remote}"),
            _ => format!("refused {remote}"),
        };
        let when = match self.stage.as_deref() {
            Some("handshake") | None => "",
            Some(_) => ", in a session",
        };
        let proved = match self.possession_proved {
            Some(true) => "holds the key",
            _ => "no proof that it holds the key",
        };
        match &self.cert_sha256 {
            Some(_) => format!("{whom}: {reason}{when} ({proved})"),
            None => format!("{whom}: {reason}{when}"),
        }
    }
}

impl fmt::Display for ReportsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reports.is_empty() {
            f.write_str("nothing was reported")?;
        }
        for (index, report) in self.reports.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{report}")?;
        }
        for dropped in &self.dropped {
            write!(f, "\n{dropped}")?;
        }
        Ok(())
    }
}

impl fmt::Display for DroppedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reporter, count, ..
        } = self;
        let at = time(self.last_at);
        write!(
            f,
            "{at}  {reporter}  dropped {count} of what it had to report"
        )
    }
}

impl fmt::Display for ReportView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.count > 1 {
            format!(", {} times until {}", self.count, time(self.last_at))
        } else {
            String::new()
        };
        let (at, reporter) = (time(self.first_at), &self.reporter);
        write!(f, "{at}  {reporter}  {}{times}", self.headline())?;
        if let Some(party) = &self.party {
            let what = match self.direction.as_deref() {
                Some("outbound") => "expected",
                _ => "was",
            };
            write!(f, "\n    {what:<9} {party}")?;
        }
        if let Some(claims) = &self.claims_unverified {
            write!(
                f,
                "\n    claims    {}, by {}",
                claims.subject, claims.issuer
            )?;
            let (from, to) = (time(claims.not_before), time(claims.not_after));
            write!(f, "\n    serial    {}, {from} to {to}", claims.serial)?;
        }
        if let Some(sha256) = &self.cert_sha256 {
            write!(f, "\n    sha256    {sha256}")?;
        }
        Ok(())
    }
}

fn time(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}
