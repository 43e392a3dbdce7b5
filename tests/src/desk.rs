//! An origin's content listener that says of manifests what a test wants; all else is the origin's
//! own word, passed on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use certs::{Role, tls};
use content::statement::{Item, Manifest, Payload as _, Script, Stage, seal};
use content::{Digest, FilesetName};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use protocol::{
    ByteRange, CheckIn, CheckInAnswer, Code, Command, CurrentManifest, Fault, FilesetResult, Held,
    Route,
};
use tokio::sync::Notify;
use tokio::time::timeout;
use transport::listen::Limits;
use transport::{Body, ListenSettings, Listener, Source, read_body, respond};

use crate::liar::{Lie, answer};
use crate::testbed::{Party, Testbed};

/// The desk. It ends when it is dropped.
pub struct Desk {
    listener: Listener,
    said: Arc<Mutex<Said>>,
}

/// Told whenever something is said that devices wait for.
type News = Arc<Notify>;

/// What is said, and what was heard.
#[derive(Default)]
struct Said {
    number: u64,
    current: Option<CurrentManifest>,
    news: News,
    objects: HashMap<Digest, Bytes>,
    commands: Vec<Command>,
    /// Nobody gets an answer.
    is_deaf: bool,
    heard: Vec<Held>,
    results: HashMap<FilesetName, FilesetResult>,
}

impl Desk {
    /// Opens one for `bed`, which passes on what the origin says to a party of its own.
    ///
    /// # Errors
    ///
    /// Fails if it cannot listen, or the origin cannot be reached.
    pub async fn open(bed: &Testbed) -> anyhow::Result<Self> {
        let data = bed.enrol_booster("desk").await?;
        let join = bed.join(Role::Client).await?;
        let party = Party::of(&data, &join, &bed.clock()).await?;
        let at = bed.origin().addresses().content.to_string();
        let origin = Arc::new(party.source(Role::Origin, "origin", at)?);
        let authority = bed.origin().authority();
        let (trust, clock) = (Arc::clone(authority.trust()), bed.clock());
        let time = tls::time_from({
            let clock = clock.clone();
            move || clock.now()
        });
        let kind = tls::Listener::Data {
            roles: vec![Role::Client],
        };
        let own = authority.own_certificate();
        let settings = ListenSettings {
            tls: Arc::new(tls::server_config(&kind, &trust, own, &time)?),
            trust,
            clock,
            limits: Limits::default(),
        };
        let said = Arc::new(Mutex::new(Said::default()));
        let kept = Arc::clone(&said);
        let handler = move |request: Request<Incoming>, _session| {
            let (said, origin) = (Arc::clone(&kept), Arc::clone(&origin));
            async move { reply(&said, &origin, request).await }
        };
        let loopback = ([127, 0, 0, 1], 0).into();
        let listener = Listener::bind(loopback, settings, handler, Arc::new(())).await?;
        Ok(Self { listener, said })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Has the device called `device` hold `items` from now on.
    ///
    /// # Errors
    ///
    /// Fails if the manifest cannot be signed.
    pub fn say(&self, bed: &Testbed, device: &str, mut items: Vec<Item>) -> anyhow::Result<()> {
        items.sort_by(|one, other| one.fileset.cmp(&other.fileset));
        let mut said = self.lock();
        said.number += 1;
        let authority = bed.origin().authority();
        let manifest = Manifest {
            deployment: authority.trust().deployment().to_string(),
            device: device.to_owned(),
            number: said.number,
            model: said.number,
            created: bed.clock().now(),
            items,
        };
        anyhow::ensure!(Manifest::decode(&manifest.encode()).is_ok(), "no manifest");
        let envelope = seal(&manifest, |message| authority.sign_content(message))?;
        let digest = Digest::of(&envelope);
        said.objects.insert(digest, envelope.into());
        said.current = Some(CurrentManifest {
            model: manifest.model,
            number: manifest.number,
            digest,
        });
        said.news.notify_waiters();
        Ok(())
    }

    /// Tells of the manifest numbered `number` again.
    pub fn repeat(&self, number: u64, digest: Digest) {
        self.lock().current = Some(CurrentManifest {
            model: number,
            number,
            digest,
        });
    }

    /// What devices are told to go by.
    #[must_use]
    pub fn current(&self) -> Option<CurrentManifest> {
        self.lock().current.clone()
    }

    /// Has a script, and names it.
    #[must_use]
    pub fn script(&self, stage: Stage, text: &str) -> Script {
        let digest = Digest::of(text.as_bytes());
        let bytes = Bytes::from(text.to_owned());
        self.lock().objects.insert(digest, bytes);
        Script {
            stage,
            name: "script".to_owned(),
            digest,
            bytes: text.len() as u64,
            seconds: 60,
        }
    }

    /// Asks for something.
    pub fn ask(&self, command: Command) {
        let mut said = self.lock();
        said.commands.push(command);
        said.news.notify_waiters();
    }

    /// Answers nobody, or everybody again.
    pub fn set_deaf(&self, is_deaf: bool) {
        self.lock().is_deaf = is_deaf;
    }

    /// The last that was heard of a fileset: state, revision, note.
    #[must_use]
    pub fn result(&self, fileset: &str) -> Option<(&'static str, u64, String)> {
        let fileset: FilesetName = fileset.parse().ok()?;
        let said = self.lock();
        let result = said.results.get(&fileset)?;
        Some((result.state.word(), result.revision, result.note.clone()))
    }

    /// Everything that was heard.
    #[must_use]
    pub fn heard(&self) -> Vec<Held> {
        self.lock().heard.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn reply(said: &Mutex<Said>, origin: &Source, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let fault = |text: String| respond::fault(&Fault::new(Code::NotFound, text));
    let lock = || said.lock().unwrap_or_else(PoisonError::into_inner);
    if lock().is_deaf {
        return respond::fault(&Fault::new(Code::Internal, "not now"));
    }
    let route = match Route::parse(head.uri.path()) {
        Ok(route) => route,
        Err(error) => return fault(error.to_string()),
    };
    if route == Route::CheckIn {
        let read = read_body(body, CheckIn::BYTES_MAX, Duration::from_secs(5)).await;
        let heard = read.ok().and_then(|bytes| CheckIn::decode(&bytes));
        return match heard.and_then(|check_in| check_in.held) {
            Some(held) => lock().hear(held),
            None => respond::fault(&Fault::new(Code::BadRequest, "no check-in of a device")),
        };
    }
    if route == Route::Wait {
        return wait(said, head.uri.query().unwrap_or_default()).await;
    }
    if let Route::Statement(digest) = route
        && let Some(bytes) = lock().objects.get(&digest).cloned()
    {
        return respond::bytes(StatusCode::OK, "application/octet-stream", bytes);
    }
    let range = head.headers.get(http::header::RANGE);
    let range = range.and_then(|range| range.to_str().ok());
    match answer(&Lie::None, origin, "bed", head.uri.path()).await {
        Ok(bytes) => part(bytes, range),
        Err(error) => fault(error.to_string()),
    }
}

/// Lets a device wait until there is something to be said, or for a while.
async fn wait(said: &Mutex<Said>, query: &str) -> Response<Body> {
    let lock = || said.lock().unwrap_or_else(PoisonError::into_inner);
    let woken = Arc::clone(&lock().news).notified_owned();
    let has = lock().current.as_ref().map(|current| current.digest);
    let goes_by_it = has.is_none_or(|digest| query.contains(&digest.to_string()));
    if goes_by_it && timeout(WAIT, woken).await.is_err() {
        return respond::status(StatusCode::NO_CONTENT);
    }
    let body = lock().answer().encode();
    respond::bytes(StatusCode::OK, "application/json", body)
}

/// The part of `bytes` that is asked for.
fn part(bytes: Bytes, range: Option<&str>) -> Response<Body> {
    let length = bytes.len() as u64;
    let Ok(ByteRange::Part(part)) = ByteRange::parse(range, length) else {
        return Response::new(Body::full(bytes));
    };
    let said = format!("bytes {}-{}/{length}", part.start, part.end - 1);
    let mut response = Response::new(Body::full(
        bytes.slice(part.start as usize..part.end as usize),
    ));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    if let Ok(said) = said.parse() {
        let name = http::header::CONTENT_RANGE;
        response.headers_mut().insert(name, said);
    }
    response
}

impl Said {
    fn hear(&mut self, held: Held) -> Response<Body> {
        for result in &held.results {
            let known = self.results.get(&result.fileset);
            if known.is_none_or(|known| known.at < result.at) {
                self.results.insert(result.fileset.clone(), result.clone());
            }
        }
        self.commands
            .retain(|command| !held.done.contains(&command.id));
        let has = self.current.as_ref().map(|current| current.digest);
        let answer = self.answer();
        let is_news = held.manifest != has || !answer.commands.is_empty();
        self.heard.push(held);
        if is_news || self.heard.len() == 1 {
            respond::bytes(StatusCode::OK, "application/json", answer.encode())
        } else {
            respond::status(StatusCode::NO_CONTENT)
        }
    }
    fn answer(&self) -> CheckInAnswer {
        CheckInAnswer {
            next_seconds: 2,
            manifest: self.current.clone(),
            boosters: Vec::new(),
            commands: self.commands.clone(),
            inventory: false,
        }
    }
}

/// How long a device waits; shorter than the life of a test.
const WAIT: Duration = Duration::from_secs(35);
