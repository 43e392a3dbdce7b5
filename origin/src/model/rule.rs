//! Rules of smart groups: which devices are in, by what they say of themselves.
//!
//! ```text
//! os = debian and os.version >= 12 and not (software.openssl < 3.0.15 or seen > 7d)
//! ```
//!
//! What can be asked for and how things are compared is told in `docs/fleet.md`.

mod facts;
mod glob;
mod parse;
#[cfg(test)]
mod tests;
mod version;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use facts::Facts;

/// A rule. Two are equal if they are written alike.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    text: Box<str>,
    root: Node,
}

/// A part of a rule: all, any or none of others, or a test.
#[derive(Clone, Debug)]
enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// The field is there.
    Has(Field),
    /// One of its values, compared as `Op` says.
    Test(Field, Op, Want),
}

/// What can be asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Field {
    Text(Text),
    Number(Number),
    /// How long ago something was, in seconds.
    Age(Age),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Text {
    Agent,
    Arch,
    Custom(Box<str>),
    Fileset(Box<str>),
    Group,
    Hostname,
    Id,
    Kernel,
    Os,
    OsName,
    OsVersion,
    Software(Box<str>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Number {
    Cpus,
    DiskFree,
    DiskSize,
    Memory,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Age {
    Seen,
    Told,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Op {
    Is,
    IsNot,
    Less,
    AtMost,
    More,
    AtLeast,
    Like,
}

/// What a field is compared with.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Want {
    Text(Box<str>),
    Number(u64),
}

/// What a rule has to know of a device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// Its software: the long part of its inventory.
    pub software: bool,
    /// What changes without a word from the device: the time, its group.
    pub look: bool,
}

/// Why a text is no rule.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("cannot use the rule at character {at}: {what}")]
pub struct RuleError {
    at: usize,
    what: String,
}

impl Rule {
    /// The longest rule, in bytes.
    pub const BYTES_MAX: usize = 4096;
    /// The most tests in one.
    pub const TESTS_MAX: usize = 256;
    /// The most parentheses and `not` within each other.
    pub const DEPTH_MAX: usize = 32;

    /// It as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the device of `facts` is in.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        self.root.holds(facts)
    }

    /// What it has to know.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        self.root.note(&mut needs);
        needs
    }
}

impl Node {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(facts)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(facts)),
            Self::Not(part) => !part.holds(facts),
            Self::Has(Field::Text(text)) => facts.texts(text, |_| true),
            Self::Has(Field::Number(number)) => facts.number(*number).is_some(),
            Self::Has(Field::Age(age)) => facts.age(*age).is_some(),
            Self::Test(Field::Text(text), op, Want::Text(want)) => {
                facts.texts(text, |value| op.compares(value, want))
            }
            Self::Test(Field::Number(number), op, Want::Number(want)) => {
                let value = facts.number(*number);
                value.is_some_and(|value| op.holds(value.cmp(want)))
            }
            Self::Test(Field::Age(age), op, Want::Number(want)) => facts
                .age(*age)
                .is_some_and(|value| op.holds(value.cmp(want))),
            // The parser makes none.
            Self::Test(..) => false,
        }
    }

    fn note(&self, needs: &mut Needs) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.note(needs));
            }
            Self::Not(part) => part.note(needs),
            Self::Has(field) | Self::Test(field, ..) => match field {
                Field::Text(Text::Software(_)) => needs.software = true,
                Field::Text(Text::Group | Text::Id) | Field::Age(_) => needs.look = true,
                Field::Text(_) | Field::Number(_) => {}
            },
        }
    }
}

impl Op {
    fn compares(self, value: &str, want: &str) -> bool {
        match self {
            Self::Is => value == want,
            Self::IsNot => value != want,
            Self::Like => glob::fits(want, value),
            Self::Less | Self::AtMost | Self::More | Self::AtLeast => {
                self.holds(version::order(value, want))
            }
        }
    }

    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Is => order.is_eq(),
            Self::IsNot => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
            Self::Like => false,
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let root = parse::parse(text)?;
        Ok(Self {
            text: text.into(),
            root,
        })
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.text.into()
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Rule {}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
