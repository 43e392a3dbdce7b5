//! What takes long holds up nobody else.

use std::fs::OpenOptions;
use std::process::Command;
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::*;

/// Waits on a thread of its own until the runtime has shown that it goes on.
struct Doubter {
    ask: Option<oneshot::Sender<()>>,
    answer: mpsc::Receiver<()>,
}

/// The doubter, and what answers it on the runtime.
fn doubter() -> (Doubter, impl Future<Output = ()>) {
    let (ask, asked) = oneshot::channel();
    let (reply, answer) = mpsc::channel();
    let answering = async move {
        asked.await.unwrap();
        let _too_late = reply.send(());
    };
    let ask = Some(ask);
    (Doubter { ask, answer }, answering)
}

impl Doubter {
    fn is_answered(&mut self) -> bool {
        self.ask.take().unwrap().send(()).unwrap();
        self.answer.recv_timeout(Duration::from_secs(10)).is_ok()
    }
}

#[tokio::test]
async fn a_check_that_takes_long_holds_up_nobody() {
    let mut bed = Bed::new(1);
    bed.state(1, 1);
    let sources = Sources::hasty(vec![bed.source("origin o1", Vice::None)]);
    let (doubter, answering) = doubter();
    let doubter = std::sync::Mutex::new(doubter);
    let check = move |_: &[u8]| Ok(doubter.lock().unwrap().is_answered());
    let got = sources.get_aside(Ask::Timestamp, check);
    let (lives, ()) = tokio::join!(got, answering);
    assert!(lives.unwrap());
}

#[tokio::test]
async fn a_disk_that_is_slow_holds_up_nobody() {
    let mut bed = Bed::new(1);
    bed.state(1, 1);
    let folder = bed.folder.path().join("state");
    std::fs::create_dir_all(&folder).unwrap();
    // A pipe, which nobody can read before somebody writes to it.
    let marks = folder.join("marks");
    let made = Command::new("mkfifo").arg(&marks).status().unwrap();
    assert!(made.success());
    let (mut doubter, answering) = doubter();
    let other_end = std::thread::spawn(move || {
        // Opens once it is being read.
        let end = OpenOptions::new().write(true).open(marks).unwrap();
        let lives = doubter.is_answered();
        drop(end);
        lives
    });
    let find = bed.find(vec![bed.source("origin o1", Vice::None)], None);
    let ((found, _), ()) = tokio::join!(find, answering);
    assert!(found.contains("marks"), "an empty file is none: {found}");
    assert!(other_end.join().unwrap());
}
