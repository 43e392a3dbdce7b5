//! Typed calls to one party: a booster or the origin.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use certs::tls::{CertCell, Expected, TlsError};
use certs::trust::Revocation;
use certs::{IssuerId, Trust};
use content::statement::{Deployment, Payload, Snapshot, Timestamp};
use content::{Digest, FilesetName, PackId};
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use http::{Method, Request, StatusCode};
use protocol::{CRL_BYTES_MAX, CheckIn, CheckInAnswer, HELLO_BYTES_MAX, Hello, Reports, Route};
use service::Clock;
use tokio::time::Instant;

use crate::body::Body;
use crate::call::{CallError, Meter};
use crate::connect::{Connector, Judgement, Pace};
use crate::refusals::Refusals;

mod fleet;
mod pack;
mod reply;
mod wait;

pub use pack::PackBody;
pub(crate) use reply::Reply;

/// What calls to one party need.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Where it may be found, as `HOST:PORT`, the best first. Hints, never identity.
    pub addresses: Vec<String>,
    /// Who it must prove to be.
    pub expected: Expected,
    /// What a missing revocation list means.
    pub revocation: Revocation,
    /// By which it is judged.
    pub trust: Arc<Trust>,
    /// Our own certificate, if we show one.
    pub own: Option<Arc<CertCell>>,
    /// By which certificates run out.
    pub clock: Clock,
    /// Whether to put all calls on one HTTP/2 connection, instead of several of HTTP/1.1.
    pub http2: bool,
    /// How long to wait.
    pub limits: CallLimits,
    /// Who hears of it if we turn from the server; none where nobody would pass it on.
    pub refusals: Option<Refusals>,
}

/// How long the steps of a call may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CallLimits {
    /// To a connection and through its handshake, all addresses together.
    pub connect_timeout: Duration,
    /// A call for a small thing, from its beginning to its end.
    pub call_timeout: Duration,
    /// To the head of a pack: a booster may have to fetch it first.
    pub pack_head_timeout: Duration,
    /// Between two parts of a body.
    pub idle_timeout: Duration,
    /// A call for a pack, a list or an index root, from its beginning to its end.
    pub bulk_timeout: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            pack_head_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            // A pack of 8 MiB over 64 kbit/s takes 18 minutes.
            bulk_timeout: Duration::from_secs(1800),
        }
    }
}

/// What came of asking for something that we may have already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fetched {
    /// It is new.
    New {
        /// It.
        bytes: Bytes,
        /// What to call it when asking again.
        etag: Option<String>,
    },
    /// What we have is what there is.
    Unchanged,
}

/// Calls to one party.
pub struct Source {
    pub(crate) connector: Connector,
    pub(crate) limits: CallLimits,
    pub(crate) meter: Arc<Meter>,
    settings: SourceSettings,
}

impl Source {
    /// Sets up calls. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// Fails if the party expected can be nobody who listens.
    pub fn new(settings: SourceSettings) -> Result<Self, TlsError> {
        let kept = settings.clone();
        let SourceSettings {
            addresses,
            expected,
            revocation,
            trust,
            own,
            clock,
            http2,
            limits,
            refusals,
        } = settings;
        let time = certs::tls::time_from({
            let clock = clock.clone();
            move || clock.now()
        });
        let tls = certs::tls::client_config(&expected, revocation, &trust, own.as_ref(), &time)?;
        let judgement = Some(Judgement {
            trust,
            revocation,
            clock,
            expected: expected.clone(),
            own,
            refusals,
        });
        let meter = Arc::new(Meter::default());
        let connector = Connector::new(
            addresses,
            &expected,
            tls,
            judgement,
            http2,
            limits.connect_timeout,
            Arc::clone(&meter),
        );
        Ok(Self {
            connector,
            limits,
            meter,
            settings: kept,
        })
    }

    /// The same, over connections that are read no faster than `pace` allows.
    #[must_use]
    pub fn paced(self, pace: Arc<dyn Pace>) -> Self {
        Self {
            connector: self.connector.paced(pace),
            ..self
        }
    }

    /// Calls to the same party that show the certificate `own` instead: to see whether it is any
    /// good.
    ///
    /// # Errors
    ///
    /// Fails only if TLS cannot be set up.
    pub fn showing(&self, own: Arc<CertCell>) -> Result<Self, TlsError> {
        Self::new(SourceSettings {
            addresses: self.addresses().to_vec(),
            own: Some(own),
            ..self.settings.clone()
        })
    }

    /// Who it must prove to be.
    #[must_use]
    pub fn expected(&self) -> &Expected {
        &self.settings.expected
    }

    /// What the calls have cost so far.
    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Where it is looked for.
    #[must_use]
    pub fn addresses(&self) -> Arc<Vec<String>> {
        self.connector.addresses()
    }

    /// Looks for it elsewhere from the next connection on.
    pub fn set_addresses(&self, addresses: Vec<String>) {
        self.connector.set_addresses(addresses);
    }

    /// Asks who answers. Its answer shows that both sides have accepted the connection.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn hello(&self) -> Result<Hello, CallError> {
        let bytes = self.get(&Route::Hello, HELLO_BYTES_MAX).await?;
        Hello::decode(&bytes).ok_or_else(|| CallError::bad("it is no hello"))
    }

    /// Fetches the timestamp's envelope, unless it is still the one called `etag`.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn timestamp(&self, etag: Option<&str>) -> Result<Fetched, CallError> {
        self.get_if_new(&Route::Timestamp, etag, Timestamp::ENVELOPE_BYTES_MAX)
            .await
    }

    /// Fetches the deployment document's envelope, unless it is still the one called `etag`.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn deployment(&self, etag: Option<&str>) -> Result<Fetched, CallError> {
        self.get_if_new(&Route::Deployment, etag, Deployment::ENVELOPE_BYTES_MAX)
            .await
    }

    /// Fetches an issuer's revocation list, unless it is still the one called `etag`.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn crl(&self, issuer: IssuerId, etag: Option<&str>) -> Result<Fetched, CallError> {
        self.get_if_new(&Route::Crl(*issuer.as_bytes()), etag, CRL_BYTES_MAX)
            .await
    }

    /// Fetches the envelope of the snapshot called `digest`. Whether it is that one is for the
    /// caller to verify.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn snapshot(&self, digest: &Digest) -> Result<Bytes, CallError> {
        self.get(&Route::Snapshot(*digest), Snapshot::ENVELOPE_BYTES_MAX)
            .await
    }

    /// Fetches the statement or index root called `digest`, of at most `bytes_max` bytes.
    /// Whether it is that one is for the caller to verify.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn statement(&self, digest: &Digest, bytes_max: usize) -> Result<Bytes, CallError> {
        self.get(&Route::Statement(*digest), bytes_max).await
    }

    /// Posts JSON.
    pub(crate) async fn post(
        &self,
        route: &Route,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        let (path, body) = (route.to_string(), Bytes::from(body));
        let make = || {
            let request = self.connector.request(&path).method(Method::POST);
            finish(
                request.header(CONTENT_TYPE, "application/json"),
                body.clone(),
            )
        };
        self.send(make, deadline).await
    }

    /// Tells how we are. None if nothing has changed for us.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn check_in(&self, check_in: &CheckIn) -> Result<Option<CheckInAnswer>, CallError> {
        self.say(check_in.encode()).await
    }

    /// `POST /v1/check-in`, and what is answered to it.
    async fn say(&self, body: Vec<u8>) -> Result<Option<CheckInAnswer>, CallError> {
        let deadline = Instant::now() + self.limits.call_timeout;
        let reply = self.post(&Route::CheckIn, body, deadline).await?;
        if reply.head.status() == StatusCode::NO_CONTENT {
            return reply.read(0, deadline).await.map(|_| None);
        }
        let bytes = reply.read(CheckIn::BYTES_MAX, deadline).await?;
        let answer = CheckInAnswer::decode(&bytes);
        let answer = answer.ok_or_else(|| CallError::bad("it is no answer to a check-in"))?;
        Ok(Some(answer))
    }

    /// Tells the origin what this device is: the bytes of an `Inventory`.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn inventory(&self, body: Vec<u8>) -> Result<(), CallError> {
        self.tell(&Route::Inventory, body).await
    }

    /// Shows the origin the end of this device's log: at most [`protocol::LOG_BYTES_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn log(&self, text: String) -> Result<(), CallError> {
        self.tell(&Route::Log, text.into_bytes()).await
    }

    /// Posts something to which there is no answer but that it is kept.
    async fn tell(&self, route: &Route, body: Vec<u8>) -> Result<(), CallError> {
        let deadline = Instant::now() + self.limits.call_timeout;
        let reply = self.post(route, body, deadline).await?;
        match reply.head.status() {
            StatusCode::NO_CONTENT => reply.read(0, deadline).await.map(drop),
            status => Err(CallError::bad(format!("status {status}"))),
        }
    }

    /// Tells the origin what was noted.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn report(&self, reports: &Reports) -> Result<(), CallError> {
        self.tell(&Route::Reports, reports.encode()).await
    }

    /// Fetches `range` of a pack, or all of it. With `no_cache`, a cache is asked to verify
    /// what it has once more.
    ///
    /// # Errors
    ///
    /// Fails as every call does; see [`CallError`].
    pub async fn pack(
        &self,
        fileset: &FilesetName,
        id: &PackId,
        range: Option<std::ops::Range<u64>>,
        no_cache: bool,
    ) -> Result<PackBody, CallError> {
        pack::fetch(self, fileset, id, range, no_cache).await
    }

    pub(crate) async fn get(&self, route: &Route, bytes_max: usize) -> Result<Bytes, CallError> {
        match self.get_if_new(route, None, bytes_max).await? {
            Fetched::New { bytes, .. } => Ok(bytes),
            Fetched::Unchanged => Err(CallError::bad("nothing had been said to compare with")),
        }
    }

    async fn get_if_new(
        &self,
        route: &Route,
        etag: Option<&str>,
        bytes_max: usize,
    ) -> Result<Fetched, CallError> {
        let path = route.to_string();
        let make = || {
            let request = self.connector.request(&path);
            let request = match etag {
                Some(etag) => request.header(IF_NONE_MATCH, etag),
                None => request,
            };
            finish(request, Bytes::new())
        };
        let bulk = bytes_max > SMALL_BYTES_MAX;
        let all = if bulk {
            self.limits.bulk_timeout
        } else {
            self.limits.call_timeout
        };
        let deadline = Instant::now() + all;
        let head_deadline = deadline.min(Instant::now() + self.limits.call_timeout);
        let reply = self.send(make, head_deadline).await?;
        match reply.head.status() {
            StatusCode::OK => {
                let etag = text(reply.head.headers(), &ETAG);
                let bytes = reply.read(bytes_max, deadline).await?;
                Ok(Fetched::New { bytes, etag })
            }
            StatusCode::NOT_MODIFIED => {
                reply.read(0, deadline).await?;
                Ok(Fetched::Unchanged)
            }
            status => Err(CallError::bad(format!("status {status}"))),
        }
    }

    /// Sends a request and takes the head of a good answer; a bad one is made an error.
    pub(crate) async fn send(
        &self,
        make: impl Fn() -> Request<Body>,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        self.meter.calls.fetch_add(1, Ordering::Relaxed);
        let sent = async {
            let (head, connection) = self.connector.exchange(make, deadline).await?;
            let meter = Arc::clone(&self.meter);
            let reply = Reply {
                head,
                connection,
                meter,
                idle: self.limits.idle_timeout,
            };
            let status = reply.head.status();
            if status.is_success() || status == StatusCode::NOT_MODIFIED {
                Ok(reply)
            } else {
                Err(reply.into_fault(deadline).await)
            }
        };
        sent.await.inspect_err(|_| {
            self.meter.failures.fetch_add(1, Ordering::Relaxed);
        })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("expected", &self.settings.expected)
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

/// A request with a body, out of parts that are known to fit.
pub(crate) fn finish(request: http::request::Builder, body: Bytes) -> Request<Body> {
    request
        .body(Body::full(body))
        .expect("our routes and ETags are valid in a request")
}

/// A header's text, if there is exactly one such header and it is text.
pub(crate) fn text(headers: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::to_owned),
        (_, _) => None,
    }
}

/// What fits into a call's common time, even over a thin line.
const SMALL_BYTES_MAX: usize = 1 << 20;
