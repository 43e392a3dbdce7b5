//! What a booster has to prove before it is believed.

use content::statement::{Judge, RosterHead, Statement, StatementError};
use content::{RosterEntry, RosterProof};
use protocol::{Code, ROSTER_FRESH_SECONDS};
use thiserror::Error;
use transport::CallError;

use crate::agent::CheckInError;

/// What a booster has proved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Proved {
    /// What holds for us.
    pub(crate) entry: RosterEntry,
    /// How often we are to come, in seconds.
    every: u64,
}

/// Why what a booster says does not count. The origin is asked instead.
#[derive(Debug, Error)]
pub(crate) enum Doubt {
    /// It did not answer, or refused.
    #[error("the booster does not answer for us")]
    Call(#[from] CallError),
    /// The roster is another booster's.
    #[error("it shows the roster of {booster}")]
    Booster {
        /// Whose.
        booster: String,
    },
    /// The entry is another device's.
    #[error("it shows what holds for {device}")]
    Device {
        /// Whose.
        device: String,
    },
    /// The manifest that it names cannot be had or used.
    #[error("cannot get the manifest from it")]
    Manifest(#[source] Box<CheckInError>),
    /// The entry is not on the roster that was signed.
    #[error("the entry is not on the roster")]
    Forged,
    /// What we say cannot be sealed.
    #[error("cannot seal what we say")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It would take us back.
    #[error("it would go back from manifest {known} to {number}")]
    Old {
        /// The number on the roster.
        number: u64,
        /// The one in force.
        known: u64,
    },
    /// It takes too long over the manifest.
    #[error("it takes too long over the manifest")]
    Slow,
    /// It was signed too long ago: what is new may be kept from us.
    #[error("its roster was signed {seconds} s ago")]
    Stale {
        /// How long.
        seconds: i64,
    },
    /// It is not the origin's word.
    #[error("cannot trust the roster")]
    Statement(#[from] StatementError),
}

impl From<CheckInError> for Doubt {
    fn from(error: CheckInError) -> Self {
        Self::Manifest(Box::new(error))
    }
}

impl Doubt {
    /// Whether the booster itself is to blame. One that has only lost its line is as good as before
    /// once that is back, and everybody else would come to the origin then.
    pub(crate) fn lasts(&self) -> bool {
        match self {
            Self::Call(CallError::Fault { fault, .. }) => !matches!(
                fault.code,
                Code::Busy | Code::Internal | Code::TooMany | Code::UpstreamUnavailable
            ),
            Self::Manifest(failure) => !matches!(
                **failure,
                CheckInError::Fetch { .. } | CheckInError::Files(_) | CheckInError::Stopped
            ),
            Self::Call(_)
            | Self::Booster { .. }
            | Self::Device { .. }
            | Self::Forged
            | Self::Slow
            | Self::Statement(_) => true,
            Self::Key(_) | Self::Old { .. } | Self::Stale { .. } => false,
        }
    }
}

impl Proved {
    /// The longest that we stay away, in seconds, whatever is said that nobody has signed.
    pub(crate) fn longest(&self) -> u32 {
        u32::try_from(self.every.saturating_mul(2)).unwrap_or(u32::MAX)
    }
}

/// Who asks whom, and from when on.
pub(super) struct Asks<'a> {
    pub(super) booster: &'a str,
    pub(super) device: &'a str,
    /// The number below which no manifest is taken.
    pub(super) least: u64,
    pub(super) now: i64,
}

impl Asks<'_> {
    /// The entry of `proof`, if it is what holds for the device now.
    pub(super) fn judge(&self, proof: RosterProof, judge: &impl Judge) -> Result<Proved, Doubt> {
        let head = Statement::<RosterHead>::open(&proof.head, judge, self.now)?;
        if head.booster != self.booster {
            let booster = head.booster.clone();
            return Err(Doubt::Booster { booster });
        }
        if !proof.holds(&head.root, head.count) {
            return Err(Doubt::Forged);
        }
        if proof.entry.device != self.device {
            let device = proof.entry.device;
            return Err(Doubt::Device { device });
        }
        let seconds = self.now.saturating_sub(head.issued);
        if seconds > ROSTER_FRESH_SECONDS || self.now >= head.expires {
            return Err(Doubt::Stale { seconds });
        }
        if proof.entry.number < self.least {
            let (number, known) = (proof.entry.number, self.least);
            return Err(Doubt::Old { number, known });
        }
        Ok(Proved {
            every: head.every,
            entry: proof.entry,
        })
    }
}

#[cfg(test)]
mod tests {
    use content::statement::{JudgeError, Signature, seal};
    use content::{Digest, Roster, RosterTree};
    use expect_test::{Expect, expect};

    use super::*;

    /// A judge for whom the right signature is the message's digest.
    struct Toy;

    impl Judge for Toy {
        fn deployment(&self) -> &'static str {
            "d1"
        }

        fn judge(
            &self,
            message: &[u8],
            sig: &[u8],
            _: &[Vec<u8>],
            _: i64,
        ) -> Result<(), JudgeError> {
            let is_right = sig == Digest::of(message).as_raw();
            let source = "bad signature".into();
            is_right.then_some(()).ok_or(JudgeError { source })
        }
    }

    const NOW: i64 = 1_700_000_000;

    fn roster() -> Roster {
        let entry = |device: &str, number: u64| RosterEntry {
            device: device.to_owned(),
            model: 1,
            number,
            manifest: Some(Digest::of(device.as_bytes())),
            asked: 0,
        };
        Roster::new(vec![entry("c1", 7), entry("c2", 9), entry("c3", 8)])
    }

    /// The proof for c1 by the booster b1, of a head edited before it was signed.
    fn proof(edit: impl FnOnce(&mut RosterHead)) -> RosterProof {
        let roster = roster();
        let mut head = RosterHead {
            deployment: "d1".to_owned(),
            booster: "b1".to_owned(),
            model: 1,
            count: 3,
            root: roster.root(),
            list: Digest::of(&roster.encode()),
            every: 120,
            issued: NOW,
            expires: NOW + 86_400,
        };
        edit(&mut head);
        let sign = |message: &[u8]| {
            Ok::<_, std::convert::Infallible>(Signature {
                signature: Digest::of(message).as_raw().to_vec(),
                chain: vec![b"leaf".to_vec()],
                key_id: String::new(),
            })
        };
        let head = seal(&head, sign).unwrap();
        RosterTree::new(roster).proof("c1", &head).unwrap()
    }

    fn check(proof: RosterProof, least: u64, expected: Expect) {
        let asks = Asks {
            booster: "b1",
            device: "c1",
            least,
            now: NOW,
        };
        let judged = asks.judge(proof, &Toy).map(|proved| proved.entry.number);
        let text = judged.map_or_else(|doubt| doubt.to_string(), |number| number.to_string());
        expected.assert_eq(&text);
    }

    #[test]
    fn a_booster_that_replays_withholds_swaps_or_makes_up_is_not_believed() {
        check(proof(|_| {}), 7, expect!["7"]);
        check(
            proof(|_| {}),
            8,
            expect!["it would go back from manifest 8 to 7"],
        );
        let stale = proof(|head| head.issued -= 1801);
        check(stale, 7, expect!["its roster was signed 1801 s ago"]);
        let over = proof(|head| head.expires = NOW);
        check(over, 7, expect!["its roster was signed 0 s ago"]);
        let other = proof(|head| head.booster = "b2".to_owned());
        check(other, 7, expect!["it shows the roster of b2"]);
        let foreign = proof(|head| head.deployment = "d2".to_owned());
        check(foreign, 7, expect!["cannot trust the roster"]);
        let tree = RosterTree::new(roster());
        let mut swapped = tree.proof("c2", &proof(|_| {}).head).unwrap();
        check(swapped.clone(), 7, expect!["it shows what holds for c2"]);
        // Another's manifest under our name is on no roster that was signed.
        swapped.entry.device = "c1".to_owned();
        check(swapped, 7, expect!["the entry is not on the roster"]);
        let mut newer = proof(|_| {});
        newer.entry.number = 10;
        check(newer, 7, expect!["the entry is not on the roster"]);
        let mut forged = proof(|_| {});
        let sealed = String::from_utf8(forged.head.clone()).unwrap();
        forged.head = sealed.replace("\"sig\":\"", "\"sig\":\"AAAA").into_bytes();
        check(forged, 7, expect!["cannot trust the roster"]);
    }
}
