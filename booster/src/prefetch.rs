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
    pub(crate) ahead: Ahead,
    pub(crate) offline: Offline,
    pub(crate) pins: Pins,
}

/// What finds and fetches it.
#[derive(Clone, Debug)]
pub(crate) struct Ahead {
    pub(crate) cache: Cache,
    pub(crate) catalogue: Catalogue,
    /// How packs ended, by `ended`: `stored`, `put_off`, `not_kept` or `failed`.
    pub(crate) ended: IntCounterVec,
    pub(crate) wan: Wan,
}

/// How fetching a pack ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Ended {
    /// It is here.
    Stored,
    /// It is not the time for it.
    PutOff,
    /// There is no room for it but what is worth more takes, or it came and could not be kept.
    NotKept,
    /// It did not come.
    Failed,
}

impl Prefetch {
    /// Looks again and again for what is missing, and fetches it, until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let wan = self.ahead.wan.clone();
        self.ahead
            .cache
            .ask_line(Box::new(move || wan.must_yield()));
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
        let looked = self.ahead.catalogue.current().await;
        let missing = match looked {
            Ok(_) => self.ahead.missing().await,
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
            .map(|(name, entry)| self.ahead.fetch(name, entry));
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
            Ended::NotKept => {
                warn!("what is pinned cannot be kept");
                NO_ROOM_PAUSE
            }
        }
    }
}

impl Ahead {
    /// What is pinned and not on disk, as far as pins can keep it.
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
                debug!(%fileset, pack = ?entry.id, "what is pinned came and cannot be kept");
                Ended::NotKept
            }
            Err(FillError::Busy | FillError::Cancelled | FillError::PutOff) => Ended::PutOff,
            Err(FillError::Unkept) => {
                debug!(%fileset, pack = ?entry.id, "there is no room for what is pinned");
                Ended::NotKept
            }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use ::config::Rate;
    use service::Clock;
    use service::metrics::Registry;

    use super::*;
    use crate::catalogue::tests::Bed;
    use crate::catalogue::tests::author::Author;
    use crate::metrics::WanMetrics;
    use crate::testing::{Fake, entry, fileset, pack, soon};
    use crate::wan::Schedule;
    use crate::wan::schedule::Limits;

    fn ahead(bed: &Bed) -> Ahead {
        let registry = Registry::new("test");
        let limits = Limits {
            prefetch: Rate::UNLIMITED,
            rate: Rate::UNLIMITED,
        };
        let metrics = WanMetrics::register(&registry).unwrap();
        Ahead {
            cache: bed.cache.clone(),
            catalogue: bed.catalogue.clone(),
            ended: registry.counters("ended", "Ended", &["ended"]).unwrap(),
            wan: Wan::new(Schedule::constant(limits), Clock::system(), metrics),
        }
    }

    #[tokio::test]
    async fn what_could_only_be_held_in_memory_is_missing_and_not_taken_for_kept() {
        let (pinned, folder) = (pack(1), tempfile::tempdir().unwrap());
        let source = Fake::new("origin").with(&[&pinned]);
        Author::new(&source).publish(&[&pinned]);
        let bed = Bed::open(&folder, &source).await;
        let (id, ahead) = (pinned.header.id(), ahead(&bed));
        let pins = bed.catalogue.pins();
        pins.add("tools".parse().unwrap()).await.unwrap();
        soon(bed.catalogue.pack(&fileset(), id, Asker::NOBODY))
            .await
            .unwrap();
        // The disk refuses while somebody asks for it.
        let partial = folder.path().join("cache").join("partial");
        fs::remove_dir(&partial).unwrap();
        fs::write(&partial, "").unwrap();
        let (whole, device) = (Extent::Whole, Asker::device("laptop-1"));
        let name = fileset();
        let served = bed.cache.pack(&name, entry(&pinned), whole, device);
        soon(soon(served).await.unwrap().arrived()).await.unwrap();
        assert!(bed.cache.has_pack(id) && !bed.cache.is_stored(id));

        let missing = ahead.missing().await;
        assert_eq!(missing, [(fileset(), entry(&pinned))]);
        let ended = soon(ahead.fetch(fileset(), entry(&pinned))).await;
        assert_eq!(ended, Ended::NotKept);
        assert_eq!(source.asks().len(), 1);
        bed.stop().await;
    }

    #[tokio::test]
    async fn nothing_is_locked_while_it_is_asked_whether_a_pinned_pack_is_missing() {
        let (pinned, folder) = (pack(1), tempfile::tempdir().unwrap());
        let source = Fake::new("origin").with(&[&pinned]);
        Author::new(&source).publish(&[&pinned]);
        let bed = Bed::open(&folder, &source).await;
        let pins = bed.catalogue.pins();
        pins.add("tools".parse().unwrap()).await.unwrap();
        let id = pinned.header.id();
        soon(bed.catalogue.pack(&fileset(), id, Asker::NOBODY))
            .await
            .unwrap();
        let free = |_| bed.catalogue.is_free();
        let asked = bed.catalogue.pinned_packs(u64::MAX, 1, free);
        assert_eq!(asked, [(fileset(), entry(&pinned))]);
        bed.stop().await;
    }
}
