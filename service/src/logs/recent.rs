//! The end of the log, in memory.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The last lines of the log. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    lines: Arc<Mutex<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

/// One line on its way.
#[derive(Debug)]
pub(super) struct Line {
    recent: Recent,
    text: Vec<u8>,
}

impl Recent {
    /// How much is kept, in bytes: some two thousand lines.
    pub const BYTES_MAX: usize = 256 << 10;

    /// What is kept, the oldest line first.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines().lines.iter().map(String::as_str).collect()
    }

    /// A line that is kept once it is dropped.
    pub(super) fn line(&self) -> Line {
        Line {
            recent: self.clone(),
            text: Vec::new(),
        }
    }

    /// Adds lines, and drops the oldest as far as there are too many.
    fn push(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(&text[..text.len().min(Self::BYTES_MAX / 2)]);
        let mut kept = self.lines();
        kept.bytes += text.len();
        kept.lines.push_back(text.into_owned());
        while kept.bytes > Self::BYTES_MAX {
            let dropped = kept.lines.pop_front();
            kept.bytes -= dropped.map_or(0, |line| line.len());
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.recent.push(&self.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(recent: &Recent, text: &[u8]) {
        recent.line().write_all(text).unwrap();
    }

    #[test]
    fn the_oldest_lines_go_first_and_whole() {
        let recent = Recent::default();
        say(&recent, b"first\n");
        say(&recent, b"not text: \xff\n");
        assert_eq!(recent.text(), "first\nnot text: \u{fffd}\n");
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..300 {
            say(&recent, line.as_bytes());
        }
        assert_eq!(recent.text(), line.repeat(256));
        say(&recent, &vec![b'y'; 10 << 20]);
        assert!(recent.text().len() <= Recent::BYTES_MAX);
    }
}
