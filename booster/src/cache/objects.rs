//! Small objects, named by the digest of their bytes: in memory, on disk.

use std::sync::Arc;

use bytes::Bytes;
use content::Digest;
use tracing::warn;

use super::index::{Key, Kind};
use super::rope::Rope;
use super::{Cache, Shared, off_runtime};

impl Cache {
    /// The small object called `digest`, checked. None if it is not here.
    pub async fn object(&self, digest: Digest, bytes_max: usize) -> Option<Bytes> {
        let key = object_key(digest);
        if let Some(rope) = self.shared.memory.get(key) {
            return Some(rope.to_bytes());
        }
        if !self.shared.store.contains(key) {
            return None;
        }
        // Small is up to 64 MiB here: too much for each of many who ask at once to read it.
        let read = self.shared.objects.run((digest, bytes_max), || {
            let shared = Arc::clone(&self.shared);
            async move { shared.read_object(digest, bytes_max).await }
        });
        read.await.flatten()
    }

    /// Whether there is a small object of that name, as far as can be told without reading it.
    #[must_use]
    pub fn has_object(&self, digest: Digest) -> bool {
        let key = object_key(digest);
        self.shared.memory.get(key).is_some() || self.shared.store.contains(key)
    }

    /// Keeps a small object, whose digest the caller has checked. That there is no room for it on
    /// disk is no failure.
    pub async fn keep_object(&self, digest: Digest, bytes: Bytes) {
        let rope = Arc::new(Rope::from(bytes.clone()));
        self.shared.memory.put(object_key(digest), rope);
        let store = Arc::clone(&self.shared.store);
        let put = off_runtime(move || store.put_object(digest, &bytes)).await;
        if let Some(Err(error)) = put {
            warn!(%error, "cannot keep a small object");
        }
    }
}

impl Shared {
    /// The small object called `digest` out of its file, into memory too.
    async fn read_object(&self, digest: Digest, bytes_max: usize) -> Option<Bytes> {
        let store = Arc::clone(&self.store);
        let read = off_runtime(move || store.object(digest, bytes_max)).await;
        let bytes = Bytes::from(read.flatten()?);
        let rope = Arc::new(Rope::from(bytes.clone()));
        self.memory.put(object_key(digest), rope);
        Some(bytes)
    }
}

fn object_key(digest: Digest) -> Key {
    Key {
        kind: Kind::Object,
        digest,
    }
}
