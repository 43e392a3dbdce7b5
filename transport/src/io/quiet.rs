//! Waits that cost nothing until they are over.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Call;

/// A future that is polled when it has called, and not whenever its task runs for something else.
///
/// A connection waits for its end beside everything that it answers, and to ask a cancellation token
/// takes two locks each time.
#[derive(Debug)]
pub(crate) struct Quiet<F> {
    call: Arc<Call>,
    /// What makes the call.
    caller: Waker,
    future: Pin<Box<F>>,
    /// Who hears it.
    task: Option<Waker>,
}

impl<F: Future> Quiet<F> {
    pub(crate) fn new(future: F) -> Self {
        let call = Arc::<Call>::default();
        // It has to be polled once to know whom to call.
        call.make();
        Self {
            caller: Waker::from(Arc::clone(&call)),
            call,
            future: Box::pin(future),
            task: None,
        }
    }
}

impl<F: Future> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self {
            call,
            caller,
            future,
            task,
        } = &mut *self;
        let is_known = |task: &Waker| task.will_wake(cx.waker());
        if !task.as_ref().is_some_and(is_known) {
            call.wakes(cx);
            *task = Some(cx.waker().clone());
        }
        // Looked at after the task is known: a call from now on wakes it.
        if call.take() {
            future.as_mut().poll(&mut Context::from_waker(caller))
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use service::CancellationToken;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_only_when_it_calls() {
        let (end, ended) = oneshot::channel::<u8>();
        let (polls, mut ended) = (AtomicUsize::new(0), Box::pin(ended));
        let counted = poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            ended.as_mut().poll(cx)
        });
        let mut quiet = Quiet::new(counted);
        // The task runs for something else again and again.
        for _ in 0..5 {
            tokio::select! {
                biased;
                _ = &mut quiet => panic!("nobody has ended it"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        end.send(7).unwrap();
        assert_eq!(quiet.await, Ok(7));
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn it_wakes_whoever_polled_it_last() {
        let token = CancellationToken::new();
        let mut quiet = Quiet::new(token.clone().cancelled_owned());
        let mut never = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut quiet).poll(&mut never).is_pending());
        let cancels = async {
            tokio::task::yield_now().await;
            token.cancel();
        };
        let both = timeout(Duration::from_secs(10), async {
            tokio::join!(quiet, cancels)
        });
        both.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_over_from_the_start_is_over_at_once() {
        let token = CancellationToken::new();
        token.cancel();
        Quiet::new(token.cancelled_owned()).await;
    }
}
