//! Bodies of reports: how much goes into one, who takes it, and what becomes of one that is refused.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::report::Matter;
use protocol::{Code, Reported, Reports};
use service::Report;
use tokio::time::{Instant, timeout};
use tracing::warn;
use transport::{CallError, Refusals, Source};

/// Takes what waits to the origin, body by body.
///
/// The origin takes a body or refuses it, and does not say which report is at fault: one of a newer
/// kind than it knows, say. So a body that is refused goes again in halves, until the report stands
/// alone, and is given up; from then on they double again with each that is taken. Of `n` reports in
/// a body, a bad one costs some `3 log n` bodies, and all of them bad less than `2 n`.
pub(super) struct Bringer<'a> {
    refusals: &'a Refusals,
    /// The ways to the origin, the best first.
    sources: &'a [Arc<Source>],
    /// How many reports go into a body: never none.
    most: usize,
    /// Whether one at fault is among the next, and has not been found yet.
    seeking: bool,
}

impl<'a> Bringer<'a> {
    pub(super) fn new(refusals: &'a Refusals, sources: &'a [Arc<Source>]) -> Self {
        Self {
            refusals,
            sources,
            most: Reports::COUNT_MAX,
            seeking: false,
        }
    }

    /// Sends a body of what is due. Until a `deadline`, each way gets its share of the time that is
    /// left: the first may be one that never answers. Says whether there was anything.
    ///
    /// # Errors
    ///
    /// Fails if nobody takes it now. It waits.
    pub(super) async fn bring(&mut self, deadline: Option<Instant>) -> Result<bool, CallError> {
        let Some(mut body) = self.refusals.batch() else {
            return Ok(false);
        };
        body.reports.truncate(self.most);
        match self.send(&body, deadline).await {
            Ok(()) => {
                self.refusals.delivered(&body);
                if !self.seeking {
                    self.most = (self.most * 2).min(Reports::COUNT_MAX);
                }
            }
            Err(failure) if !is_body_at_fault(&failure) => return Err(failure),
            Err(failure) if body.reports.is_empty() => {
                let (dropped, error) = (body.dropped, Report(&failure));
                warn!(dropped, %error, "the origin will not hear how many reports were given up");
                self.refusals.give_up(&body);
            }
            Err(failure) => {
                self.most = (body.reports.len() / 2).max(1);
                self.seeking = body.reports.len() > 1;
                if let [report] = &body.reports[..] {
                    let (id, what, error) = (&report.id, word(report), Report(&failure));
                    warn!(id, what, %error, "giving up a report that the origin will not take");
                    self.refusals.give_up(&body);
                }
            }
        }
        Ok(true)
    }

    /// Sends `body` to the first of the ways on which it is taken, or on which the origin has seen
    /// it and never will.
    async fn send(&self, body: &Reports, deadline: Option<Instant>) -> Result<(), CallError> {
        let mut last = CallError::Unreachable {
            addresses: "the origin".to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "no address is known"),
        };
        for (index, source) in self.sources.iter().enumerate() {
            let share = deadline.map_or(Duration::MAX, |deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                left / u32::try_from(self.sources.len() - index).unwrap_or(u32::MAX)
            });
            last = match timeout(share, source.report(body)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(failure)) if is_body_at_fault(&failure) => return Err(failure),
                Ok(Err(failure)) => failure,
                Err(_) => CallError::Timeout {
                    step: "tell the origin",
                },
            };
        }
        Err(last)
    }
}

/// Whether the origin has read the body and will not take that one tomorrow either. All else passes:
/// that it is busy or out of reach, and also what it holds against us (revoked, run out, too old a
/// version) or does not know yet, which an operator mends.
fn is_body_at_fault(failure: &CallError) -> bool {
    let CallError::Fault { fault, .. } = failure else {
        return false;
    };
    matches!(fault.code, Code::BadRequest | Code::TooLarge)
}

/// What a report is about, in one of our own words.
fn word(report: &Reported) -> &str {
    match &report.matter {
        Matter::Bypass(_) => "bypass",
        Matter::Notice(notice) => &notice.kind,
        Matter::Refusal(refusal) => &refusal.reason,
    }
}
