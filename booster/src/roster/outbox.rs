//! Passes on what devices say, many at a time.

use std::sync::Arc;
use std::time::Duration;

use content::statement::{Payload as _, Spoken};
use protocol::{Code, Fault, Relayed, RelayedAnswer};
use service::{CancellationToken, Report};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::debug;
use transport::Source;

use super::{Rosters, out_of_reach};

/// What a device said, and who waits for the answer.
pub(super) struct Message {
    sealed: String,
    answer: oneshot::Sender<RelayedAnswer>,
}

/// Passes on what devices say, many at a time.
pub(crate) struct Outbox {
    origin: Arc<Source>,
    waiting: mpsc::Receiver<Message>,
}

/// How long others are waited for, to go along.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of messages that go together before the last of them: in JSON, each of them may become two.
const BATCH_BYTES_MAX: usize = Relayed::BYTES_MAX / 2 - Spoken::ENVELOPE_BYTES_MAX - 4096;
/// How long a device waits for the origin's answer.
const PATIENCE: Duration = Duration::from_secs(20);

impl Rosters {
    /// What the origin answers to what a device has sealed.
    pub(super) async fn pass_on(&self, body: &[u8]) -> Result<RelayedAnswer, Fault> {
        let sealed = std::str::from_utf8(body);
        let sealed = sealed.map_err(|_| Fault::new(Code::BadRequest, "want an envelope"))?;
        let (answer, answered) = oneshot::channel();
        let sealed = sealed.to_owned();
        let message = Message { sealed, answer };
        if self.shared.outbox.try_send(message).is_err() {
            return Err(Fault::new(Code::Busy, "too many devices speak at once"));
        }
        match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(out_of_reach()),
        }
    }
}

impl Outbox {
    pub(super) fn new(origin: Arc<Source>, waiting: mpsc::Receiver<Message>) -> Self {
        Self { origin, waiting }
    }

    /// Passes on what comes until it is asked to stop. Who waits for what is not passed on hears
    /// that it was not.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                first = self.waiting.recv() => first,
                () = stop.cancelled() => return,
            };
            let Some(first) = first else { return };
            sleep(GATHER).await;
            let batch = self.gather(first);
            tokio::select! {
                () = pass_on(&self.origin, batch) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// `first` and what has come since, but for those who have gone away.
    fn gather(&mut self, first: Message) -> Vec<Message> {
        let (mut bytes, mut batch) = (first.sealed.len(), vec![first]);
        while batch.len() < Relayed::MESSAGES_MAX
            && bytes < BATCH_BYTES_MAX
            && let Ok(next) = self.waiting.try_recv()
        {
            if !next.answer.is_closed() {
                bytes += next.sealed.len();
                batch.push(next);
            }
        }
        batch
    }
}

async fn pass_on(origin: &Source, batch: Vec<Message>) {
    let (messages, waiting): (Vec<String>, Vec<oneshot::Sender<RelayedAnswer>>) = batch
        .into_iter()
        .map(|message| (message.sealed, message.answer))
        .unzip();
    let relayed = Relayed {
        messages,
        joined: Vec::new(),
    };
    match origin.pass_on(&relayed).await {
        Ok(answers) => {
            for (answer, waiting) in answers.answers.into_iter().zip(waiting) {
                // Who went away says it again.
                let _gone = waiting.send(answer);
            }
        }
        Err(failure) => debug!(error = %Report(&failure), "cannot pass on what devices say"),
    }
}
