//! What a stranger's certificate says of itself, for people: nothing of it is verified.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca_cert::CERT_BYTES_MAX;

/// Names and times in a certificate that nobody vouches for. Every text is bounded, and has its
/// control characters and all else that could mislead a reader escaped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Description {
    /// Its serial in lower-case hex.
    pub serial: String,
    /// Who is said to have issued it.
    pub issuer: String,
    /// Whom it is said to be for.
    pub subject: String,
    /// When it is said to begin, in Unix seconds.
    pub not_before: i64,
    /// When it is said to end.
    pub not_after: i64,
}

/// Reads what the certificate `der`, of at most 8 KiB, says of itself; none if it is none.
pub fn describe(der: &[u8]) -> Option<Description> {
    if der.len() > CERT_BYTES_MAX {
        return None;
    }
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let serial: String = cert
        .raw_serial()
        .iter()
        .take(SERIAL_BYTES_MAX)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(Description {
        serial,
        issuer: harmless(&cert.issuer().to_string()),
        subject: harmless(&cert.subject().to_string()),
        not_before: cert.validity().not_before.timestamp(),
        not_after: cert.validity().not_after.timestamp(),
    })
}

/// The start of `text`, from a stranger, with everything escaped that is not printed as itself: a
/// terminal obeys control characters, and a reader is misled by text that runs backwards.
pub fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for (count, letter) in text.chars().enumerate() {
        if count == TEXT_CHARS_MAX {
            shown.push('…');
            break;
        }
        match letter {
            '"' | '\'' => shown.push(letter),
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

/// RFC 5280 allows 20.
const SERIAL_BYTES_MAX: usize = 20;
/// As much as fits on a line or two.
const TEXT_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_strangers_do_no_harm() {
        let check = |text: &str, expected: &str| assert_eq!(harmless(text), expected);
        check("CN=O'Neil \"x\", O=Ärzte", "CN=O'Neil \"x\", O=Ärzte");
        check("a\u{1b}[2Jb\r\n", "a\\u{1b}[2Jb\\r\\n");
        check("\u{9b}31m", "\\u{9b}31m");
        check("evil\u{202e}txt.exe", "evil\\u{202e}txt.exe");
        check(&"x".repeat(500), &format!("{}…", "x".repeat(200)));
    }

    #[test]
    fn a_certificate_tells_what_it_claims_and_garbage_tells_nothing() {
        assert_eq!(describe(b"garbage"), None);
        assert_eq!(describe(&[0x30; CERT_BYTES_MAX + 1]), None);
    }
}
