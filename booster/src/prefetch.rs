//! Fetching what is pinned before anybody asks for it.

use std::time::Duration;

use content::FilesetName;
use content::locator::PackEntry;
use futures_util::{StreamExt as _, stream};
use service::metrics::IntCounterVec;
use service::{CancellationToken, Report};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::cache::{Asker, Cache, Extent, FillError, off_runtime};
use crate::catalogue::Catalogue;
use crate::offline::{Offline, Phase};
use crate::pins::Pins;
use crate::wan::Wan;

/// Brings what is pinned, as the line allows.
#[derive(Clone, Debug)]
pub(crate) struct Prefetch {
    pub(crate) cache: Cache,
    pub(crate) catalogue: Catalogue,
    /// How packs ended, by `ended`: `stored`, `put_off`, `not_kept` or `failed`.
    pub(crate) ended: IntCounterVec,
    pub(crate) offline: Offline,
    pub(crate) pins: Pins,
    pub(crate) wan: Wan,
}

/// How fetching a pack ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Ended {
    /// It is here.
    Stored,
    /// It is not the time for it.
    PutOff,
    /// It came, and could not be kept.
    NotKept,
    /// It did not come.
    Failed,
}

impl Prefetch {
    /// Looks again and again for what is missing, and fetches it, until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let round = async { sleep(self.round().await).await };
            tokio::select! {
                () = round => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Fetches some of what is missing. Says how long to leave it at that.
    async fn round(&self) -> Duration {
        if self.pins.wanted().is_empty() || self.offline.outlook().phase != Phase::Fresh {
            return LOOK_AGAIN;
        }
        // Nobody may have asked for a while, and something may have been published.
        let looked = self.catalogue.current().await;
        let missing = match looked {
            Ok(_) => self.missing().await,
            Err(failure) => {
                debug!(error = %Report(&*failure), "cannot look for what to fetch ahead");
                return TRY_AGAIN;
            }
        };
        if missing.is_empty() {
            return LOOK_AGAIN;
        }
        info!(
            packs = missing.len(),
            "fetching what is pinned and not here"
        );
        let fetches = missing
            .into_iter()
            .map(|(name, entry)| self.fetch(name, entry));
        let ended = stream::iter(fetches).buffer_unordered(AT_ONCE);
        // The worst decides when to go on.
        match ended
            .fold(Ended::Stored, async |worst, it| worst.max(it))
            .await
        {
            Ended::Stored => Duration::ZERO,
            Ended::PutOff => LOOK_AGAIN,
            Ended::Failed => TRY_AGAIN,
            // To fetch it again and again would cost the line, and help nobody.
            Ended::NotKept => NO_ROOM_PAUSE,
        }
    }

    async fn missing(&self) -> Vec<(FilesetName, PackEntry)> {
        let (cache, catalogue) = (self.cache.clone(), self.catalogue.clone());
        let bytes_max = self.cache.pinned_bytes_max();
        // Pins may mean a million packs.
        let missing = off_runtime(move || {
            catalogue.pinned_packs(bytes_max, ROUND_PACKS, |id| !cache.is_stored(id))
        });
        missing.await.unwrap_or_default()
    }

    async fn fetch(&self, fileset: FilesetName, entry: PackEntry) -> Ended {
        let ended = if self.wan.may_prefetch() {
            self.bring(&fileset, entry).await
        } else {
            Ended::PutOff
        };
        let label = ended.label();
        self.ended.with_label_values(&[label]).inc();
        ended
    }

    /// Fetches a pack for as long as the hour allows for it. One that is over half there comes to
    /// its end by itself.
    async fn bring(&self, fileset: &FilesetName, entry: PackEntry) -> Ended {
        let part = Extent::Part;
        let served = self.cache.pack(fileset, entry, part, Asker::NOBODY).await;
        let arrived = match served {
            Ok(mut served) => loop {
                match timeout(LOOK_AGAIN, served.arrived()).await {
                    Ok(arrived) => break arrived,
                    Err(_) if self.wan.is_prefetch_hour() => {}
                    Err(_) => return Ended::PutOff,
                }
            },
            Err(failure) => Err(failure),
        };
        match arrived {
            Ok(()) if self.cache.is_stored(entry.id) => Ended::Stored,
            Ok(()) => {
                warn!(%fileset, pack = ?entry.id, "what is pinned cannot be kept");
                Ended::NotKept
            }
            Err(FillError::Busy | FillError::Cancelled) => Ended::PutOff,
            Err(failure) => {
                debug!(%fileset, error = %Report(&failure), "cannot fetch what is pinned");
                Ended::Failed
            }
        }
    }
}

impl Ended {
    fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::PutOff => "put_off",
            Self::NotKept => "not_kept",
            Self::Failed => "failed",
        }
    }
}

/// Enough that the line is not idle from one answer to the next.
const AT_ONCE: usize = 2;
/// Packs between two looks at what is pinned.
const ROUND_PACKS: usize = 64;
/// How soon what is published is noticed, and how soon a prefetch ends when its hour does.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long a source that does not give what is pinned is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// How long it takes at the least until somebody has made room.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(600);
