//! What a booster passes on for its devices, many at a time, and what it passes back.

use serde::{Deserialize, Serialize};

/// What a booster passes on.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Relayed {
    /// What devices said: the text of an envelope each, sealed by the device. At most
    /// [`Relayed::MESSAGES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// The ids of devices that have come to the booster, to be on its roster from now on: at most
    /// [`Relayed::JOINED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<String>,
}

/// What became of each message, in their order.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RelayedAnswers {
    /// As many as there were messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<RelayedAnswer>,
}

/// What a device is answered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RelayedAnswer {
    /// The status, as in HTTP.
    pub status: u16,
    /// After how many seconds to come again, if that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// The body: an answer to a check-in, or a fault.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}

impl Relayed {
    /// The most messages in one body.
    pub const MESSAGES_MAX: usize = 64;
    /// The most devices that join in one body.
    pub const JOINED_MAX: usize = 2048;
    /// The most bytes of a body, and of its answer.
    pub const BYTES_MAX: usize = 1 << 20;

    /// The body that carries it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and lists always encode")
    }

    /// Reads a body; none if it is none, or one beyond its bounds.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..bytes.len().min(Self::BYTES_MAX + 1))?;
        let relayed: Self = serde_json::from_slice(bytes).ok()?;
        let fits = bytes.len() <= Self::BYTES_MAX
            && relayed.messages.len() <= Self::MESSAGES_MAX
            && relayed.joined.len() <= Self::JOINED_MAX
            && relayed.joined.iter().all(|id| id.len() <= 63);
        fits.then_some(relayed)
    }
}

impl RelayedAnswers {
    /// The body that carries them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and lists always encode")
    }

    /// Reads a body; none if it is none, or one beyond its bounds.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > Relayed::BYTES_MAX {
            return None;
        }
        let answers: Self = serde_json::from_slice(bytes).ok()?;
        (answers.answers.len() <= Relayed::MESSAGES_MAX).then_some(answers)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_is_passed_on_does_not_drift_and_is_bounded() {
        let relayed = Relayed {
            messages: vec!["{}".to_owned()],
            joined: vec!["c1".to_owned()],
        };
        assert_eq!(Relayed::decode(&relayed.encode()), Some(relayed.clone()));
        expect![[r#"{"messages":["{}"],"joined":["c1"]}"#]]
            .assert_eq(std::str::from_utf8(&relayed.encode()).unwrap());
        let answers = RelayedAnswers {
            answers: vec![RelayedAnswer {
                status: 429,
                retry_after: Some(9),
                body: "{}".to_owned(),
            }],
        };
        assert_eq!(
            RelayedAnswers::decode(&answers.encode()),
            Some(answers.clone())
        );
        expect![[r#"{"answers":[{"status":429,"retry_after":9,"body":"{}"}]}"#]]
            .assert_eq(std::str::from_utf8(&answers.encode()).unwrap());
        let check = |edit: &dyn Fn(&mut Relayed)| {
            let mut bad = relayed.clone();
            edit(&mut bad);
            assert_eq!(Relayed::decode(&bad.encode()), None);
        };
        check(&|it| it.messages = vec![String::new(); Relayed::MESSAGES_MAX + 1]);
        check(&|it| it.messages = vec!["x".repeat(Relayed::BYTES_MAX)]);
        check(&|it| it.joined = vec!["c".to_owned(); Relayed::JOINED_MAX + 1]);
        check(&|it| it.joined = vec!["c".repeat(64)]);
    }
}
