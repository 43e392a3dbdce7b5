//! The thread that scrubbing is done on, behind everything else that wants the processor or the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::setpriority_process;
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

type Work = Box<dyn FnOnce() + Send>;

/// A thread of low priority, started when there is something to do. It ends soon after this is
/// dropped.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    work: Mutex<Option<Sender<Work>>>,
}

impl Hand {
    /// Has `work` done, after what was asked for before. None if it panicked, or if there can be no
    /// thread. If this is dropped, the work is still done.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let work = Box::new(move || {
            // Whoever asked may have gone.
            let _unheard = tell.send(work());
        });
        self.begin(work);
        told.await.ok()
    }

    fn begin(&self, work: Work) {
        let mut sender = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.is_none() {
            let (new, jobs) = channel();
            let thread = thread::Builder::new().name("scrub".to_owned());
            match thread.spawn(move || serve(&jobs)) {
                Ok(_ends_with_its_sender) => *sender = Some(new),
                Err(error) => warn!(%error, "cannot start a thread to scrub on"),
            }
        }
        if let Some(thread) = &*sender {
            // It listens for as long as this is there.
            let _taken = thread.send(work);
        }
    }
}

fn serve(jobs: &Receiver<Work>) {
    // On Linux this is of the calling thread alone. The class of its reads follows from it: the
    // last of those that are served at all times (ioprio_set(2)). The idle class itself cannot be
    // asked for without unsafe code.
    if let Err(error) = setpriority_process(None, NICEST) {
        debug!(%error, "cannot scrub at a low priority");
    }
    while let Ok(work) = jobs.recv() {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            // Whoever asked for it sees that nothing comes; what it shared is behind locks.
            error!("work of the scrub panicked");
        }
    }
}

/// The lowest priority that there is (setpriority(2)).
const NICEST: i32 = 19;

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;
    use crate::testing::soon;

    #[tokio::test]
    async fn work_is_done_behind_all_others_even_after_some_of_it_panicked() {
        let (hand, before) = (Hand::default(), getpriority_process(None).unwrap());
        let priority = || getpriority_process(None).unwrap();
        assert_eq!(soon(hand.run(priority)).await, Some(NICEST));
        assert_eq!(soon(hand.run(|| panic!("on purpose"))).await, None::<()>);
        assert_eq!(soon(hand.run(priority)).await, Some(NICEST));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
