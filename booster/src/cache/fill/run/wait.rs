//! Waiting for a turn.

use service::CancellationToken;
use tokio::time::timeout;

use super::Job;
use crate::cache::fill::turns::Turn;
use crate::cache::fill::{FillError, Want};

impl Job {
    /// Waits until it may run. How long it may wait counts from when somebody has asked for it.
    pub(super) async fn wait_for_turn(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Turn, FillError> {
        let mut ticket = self.ticket.take().ok_or(FillError::Busy)?;
        let over = loop {
            let want = self.fill.want();
            let turn_or_more = async {
                tokio::select! {
                    biased;
                    turn = ticket.turn() => Some(turn.ok_or(FillError::Busy)),
                    () = self.fill.is_more_than(want) => None,
                }
            };
            let waited = timeout(self.shared.limits.turn_wait, turn_or_more);
            match self.unless_over(stop, waited).await {
                Ok(Ok(Some(turn))) => return turn,
                Ok(Ok(None)) => {}
                Ok(Err(_)) if want == Want::Now => return Err(FillError::Busy),
                Ok(Err(_)) => break FillError::PutOff,
                Err(over) => break over,
            }
        };
        // Somebody may want it again before it has left.
        self.ticket = Some(ticket);
        Err(over)
    }
}
