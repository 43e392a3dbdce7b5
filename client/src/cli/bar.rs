//! How a pull shows itself while it runs: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use service::Output;
use tokio::time::{MissedTickBehavior, interval};

use crate::progress::{Done, Progress};

/// Runs `work`, and shows how far it is.
pub(super) async fn watch<T>(
    output: Output,
    progress: &Progress,
    work: impl Future<Output = T>,
) -> T {
    let bar = std::io::stderr().is_terminal() && !output.is_json();
    let bar = bar.then(new_bar);
    let mut ticks = interval(if bar.is_some() {
        BAR_PERIOD
    } else {
        LINE_PERIOD
    });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut work = std::pin::pin!(work);
    // The first comes at once, when there is nothing to show yet.
    ticks.tick().await;
    loop {
        // Both may be dropped and polled again: a tick that is lost is made up by the next.
        tokio::select! {
            done = &mut work => {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                return done;
            }
            _ = ticks.tick() => show(output, bar.as_ref(), progress.done()),
        }
    }
}

fn show(output: Output, bar: Option<&ProgressBar>, done: Done) {
    let Done {
        bytes,
        fetched,
        to_fetch,
        written,
    } = done;
    let (fetched, to_fetch) = (ByteSize(fetched), ByteSize(to_fetch));
    match bar {
        Some(bar) => {
            bar.set_length(bytes);
            bar.set_position(written);
            bar.set_message(format!("{fetched} of about {to_fetch} fetched"));
        }
        None => output.note(format_args!(
            "{} of {} ready, {fetched} of about {to_fetch} fetched",
            ByteSize(written),
            ByteSize(bytes)
        )),
    }
}

fn new_bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

const TEMPLATE: &str = "{bar:30} {binary_bytes} of {binary_total_bytes}, {msg}, {eta} left";
const BAR_PERIOD: Duration = Duration::from_millis(100);
/// Often enough to show that it lives, seldom enough for a log.
const LINE_PERIOD: Duration = Duration::from_secs(5);
