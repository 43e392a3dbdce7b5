//! Where the booster gets what it does not have: an ordered list of sources.

mod remote;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use content::{FilesetName, PackId};
use protocol::Route;
use service::Report;
use thiserror::Error;
use tokio::time::Instant;
use tracing::{debug, warn};

pub use remote::Remote;

/// A future in a box, so that sources can be of many kinds.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that content can be fetched from. What comes from it is not trusted.
pub trait Upstream: Send + Sync + 'static {
    /// A short name for the log.
    fn name(&self) -> String;

    /// Asks for a pack, or the rest of one.
    fn pack<'a>(&'a self, ask: &'a PackAsk) -> Later<'a, Result<PackBody, UpstreamError>>;

    /// Asks for something small: `etag` is of what is there already, `bytes_max` the most that
    /// may come.
    fn fetch<'a>(
        &'a self,
        route: &'a Route,
        etag: Option<&'a str>,
        bytes_max: usize,
    ) -> Later<'a, Result<Fetched, UpstreamError>>;
}

/// Which pack is asked for, and which part of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PackAsk {
    /// The fileset, by which the source decides whether we may have it.
    pub fileset: FilesetName,
    /// From which byte on.
    pub from: u64,
    /// The pack.
    pub id: PackId,
    /// Whether caches in between must ask again themselves, because what came was bad.
    pub no_cache: bool,
}

/// The bytes of a pack as they come.
pub struct PackBody {
    /// Which byte of the pack comes first: where it was asked for, or 0.
    pub start: u64,
    /// The bytes.
    pub pieces: Box<dyn Pieces>,
}

impl fmt::Debug for PackBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackBody")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// A body that comes piece by piece.
pub trait Pieces: Send {
    /// The next piece; none at the end. Loses nothing if it is dropped before it is done.
    fn next(&mut self) -> Later<'_, Result<Option<Bytes>, UpstreamError>>;
}

/// Something small.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fetched {
    /// This.
    New {
        /// Names this state of it.
        etag: Option<String>,
        /// All of it.
        bytes: Bytes,
    },
    /// What we have is what it is.
    NotModified,
}

/// Why a source did not give what was asked for.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// It cannot be reached, or the connection broke.
    #[error("cannot get it from {name}")]
    Broken {
        /// The source.
        name: String,
        /// What happened.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// It has no such thing.
    #[error("it is not at {name}")]
    NotFound {
        /// The source.
        name: String,
    },
    /// It sent something else than what was asked for.
    #[error("{name} breaks the protocol: {what}")]
    Protocol {
        /// The source.
        name: String,
        /// How.
        what: &'static str,
    },
    /// It refused.
    #[error("{name} refused: {detail}")]
    Refused {
        /// The source.
        name: String,
        /// What it said.
        detail: String,
    },
    /// Nothing came for too long.
    #[error("nothing came from {name} for too long")]
    Stalled {
        /// The source.
        name: String,
    },
}

/// The sources, in the order in which they are asked. A bad one is asked last for a while.
pub struct Upstreams {
    sources: Vec<Arc<dyn Upstream>>,
    bad_until: Mutex<Vec<Option<Instant>>>,
}

impl Upstreams {
    /// These, the best first.
    #[must_use]
    pub fn new(sources: Vec<Arc<dyn Upstream>>) -> Self {
        let bad_until = Mutex::new(vec![None; sources.len()]);
        Self { sources, bad_until }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sources.len()
    }

    /// The source to ask next, and its number: the best of those that are not in `tried`, which it
    /// is added to. Once all have been tried it begins again. None if there are no sources.
    pub fn choose(&self, tried: &mut Vec<usize>) -> Option<(usize, Arc<dyn Upstream>)> {
        if tried.len() >= self.sources.len() {
            tried.clear();
        }
        let now = Instant::now();
        let bad = self.bad();
        let at = (0..self.sources.len())
            .filter(|at| !tried.contains(at))
            .min_by_key(|&at| bad[at].is_some_and(|until| until > now))?;
        tried.push(at);
        Some((at, Arc::clone(&self.sources[at])))
    }

    /// Asks for something small, source by source until one gives it. What comes has not been
    /// checked.
    ///
    /// # Errors
    ///
    /// Fails as the first source does, if none gives it: it is the one that should.
    pub async fn fetch(
        &self,
        route: &Route,
        etag: Option<&str>,
        bytes_max: usize,
    ) -> Result<Fetched, UpstreamError> {
        let (mut tried, mut first) = (Vec::new(), None);
        for _ in 0..self.sources.len() {
            let Some((_, source)) = self.choose(&mut tried) else {
                break;
            };
            match source.fetch(route, etag, bytes_max).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => {
                    debug!(route = route.kind(), error = %Report(&failure), "cannot fetch");
                    first.get_or_insert(failure);
                }
            }
        }
        Err(first.unwrap_or(UpstreamError::Protocol {
            name: "nobody".to_owned(),
            what: "there are no sources",
        }))
    }

    /// Takes note that a source sent bytes that are not what they should be.
    pub fn mark_bad(&self, at: usize) {
        let name = self.sources[at].name();
        warn!(source = name, "a source sent bytes that fail their check");
        self.bad()[at] = Some(Instant::now() + BAD_FOR);
    }

    fn bad(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.bad_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.sources.iter().map(|source| source.name()).collect();
        f.debug_tuple("Upstreams").field(&names).finish()
    }
}

/// How long a bad source is asked last: long enough for a fill to get past it, short enough that a
/// repaired one is soon in use again.
const BAD_FOR: Duration = Duration::from_secs(60);
