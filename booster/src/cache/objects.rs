//! Small objects, named by the digest of their bytes: in memory, on disk. Those that are for some
//! devices alone are kept apart, so that knowing the name of one never is enough to get it.

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
        self.small(Kind::Object, digest, bytes_max).await
    }

    /// The private object called `digest`, checked: for whoever the caller has found to be entitled
    /// to it. None if it is not here.
    pub(crate) async fn private(&self, digest: Digest, bytes_max: usize) -> Option<Bytes> {
        self.small(Kind::Private, digest, bytes_max).await
    }

    /// Whether there is a small object of that name, as far as can be told without reading it.
    #[must_use]
    pub fn has_object(&self, digest: Digest) -> bool {
        let kind = Kind::Object;
        let key = Key { kind, digest };
        self.shared.memory.get(key).is_some() || self.shared.store.contains(key)
    }

    /// Keeps a small object, whose digest the caller has checked. That there is no room for it on
    /// disk is no failure.
    pub async fn keep_object(&self, digest: Digest, bytes: Bytes) {
        self.keep_small(Kind::Object, digest, bytes).await;
    }

    /// Keeps a private object in the same way.
    pub(crate) async fn keep_private(&self, digest: Digest, bytes: Bytes) {
        self.keep_small(Kind::Private, digest, bytes).await;
    }

    async fn small(&self, kind: Kind, digest: Digest, bytes_max: usize) -> Option<Bytes> {
        let key = Key { kind, digest };
        if let Some(rope) = self.shared.memory.get(key) {
            return Some(rope.to_bytes());
        }
        if !self.shared.store.contains(key) {
            return None;
        }
        // Small is up to 64 MiB here: too much for each of many who ask at once to read it.
        let read = self.shared.objects.run((key, bytes_max), || {
            let shared = Arc::clone(&self.shared);
            async move { shared.read_small(key, bytes_max).await }
        });
        read.await.flatten()
    }

    async fn keep_small(&self, kind: Kind, digest: Digest, bytes: Bytes) {
        let key = Key { kind, digest };
        let rope = Arc::new(Rope::from(bytes.clone()));
        self.shared.memory.put(key, rope);
        let store = Arc::clone(&self.shared.store);
        let put = off_runtime(move || store.put_object(key, &bytes)).await;
        if let Some(Err(error)) = put {
            warn!(%error, "cannot keep a small object");
        }
    }
}

impl Shared {
    /// A small object out of its file, into memory too.
    async fn read_small(&self, key: Key, bytes_max: usize) -> Option<Bytes> {
        let store = Arc::clone(&self.store);
        let read = off_runtime(move || store.object(key, bytes_max)).await;
        let bytes = Bytes::from(read.flatten()?);
        let rope = Arc::new(Rope::from(bytes.clone()));
        self.memory.put(key, rope);
        Some(bytes)
    }
}
