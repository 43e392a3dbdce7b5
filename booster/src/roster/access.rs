//! Which filesets a device may read here, and what is for it alone: its manifest and its scripts.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;
use content::statement::{Manifest, Payload as _, Statement};
use content::{Digest, FilesetName};
use protocol::{Code, Fault};
use service::Report;
use tracing::debug;

use super::{Rosters, Shared, out_of_reach};
use crate::cache::off_runtime;
use crate::offline::Phase;

/// What a manifest names.
#[derive(Debug)]
pub(super) struct Named {
    filesets: HashSet<FilesetName>,
    /// The scripts, with their lengths.
    scripts: HashMap<Digest, u64>,
}

/// Something that is for one device.
pub(crate) enum Private {
    /// Its manifest.
    Manifest(Bytes),
    /// A script that its manifest names.
    Script(Bytes),
}

/// What the roster that is here says of a device and a fileset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    /// It may read it.
    Granted,
    /// Its manifest does not name it.
    Denied,
    /// The device is not on the roster.
    Unknown,
    /// Its manifest cannot be had, or is yet to be made.
    Unread,
    /// There never was a roster.
    Untold,
}

/// Manifests whose names are remembered; with more, all are forgotten and read again.
const NAMED_MAX: usize = 20_000;

impl Rosters {
    /// Refuses the packs of `fileset` to a `device` whose manifest does not name it, before anything
    /// is fetched for it.
    ///
    /// A booster that never had a roster and cannot ask for one (its only way leads to a booster
    /// above it, or its origin has been gone since it was set up) knows no manifest, and gives what
    /// it has to every device: as before the first model.
    ///
    /// # Errors
    ///
    /// Fails also if the device is not on the roster that is here, and the origin out of reach.
    pub(crate) async fn admit(&self, device: &str, fileset: &FilesetName) -> Result<(), Fault> {
        self.seen(device);
        if self.access(device, fileset).await == Access::Granted {
            return Ok(());
        }
        // It may have been told of a newer manifest, or have just come.
        let asked = Box::pin(self.doubt()).await;
        match self.access(device, fileset).await {
            Access::Granted | Access::Untold => Ok(()),
            Access::Unknown if !asked => Err(out_of_reach()),
            Access::Unread => Err(Fault::new(
                Code::UpstreamUnavailable,
                "the booster cannot get the manifest of this device",
            )),
            Access::Denied | Access::Unknown => Err(Fault::new(
                Code::Forbidden,
                "the manifest of this device does not name that fileset",
            )),
        }
    }

    async fn access(&self, device: &str, fileset: &FilesetName) -> Access {
        // One that has expired still says what was allowed when the line broke.
        let Some(held) = self.held() else {
            let is_lost = self.shared.is_lost.load(Ordering::Relaxed);
            return if is_lost {
                Access::Unknown
            } else {
                Access::Untold
            };
        };
        if held.head.model == 0 {
            return Access::Granted;
        }
        let Some(entry) = held.entry(device) else {
            return Access::Unknown;
        };
        let Some(manifest) = entry.manifest else {
            // It is being made, as for all after the first commit.
            return Access::Unread;
        };
        match self.named(device, manifest).await {
            Some(named) if named.filesets.contains(fileset) => Access::Granted,
            Some(_) => Access::Denied,
            None => Access::Unread,
        }
    }

    /// The manifest of `device`, if that is what is called `digest`.
    pub(crate) async fn own(&self, device: &str, digest: Digest) -> Option<Private> {
        if !self.speaks() || self.manifest_of(device)? != digest {
            return None;
        }
        self.manifest(device, digest).await.map(Private::Manifest)
    }

    /// What is called `digest` and known to nobody else, if it is for `device`: a script of its
    /// manifest, or a manifest that is newer than the roster.
    pub(crate) async fn private(
        &self,
        device: &str,
        digest: Digest,
        phase: Phase,
    ) -> Option<Private> {
        if !self.speaks() {
            return None;
        }
        if let Some(script) = self.script(device, digest, phase).await {
            return Some(Private::Script(script));
        }
        if phase != Phase::Fresh || !self.doubt().await {
            return None;
        }
        if let Some(manifest) = self.own(device, digest).await {
            return Some(manifest);
        }
        let script = self.script(device, digest, phase).await;
        script.map(Private::Script)
    }

    async fn script(&self, device: &str, digest: Digest, phase: Phase) -> Option<Bytes> {
        let manifest = self.manifest_of(device)?;
        let named = self.named(device, manifest).await?;
        let length = usize::try_from(*named.scripts.get(&digest)?).ok()?;
        if phase == Phase::Fresh {
            self.fetch(digest, length).await
        } else {
            self.shared.parts.cache.private(digest, length).await
        }
    }

    fn manifest_of(&self, device: &str) -> Option<Digest> {
        self.held()?.entry(device)?.manifest
    }

    /// What the manifest of `device` names.
    async fn named(&self, device: &str, manifest: Digest) -> Option<Arc<Named>> {
        if let Some(named) = self.shared.named().get(&manifest) {
            return Some(Arc::clone(named));
        }
        // In a box: whoever asks for a pack comes by here, and it is rarely needed.
        let read = Box::pin(self.read(device, manifest)).await;
        read.map(|(_, named)| named)
    }

    /// The envelope of the manifest of `device`, which is what it should be.
    async fn manifest(&self, device: &str, digest: Digest) -> Option<Bytes> {
        self.read(device, digest)
            .await
            .map(|(envelope, _)| envelope)
    }

    /// The same, and what it names.
    async fn read(&self, device: &str, digest: Digest) -> Option<(Bytes, Arc<Named>)> {
        let envelope = self.fetch(digest, Manifest::ENVELOPE_BYTES_MAX).await?;
        if let Some(named) = self.shared.named().get(&digest) {
            return Some((envelope, Arc::clone(named)));
        }
        let (judge, opening) = (self.shared.parts.judge.clone(), envelope.clone());
        // Off the runtime: it may have some megabytes. A manifest is judged at its own time.
        let opened = off_runtime(move || {
            Statement::<Manifest>::open_named(&opening, digest, &judge, 0)
                .map(|manifest| (manifest.device.clone(), Named::of(&manifest)))
        });
        let opened = opened.await?.inspect_err(|failure| {
            debug!(%device, error = %Report(failure), "cannot use a manifest");
        });
        let (_, named) = opened.ok().filter(|(of, _)| of == device)?;
        let named = Arc::new(named);
        let mut all = self.shared.named();
        if all.len() >= NAMED_MAX {
            all.clear();
        }
        all.insert(digest, Arc::clone(&named));
        Some((envelope, named))
    }

    /// What is called `digest`: from here, else from the origin, once for all who want it.
    async fn fetch(&self, digest: Digest, bytes_max: usize) -> Option<Bytes> {
        let cache = &self.shared.parts.cache;
        if let Some(bytes) = cache.private(digest, bytes_max).await {
            return Some(bytes);
        }
        let fetches = &self.shared.fetches;
        let fetched = fetches.run(digest, || {
            let shared = Arc::clone(&self.shared);
            async move { shared.fetch(digest, bytes_max).await }
        });
        fetched.await.flatten()
    }
}

impl Named {
    fn of(manifest: &Manifest) -> Self {
        let scripts = manifest.items.iter().flat_map(|item| &item.scripts);
        Self {
            filesets: manifest.items.iter().map(|it| it.fileset.clone()).collect(),
            scripts: scripts
                .map(|script| (script.digest, script.bytes))
                .collect(),
        }
    }
}

impl Shared {
    async fn fetch(&self, digest: Digest, bytes_max: usize) -> Option<Bytes> {
        let fetched = self.parts.origin.statement(&digest, bytes_max).await;
        let fetched = fetched.inspect_err(|failure| {
            debug!(%digest, error = %Report(failure), "cannot get what is for one device");
        });
        let bytes = fetched.ok()?;
        let hashed = bytes.clone();
        let got = off_runtime(move || Digest::of(&hashed)).await;
        if got != Some(digest) {
            return None;
        }
        self.parts.cache.keep_private(digest, bytes.clone()).await;
        Some(bytes)
    }

    fn named(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Named>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
