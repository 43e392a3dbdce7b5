//! What devices say through a booster. Who speaks is taken from the signature and from nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certs::{DeviceId, Peer, Role, Trust};
use content::statement::{Spoken, Statement};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response};
use http_body_util::BodyExt as _;
use protocol::{Code, Fault, Relayed, RelayedAnswer, RelayedAnswers, STATEMENT_TYPE};
use service::Report;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info};
use transport::DeviceJudge;

use super::CheckIns;
use super::device::{WAIT, nothing};
use crate::api::{Reply, fault, full, too_many};
use crate::ledger::LedgerError;
use crate::manifests::{RosterError, Sealed};

/// The last that was heard of each device through boosters. It is gone after a restart: then what
/// was said within [`SAID_SECONDS_MAX`] could be repeated, which changes nothing, since results are
/// kept by their own times.
#[derive(Debug, Default)]
pub(super) struct Heard {
    last: Mutex<HashMap<DeviceId, Last>>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    run: [u8; 16],
    counter: u64,
    at: i64,
}

/// How old what a device said may be, in seconds.
const SAID_SECONDS_MAX: i64 = 3600;
/// How far its clock may be ahead.
const AHEAD_SECONDS_MAX: i64 = 600;
/// Changes that come together are one roster.
const SETTLE: Duration = Duration::from_secs(1);

impl CheckIns {
    /// `POST /v1/relayed` of the booster `peer`.
    pub async fn relayed(&self, peer: &Peer, body: &[u8]) -> Reply {
        if peer.role() != Role::Booster {
            return fault(&Fault::new(Code::Forbidden, "only a booster passes on"));
        }
        if let Err(wait) = self.relays.take(peer.identity(), Instant::now()) {
            return too_many("too much is passed on", wait);
        }
        let Some(relayed) = Relayed::decode(body) else {
            return fault(&Fault::new(Code::BadRequest, "want what devices said"));
        };
        let joined = relayed.joined.iter().map(|id| id.parse());
        let Ok(joined) = joined.collect::<Result<Vec<DeviceId>, _>>() else {
            return fault(&Fault::new(Code::BadRequest, "want ids of devices"));
        };
        if !joined.is_empty()
            && let Err(failure) = self.join(peer.id(), &joined).await
        {
            error!(error = %Report(&failure), "cannot put devices on a roster");
            return fault(&Fault::new(Code::Internal, "the origin cannot take that"));
        }
        let Some(opened) = self.open(relayed.messages).await else {
            return fault(&Fault::new(Code::Busy, "the origin is stopping"));
        };
        let answers = opened.into_iter().map(|said| self.hear(peer, said));
        let answers = futures_util::future::join_all(answers).await;
        let mut reply = Response::new(full(RelayedAnswers { answers }.encode()));
        let json = HeaderValue::from_static("application/json");
        reply.headers_mut().insert(CONTENT_TYPE, json);
        let no_store = HeaderValue::from_static("no-store");
        reply.headers_mut().insert(CACHE_CONTROL, no_store);
        reply
    }

    /// Puts `devices` on the roster of `booster`, which has heard them.
    async fn join(&self, booster: &DeviceId, devices: &[DeviceId]) -> Result<(), LedgerError> {
        for id in self.manifests.join(booster, devices).await? {
            // What it has to send, it says at a check-in of its own.
            let _asked = self.inventories.heard(&id, None);
        }
        Ok(())
    }

    /// Opens the envelopes, off the runtime: each takes a quarter of a millisecond.
    async fn open(&self, messages: Vec<String>) -> Option<Vec<Result<(Peer, Spoken), Fault>>> {
        let authority = self.manifests.authority();
        let (trust, now) = (Arc::clone(authority.trust()), authority.clock().now());
        let open = move || {
            let messages = messages.iter();
            messages
                .map(|message| open(&trust, message.as_bytes(), now))
                .collect()
        };
        tokio::task::spawn_blocking(open).await.ok()
    }

    async fn hear(&self, booster: &Peer, said: Result<(Peer, Spoken), Fault>) -> RelayedAnswer {
        let now = self.manifests.authority().clock().now();
        let said = said.and_then(|(peer, spoken)| {
            self.heard.take(&spoken, peer.id(), now)?;
            Ok((peer, spoken))
        });
        let reply = match said {
            Ok((peer, spoken)) => Box::pin(self.answer(&peer, &spoken.body)).await,
            Err(refusal) => {
                info!(booster = %booster.id(), why = refusal.detail, "refused what was passed on");
                self.metrics.checked_in("refused");
                fault(&refusal)
            }
        };
        let retry_after = reply.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        RelayedAnswer {
            status,
            retry_after,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// `GET /v1/roster` of the booster `peer`.
    pub async fn roster(&self, peer: &Peer) -> Reply {
        if peer.role() != Role::Booster {
            let told = "the origin answers each device at its check-in";
            return fault(&Fault::new(Code::Forbidden, told));
        }
        match self.manifests.roster(peer.id(), self.interval).await {
            Ok(sealed) => head(&sealed),
            Err(failure) => cannot(&failure),
        }
    }

    /// `GET /v1/wait?roster=DIGEST` of a booster: the head of another roster once there is one.
    pub(super) async fn wait_for_roster(&self, peer: &Peer, query: &str) -> Reply {
        if let Err(wait) = self.rosters.take(peer.identity(), Instant::now()) {
            return too_many("waits come too fast", wait);
        }
        let held = query.strip_prefix("roster=").map(str::parse);
        let Some(Ok(held)) = held else {
            return fault(&Fault::new(Code::BadRequest, "want roster=DIGEST"));
        };
        let mut changes = self.manifests.follow(peer.id());
        if self.manifests.is_stopping() {
            return nothing();
        }
        let begun = self.manifests.roster(peer.id(), self.interval).await;
        let model = match begun {
            Ok(sealed) if sealed.list != held => return head(&sealed),
            Ok(sealed) => sealed.model(),
            Err(failure) => return cannot(&failure),
        };
        let changed = async {
            loop {
                if changes.changed().await.is_err() || self.manifests.is_stopping() {
                    return nothing();
                }
                sleep(SETTLE).await;
                match self.manifests.roster(peer.id(), self.interval).await {
                    Ok(sealed) if sealed.list == held && (sealed.model() == 0) == (model == 0) => {}
                    Ok(sealed) => return head(&sealed),
                    Err(failure) => return cannot(&failure),
                }
            }
        };
        timeout(WAIT, changed).await.unwrap_or_else(|_| nothing())
    }
}

impl Heard {
    /// Takes note of what the device `id` said, unless it was said before.
    fn take(&self, spoken: &Spoken, id: &DeviceId, now: i64) -> Result<(), Fault> {
        let age = now.saturating_sub(spoken.at);
        if !(-AHEAD_SECONDS_MAX..=SAID_SECONDS_MAX).contains(&age) {
            let told = "it was said at another time: is the clock right?";
            return Err(Fault::new(Code::Forbidden, told));
        }
        let mut heard = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = heard.get(id).is_none_or(|last| {
            if last.run == spoken.run {
                spoken.counter > last.counter
            } else {
                spoken.at > last.at
            }
        });
        if !is_new {
            return Err(Fault::new(Code::Forbidden, "it was said before"));
        }
        let last = Last {
            run: spoken.run,
            counter: spoken.counter,
            at: spoken.at,
        };
        heard.insert(id.clone(), last);
        Ok(())
    }
}

/// Opens what a device said: it is that device's word, whoever brought it.
fn open(trust: &Arc<Trust>, envelope: &[u8], now: i64) -> Result<(Peer, Spoken), Fault> {
    let judge = DeviceJudge::new(Arc::clone(trust));
    let refused = |why: String| Fault::new(Code::Forbidden, why);
    let opened = Statement::<Spoken>::open(envelope, &judge, now);
    let spoken = opened.map_err(|failure| refused(Report(&failure).to_string()))?;
    let who = judge.signer();
    let who = who.ok_or_else(|| refused("nobody has signed it".to_owned()))?;
    if who.id().as_str() == spoken.device {
        Ok((who, spoken.into_payload()))
    } else {
        Err(refused(
            "it names another device than its signer".to_owned(),
        ))
    }
}

fn head(sealed: &Sealed) -> Reply {
    let mut reply = Response::new(full(sealed.envelope.clone()));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(STATEMENT_TYPE));
    let no_store = HeaderValue::from_static("private, no-store");
    headers.insert(CACHE_CONTROL, no_store);
    reply
}

fn cannot(failure: &RosterError) -> Reply {
    error!(error = %Report(failure), "cannot make a roster");
    let told = "the origin cannot make a roster at the moment";
    fault(&Fault::new(Code::Internal, told))
}
