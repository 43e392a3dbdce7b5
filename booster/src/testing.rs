//! A source that does what a test wants, and packs to get from it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use content::frame::PlainFrame;
use content::locator::PackEntry;
use content::pack::{BuiltPack, PackBuilder};
use content::{Chunk, ChunkId, Digest, FilesetName, PackId};
use protocol::Route;
use service::metrics::Registry;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cache::Limits;
use crate::metrics::CacheMetrics;
use crate::upstream::{Fetched, Later, PackAsk, PackBody, Pieces, Upstream, UpstreamError};

/// What a source does wrong, once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrong {
    /// The connection breaks before this byte of the pack.
    CutAt(u64),
    /// This byte of the pack is another one.
    Flip(u64),
    /// It begins with the pack's first byte, whatever was asked for.
    IgnoreRange,
    /// Nothing.
    Nothing,
    /// No answer comes.
    Silent,
}

/// A source in memory.
#[derive(Debug)]
pub(crate) struct Fake {
    name: &'static str,
    packs: Mutex<HashMap<PackId, Bytes>>,
    small: Mutex<HashMap<String, (String, Bytes)>>,
    asks: Mutex<Vec<PackAsk>>,
    fetches: Mutex<Vec<String>>,
    wrongs: Mutex<VecDeque<Wrong>>,
    /// No byte of a pack from here on is sent.
    gate: watch::Sender<u64>,
}

impl Fake {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            packs: Mutex::default(),
            small: Mutex::default(),
            asks: Mutex::default(),
            fetches: Mutex::default(),
            wrongs: Mutex::default(),
            gate: watch::Sender::new(u64::MAX),
        })
    }

    pub(crate) fn with(self: Arc<Self>, packs: &[&BuiltPack]) -> Arc<Self> {
        for pack in packs {
            let bytes = Bytes::from(pack.bytes.clone());
            self.packs.lock().unwrap().insert(pack.header.id(), bytes);
        }
        self
    }

    /// Answers `route` with `bytes` from now on.
    pub(crate) fn put(&self, route: &Route, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let etag = format!("\"{}\"", Digest::of(&bytes).hex());
        self.small
            .lock()
            .unwrap()
            .insert(route.to_string(), (etag, bytes));
    }

    /// What it will do wrong, request by request.
    pub(crate) fn will(&self, wrongs: impl IntoIterator<Item = Wrong>) {
        self.wrongs.lock().unwrap().extend(wrongs);
    }

    pub(crate) fn gate_at(&self, byte: u64) {
        self.gate.send_replace(byte);
    }

    pub(crate) fn asks(&self) -> Vec<PackAsk> {
        self.asks.lock().unwrap().clone()
    }

    /// How long a pack is, if it is here.
    pub(crate) fn pack_bytes(&self, id: PackId) -> Option<u64> {
        let packs = self.packs.lock().unwrap();
        packs.get(&id).map(|bytes| bytes.len() as u64)
    }

    /// What `route` is answered with, and its tag.
    pub(crate) fn small(&self, route: &Route) -> Option<(String, Bytes)> {
        self.small.lock().unwrap().get(&route.to_string()).cloned()
    }

    /// From which bytes on packs were asked for, in order.
    pub(crate) fn asked_from(&self) -> Vec<u64> {
        self.asks().iter().map(|ask| ask.from).collect()
    }

    /// Which small things were asked for, in order.
    pub(crate) fn fetches(&self) -> Vec<String> {
        self.fetches.lock().unwrap().clone()
    }

    fn broken(&self) -> UpstreamError {
        UpstreamError::Broken {
            name: self.name.to_owned(),
            source: Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)),
        }
    }

    fn not_found(&self) -> UpstreamError {
        UpstreamError::NotFound {
            name: self.name.to_owned(),
        }
    }
}

impl Upstream for Arc<Fake> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn pack<'a>(&'a self, ask: &'a PackAsk) -> Later<'a, Result<PackBody, UpstreamError>> {
        Box::pin(async move {
            self.asks.lock().unwrap().push(ask.clone());
            let wrong = self.wrongs.lock().unwrap().pop_front();
            let bytes = self.packs.lock().unwrap().get(&ask.id).cloned();
            let bytes = bytes.ok_or_else(|| self.not_found())?;
            let start = match wrong {
                Some(Wrong::IgnoreRange) => 0,
                Some(Wrong::Silent) => std::future::pending().await,
                _ => ask.from,
            };
            let pieces = Box::new(FakePieces {
                fake: Self::clone(self),
                bytes,
                at: start,
                wrong: wrong.unwrap_or(Wrong::Nothing),
            });
            Ok(PackBody { start, pieces })
        })
    }

    fn fetch<'a>(
        &'a self,
        route: &'a Route,
        etag: Option<&'a str>,
        bytes_max: usize,
    ) -> Later<'a, Result<Fetched, UpstreamError>> {
        Box::pin(async move {
            self.fetches.lock().unwrap().push(route.to_string());
            let small = self.small.lock().unwrap().get(&route.to_string()).cloned();
            let (current, bytes) = small.ok_or_else(|| self.not_found())?;
            assert!(bytes.len() <= bytes_max, "{route} is over its bound");
            if etag == Some(&current) {
                return Ok(Fetched::NotModified);
            }
            Ok(Fetched::New {
                etag: Some(current),
                bytes,
            })
        })
    }
}

struct FakePieces {
    fake: Arc<Fake>,
    bytes: Bytes,
    at: u64,
    wrong: Wrong,
}

impl Pieces for FakePieces {
    fn next(&mut self) -> Later<'_, Result<Option<Bytes>, UpstreamError>> {
        Box::pin(async move {
            let mut gate = self.fake.gate.subscribe();
            let gate = *gate.wait_for(|gate| *gate > self.at).await.unwrap();
            // An odd size, so that pieces and frames never end together.
            let mut end = (self.at + 9_973).min(gate).min(self.bytes.len() as u64);
            match self.wrong {
                Wrong::CutAt(cut) if cut <= self.at => return Err(self.fake.broken()),
                Wrong::CutAt(cut) => end = end.min(cut),
                Wrong::Flip(_) | Wrong::IgnoreRange | Wrong::Nothing | Wrong::Silent => {}
            }
            if end <= self.at {
                return Ok(None);
            }
            let mut piece = self.bytes[self.at as usize..end as usize].to_vec();
            if let Wrong::Flip(byte) = self.wrong
                && (self.at..end).contains(&byte)
            {
                piece[(byte - self.at) as usize] ^= 1;
            }
            self.at = end;
            Ok(Some(piece.into()))
        })
    }
}

/// A pack of four frames of about 100,000 bytes each, which differ by `seed`.
pub(crate) fn pack(seed: u64) -> BuiltPack {
    pack_of(seed, 4)
}

pub(crate) fn pack_of(seed: u64, frames: usize) -> BuiltPack {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut builder = PackBuilder::default();
    for _ in 0..frames {
        let mut frame = PlainFrame::default();
        for _ in 0..4 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
                .take(25_000)
                .collect();
            let id = ChunkId(Digest::of(&bytes));
            frame.push(Chunk::verify(&bytes, id).unwrap());
        }
        builder.push(frame.pack(3).unwrap());
    }
    builder.finish().unwrap()
}

/// The pack as a locator would list it.
pub(crate) fn entry(pack: &BuiltPack) -> PackEntry {
    PackEntry {
        id: pack.header.id(),
        header_bytes: pack.header.header_bytes(),
        total_bytes: pack.header.total_bytes(),
    }
}

pub(crate) fn fileset() -> FilesetName {
    "tools".parse().unwrap()
}

/// Limits that hold however full the disk of whoever runs this is.
pub(crate) fn limits() -> Limits {
    Limits {
        free_percent_min: 0,
        ..Limits::default()
    }
}

pub(crate) fn metrics() -> CacheMetrics {
    CacheMetrics::register(&Registry::new("test")).unwrap()
}

/// Fails a test that waits for what does not come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(600), future)
        .await
        .expect("it should have come by now")
}

/// Looks again and again until it sees what is wanted, which is given back; fails if that takes too
/// long. Between two looks it pauses: what is waited for is the value.
pub(crate) async fn until<T>(look: impl AsyncFn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    soon(async {
        loop {
            let seen = look().await;
            if wanted(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}
