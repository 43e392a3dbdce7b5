//! The wait that the agent holds beside whatever it does: how it hears of a commit at once.
//!
//! It has no times of its own. One is begun only while check-ins are answered: whoever's wait broke
//! begins the next after a check-in, and those are spread, so that a fleet whose origin has started
//! again comes back to its waits as it comes back to its check-ins.

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use content::Digest;
use protocol::CheckInAnswer;
use service::Report;
use tokio::time::Instant;
use tracing::{debug, info};
use transport::CallError;

use super::line::Line;
use super::mind::Mind;

/// A wait, or none if there should be none at the moment.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    wait: Option<Wait>,
    gate: Gate,
}

/// Whether a wait may be begun.
#[derive(Debug, Default)]
struct Gate {
    /// The last check-in was answered, and no wait has ended before its time since.
    is_open: bool,
    /// The check-in that comes is there since a wait said so.
    is_woken: bool,
}

struct Wait {
    /// The manifest that the device went by when it began.
    manifest: Option<Digest>,
    begun: Instant,
    answer: Waiting,
}

/// A wait that is under way.
pub(super) type Waiting = Pin<Box<dyn Future<Output = Answer> + Send>>;
pub(super) type Answer = Result<Option<CheckInAnswer>, CallError>;

impl Wake {
    /// A check-in was answered; whether it brought anything.
    pub(crate) fn answered(&mut self, has_news: bool) {
        self.gate.answered(has_news);
    }

    /// A check-in came to nothing.
    pub(crate) fn failed(&mut self) {
        self.gate.is_open = false;
    }

    /// Begins a wait for what changes what `mind` goes by, if none is held and one may be.
    pub(crate) fn hold(&mut self, line: &Line, mind: &Mind) {
        let begin = |model, manifest| -> Waiting { Box::pin(line.clone().wait(model, manifest)) };
        self.hold_by(begin, mind);
    }

    /// The same, where `begin` begins it, knowing the model and the manifest.
    pub(super) fn hold_by(
        &mut self,
        begin: impl FnOnce(u64, Option<Digest>) -> Waiting,
        mind: &Mind,
    ) {
        let (model, manifest) = mind.goes_by();
        if self
            .wait
            .as_ref()
            .is_some_and(|wait| wait.manifest != manifest)
        {
            self.wait = None;
        }
        if self.wait.is_none() && self.gate.is_open {
            self.wait = Some(Wait {
                manifest,
                begun: Instant::now(),
                answer: begin(model, manifest),
            });
        }
    }

    /// Ends when the wait that is held does; whether there is something to be heard at a check-in.
    /// Never ends while none is held. May be dropped and asked again.
    pub(crate) async fn ended(&mut self) -> bool {
        let Some(wait) = &mut self.wait else {
            return pending().await;
        };
        let answer = wait.answer.as_mut().await;
        let lasted = wait.begun.elapsed();
        self.wait = None;
        match answer {
            Ok(Some(_)) => {
                info!("the origin has something to say");
                self.gate.woken();
                true
            }
            Ok(None) => {
                self.gate.passed(lasted);
                false
            }
            Err(error) => {
                debug!(error = %Report(&error), "cannot wait for news");
                self.gate.is_open = false;
                false
            }
        }
    }
}

impl Gate {
    fn answered(&mut self, has_news: bool) {
        // Who is woken for nothing waits no more until its next time has come.
        self.is_open = has_news || !self.is_woken;
        self.is_woken = false;
    }

    fn woken(&mut self) {
        (self.is_open, self.is_woken) = (false, true);
    }

    /// Nothing was to be told for so long. If that is not long, whoever let us wait is stopping, or
    /// somebody waits in our place.
    fn passed(&mut self, lasted: Duration) {
        self.is_open = lasted >= WHOLE;
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("manifest", &self.manifest)
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

/// What a wait lasts that nothing cuts short; the origin's last 55 s.
pub(super) const WHOLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    type Happens = fn(&mut Gate);

    /// Whether a wait may be held after `happened`.
    fn check(happened: &[Happens], expected: bool) {
        let mut gate = Gate::default();
        happened.iter().for_each(|it| it(&mut gate));
        assert_eq!(gate.is_open, expected, "{gate:?}");
    }

    #[test]
    fn a_wait_is_held_only_while_check_ins_are_answered() {
        let same: Happens = |it| it.answered(false);
        let news: Happens = |it| it.answered(true);
        let whole: Happens = |it| it.passed(WHOLE);
        let short: Happens = |it| it.passed(WHOLE / 2);
        check(&[], false);
        check(&[same], true);
        check(&[same, whole], true);
        check(&[same, short], false);
        check(&[same, short, same], true);
        check(&[same, Gate::woken], false);
        check(&[same, Gate::woken, news], true);
        check(&[same, Gate::woken, same], false);
        check(&[same, Gate::woken, same, same], true);
    }
}
