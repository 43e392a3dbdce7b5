//! What holds for each device, in memory: what a check-in is compared with.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use certs::DeviceId;
use content::Digest;
use protocol::{Command, CommandKind, CurrentManifest};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::ledger::manifests::Made;

/// What holds for a device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// Its manifest, if it has ever had one.
    pub manifest: Option<CurrentManifest>,
    /// Whether that may no longer say what the model does.
    pub due: bool,
    /// Whether it was told when to come again since this origin started.
    pub told: bool,
    /// What it was asked to do and has not done.
    pub commands: Vec<Command>,
    /// When it was last found due, by the board's count.
    due_since: u64,
}

/// Why nobody is let wait.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum WaitRefused {
    /// The origin stops.
    #[error("the origin is stopping")]
    Stopping,
    /// As many wait as may.
    #[error("too many are waiting")]
    TooMany,
}

/// What holds for all devices. Each call takes the lock for some hundred nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    devices: HashMap<DeviceId, Standing>,
    /// How often devices were found due.
    dues: u64,
    /// Of one device one at most: a later one takes the place of the one before.
    waiting: HashMap<DeviceId, oneshot::Sender<()>>,
}

/// Each is a request under way; a listener takes no more connections than that.
const WAITING_MAX: usize = 16_384;
/// Commands of one device that are told at once; there are fewer kinds.
const COMMANDS_MAX: usize = 64;

impl Board {
    pub(super) fn standing(&self, id: &DeviceId) -> Standing {
        self.state().devices.get(id).cloned().unwrap_or_default()
    }

    /// The name of the manifest of the device `id`.
    pub(super) fn manifest(&self, id: &DeviceId) -> Option<Digest> {
        let state = self.state();
        let held = state.devices.get(id)?.manifest.as_ref();
        held.map(|held| held.digest)
    }

    /// How often devices were found due until now.
    pub(super) fn dues(&self) -> u64 {
        self.state().dues
    }

    /// Takes note of a manifest that was made after `dues`; who waits for it is told.
    pub(super) fn made(&self, made: &Made, dues: u64) {
        let mut state = self.state();
        let standing = state.devices.entry(made.device.clone()).or_default();
        standing.due &= standing.due_since > dues;
        standing.manifest = Some(CurrentManifest {
            model: made.model,
            number: made.number,
            digest: made.digest,
        });
        state.wake(&made.device);
    }

    /// Takes note that what these go by is as it should be after `dues`.
    pub(super) fn unchanged(&self, ids: &[DeviceId], dues: u64) {
        let mut state = self.state();
        for id in ids {
            if let Some(standing) = state.devices.get_mut(id) {
                standing.due &= standing.due_since > dues;
            }
        }
    }

    pub(super) fn mark_due(&self, ids: &[DeviceId]) {
        let mut state = self.state();
        state.dues += 1;
        let dues = state.dues;
        for id in ids {
            let standing = state.devices.entry(id.clone()).or_default();
            standing.due = true;
            standing.due_since = dues;
        }
    }

    pub(super) fn told(&self, id: &DeviceId) {
        self.state().devices.entry(id.clone()).or_default().told = true;
    }

    pub(super) fn forget_told(&self) {
        for standing in self.state().devices.values_mut() {
            standing.told = false;
        }
    }

    pub(super) fn command(&self, id: &DeviceId, number: u64, what: CommandKind) {
        let mut state = self.state();
        let commands = &mut state.devices.entry(id.clone()).or_default().commands;
        let known = commands.iter().any(|command| command.id == number);
        if !known && commands.len() < COMMANDS_MAX {
            commands.push(Command { id: number, what });
        }
    }

    pub(super) fn done(&self, id: &DeviceId, numbers: &[u64]) {
        if let Some(standing) = self.state().devices.get_mut(id) {
            let is_open = |command: &Command| !numbers.contains(&command.id);
            standing.commands.retain(is_open);
        }
    }

    pub(super) fn wake(&self, id: &DeviceId) {
        self.state().wake(id);
    }

    pub(super) fn wait(
        &self,
        id: &DeviceId,
        held: Option<Digest>,
    ) -> Result<Option<oneshot::Receiver<()>>, WaitRefused> {
        let mut state = self.state();
        if state.closed {
            return Err(WaitRefused::Stopping);
        }
        let standing = state.devices.get(id);
        let current = standing.and_then(|it| it.manifest.as_ref());
        let goes_by_it = current.map(|current| current.digest) == held;
        if !goes_by_it || standing.is_some_and(|it| it.due) {
            return Ok(None);
        }
        if state.waiting.len() >= WAITING_MAX {
            // Those who went away have left their places behind.
            state.waiting.retain(|_, waiter| !waiter.is_closed());
        }
        if state.waiting.len() >= WAITING_MAX && !state.waiting.contains_key(id) {
            return Err(WaitRefused::TooMany);
        }
        let (wake, woken) = oneshot::channel();
        state.waiting.insert(id.clone(), wake);
        Ok(Some(woken))
    }

    pub(super) fn waiting(&self) -> usize {
        let state = self.state();
        let open = state.waiting.values().filter(|waiter| !waiter.is_closed());
        open.count()
    }

    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        // Whoever waits hears that its place is gone.
        state.waiting.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self, id: &DeviceId) {
        if let Some(waiter) = self.waiting.remove(id) {
            // One that went away is not missed.
            let _gone = waiter.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_due_while_a_manifest_is_made_stays_due() {
        let board = Board::default();
        let id = "one".parse::<DeviceId>().unwrap();
        let ids = std::slice::from_ref(&id);
        board.mark_due(ids);
        let before = board.dues();
        board.mark_due(ids);
        board.unchanged(ids, before);
        assert!(board.standing(&id).due, "a commit came in between");
        board.unchanged(ids, board.dues());
        assert!(!board.standing(&id).due);
    }
}
