//! From a request to its answer, for either listener.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use certs::Peer;
use http::request::Parts;
use http::{HeaderValue, Method};
use protocol::{Code, Fault, Route};
use service::Report;
use tracing::{debug, error, info};
use transport::Refusals;

use super::content::ContentApi;
use super::public::{answer_crl, answer_crls, answer_deployment, answer_hello};
use super::reply::{Reply, UnderWay, fault};
use super::statement;
use crate::check_in::CheckIns;
use crate::documents::Documents;
use crate::enrol::{self, EnrolError, Enrolment};
use crate::inventory::Inventories;
use crate::manifests::Manifests;
use crate::metrics::Metrics;
use crate::reports::Reports;

/// Everything that the origin answers. Cloning shares it.
#[derive(Clone)]
pub struct Api {
    /// What parties say of themselves.
    pub check_ins: CheckIns,
    /// Statements and packs.
    pub content: Arc<dyn ContentApi>,
    /// The deployment document.
    pub documents: Documents,
    /// Certificates for devices.
    pub enrolment: Enrolment,
    /// What devices say of themselves.
    pub inventories: Inventories,
    /// Revocation lists on their way.
    pub lists: UnderWay,
    /// What each device should hold.
    pub manifests: Manifests,
    /// What is counted.
    pub metrics: Metrics,
    /// Whom we refused, and what else an operator should know of.
    pub refusals: Refusals,
    /// What parties report.
    pub reports: Reports,
}

/// A request on the enrolment listener. Its body was read, up to
/// [`protocol::ENROL_BODY_BYTES_MAX`].
#[derive(Debug)]
pub struct EnrolRequest {
    /// Method, path, headers.
    pub head: Parts,
    /// Its body.
    pub body: Bytes,
    /// Where it comes from.
    pub address: IpAddr,
    /// Who asks, if it showed a certificate in the handshake.
    pub peer: Option<Peer>,
}

/// A request on the content listener. Its body was read, up to
/// [`protocol::ENROL_BODY_BYTES_MAX`].
#[derive(Debug)]
pub struct ContentRequest {
    /// Method, path, headers.
    pub head: Parts,
    /// Its body.
    pub body: Bytes,
    /// Who asks, verified in the handshake.
    pub peer: Peer,
}

impl Api {
    /// Whether a request on the enrolment listener may be answered, before its body is read.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub async fn admit(
        &self,
        head: &Parts,
        address: IpAddr,
        peer: Option<&Peer>,
    ) -> Result<(), Reply> {
        let route = Route::parse(head.uri.path()).ok();
        let headers = &head.headers;
        let admitted = self.enrolment.admit(route.as_ref(), headers, address, peer);
        let Err(refusal) = admitted.await else {
            return Ok(());
        };
        let mut reply = self.refuse(&refusal);
        stamp(&mut reply, "");
        let kind = route.map_or("none", |route| route.kind());
        self.metrics.answered("enrol", kind, reply.status());
        Err(reply)
    }

    /// Answers on the enrolment listener.
    pub async fn answer_enrol(&self, request: EnrolRequest) -> Reply {
        if let Some(peer) = &request.peer {
            self.enrolment.seen(peer).await;
        }
        let (kind, methods, mut reply) = match Route::parse(request.head.uri.path()) {
            Ok(route) => {
                let (kind, methods) = (route.kind(), route.methods());
                (kind, methods, self.enrol_route(route, &request).await)
            }
            Err(_) => ("none", "", nowhere()),
        };
        stamp(&mut reply, methods);
        self.metrics.answered("enrol", kind, reply.status());
        reply
    }

    /// Answers on the content listener.
    pub async fn answer_content(&self, request: ContentRequest) -> Reply {
        self.enrolment.seen(&request.peer).await;
        let (kind, methods, mut reply) = match Route::parse(request.head.uri.path()) {
            Ok(route) => {
                let (kind, methods) = (route.kind(), route.methods());
                (kind, methods, self.content_route(route, &request).await)
            }
            Err(_) => ("none", "", nowhere()),
        };
        stamp(&mut reply, methods);
        self.metrics.answered("content", kind, reply.status());
        reply
    }

    async fn enrol_route(&self, route: Route, request: &EnrolRequest) -> Reply {
        let EnrolRequest {
            head,
            body,
            address,
            peer,
        } = request;
        match route {
            Route::Enrol(_) | Route::Reenrol(_) if head.method != Method::POST => not_allowed(),
            Route::Enrol(role) => {
                let enrolment = &self.enrolment;
                let headers = &head.headers;
                let asked = enrol::answer_enrol(enrolment, role, headers, *address, body).await;
                self.enrolled(asked, *address).await
            }
            Route::Reenrol(role) => {
                let peer = peer.as_ref();
                let asked =
                    enrol::answer_reenrol(&self.enrolment, role, &head.headers, peer, body).await;
                self.enrolled(asked, *address).await
            }
            Route::CaCerts if is_read(head) => enrol::answer_ca_certs(&self.enrolment),
            Route::Timestamp if is_read(head) => self.content.answer(route, head).await,
            Route::Crls if is_read(head) => {
                answer_crls(self.enrolment.authority(), &self.lists, &head.headers)
            }
            Route::Crl(_) | Route::Deployment | Route::Hello => self.public_route(route, head),
            Route::CaCerts | Route::Crls | Route::Timestamp => not_allowed(),
            Route::Reports => match peer {
                Some(peer) => self.reported(head, peer, body).await,
                None => fault(&Fault::new(Code::Forbidden, "reports need a certificate")),
            },
            Route::Inventory | Route::Log if head.method != Method::POST => not_allowed(),
            Route::Inventory | Route::Log => match peer {
                Some(peer) => self.said(&route, peer, body).await,
                None => fault(&Fault::new(
                    Code::Forbidden,
                    "who says what it is needs a certificate",
                )),
            },
            // The rest is for those who have a certificate.
            Route::CheckIn
            | Route::Pack(..)
            | Route::Relayed
            | Route::Roster
            | Route::Snapshot(_)
            | Route::Statement(_)
            | Route::Wait => nowhere(),
        }
    }

    async fn content_route(&self, route: Route, request: &ContentRequest) -> Reply {
        let ContentRequest { head, body, peer } = request;
        match route {
            Route::CheckIn if head.method == Method::POST => {
                if let Err(refusal) = self.enrolment.check_version(&head.headers) {
                    return self.refuse(&refusal);
                }
                self.check_ins.answer(peer, body).await
            }
            Route::Wait if head.method == Method::GET => {
                if let Err(refusal) = self.enrolment.check_version(&head.headers) {
                    return self.refuse(&refusal);
                }
                let query = head.uri.query().unwrap_or_default();
                self.check_ins.wait(peer, query).await
            }
            Route::Inventory | Route::Log if head.method == Method::POST => {
                self.said(&route, peer, body).await
            }
            Route::Relayed if head.method == Method::POST => {
                self.check_ins.relayed(peer, body).await
            }
            Route::Roster if head.method == Method::GET => self.check_ins.roster(peer).await,
            Route::CheckIn
            | Route::Inventory
            | Route::Log
            | Route::Relayed
            | Route::Roster
            | Route::Wait => not_allowed(),
            Route::Statement(digest) if is_read(head) => {
                statement::answer(&self.manifests, &*self.content, peer, digest, head).await
            }
            Route::Crl(_) | Route::Deployment | Route::Hello => self.public_route(route, head),
            Route::Pack(ref name, _) if is_read(head) => {
                match statement::admit(&self.manifests, peer, name).await {
                    Ok(()) => self.content.answer(route, head).await,
                    Err(refusal) => refusal,
                }
            }
            Route::Pack(..) | Route::Snapshot(_) | Route::Statement(_) | Route::Timestamp => {
                if is_read(head) {
                    self.content.answer(route, head).await
                } else {
                    not_allowed()
                }
            }
            // Enrolment has a listener of its own.
            Route::CaCerts | Route::Crls | Route::Enrol(_) | Route::Reenrol(_) => nowhere(),
            Route::Reports => self.reported(head, peer, body).await,
        }
    }

    /// What `peer` says of itself.
    async fn said(&self, route: &Route, peer: &Peer, body: &Bytes) -> Reply {
        if *route == Route::Log {
            self.inventories.answer_log(peer, body).await
        } else {
            self.inventories.answer(peer, body).await
        }
    }

    async fn reported(&self, head: &Parts, peer: &Peer, body: &Bytes) -> Reply {
        if head.method == Method::POST {
            self.reports.answer(peer, body).await
        } else {
            not_allowed()
        }
    }

    fn public_route(&self, route: Route, head: &Parts) -> Reply {
        let authority = self.enrolment.authority();
        match route {
            _ if !is_read(head) => not_allowed(),
            Route::Hello => answer_hello(authority, self.enrolment.rules().protocol_min),
            Route::Deployment => answer_deployment(&self.documents, &head.headers),
            Route::Crl(issuer) => answer_crl(authority, &self.lists, issuer, &head.headers),
            Route::CaCerts
            | Route::CheckIn
            | Route::Crls
            | Route::Enrol(_)
            | Route::Inventory
            | Route::Log
            | Route::Pack(..)
            | Route::Reenrol(_)
            | Route::Relayed
            | Route::Reports
            | Route::Roster
            | Route::Snapshot(_)
            | Route::Statement(_)
            | Route::Timestamp
            | Route::Wait => nowhere(),
        }
    }

    /// Counts, logs and reports what became of an enrolment, and tells the peer its part of it.
    async fn enrolled(&self, asked: Result<Reply, EnrolError>, address: IpAddr) -> Reply {
        if let Err(EnrolError::Taken { id }) = &asked {
            self.refusals.notice(NAME_CONFLICT, &conflict(address, id));
        }
        let (label, reply) = match asked {
            Ok(reply) if reply.status() == http::StatusCode::ACCEPTED => ("pending", reply),
            Ok(reply) => ("issued", reply),
            Err(refusal) => {
                let reply = self.refuse(&refusal);
                (refusal.label(), reply)
            }
        };
        self.metrics.enrolled(label);
        // A refusal changes nothing, and strangers can have any number of them.
        if reply.status().is_success()
            && let Err(failure) = self
                .metrics
                .count_devices(self.enrolment.authority().ledger())
                .await
        {
            debug!(error = %Report(&failure), "cannot count the devices");
        }
        reply
    }

    fn refuse(&self, refusal: &EnrolError) -> Reply {
        let told = refusal.fault();
        if told.code == Code::Internal {
            error!(error = %Report(refusal), "cannot enrol");
        } else if told.code == Code::TooMany {
            // Whoever floods us must not flood our log.
            debug!(error = %Report(refusal), "refused an enrolment");
        } else {
            info!(error = %Report(refusal), "refused an enrolment");
        }
        let mut reply = fault(&told);
        let usual = self.enrolment.rules().retry_after;
        if let Some(wait) = refusal.retry_after(usual) {
            let wait = enrol::retry_after(wait);
            reply.headers_mut().insert(http::header::RETRY_AFTER, wait);
        }
        reply
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("documents", &self.documents)
            .finish_non_exhaustive()
    }
}

/// Who asks for a name that is not theirs, in words that are the same each time: one report says it
/// all. The name is a stranger's text, and so is shown with its quotes.
fn conflict(address: IpAddr, id: &str) -> String {
    let id: String = id.chars().take(64).collect();
    format!("{address} asks for the name {id:?} with a key that is not its own")
}

/// The kind of a notice in `docs/protocol.md`.
const NAME_CONFLICT: &str = "name_conflict";

fn is_read(head: &Parts) -> bool {
    head.method == Method::GET || head.method == Method::HEAD
}

fn nowhere() -> Reply {
    fault(&Fault::new(Code::NotFound, "nothing is at this path"))
}

fn not_allowed() -> Reply {
    fault(&Fault::new(
        Code::MethodNotAllowed,
        "this path takes another method",
    ))
}

/// What every answer carries: nobody is to guess a body's type; and one to a wrong method, those
/// that are right (RFC 9110 §15.5.6).
fn stamp(reply: &mut Reply, methods: &'static str) {
    let not_allowed = reply.status() == http::StatusCode::METHOD_NOT_ALLOWED;
    let headers = reply.headers_mut();
    let name = http::header::X_CONTENT_TYPE_OPTIONS;
    headers.insert(name, HeaderValue::from_static("nosniff"));
    if not_allowed {
        headers.insert(http::header::ALLOW, HeaderValue::from_static(methods));
    }
}
