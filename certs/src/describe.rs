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
/// terminal obeys control characters, and a reader is misled by text that runs backwards or that
/// cannot be seen.
pub fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for (count, letter) in text.chars().enumerate() {
        if count == TEXT_CHARS_MAX {
            shown.push('…');
            break;
        }
        match letter {
            '"' | '\'' => shown.push(letter),
            _ if is_invisible(letter) => shown.extend(letter.escape_unicode()),
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

/// Whether a letter leaves no ink of its own, though some of these are letters and symbols to
/// Unicode: two names that look the same could differ in them. Spaces but the common one are
/// escaped with what cannot be printed.
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        // Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        // Blank by design: Braille without a dot, Egyptian blanks, a note without a head.
        | '\u{2800}' | '\u{13441}'..='\u{13442}' | '\u{1d159}'
    )
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
    fn letters_that_cannot_be_seen_are_shown_by_number() {
        // Fillers, which Unicode calls letters; what has no ink; what joins, hides or selects.
        let unseen = [
            0x3164, 0x115f, 0x1160, 0xffa0, 0x2800, 0x1d159, 0x13441, 0x13442, 0xad, 0x34f, 0x61c,
            0x17b4, 0x180e, 0x200b, 0x200d, 0x202e, 0x2060, 0x2065, 0x206f, 0xfe0f, 0xfeff, 0xfff3,
            0x1bca0, 0x1d173, 0xe0001, 0xe0020, 0xe0fff, 0xa0, 0x2003, 0x3000, 0x2028,
        ];
        for number in unseen {
            let letter = char::from_u32(number).unwrap();
            let shown = harmless(&format!("a{letter}b"));
            assert_eq!(shown, format!("a\\u{{{number:x}}}b"));
        }
    }

    #[test]
    fn a_certificate_tells_what_it_claims_and_garbage_tells_nothing() {
        assert_eq!(describe(b"garbage"), None);
        assert_eq!(describe(&[0x30; CERT_BYTES_MAX + 1]), None);
    }
}
