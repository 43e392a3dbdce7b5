//! Reports: a party tells the origin whom it refused, and what an operator should know of.
//!
//! Every number in a report only grows, and a report that is sent again bears the same id: one that
//! arrives twice is one.

mod bypass;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

pub use bypass::{Bypass, BypassReason};

/// Some reports, in one body. The origin answers with `204` once they are kept.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reports {
    /// Refusals whose report was given up, for want of room or since the origin would not take it:
    /// never falls while the reporter keeps its state.
    pub dropped: u64,
    /// At most [`Reports::COUNT_MAX`]; none, if there is only to tell how many were given up.
    pub reports: Vec<Reported>,
}

/// One report: the same thing, seen so often.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reported {
    /// 128 random bits in lower-case hex.
    pub id: String,
    /// When it was seen first, in Unix seconds by the reporter's clock.
    pub first_at: i64,
    /// When it was seen last.
    pub last_at: i64,
    /// How often.
    pub count: u64,
    /// What was seen.
    pub matter: Matter,
}

/// What is reported.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Matter {
    /// Somebody was refused.
    Refusal(Refusal),
    /// Something else that an operator should know of.
    Notice(Notice),
    /// A booster was gone round.
    Bypass(Bypass),
}

/// Somebody was refused, in a handshake or after it. Texts are from strangers: never to be shown
/// without escaping.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Refusal {
    /// Who had called whom.
    pub direction: Direction,
    /// How far they had come.
    pub stage: Stage,
    /// Why, in the words of `docs/protocol.md`: at most 32 of `a-z_`.
    pub reason: String,
    /// Whether the one refused had proved that it holds the key of its certificate. If not, anybody
    /// who ever saw that certificate may have shown it.
    pub possession_proved: bool,
    /// Where the one refused was: an address and a port. Of several, one.
    pub remote: String,
    /// Who was refused, as a URI, if that was established; or who was expected there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub party: Option<String>,
    /// SHA-256 of its certificate in lower-case hex, if it showed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_sha256: Option<String>,
    /// The certificate, base64 of DER of at most 8 KiB; not sent again once it has arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
}

/// Who had called whom.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The one refused had called the reporter.
    Inbound,
    /// The reporter had called the one refused.
    Outbound,
}

/// How far the two had come.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The handshake failed.
    Handshake,
    /// After the handshake, before the first request.
    Registered,
    /// In a session that had been accepted.
    Session,
}

/// Something that an operator should know of.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Notice {
    /// Which kind of thing: at most 32 of `a-z_`, in the words of `docs/protocol.md`.
    pub kind: String,
    /// More about it: at most 512 bytes of text.
    pub detail: String,
}

impl Reports {
    /// The most bytes of a body: what every listener takes.
    pub const BYTES_MAX: usize = crate::ENROL_BODY_BYTES_MAX;
    /// The most reports of a body.
    pub const COUNT_MAX: usize = 64;

    /// The body that carries them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always encode")
    }

    /// Reads a body; none if it holds no reports, or anything beyond its bounds.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let reports: Self = serde_json::from_slice(bytes).ok()?;
        let fits = reports.reports.len() <= Self::COUNT_MAX;
        (fits && reports.reports.iter().all(Reported::is_in_bounds)).then_some(reports)
    }
}

impl Reported {
    /// Whether every part is within its bounds.
    #[must_use]
    pub fn is_in_bounds(&self) -> bool {
        let times = 0 < self.first_at && self.first_at <= self.last_at;
        is_hex(&self.id, 32) && times && self.count > 0 && self.matter.is_in_bounds()
    }
}

impl Reported {
    /// How many bytes it takes in a body.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(0, |text| text.len())
    }
}

impl Matter {
    /// Whether it tells of somebody in particular. What says that a stranger knocked who proved
    /// nothing, or that the reporter's own revocation lists were old, goes first where there is no
    /// room for all.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        match self {
            Self::Notice(_) | Self::Bypass(_) => true,
            Self::Refusal(it) => it.possession_proved && it.reason != Refusal::CRL_STALE,
        }
    }

    fn is_in_bounds(&self) -> bool {
        match self {
            Self::Refusal(refusal) => refusal.is_in_bounds(),
            Self::Bypass(bypass) => bypass.is_in_bounds(),
            Self::Notice(Notice { kind, detail }) => {
                // Those words are taken.
                let is_kind = is_word(kind) && kind != "refusal" && kind != "bypass";
                is_kind && detail.len() <= Notice::DETAIL_BYTES_MAX
            }
        }
    }
}

impl Notice {
    /// The most bytes of [`Notice::detail`].
    pub const DETAIL_BYTES_MAX: usize = 512;
}

impl Refusal {
    /// The reason of those whom nothing is held against but the age of the reporter's own lists.
    pub const CRL_STALE: &str = "crl_stale";
    /// The most bytes of a certificate in DER that is sent along.
    pub const CERT_BYTES_MAX: usize = 8 << 10;

    /// The certificate in DER, if it was sent along and can be read.
    #[must_use]
    pub fn cert_der(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.cert.as_deref()?).ok()
    }

    /// What [`Refusal::cert`] holds for a certificate in DER; none for one that is empty or longer
    /// than is sent.
    #[must_use]
    pub fn cert_text(der: &[u8]) -> Option<String> {
        (1..=Self::CERT_BYTES_MAX)
            .contains(&der.len())
            .then(|| STANDARD.encode(der))
    }

    fn is_in_bounds(&self) -> bool {
        let digest = self.cert_sha256.as_deref();
        let cert = self.cert.as_deref();
        let cert_bytes_max = Self::CERT_BYTES_MAX.div_ceil(3) * 4;
        is_word(&self.reason)
            && self.remote.len() <= 300
            && self.party.as_deref().is_none_or(|party| party.len() <= 256)
            && digest.is_none_or(|digest| is_hex(digest, 64))
            && cert.is_none_or(|cert| digest.is_some() && cert.len() <= cert_bytes_max)
    }
}

fn is_word(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (1..=32).contains(&text.len()) && text.bytes().all(is_letter)
}

fn is_hex(text: &str, length: usize) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == length && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn reports(change: impl FnOnce(&mut Reported, &mut Refusal)) -> Reports {
        let mut refusal = Refusal {
            direction: Direction::Inbound,
            stage: Stage::Handshake,
            reason: "revoked".to_owned(),
            possession_proved: true,
            remote: "10.0.0.9:51000".to_owned(),
            party: None,
            cert_sha256: Some("ab".repeat(32)),
            cert: Refusal::cert_text(b"der"),
        };
        let mut report = Reported {
            id: "0f".repeat(16),
            first_at: 1_700_000_000,
            last_at: 1_700_000_060,
            count: 3,
            matter: Matter::Notice(Notice {
                kind: String::new(),
                detail: String::new(),
            }),
        };
        change(&mut report, &mut refusal);
        if let Matter::Notice(Notice { kind, .. }) = &report.matter
            && kind.is_empty()
        {
            report.matter = Matter::Refusal(refusal);
        }
        Reports {
            dropped: 1,
            reports: vec![report],
        }
    }

    #[test]
    fn the_wire_does_not_drift() {
        let body = reports(|_, _| {}).encode();
        assert_eq!(Reports::decode(&body), Some(reports(|_, _| {})));
        expect![[r#"{"dropped":1,"reports":[{"id":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","first_at":1700000000,"last_at":1700000060,"count":3,"matter":{"refusal":{"direction":"inbound","stage":"handshake","reason":"revoked","possession_proved":true,"remote":"10.0.0.9:51000","cert_sha256":"abababababababababababababababababababababababababababababababab","cert":"ZGVy"}}}]}"#]]
            .assert_eq(std::str::from_utf8(&body).unwrap());
        let notice = reports(|report, _| {
            report.matter = Matter::Notice(Notice {
                kind: "renewal_overdue".to_owned(),
                detail: "since Monday".to_owned(),
            });
        });
        let body = notice.encode();
        assert_eq!(Reports::decode(&body), Some(notice));
        expect![[r#"{"dropped":1,"reports":[{"id":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","first_at":1700000000,"last_at":1700000060,"count":3,"matter":{"notice":{"kind":"renewal_overdue","detail":"since Monday"}}}]}"#]]
            .assert_eq(std::str::from_utf8(&body).unwrap());
    }

    #[test]
    fn the_longest_certificate_fits_into_a_body() {
        let longest = vec![0xff; Refusal::CERT_BYTES_MAX];
        let full = reports(|_, refusal| {
            refusal.cert = Refusal::cert_text(&longest);
            refusal.remote = "r".repeat(300);
            refusal.party = Some("p".repeat(256));
        });
        assert_eq!(full.reports.len(), 1);
        assert_eq!(Reports::decode(&full.encode()), Some(full));
        assert_eq!(Refusal::cert_text(&vec![0; longest.len() + 1]), None);
    }

    #[test]
    fn what_is_beyond_its_bounds_is_refused() {
        let check = |change: fn(&mut Reported, &mut Refusal)| {
            assert_eq!(Reports::decode(&reports(change).encode()), None);
        };
        check(|report, _| report.id = "0F".repeat(16));
        check(|report, _| report.id.push('0'));
        check(|report, _| report.count = 0);
        check(|report, _| report.first_at = 0);
        check(|report, _| report.last_at = report.first_at - 1);
        check(|_, refusal| refusal.reason = "Revoked".to_owned());
        check(|_, refusal| refusal.reason = "r".repeat(33));
        check(|_, refusal| refusal.remote = "r".repeat(301));
        check(|_, refusal| refusal.party = Some("p".repeat(257)));
        check(|_, refusal| refusal.cert_sha256 = None);
        check(|_, refusal| refusal.cert_sha256 = Some("ab".repeat(31)));
        check(|_, refusal| refusal.cert = Some("A".repeat(12_000)));
        check(|report, _| {
            report.matter = Matter::Notice(Notice {
                kind: "no words".to_owned(),
                detail: String::new(),
            });
        });
        check(|report, _| {
            report.matter = Matter::Notice(Notice {
                kind: "word".to_owned(),
                detail: "d".repeat(513),
            });
        });
        check(|report, _| {
            report.matter = Matter::Notice(Notice {
                kind: "refusal".to_owned(),
                detail: String::new(),
            });
        });
        let mut many = reports(|_, _| {});
        many.reports = vec![many.reports[0].clone(); Reports::COUNT_MAX + 1];
        assert_eq!(Reports::decode(&many.encode()), None);
        assert_eq!(Reports::decode(b"[]"), None);
    }
}
