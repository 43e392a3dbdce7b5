//! The cache against sources that break in every way, and disks that forget.

mod ahead;
mod blocks;
mod disk;
mod fair;
mod fills;
mod hedge;
mod hot;
mod refused;
mod scrub;
mod soon;

use std::path::Path;

use content::pack::BuiltPack;
use service::Tasks;
use tempfile::TempDir;

use super::*;
use crate::testing::{self, Fake, entry, fileset, metrics, soon};
use crate::upstream::Upstream;

/// A cache in a folder, with its sources and tasks.
struct Bed {
    cache: Cache,
    metrics: CacheMetrics,
    tasks: Tasks,
}

impl Bed {
    async fn open(folder: &Path, sources: &[&Arc<Fake>]) -> Self {
        Self::with(folder, sources, limits()).await
    }

    async fn with(folder: &Path, sources: &[&Arc<Fake>], limits: Limits) -> Self {
        let sources = sources
            .iter()
            .map(|source| Arc::new(Arc::clone(source)) as Arc<dyn Upstream>);
        let upstreams = Arc::new(Upstreams::new(sources.collect()));
        let (tasks, metrics) = (Tasks::new(), metrics());
        let now = service::Clock::system().now();
        let cache = Cache::open(
            folder,
            limits,
            upstreams,
            tasks.spawner(),
            metrics.clone(),
            now,
        );
        Self {
            cache: cache.await.unwrap(),
            metrics,
            tasks,
        }
    }

    async fn served(&self, pack: &BuiltPack) -> Result<Served, FillError> {
        self.want(pack, Extent::Whole).await
    }

    async fn want(&self, pack: &BuiltPack, extent: Extent) -> Result<Served, FillError> {
        let device = Asker::device("laptop-1");
        soon(self.cache.pack(&fileset(), entry(pack), extent, device)).await
    }

    /// Fetches a pack that nobody waits for.
    async fn ahead(&self, pack: &BuiltPack) -> Result<Served, FillError> {
        let (part, nobody) = (Extent::Part, Asker::NOBODY);
        soon(self.cache.pack(&fileset(), entry(pack), part, nobody)).await
    }

    /// Gets a whole pack, says how, and holds it to what it should be.
    async fn get(&self, pack: &BuiltPack) -> How {
        let served = self.served(pack).await.unwrap();
        let how = served.how();
        let got = soon(all(served.reader(0, u64::MAX))).await.unwrap();
        assert!(got == pack.bytes, "other bytes were served");
        how
    }

    /// Waits until no fill is under way.
    async fn settled(&self) {
        soon(async {
            while self.tasks.live() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Ends like a process that is killed: nothing is written down.
    async fn kill(self) {
        drop(self.cache);
        let _cut_off = self.tasks.drain(Duration::from_secs(60)).await;
    }

    async fn close(self) {
        let _in_time = self.tasks.drain(Duration::from_secs(60)).await;
        self.cache.close().await.unwrap();
    }
}

async fn all(mut reader: Reader) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Without a memory tier, so that the disk is looked at.
fn limits() -> Limits {
    Limits {
        memory_bytes_max: 0,
        ..testing::limits()
    }
}

fn filled(stored: bool, collapsed: bool) -> How {
    How::Fill { collapsed, stored }
}

/// As much of a disk as these packs take.
fn room_for(packs: &[&BuiltPack]) -> u64 {
    let bytes = packs.iter().map(|pack| taken(pack.bytes.len() as u64));
    bytes.sum()
}

/// What a file of so many bytes takes of the disk.
fn taken(bytes: u64) -> u64 {
    let disk = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
    bytes.next_multiple_of(disk.f_frsize)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Where frame `frame` of a pack begins.
fn start(pack: &BuiltPack, frame: usize) -> u64 {
    pack.header.frame_range(frame).start
}
