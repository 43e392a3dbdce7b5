//! The life of a process: ready, wait for a reason to stop, drain, end.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use sd_notify::NotifyState;
use tracing::{info, warn};

use crate::signal::Stop;
use crate::tasks::Drained;

/// What a process runs: something that listens already, and that can be drained.
pub trait Component {
    /// Waits until a part ended that should not have, and names it.
    fn any_ended(&self) -> impl Future<Output = &'static str> + Send;

    /// Stops taking work, waits for at most `grace` for what is under way, and ends.
    fn drain(self, grace: Duration) -> impl Future<Output = Drained> + Send;
}

/// Runs `component` until SIGTERM, SIGINT or the end of one of its parts, then drains it for at
/// most `grace`. A second signal ends it at once. Tells the service manager (`sd_notify`) when it
/// is ready and when it is stopping.
///
/// # Errors
///
/// Fails if signals cannot be handled, or if a part ended by itself.
pub async fn run_until_stopped(component: impl Component, grace: Duration) -> anyhow::Result<()> {
    let mut stop = Stop::listen().context("cannot listen for signals")?;
    tell_manager(NotifyState::Ready);
    let ending = tokio::select! {
        () = stop.requested() => Ok(()),
        part = component.any_ended() => Err(anyhow!("part of the program ended by itself: {part}")),
    };
    tell_manager(NotifyState::Stopping);
    info!(grace_seconds = grace.as_secs(), "stopping");
    tokio::select! {
        drained = component.drain(grace) => match drained {
            Drained::InTime => info!("stopped"),
            Drained::CutOff { left } => warn!(left, "stopped with work unfinished"),
        },
        () = stop.requested() => warn!("stopped at once, as asked"),
    }
    ending
}

fn tell_manager(state: NotifyState<'_>) {
    // Without a manager there is nobody to tell; with one that does not listen, nothing is lost.
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "cannot tell the service manager");
    }
}
