//! Tasks with an owner.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info_span};

/// The background tasks of one component, which end when it ends.
///
/// Dropping this aborts them: [`Tasks::drain`] is the polite way.
#[derive(Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

/// Starts tasks that [`Tasks`] owns, from where the owner itself is out of reach: inside one of its
/// tasks, or in a request. Cloning shares it. It keeps nothing alive.
#[derive(Clone, Debug)]
pub struct Spawner {
    shared: Weak<Shared>,
    stop: CancellationToken,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Drained {
    /// Every task came to its end.
    InTime,
    /// Time ran out, and the tasks that were left were cut off.
    CutOff {
        /// How many.
        left: usize,
    },
}

#[derive(Default)]
struct Shared {
    running: Mutex<JoinSet<()>>,
    census: watch::Sender<Census>,
    stop: CancellationToken,
}

/// What is known of the tasks at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Census {
    live: usize,
    /// The first lasting task that ended though nobody had asked it to.
    ended: Option<&'static str>,
}

/// Keeps the census right however its task ends: by itself, by panic or by abort.
struct Entry {
    census: watch::Sender<Census>,
    lasting: Option<&'static str>,
    stop: CancellationToken,
}

impl Tasks {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a lasting task under the span `name`, handing it the token that asks it to stop.
    /// That it ends unasked is a failure, which [`Tasks::any_ended`] tells.
    pub fn start<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared
            .start(name, true, task(self.shared.stop.clone()));
    }

    /// Starts a task that is meant to end by itself, such as a connection or a fill.
    pub fn start_brief<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared
            .start(name, false, task(self.shared.stop.clone()));
    }

    /// A handle that starts tasks here without owning them.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner {
            shared: Arc::downgrade(&self.shared),
            stop: self.shared.stop.clone(),
        }
    }

    /// The token that every task is handed.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// How many tasks are running.
    #[must_use]
    pub fn live(&self) -> usize {
        self.shared.census.borrow().live
    }

    /// Waits until a lasting task has ended though nobody asked it to, and names it.
    /// Never returns otherwise. May be dropped and called again.
    pub async fn any_ended(&self) -> &'static str {
        let mut census = self.shared.census.subscribe();
        match census
            .wait_for(|census| census.ended.is_some())
            .await
            .map(|census| census.ended)
        {
            Ok(Some(name)) => name,
            // `self` holds the sender and the predicate holds `Some`: neither can happen.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Asks every task to stop, waits for at most `grace`, then aborts the rest.
    pub async fn drain(self, grace: Duration) -> Drained {
        self.shared.stop.cancel();
        let mut census = self.shared.census.subscribe();
        let ended = timeout(grace, census.wait_for(|census| census.live == 0))
            .await
            .is_ok();
        let left = self.shared.census.borrow().live;
        let mut running = std::mem::take(&mut *self.shared.lock());
        // If all have ended, one may still have begun since they were counted.
        running.abort_all();
        while let Some(ended) = running.join_next().await {
            log_failure(ended);
        }
        if ended {
            Drained::InTime
        } else {
            Drained::CutOff { left }
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("live", &self.live())
            .finish_non_exhaustive()
    }
}

impl Spawner {
    /// Starts a task that is meant to end by itself. False if the owner is gone: then nothing was
    /// started.
    pub fn start_brief<F>(
        &self,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> F,
    ) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.shared.upgrade() {
            Some(shared) => {
                shared.start(name, false, task(self.stop.clone()));
                true
            }
            None => false,
        }
    }

    /// [`Spawner::start_brief`] without a span: one is entered at each of a task's wake-ups, which
    /// shows where there are a hundred thousand of those in a second.
    pub fn start_bare<F>(&self, task: impl FnOnce(CancellationToken) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = self.shared.upgrade();
        shared.is_some_and(|shared| {
            shared.spawn(None, task(self.stop.clone()));
            true
        })
    }

    /// The token that every task is handed.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }
}

impl Drained {
    /// The two together: in time only if both were.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::InTime, other) => other,
            (cut, Self::InTime) => cut,
            (Self::CutOff { left }, Self::CutOff { left: more }) => {
                Self::CutOff { left: left + more }
            }
        }
    }
}

impl Shared {
    fn start(
        &self,
        name: &'static str,
        lasting: bool,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = task.instrument(info_span!("task", name));
        self.spawn(lasting.then_some(name), task);
    }

    fn spawn(
        &self,
        lasting: Option<&'static str>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.census.send_modify(|census| census.live += 1);
        let entry = Entry {
            census: self.census.clone(),
            lasting,
            stop: self.stop.clone(),
        };
        // In a box: what captures a future and awaits it has room for two of them.
        let task = Box::pin(task);
        let task = async move {
            let _entry = entry;
            task.await;
        };
        let mut running = self.lock();
        // A set keeps what has finished until it is asked: ask, or an accept loop grows for ever.
        while let Some(ended) = running.try_join_next() {
            log_failure(ended);
        }
        running.spawn(task);
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        // Nothing panics while it holds the lock, and a set of handles is never half-changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let unasked = if self.stop.is_cancelled() {
            None
        } else {
            self.lasting
        };
        self.census.send_modify(|census| {
            census.live -= 1;
            census.ended = census.ended.or(unasked);
        });
    }
}

fn log_failure(ended: Result<(), JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!(%failure, "a task panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn tasks_that_listen_end_in_time() {
        let tasks = Tasks::new();
        tasks.start("polite", |stop| async move { stop.cancelled().await });
        tasks.start_brief("brief", |_| async {});
        assert_eq!(tasks.drain(GRACE).await, Drained::InTime);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_task_is_cut_off() {
        let tasks = Tasks::new();
        tasks.start("deaf", |_| pending());
        let before = Instant::now();
        assert_eq!(tasks.drain(GRACE).await, Drained::CutOff { left: 1 });
        assert_eq!(before.elapsed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_task_that_ends_is_named() {
        let tasks = Tasks::new();
        tasks.start_brief("brief", |_| async {});
        tasks.start("lasting", |_| async {});
        assert_eq!(timeout(GRACE, tasks.any_ended()).await, Ok("lasting"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_counts_as_an_end() {
        let tasks = Tasks::new();
        tasks.start("clumsy", |_| async { panic!("on purpose") });
        assert_eq!(timeout(GRACE, tasks.any_ended()).await, Ok("clumsy"));
        assert_eq!(tasks.drain(GRACE).await, Drained::InTime);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_may_start_another_and_dropping_the_owner_aborts_both() {
        let tasks = Tasks::new();
        let spawner = tasks.spawner();
        let (alive, mut dead) = tokio::sync::mpsc::channel::<()>(1);
        let inner = spawner.clone();
        tasks.start("outer", |_| async move {
            let held = alive.clone();
            inner.start_brief("inner", |_| async move {
                let _held = held;
                pending().await
            });
            let _alive = alive;
            pending().await
        });
        tokio::task::yield_now().await;
        assert_eq!(tasks.live(), 2);
        drop(tasks);
        assert_eq!(timeout(GRACE, dead.recv()).await, Ok(None));
        assert!(!spawner.start_brief("late", |_| async {}));
    }
}
