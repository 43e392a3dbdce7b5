//! Fills that nobody waits for yet, or nobody any more: when they end before they are whole.

use std::sync::Arc;

use content::PackId;

use super::{Break, Job};
use crate::cache::fill::{FillError, Want};
use crate::cache::index::Errand;
use crate::cache::{Shared, Standing};

impl Job {
    /// Ends the fill if nobody reads along. False if somebody does.
    pub(super) fn leave_if_unwanted(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let flights = shared.flights();
        if self.fill.readers() > 0 {
            return false;
        }
        self.leave_from(flights, Err(FillError::Cancelled));
        true
    }

    /// Breaks off, between two frames, what nobody has asked for yet while others wait for a turn,
    /// or have long been waiting for the line, with what they have asked for. What is there stays,
    /// to be gone on from.
    pub(super) fn make_way(&self) -> Result<(), Break> {
        let shared = &self.shared;
        let must_yield = || shared.must_yield.get().is_some_and(|asked| asked());
        let is_in_the_way = match self.fill.want() {
            Want::Ahead => must_yield(),
            Want::Soon => shared.turns.are_waited_for(),
            Want::Now => false,
        };
        if is_in_the_way && !self.is_whole() {
            return Err(Break::Over(FillError::PutOff));
        }
        Ok(())
    }

    /// Little is left to come: lets one more run beside it. If many read this one, that is what comes
    /// behind it: else the line would be idle until one of them has this one and asks for the next.
    pub(super) fn ebbs(&mut self) {
        self.fill.ebbs();
        if self.fill.is_next_wanted() {
            self.shared.fetch_behind(&self.fill);
        }
        if let Some(turn) = &mut self.turn {
            turn.ebbs();
        }
    }

    /// Ends the fill, which is over for what nobody has asked for, unless a device has done so in
    /// the meantime: then false.
    pub(super) fn leave_if_unasked(&mut self, over: &FillError) -> bool {
        let shared = Arc::clone(&self.shared);
        // Who asks holds this lock, too: nobody comes between the question and the end.
        let flights = shared.flights();
        if self.fill.want() == Want::Now {
            return false;
        }
        self.leave_from(flights, Err(over.clone()));
        true
    }

    /// Takes note of checked bytes that came before they were asked for.
    pub(super) fn count_ahead(&self, bytes: usize) {
        if self.fill.want() == Want::Soon {
            self.shared.metrics.read_ahead_bytes.inc_by(bytes as u64);
        }
    }
}

impl Shared {
    /// For whom room is made for a pack. Takes the locks of whoever knows its standing.
    pub(super) fn errand(&self, id: PackId, want: Want) -> Errand {
        match want {
            Want::Ahead | Want::Soon => {
                let standing = self.standing.get().map(|standing| standing(id));
                Errand::Nobody(standing.unwrap_or(Standing::Current))
            }
            Want::Now => Errand::Somebody,
        }
    }
}
