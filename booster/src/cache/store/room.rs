//! Whether the disk can be written to: how much of it is free, and whether it has just refused.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use service::metrics::IntGauge;
use tracing::{info, warn};

/// What is known of the disk. Never held locked while it is asked.
#[derive(Debug)]
pub(super) struct Room {
    folder: PathBuf,
    /// Hundredths of the file system that stay free.
    free_percent_min: u64,
    state: Mutex<State>,
    trouble: IntGauge,
}

#[derive(Debug, Default)]
struct State {
    /// When the file system was last asked, and what may be written since then.
    asked: Option<(Instant, u64)>,
    refused: Option<Refusal>,
    /// How many bytes there was no room for, when somebody waited for them last.
    wanting: Option<u64>,
}

/// That the disk has refused to be written to.
#[derive(Debug)]
struct Refusal {
    again: Instant,
    pause: Duration,
    why: String,
}

impl Room {
    pub(super) fn new(folder: &Path, free_percent_min: u8, trouble: IntGauge) -> Self {
        Self {
            folder: folder.to_owned(),
            free_percent_min: u64::from(free_percent_min),
            state: Mutex::default(),
            trouble,
        }
    }

    /// By how many bytes the file system falls short if `bytes` more are written; none if that
    /// cannot be told. Asks it at most once a second. Touches the disk.
    pub(super) fn lacks(&self, bytes: u64) -> u64 {
        if self.free_percent_min == 0 {
            return 0;
        }
        let spare = self.spare();
        self.state()
            .asked
            .get_or_insert_with(|| (Instant::now(), spare))
            .1 = spare.saturating_sub(bytes);
        bytes.saturating_sub(spare)
    }

    /// How many bytes may be written before too little is free, as far as that is known.
    fn spare(&self) -> u64 {
        let known = self.state().asked;
        let is_young = known.is_some_and(|(asked, _)| asked.elapsed() < ASK_PAUSE);
        match known.filter(|_| is_young) {
            Some((_, spare)) => spare,
            None => self.ask().unwrap_or(u64::MAX),
        }
    }

    /// Takes note that `bytes` which [`Room::lacks`] found room for will not be written after all.
    pub(super) fn give_back(&self, bytes: u64) {
        if let Some((_, spare)) = &mut self.state().asked {
            *spare = spare.saturating_add(bytes);
        }
    }

    /// How many bytes may be written before too little is free.
    fn ask(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.folder).ok()?;
        let floor = found.f_blocks.saturating_mul(self.free_percent_min) / 100;
        let spare = found.f_bavail.saturating_sub(floor);
        let spare = spare.saturating_mul(found.f_frsize);
        self.state().asked = Some((Instant::now(), spare));
        Some(spare)
    }

    /// Whether it may be tried to write: not for a while after the disk has refused. Who is told
    /// so is the one who tries.
    pub(super) fn may_try(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let Some(refused) = &mut state.refused else {
            return true;
        };
        let may = refused.again <= now;
        if may {
            refused.again = now + refused.pause;
        }
        may
    }

    /// The disk has refused.
    pub(super) fn refused(&self, error: &io::Error) {
        let mut state = self.state();
        let before = state.refused.take().map(|it| it.pause);
        if before.is_none() {
            warn!(%error, "the disk refuses: packs are passed on without being kept");
        }
        let pause = before.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
        state.refused = Some(Refusal {
            again: Instant::now() + pause,
            pause,
            why: error.to_string(),
        });
        self.show(&state);
    }

    /// The disk has taken something.
    pub(super) fn taken(&self) {
        let mut state = self.state();
        if state.refused.take().is_some() {
            info!("the disk can be written to again");
        }
        self.show(&state);
    }

    /// Whether the disk has refused, as far as is known.
    pub(super) fn has_refused(&self) -> bool {
        self.state().refused.is_some()
    }

    /// Takes note that there is no place for a pack of `bytes` which somebody waits for, if that is
    /// because too little of the disk would stay free. Touches the disk.
    pub(super) fn is_wanting(&self, bytes: u64) {
        if self.free_percent_min == 0 || self.spare() >= bytes {
            return;
        }
        let mut state = self.state();
        if state.wanting.replace(bytes).is_none() {
            let percent = self.free_percent_min;
            warn!(
                bytes,
                percent, "too little of the disk is free: packs are passed on unkept"
            );
        }
        self.show(&state);
    }

    /// Takes note that there is a place for a pack that somebody waits for, or would be.
    pub(super) fn has_enough(&self) {
        let mut state = self.state();
        if state.wanting.take().is_some() {
            info!("there is room on the disk again");
        }
        self.show(&state);
    }

    fn show(&self, state: &State) {
        let is_trouble = state.refused.is_some() || state.wanting.is_some();
        self.trouble.set(i64::from(is_trouble));
    }

    /// Why nothing is kept at the moment, if the disk refuses or has no room. Asks how much of it is
    /// free, if it had none. Touches the disk.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some(refused) = &self.state().refused {
            return Some(refused.why.clone());
        }
        let wanting = self.state().wanting?;
        if self.spare() >= wanting {
            self.has_enough();
            return None;
        }
        let percent = self.free_percent_min;
        Some(format!("less than {percent} % of the disk would stay free"))
    }

    /// From now on the file system has room for so many bytes, and is not asked.
    #[cfg(test)]
    pub(super) fn pretend(&self, spare: u64) {
        self.state().asked = Some((Instant::now() + Duration::from_secs(3600), spare));
    }

    /// What is left of what was pretended.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.state().asked.unwrap().1
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The unit in which the file system of a folder gives out room (statvfs(3), `f_frsize`). Touches
/// the disk.
pub(super) fn block_bytes(folder: &Path) -> u64 {
    let asked = rustix::fs::statvfs(folder).map(|found| found.f_frsize);
    // One that does not say is one of those that count by pages.
    asked.ok().filter(|bytes| *bytes > 0).unwrap_or(4096)
}

/// How long what the file system said of its room counts: others write to it as well.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// How long to leave a disk alone that has refused, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use service::metrics::Registry;

    use super::*;

    fn room(percent: u8, trouble: &IntGauge) -> (tempfile::TempDir, Room) {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path(), percent, trouble.clone());
        (folder, room)
    }

    #[test]
    fn what_must_stay_free_is_not_written_to_and_what_was_set_aside_counts() {
        let gauge = Registry::new("test").gauge("trouble", "Trouble").unwrap();
        let (_folder, all) = room(100, &gauge);
        assert_eq!(all.lacks(1000), 1000);
        let (_folder, none) = room(0, &gauge);
        assert_eq!(none.lacks(u64::MAX), 0);
        let (_folder, some) = room(1, &gauge);
        some.state().asked = Some((Instant::now(), 100));
        assert_eq!([60, 60].map(|bytes| some.lacks(bytes)), [0, 20]);
        // What is not written after all is there for the next.
        some.state().asked = Some((Instant::now(), 100));
        assert_eq!(some.lacks(80), 0);
        some.give_back(80);
        assert_eq!(some.lacks(100), 0);
    }

    #[test]
    fn that_there_is_no_room_is_said_until_there_is() {
        let gauge = Registry::new("test").gauge("trouble", "Trouble").unwrap();
        let (_folder, room) = room(1, &gauge);
        let spare = |bytes| room.state().asked = Some((Instant::now(), bytes));
        spare(50);
        room.is_wanting(60);
        let why = "less than 1 % of the disk would stay free";
        assert_eq!((room.trouble().as_deref(), gauge.get()), (Some(why), 1));
        room.refused(&io::ErrorKind::StorageFull.into());
        room.taken();
        assert_eq!(
            gauge.get(),
            1,
            "it takes something, and has no room for more"
        );
        spare(60);
        assert_eq!((room.trouble(), gauge.get()), (None, 0));
        assert_eq!(room.left(), 60, "it was only asked");
    }

    #[test]
    fn a_disk_that_refuses_is_tried_again_by_one_and_not_at_once() {
        let gauge = Registry::new("test").gauge("trouble", "Trouble").unwrap();
        let (_folder, room) = room(0, &gauge);
        assert!(room.may_try() && room.trouble().is_none());
        room.refused(&io::ErrorKind::StorageFull.into());
        assert!(!room.may_try() && room.trouble().is_some() && gauge.get() == 1);
        room.state().refused.as_mut().unwrap().again = Instant::now();
        assert_eq!([room.may_try(), room.may_try()], [true, false]);
        room.taken();
        assert!(room.may_try() && room.trouble().is_none() && gauge.get() == 0);
    }
}
