//! The check-in: a party tells the origin how it is, and learns when to come again.

mod device;

use serde::{Deserialize, Serialize};

pub use device::{
    Command, CommandKind, CurrentManifest, FilesetResult, FilesetState, Held, SourceBytes,
};

/// What a party says of itself. Who it is, its certificate says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckIn {
    /// The release that it runs: at most 64 bytes.
    pub release: String,
    /// Where a booster serves; none from a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booster: Option<BoosterAddresses>,
    /// What a client holds; none from a booster, or from a client that only says that it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// Where a booster serves. Hints only: identity is in certificates.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BoosterAddresses {
    /// Content: at most 8 of `HOST:PORT`.
    pub content: Vec<String>,
    /// The relay of the enrolment listener.
    pub enrol: Vec<String>,
}

/// What the origin answers. Nothing but a status, `204`, to a client that goes by its current
/// manifest and has nothing to do: it comes again as it was told last.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckInAnswer {
    /// When to check in again, in seconds from now.
    pub next_seconds: u32,
    /// What a client that said what it holds should go by; none if nothing was ever committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<CurrentManifest>,
    /// The boosters that it should ask, by their ids, the best first: at most 16. If there are
    /// none, it chooses from the deployment document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boosters: Vec<String>,
    /// What it should do: at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Command>,
    /// Whether it should send the inventory that it named: the origin has not got it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inventory: bool,
}

impl CheckIn {
    /// The most bytes of a check-in and of its answer.
    pub const BYTES_MAX: usize = 64 << 10;

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
        let held_fits = check_in.held.as_ref().is_none_or(Held::fits);
        (check_in.release.len() <= 64 && addresses_fit && held_fits).then_some(check_in)
    }
}

impl CheckInAnswer {
    /// An answer that says nothing but when to come again.
    #[must_use]
    pub fn in_seconds(next_seconds: u32) -> Self {
        Self {
            next_seconds,
            manifest: None,
            boosters: Vec::new(),
            commands: Vec::new(),
            inventory: false,
        }
    }

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
        let answer: Self = serde_json::from_slice(bytes).ok()?;
        let ids = answer.boosters.iter();
        let fits = answer.boosters.len() <= 16
            && answer.commands.len() <= Held::DONE_MAX
            && ids.map(String::len).all(|length| length <= 63);
        fits.then_some(answer)
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
            held: None,
        }
    }

    #[test]
    fn the_wire_does_not_drift() {
        let body = check_in("10.0.0.1:8543").encode();
        assert_eq!(CheckIn::decode(&body), Some(check_in("10.0.0.1:8543")));
        expect![[r#"{"release":"0.1.0","booster":{"content":["10.0.0.1:8543"],"enrol":[]}}"#]]
            .assert_eq(std::str::from_utf8(&body).unwrap());
        let answer = CheckInAnswer::in_seconds(60);
        assert_eq!(
            CheckInAnswer::decode(&answer.encode()),
            Some(answer.clone())
        );
        expect![[r#"{"next_seconds":60}"#]]
            .assert_eq(std::str::from_utf8(&answer.encode()).unwrap());
    }

    fn of_device() -> CheckIn {
        let digest = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let result = FilesetResult {
            fileset: "tools".parse().unwrap(),
            revision: 3,
            state: FilesetState::Active,
            at: 1_700_000_000,
            note: String::new(),
            sources: vec![SourceBytes {
                id: "b1".to_owned(),
                bytes: 100,
            }],
        };
        CheckIn {
            release: "0.1.0".to_owned(),
            booster: None,
            held: Some(Held {
                model: 2,
                manifest: Some(digest.parse().unwrap()),
                capabilities: vec!["merge".to_owned()],
                results: vec![result],
                done: vec![5],
                inventory: Some(digest.parse().unwrap()),
            }),
        }
    }

    #[test]
    fn what_a_device_says_and_hears_does_not_drift() {
        let body = of_device().encode();
        assert_eq!(CheckIn::decode(&body), Some(of_device()));
        expect![[r#"{"release":"0.1.0","held":{"model":2,"manifest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","capabilities":["merge"],"results":[{"fileset":"tools","revision":3,"state":"active","at":1700000000,"sources":[{"id":"b1","bytes":100}]}],"done":[5],"inventory":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}"#]].assert_eq(std::str::from_utf8(&body).unwrap());
        let answer = CheckInAnswer {
            next_seconds: 120,
            manifest: Some(CurrentManifest {
                model: 2,
                number: 7,
                digest: of_device().held.unwrap().manifest.unwrap(),
            }),
            boosters: vec!["b1".to_owned()],
            commands: vec![Command {
                id: 6,
                what: CommandKind::Verify,
            }],
            inventory: true,
        };
        let body = answer.encode();
        assert_eq!(CheckInAnswer::decode(&body), Some(answer));
        expect![[r#"{"next_seconds":120,"manifest":{"model":2,"number":7,"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"},"boosters":["b1"],"commands":[{"id":6,"what":"verify"}],"inventory":true}"#]].assert_eq(std::str::from_utf8(&body).unwrap());
        for state in FilesetState::ALL {
            assert_eq!(FilesetState::from_word(state.word()), Some(state));
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{}\"", state.word()));
        }
        // A later origin may ask for what is not known yet.
        let later = br#"{"next_seconds":9,"commands":[{"id":1,"what":"dance"}]}"#;
        let later = CheckInAnswer::decode(later).unwrap();
        assert_eq!(later.commands[0].what, CommandKind::Unknown);
    }

    #[test]
    fn what_a_device_says_is_bounded() {
        let check = |edit: &dyn Fn(&mut Held)| {
            let mut bad = of_device();
            edit(bad.held.as_mut().unwrap());
            assert_eq!(CheckIn::decode(&bad.encode()), None);
        };
        check(&|held| held.capabilities.push("x".repeat(33)));
        check(&|held| held.results = vec![held.results[0].clone(); 65]);
        check(&|held| held.results[0].note = "x".repeat(257));
        check(&|held| held.results[0].sources[0].id = "x".repeat(64));
        check(&|held| held.done = vec![1; 65]);
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
