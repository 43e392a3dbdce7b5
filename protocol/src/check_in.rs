//! The check-in: a party tells the origin how it is, and learns when to come again.

use serde::{Deserialize, Serialize};

/// What a party says of itself. Who it is, its certificate says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckIn {
    /// The release that it runs: at most 64 bytes.
    pub release: String,
    /// Where a booster serves; none from a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booster: Option<BoosterAddresses>,
}

/// Where a booster serves. Hints only: identity is in certificates.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BoosterAddresses {
    /// Content: at most 8 of `HOST:PORT`.
    pub content: Vec<String>,
    /// The relay of the enrolment listener.
    pub enrol: Vec<String>,
}

/// What the origin answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckInAnswer {
    /// When to check in again, in seconds from now.
    pub next_seconds: u32,
}

impl CheckIn {
    /// The most bytes of a check-in and of its answer.
    pub const BYTES_MAX: usize = 8 << 10;

    /// The body that carries it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and lists always encode")
    }

    /// Reads a body; none if it is no check-in, or one beyond its bounds.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let check_in: Self = serde_json::from_slice(bytes).ok()?;
        let fits = |list: &[String]| {
            list.len() <= 8 && list.iter().all(|address| crate::join::is_address(address))
        };
        let addresses_fit = check_in
            .booster
            .as_ref()
            .is_none_or(|at| fits(&at.content) && fits(&at.enrol));
        (check_in.release.len() <= 64 && addresses_fit).then_some(check_in)
    }
}

impl CheckInAnswer {
    /// The body that carries it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers always encode")
    }

    /// Reads a body; none if it is no answer.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > CheckIn::BYTES_MAX {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn check_in(address: &str) -> CheckIn {
        let content = vec![address.to_owned()];
        let booster = Some(BoosterAddresses {
            content,
            enrol: Vec::new(),
        });
        CheckIn {
            release: "0.1.0".to_owned(),
            booster,
        }
    }

    #[test]
    fn the_wire_does_not_drift() {
        let body = check_in("10.0.0.1:8543").encode();
        assert_eq!(CheckIn::decode(&body), Some(check_in("10.0.0.1:8543")));
        expect![[r#"{"release":"0.1.0","booster":{"content":["10.0.0.1:8543"],"enrol":[]}}"#]]
            .assert_eq(std::str::from_utf8(&body).unwrap());
        let answer = CheckInAnswer { next_seconds: 60 };
        assert_eq!(
            CheckInAnswer::decode(&answer.encode()),
            Some(answer.clone())
        );
        expect![[r#"{"next_seconds":60}"#]]
            .assert_eq(std::str::from_utf8(&answer.encode()).unwrap());
    }

    #[test]
    fn what_is_beyond_its_bounds_is_refused() {
        assert_eq!(CheckIn::decode(&check_in("no port").encode()), None);
        assert_eq!(
            CheckIn::decode(&check_in(&"x".repeat(CheckIn::BYTES_MAX)).encode()),
            None
        );
        assert_eq!(CheckIn::decode(b"[]"), None);
    }
}
