//! One for all: work that many ask for at once is done once, in a task that is nobody's request.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use service::Spawner;
use tokio::sync::watch;

/// Work under way, by what it is for.
pub(crate) struct SingleFlight<K, V> {
    running: Arc<Mutex<HashMap<K, Waiting<V>>>>,
    spawner: Spawner,
}

type Waiting<V> = watch::Receiver<Option<V>>;

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Work runs in tasks of the spawner's owner.
    pub(crate) fn new(spawner: Spawner) -> Self {
        Self {
            running: Arc::default(),
            spawner,
        }
    }

    /// What `work` comes to, or what the work that is under way for `key` comes to. None if it was
    /// cut off. The work goes on if this is dropped.
    pub(crate) async fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut waiting = self.join(key, work);
        let done = waiting.wait_for(Option::is_some).await.ok()?;
        done.clone()
    }

    fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Waiting<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = running.get(&key) {
            return waiting.clone();
        }
        let (sender, waiting) = watch::channel(None);
        running.insert(key.clone(), waiting.clone());
        drop(running);
        let landing = Landing {
            key,
            running: Arc::clone(&self.running),
        };
        let work = work();
        let _started = self.spawner.start_brief("shared work", |_| async move {
            let done = work.await;
            // Off the map first: who comes from now on wants it done again.
            drop(landing);
            sender.send_replace(Some(done));
        });
        waiting
    }
}

impl<K: Eq + Hash, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}

/// Takes the work off the map, however it ends.
struct Landing<K: Eq + Hash, V> {
    key: K,
    running: Arc<Mutex<HashMap<K, Waiting<V>>>>,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use service::Tasks;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::testing::soon;

    #[tokio::test]
    async fn many_who_ask_at_once_share_the_work_and_nobody_takes_it_away() {
        let tasks = Tasks::new();
        let flight = SingleFlight::new(tasks.spawner());
        let (gate, count) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (gate, count) = (Arc::clone(&gate), Arc::clone(&count));
            async move {
                let _open = gate.acquire().await;
                count.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let mut first = Box::pin(flight.run("a", work));
        assert!(futures_util::poll!(&mut first).is_pending());
        let second = flight.run("a", work);
        drop(first);
        gate.add_permits(1);
        assert_eq!(soon(second).await, Some(1));
        assert_eq!(soon(flight.run("a", work)).await, Some(2));
    }

    #[tokio::test]
    async fn work_that_is_cut_off_is_no_result() {
        let tasks = Tasks::new();
        let flight = SingleFlight::<_, ()>::new(tasks.spawner());
        let mut waiting = Box::pin(flight.run("a", std::future::pending));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(tasks);
        assert_eq!(soon(waiting).await, None);
        assert_eq!(soon(flight.run("a", std::future::pending)).await, None);
    }
}
