//! How a publish shows itself while it runs: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use service::Output;

use crate::publish::send::{Dropped, Progress};

/// The progress of one publish.
#[derive(Debug)]
pub(super) struct Bar {
    bar: Mutex<Option<ProgressBar>>,
    output: Output,
}

impl Bar {
    pub(super) fn new(output: Output) -> Self {
        Self {
            bar: Mutex::new(None),
            output,
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.with(ProgressBar::finish_and_clear);
    }

    fn with(&self, act: impl FnOnce(&ProgressBar)) {
        let bar = self
            .bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = bar.as_ref() {
            act(bar);
        }
    }
}

impl Progress for Bar {
    fn total(&self, files: u64, bytes: u64) {
        self.output.note(format_args!(
            "reading {files} files, {}",
            bytesize::ByteSize(bytes)
        ));
        if !std::io::stderr().is_terminal() {
            return;
        }
        let style =
            ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(bytes).with_style(style);
        *self
            .bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        self.with(|bar| bar.inc(bytes));
    }

    fn dropped(&self, dropped: &Dropped) {
        let Dropped { attributes, owners } = dropped;
        if *owners > 0 {
            self.output.note(format_args!(
                "warning: owner and group are not published; {owners} paths have another than the folder"
            ));
        }
        if *attributes > 0 {
            self.output.note(format_args!(
                "warning: extended attributes are not published; {attributes} paths have some"
            ));
        }
    }
}

const TEMPLATE: &str =
    "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
