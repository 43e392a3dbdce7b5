//! That a device went round a booster.

use serde::{Deserialize, Serialize};

/// A device went round a booster, and what came from the origin instead crossed the branch's line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Bypass {
    /// The booster's id: at most 63 bytes.
    pub booster: String,
    /// Why.
    pub reason: BypassReason,
    /// Bytes of bodies that came from the origin instead. Of several boosters that were gone round
    /// at once, the first is told to have cost them.
    pub bytes: u64,
}

/// Why a device went round a booster.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BypassReason {
    /// What it delivered failed a check.
    BadContent,
    /// The connection broke, again and again.
    Broken,
    /// It had too much to do.
    Busy,
    /// The device may not speak to it, by its certificate or its lists.
    Distrusted,
    /// It said that it cannot, in words of its own.
    Fault,
    /// It took too long.
    Timeout,
    /// It would not speak to the device.
    Refused,
    /// It has failed lately, and is left alone for a while.
    Resting,
    /// Nobody answers at its addresses.
    Unreachable,
    /// A word of a later protocol.
    #[serde(other)]
    Other,
}

impl BypassReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::BadContent,
        Self::Broken,
        Self::Busy,
        Self::Distrusted,
        Self::Fault,
        Self::Timeout,
        Self::Refused,
        Self::Resting,
        Self::Unreachable,
        Self::Other,
    ];

    /// Its word, as it travels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadContent => "bad_content",
            Self::Broken => "broken",
            Self::Busy => "busy",
            Self::Distrusted => "distrusted",
            Self::Fault => "fault",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Resting => "resting",
            Self::Unreachable => "unreachable",
            Self::Other => "other",
        }
    }

    /// The one with that word; [`BypassReason::Other`] if there is none.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str() == word);
        known.unwrap_or(Self::Other)
    }
}

impl Bypass {
    pub(super) fn is_in_bounds(&self) -> bool {
        (1..=63).contains(&self.booster.len())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::{Matter, Reported, Reports};
    use super::*;

    fn reports(booster: &str) -> Reports {
        Reports {
            dropped: 0,
            reports: vec![Reported {
                id: "0f".repeat(16),
                first_at: 1_700_000_000,
                last_at: 1_700_000_060,
                count: 3,
                matter: Matter::Bypass(Bypass {
                    booster: booster.to_owned(),
                    reason: BypassReason::Unreachable,
                    bytes: 4096,
                }),
            }],
        }
    }

    #[test]
    fn the_wire_does_not_drift_and_is_bounded() {
        let body = reports("b1").encode();
        assert_eq!(Reports::decode(&body), Some(reports("b1")));
        expect![[r#"{"dropped":0,"reports":[{"id":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","first_at":1700000000,"last_at":1700000060,"count":3,"matter":{"bypass":{"booster":"b1","reason":"unreachable","bytes":4096}}}]}"#]]
            .assert_eq(std::str::from_utf8(&body).unwrap());
        for reason in BypassReason::ALL {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.as_str()));
            assert_eq!(BypassReason::from_word(reason.as_str()), reason);
        }
        let later: BypassReason = serde_json::from_str("\"eclipse\"").unwrap();
        assert_eq!(later, BypassReason::Other);
        for bad in [String::new(), "b".repeat(64)] {
            assert_eq!(Reports::decode(&reports(&bad).encode()), None);
        }
    }
}
