//! Takes stock of the packs at the start, and again while some are missing.

use std::time::Duration;

use service::ops::{Check, Health};
use service::{CancellationToken, Report};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::publish::intake::Intake;
use crate::stock::Stock;

/// How often to look again while something is missing.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Whether all packs that the retained revisions need are there.
pub(super) struct StockCheck {
    check: Check,
    intake: Intake,
}

impl StockCheck {
    /// The check of what `intake` has taken in.
    pub(super) fn new(intake: Intake, health: &Health) -> Self {
        let check = health.check("packs");
        Self { check, intake }
    }

    /// Looks until all is there, and then waits until it is asked to stop. `taken` is told when it
    /// has looked once.
    pub(super) async fn run(self, taken: oneshot::Sender<()>, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Some(taken);
        loop {
            let look = async {
                ticks.tick().await;
                self.look().await
            };
            let is_whole = tokio::select! {
                is_whole = look => is_whole,
                () = stop.cancelled() => return,
            };
            if let Some(taken) = taken.take() {
                // Nobody may be waiting any more.
                let _told = taken.send(());
            }
            if is_whole {
                return stop.cancelled().await;
            }
        }
    }

    /// Looks once; whether nothing is missing.
    async fn look(&self) -> bool {
        match self.intake.take_stock().await {
            Ok(stock) => self.note(&stock),
            Err(failure) => {
                let reason = Report(&failure).to_string();
                if self.check.fail(&reason) {
                    error!(error = %reason, "cannot take stock of the packs");
                }
                false
            }
        }
    }

    fn note(&self, Stock { gone, wanting }: &Stock) -> bool {
        if wanting.is_empty() {
            self.check.pass();
            info!(gone, "every pack that a revision needs is there");
            return true;
        }
        let revisions = wanting.join(", ");
        let reason = format!("{gone} packs are missing, which these revisions need: {revisions}");
        if self.check.fail(reason) {
            error!(gone, %revisions, "packs are missing: restore them, or publish the same again");
        }
        false
    }
}
