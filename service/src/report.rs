//! Errors as they are shown: the whole chain, once.

use std::error::Error;
use std::fmt;

/// Shows an error with everything that caused it, in one line: `cannot a: cannot b: cause`.
///
/// The only way in which we log or print an error. Our errors don't repeat their source in their
/// own text; for foreign ones that do, the repetition is left out.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !shown.ends_with(&text) {
                write!(f, ": {text}")?;
                shown = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    enum Sample {
        #[error("cannot start")]
        Plain { source: io::Error },
        #[error("cannot start: {source}")]
        Repeats { source: io::Error },
    }

    #[test]
    fn the_chain_is_printed_once() {
        let source = || io::Error::other("disk on fire");
        for error in [
            Sample::Plain { source: source() },
            Sample::Repeats { source: source() },
        ] {
            assert_eq!(Report(&error).to_string(), "cannot start: disk on fire");
        }
    }
}
