//! What devices say here and what they hear: from the roster, or passed on to the origin.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use content::Digest;
use content::RosterEntry;
use content::statement::{Spoken, Statement};
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use protocol::{
    CheckIn, CheckInAnswer, Code, CurrentManifest, Fault, Held as Holds, PROBLEM_JSON, PROOF_TYPE,
    RelayedAnswer,
};
use service::Report;
use tokio::time::{Instant, timeout};
use tracing::debug;
use transport::{Body, DeviceJudge, respond};

use super::{Held, Rosters, out_of_reach};
use crate::cache::off_runtime;

/// How long a wait lasts, as at the origin.
const WAIT: Duration = Duration::from_secs(55);
/// However often the roster says: what the origin's settings allow.
const EVERY_MAX: u64 = 86_400;

impl Rosters {
    /// `POST /v1/check-in` of `device`.
    ///
    /// # Errors
    ///
    /// Fails if the device did not seal it, or if the origin would have to hear it and cannot.
    pub(crate) async fn check_in(
        &self,
        device: &str,
        body: Bytes,
    ) -> Result<Response<Body>, Fault> {
        let answered = self.answer(device, body).await;
        let outcome = match &answered {
            Ok((outcome, _)) => *outcome,
            Err(fault) if fault.code == Code::UpstreamUnavailable => "failed",
            Err(_) => "refused",
        };
        let metrics = &self.shared.parts.metrics;
        metrics.check_ins.with_label_values(&[outcome]).inc();
        answered.map(|(_, answer)| answer)
    }

    async fn answer(
        &self,
        device: &str,
        body: Bytes,
    ) -> Result<(&'static str, Response<Body>), Fault> {
        self.seen(device);
        let said = self.unseal(device, body.clone()).await?;
        let held = CheckIn::decode(&said).and_then(|check_in| check_in.held);
        let held = held.ok_or_else(|| Fault::new(Code::BadRequest, "want what a client holds"))?;
        let has_news = self.has_news(device, &held);
        if let Some(roster) = self.current()
            && let Some(entry) = roster.entry(device)
            && entry.asked == 0
            && !has_news
        {
            return Ok(self.by_roster(&roster, entry, &held));
        }
        let answer = self.pass_on(&body).await?;
        if (200..300).contains(&answer.status) {
            self.note_answer(device, &held, &answer);
        }
        Ok(("passed_on", response(answer)))
    }

    /// Takes note of what the origin, which knows what it has told `device` before, made of `held`.
    fn note_answer(&self, device: &str, held: &Holds, answer: &RelayedAnswer) {
        let (devices, now) = (&self.shared.devices, Instant::now());
        if let Some(roster) = self.current() {
            devices.hears(device, roster.head.every.min(EVERY_MAX));
        }
        if let Some(inventory) = held.inventory {
            let told = CheckInAnswer::decode(answer.body.as_bytes());
            let is_there = told.is_none_or(|told| !told.inventory);
            devices.heard(device, inventory, is_there, now);
        }
    }

    /// Whether `device` says something that the origin should hear.
    fn has_news(&self, device: &str, held: &Holds) -> bool {
        let says_nothing = held.results.is_empty() && held.done.is_empty();
        let (devices, now) = (&self.shared.devices, Instant::now());
        !says_nothing
            || held
                .inventory
                .is_some_and(|digest| devices.has_news(device, digest, now))
    }

    /// Opens what `device` has sealed: it speaks for itself alone. Off the runtime: it takes a
    /// quarter of a millisecond.
    async fn unseal(&self, device: &str, body: Bytes) -> Result<Vec<u8>, Fault> {
        let parts = &self.shared.parts;
        let (trust, now) = (Arc::clone(&parts.trust), parts.clock.now());
        let opened = off_runtime(move || {
            let judge = DeviceJudge::new(trust);
            let opened = Statement::<Spoken>::open(&body, &judge, now);
            opened.map(|spoken| (spoken, judge.signer()))
        });
        let stopping = || Fault::new(Code::Busy, "the booster is stopping");
        let opened = opened.await.ok_or_else(stopping)?;
        let (spoken, signer) = opened.map_err(|failure| {
            debug!(%device, error = %Report(&failure), "refused what a device said");
            Fault::new(
                Code::BadRequest,
                "want a check-in that the device has sealed",
            )
        })?;
        let is_own = |peer: &certs::Peer| peer.id().as_str() == device;
        if spoken.device == device && signer.as_ref().is_some_and(is_own) {
            Ok(spoken.into_payload().body)
        } else {
            Err(Fault::new(
                Code::Forbidden,
                "a device speaks for itself alone",
            ))
        }
    }

    /// What the roster says to a device that holds `held`.
    fn by_roster(
        &self,
        roster: &Held,
        entry: &RosterEntry,
        held: &Holds,
    ) -> (&'static str, Response<Body>) {
        let every = roster.head.every.min(EVERY_MAX);
        // A new interval is heard.
        let was_told = self.shared.devices.hears(&entry.device, every);
        if was_told && held.manifest == entry.manifest {
            ("unchanged", nothing())
        } else {
            ("told", told(every, entry))
        }
    }

    /// `GET /v1/wait` of `device`: until its entry is another one.
    ///
    /// # Errors
    ///
    /// Fails if `query` makes no sense, or if waits come too fast or are too many.
    pub(crate) async fn wait(&self, device: &str, query: &str) -> Result<Response<Body>, Fault> {
        self.seen(device);
        let bad = || Fault::new(Code::BadRequest, "want model=NUMBER and manifest=DIGEST");
        let mut held: Option<Digest> = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("model", number)) => drop(number.parse::<u64>().map_err(|_| bad())?),
                Some(("manifest", name)) => held = Some(name.parse().map_err(|_| bad())?),
                Some(_) | None => return Err(bad()),
            }
        }
        let place = self.shared.place(device)?;
        let changed = timeout(WAIT, self.changed(device, held));
        let closing = self.shared.closing.clone();
        Ok(tokio::select! {
            changed = changed => changed.unwrap_or_else(|_| nothing()),
            () = closing.cancelled() => nothing(),
            () = place.taken.cancelled() => nothing(),
        })
    }

    /// Ends when the entry of `device` names another manifest than `held`, or a command that was
    /// not asked when this began.
    async fn changed(&self, device: &str, held: Option<Digest>) -> Response<Body> {
        let mut rosters = self.shared.held.subscribe();
        let known = self.held();
        let asked = known.and_then(|roster| Some(roster.entry(device)?.asked));
        loop {
            let roster = rosters.borrow_and_update().clone();
            if let Some(roster) = roster
                && let Some(entry) = roster.entry(device)
                && (entry.manifest != held || entry.asked > asked.unwrap_or(0))
            {
                return told(roster.head.every.min(EVERY_MAX), entry);
            }
            if rosters.changed().await.is_err() {
                return nothing();
            }
        }
    }

    /// `GET /v1/roster` of `device`: its entry, proved.
    ///
    /// # Errors
    ///
    /// Fails if there is no roster, or if the device is not on it.
    pub(crate) fn proof(&self, device: &str) -> Result<Response<Body>, Fault> {
        self.seen(device);
        let held = self.held().ok_or_else(out_of_reach)?;
        let proof = held.tree.proof(device, &held.envelope);
        let proof = proof.ok_or_else(|| {
            let told = "the device is not on the roster of this booster yet";
            Fault::new(Code::NotFound, told)
        })?;
        let mut response = respond::bytes(StatusCode::OK, PROOF_TYPE, proof.encode());
        let no_store = HeaderValue::from_static("private, no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        Ok(response)
    }
}

/// What the origin answered.
fn response(answer: RelayedAnswer) -> Response<Body> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = if answer.body.is_empty() {
        respond::status(status)
    } else {
        let kind = if status.is_success() {
            "application/json"
        } else {
            PROBLEM_JSON
        };
        respond::bytes(status, kind, answer.body)
    };
    let headers = response.headers_mut();
    if let Some(seconds) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a device goes by, and when it comes again: a tenth to either side, so that those who came
/// together part.
fn told(every: u64, entry: &RosterEntry) -> Response<Body> {
    let seconds = u32::try_from(every).unwrap_or(u32::MAX / 2);
    let spread = seconds / 10;
    let manifest = entry.manifest.map(|digest| CurrentManifest {
        model: entry.model,
        number: entry.number,
        digest,
    });
    let answer = CheckInAnswer {
        manifest,
        ..CheckInAnswer::in_seconds(fastrand::u32(seconds - spread..=seconds + spread))
    };
    let mut response = respond::bytes(StatusCode::OK, "application/json", answer.encode());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

fn nothing() -> Response<Body> {
    let mut response = respond::status(StatusCode::NO_CONTENT);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}
