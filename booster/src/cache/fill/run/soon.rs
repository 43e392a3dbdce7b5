//! Fills that nobody waits for yet, or nobody any more: when they end before they are whole.

use std::sync::Arc;

use super::{Break, Job};
use crate::cache::fill::{FillError, Want};

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

    /// Breaks off, between two frames, what nobody has asked for yet while others wait for a turn
    /// with what they have asked for. What is there stays, to be gone on from.
    pub(super) fn make_way(&self) -> Result<(), Break> {
        let is_soon = self.fill.want() == Want::Soon;
        if is_soon && !self.is_whole() && self.shared.turns.are_waited_for() {
            return Err(Break::Over(FillError::PutOff));
        }
        Ok(())
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
