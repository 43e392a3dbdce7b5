//! Where the booster gets what it does not have: an ordered list of sources.

mod aimd;
mod health;
mod parent;
mod place;
mod remote;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use content::{FilesetName, PackId};
use protocol::Route;
use service::Report;
use thiserror::Error;
use tokio::time::Instant;
use tracing::debug;

use crate::wan::Purpose;
pub use parent::{Parent, ParseParentError};
pub(crate) use place::Slot;
pub use place::{Place, Rank};
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
    /// What for.
    pub purpose: Purpose,
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
    /// It has too much to do, or trouble of its own.
    #[error("{name} cannot give it now: {detail}")]
    Busy {
        /// The source.
        name: String,
        /// What it said.
        detail: String,
    },
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

/// The sources, in the order in which they are asked. One that sent something bad, or that has not
/// answered for a while, is asked last.
pub struct Upstreams {
    places: Vec<Arc<Place>>,
}

impl Upstreams {
    /// These, the best first.
    #[must_use]
    pub fn new(sources: Vec<Arc<dyn Upstream>>) -> Self {
        let place = |source| Arc::new(Place::new(source, Rank::Origin));
        Self::of(sources.into_iter().map(place).collect())
    }

    /// These, the best first. A place may be in several lists: its health is one.
    #[must_use]
    pub fn of(places: Vec<Arc<Place>>) -> Self {
        Self { places }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The source to ask next for what is named by its digest: the best of those that are not in
    /// `tried`, which it is added to. Once all have been tried it begins again. None if there are no
    /// sources.
    pub fn choose(&self, tried: &mut Vec<usize>) -> Option<Arc<Place>> {
        self.choose_by(tried, |_| false)
    }

    /// The same for `route`. Of what changes, such as the timestamp, the origin is asked first: a
    /// parent may hold back what is new.
    pub fn choose_for(&self, route: &Route, tried: &mut Vec<usize>) -> Option<Arc<Place>> {
        let changes = matches!(route, Route::Timestamp | Route::Deployment | Route::Crl(_));
        self.choose_by(tried, |place| changes && place.rank() == Rank::Parent)
    }

    fn choose_by(
        &self,
        tried: &mut Vec<usize>,
        later: impl Fn(&Place) -> bool,
    ) -> Option<Arc<Place>> {
        if tried.len() >= self.places.len() {
            tried.clear();
        }
        let now = Instant::now();
        let worse = |at: &usize| (self.places[*at].standing(now), later(&self.places[*at]));
        let at = (0..self.places.len())
            .filter(|at| !tried.contains(at))
            .min_by_key(worse)?;
        tried.push(at);
        self.places[at].chosen(now);
        Some(Arc::clone(&self.places[at]))
    }

    /// How many packs may be fetched at a time, by what the source bears that would be asked now.
    pub(crate) fn concurrency(&self) -> usize {
        let now = Instant::now();
        let first = self.places.iter().min_by_key(|place| place.standing(now));
        first.map_or(1, |place| place.limit())
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
        for _ in 0..self.places.len() {
            let Some(place) = self.choose_for(route, &mut tried) else {
                break;
            };
            match place.fetch(route, etag, bytes_max).await {
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
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.places.iter().map(|place| place.name()).collect();
        f.debug_tuple("Upstreams").field(&names).finish()
    }
}
