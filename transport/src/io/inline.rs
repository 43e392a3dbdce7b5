//! The streams of an HTTP/2 connection, on the connection's own task.
//!
//! HTTP hands each request over as a future of its own. Most answers are there as soon as somebody
//! asks, and a task for each of them costs more than the answer: so a request is tried once on the
//! spot, and only what has to wait is kept, beside its connection and not beside all others.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use futures_util::task::AtomicWaker;
use tracing::error;

use super::Batched;
use crate::body::BoxError;

/// Asks a task for something from outside.
#[derive(Debug, Default)]
pub(crate) struct Call {
    made: AtomicBool,
    waker: AtomicWaker,
}

impl Call {
    /// Makes it.
    pub(crate) fn make(&self) {
        self.made.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it has been made since this was last asked; if not, the task is woken when it is.
    pub(crate) fn is_made(&self, cx: &Context<'_>) -> bool {
        self.wakes(cx);
        self.take()
    }

    /// From now on the task is woken when it is made.
    pub(super) fn wakes(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Whether it has been made since this was last asked.
    pub(super) fn take(&self) -> bool {
        self.made.load(Ordering::Acquire) && self.made.swap(false, Ordering::AcqRel)
    }
}

/// So that whatever a future waits for can make it.
impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.make();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.make();
    }
}

tokio::task_local! {
    static END: Arc<Call>;
}

/// What ends the stream whose future is being polled; `None` outside of any.
pub(crate) fn own_end() -> Option<Arc<Call>> {
    END.try_with(Arc::clone).ok()
}

/// One request and its answer.
struct Stream {
    end: Arc<Call>,
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { end, task } = &mut *self;
        if end.is_made(cx) {
            return Poll::Ready(());
        }
        let step = AssertUnwindSafe(|| task.as_mut().poll(cx));
        // Whoever panics takes down his own stream and no other.
        END.sync_scope(Arc::clone(end), || catch_unwind(step))
            .unwrap_or_else(|_| {
                error!("a request panicked");
                Poll::Ready(())
            })
    }
}

/// Starts the streams of one connection.
#[derive(Clone, Default)]
pub(crate) struct InlineExecutor(Arc<Started>);

#[derive(Default)]
struct Started {
    /// How many more may be tried on the spot before the connection has its turn.
    at_once: AtomicUsize,
    /// Who calls the connection.
    turn: Arc<Turn>,
    /// Those that wait for something.
    waiting: Mutex<Vec<Stream>>,
}

impl Started {
    fn waiting(&self) -> MutexGuard<'_, Vec<Stream>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_try(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.at_once.fetch_update(set, get, one_less).is_ok()
    }
}

impl<F> hyper::rt::Executor<F> for InlineExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut stream = Stream {
            end: Arc::default(),
            task: Box::pin(task),
        };
        // Nobody is woken by this: what has to wait is polled once more, among the others.
        let mut cx = Context::from_waker(Waker::noop());
        let step = || Pin::new(&mut stream).poll(&mut cx);
        if self.0.may_try() && self.0.turn.calling_nobody(step).is_ready() {
            return;
        }
        self.0.waiting().push(stream);
    }
}

/// The streams of one connection, which end when this is dropped.
#[derive(Default)]
pub(crate) struct InlineStreams {
    executor: InlineExecutor,
    set: FuturesUnordered<Stream>,
}

impl InlineStreams {
    /// What starts them.
    pub(crate) fn executor(&self) -> InlineExecutor {
        self.executor.clone()
    }

    /// Polls `connection`, whose streams these are, to its end, them with it, and writes out to
    /// `io` what they leave behind whenever there is nothing more to do for now.
    pub(crate) async fn drive<C>(
        &mut self,
        mut connection: Pin<&mut C>,
        io: &Batched,
    ) -> Result<(), BoxError>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let started = Arc::clone(&self.executor.0);
        let turn = &started.turn;
        let waker = Waker::from(Arc::clone(turn));
        poll_fn(|task| {
            turn.task.register(task.waker());
            turn.begin();
            let mut cx = Context::from_waker(&waker);
            let mut rounds = 0;
            loop {
                started.at_once.store(AT_ONCE_MAX, Ordering::Relaxed);
                if let Poll::Ready(ended) = connection.as_mut().poll(&mut cx) {
                    return Poll::Ready(ended.map_err(BoxError::from));
                }
                self.set.extend(started.waiting().drain(..));
                while let Poll::Ready(Some(())) = self.set.poll_next_unpin(&mut cx) {}
                rounds += 1;
                // An answer wakes the connection that is to carry it: no need to queue for that.
                if !turn.again() || rounds == ROUNDS_MAX {
                    break;
                }
            }
            let flushed = io.flush_now(&mut cx);
            if turn.end() || rounds == ROUNDS_MAX {
                task.waker().wake_by_ref();
            }
            match flushed {
                // HTTP would not hear of it before it writes again.
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// Wakes a connection's task, unless that is at work on the connection: then it goes on.
#[derive(Debug, Default)]
struct Turn {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Turn {
    fn begin(&self) {
        self.state.swap(AT_WORK, Ordering::AcqRel);
    }

    /// Whether somebody has called since this was last asked.
    fn again(&self) -> bool {
        self.state.swap(AT_WORK, Ordering::AcqRel) & CALLED != 0
    }

    /// Does `step` in the middle of a connection's turn, and forgets who calls meanwhile.
    ///
    /// An answer calls the connection that is to carry it. But a connection which has handed over a
    /// request asks for the next one before it waits, and sends what is there: a future that is
    /// pending has looked at everything after it was last called. So have all others who call here,
    /// whose turn comes after the connection's.
    fn calling_nobody<T>(&self, step: impl FnOnce() -> T) -> T {
        let before = self.state.load(Ordering::Acquire);
        let done = step();
        if before & CALLED == 0 {
            self.state.fetch_and(!CALLED, Ordering::AcqRel);
        }
        done
    }

    /// Whoever calls from now on wakes the task. Whether somebody has called before.
    fn end(&self) -> bool {
        self.state.swap(0, Ordering::AcqRel) & CALLED != 0
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = self.state.fetch_or(CALLED, Ordering::AcqRel);
        if before & AT_WORK == 0 {
            self.task.wake();
        }
    }
}

const AT_WORK: u8 = 1;
const CALLED: u8 = 2;
/// Requests that are tried on the spot before what has come of them is looked after, and before
/// another connection has its turn.
const AT_ONCE_MAX: usize = 32;
/// How often a connection goes on by itself before another has its turn.
const ROUNDS_MAX: u32 = 4;
