//! Join strings: all that a new party needs to be told to find and trust its deployment.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use thiserror::Error;

/// Where to enrol, whom to trust there, and a one-time token.
///
/// Text form: `larder1.PIN[.TOKEN]@HOST:PORT[,HOST:PORT…]`, where PIN is the SHA-256 of the root's
/// public key info and TOKEN 16 bytes, both in base64url without padding.
#[derive(Clone, Eq, PartialEq)]
pub struct Join {
    /// SHA-256 of the root certificate's public key info (DER).
    pub pin: [u8; 32],
    /// The token, if the join string carries one; without it an operator must approve.
    pub token: Option<Token>,
    /// Addresses of enrolment listeners, to be tried in order: 1 to 8.
    pub addresses: Vec<String>,
}

/// A one-time secret of 128 bits. It is shown by [`Token::reveal`] alone.
#[derive(Clone, Eq, PartialEq)]
pub struct Token([u8; Self::BYTES]);

impl Token {
    /// Bytes of a token.
    pub const BYTES: usize = 16;

    /// A token of these random bytes.
    #[must_use]
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be hashed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The text form, which whoever has it may use.
    #[must_use]
    pub fn reveal(&self) -> String {
        BASE64.encode(self.0)
    }

    /// Reads the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        BASE64.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.token.is_some() {
            " with a token"
        } else {
            ""
        };
        write!(
            f,
            "Join(pin {}{secret}, {:?})",
            BASE64.encode(self.pin),
            self.addresses
        )
    }
}

impl Join {
    /// The text form, which holds the token in the clear.
    #[must_use]
    pub fn reveal(&self) -> String {
        let pin = BASE64.encode(self.pin);
        let token = self
            .token
            .as_ref()
            .map(|token| format!(".{}", token.reveal()));
        format!(
            "larder1.{pin}{}@{}",
            token.unwrap_or_default(),
            self.addresses.join(",")
        )
    }
}

impl FromStr for Join {
    type Err = ParseJoinError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let failed = |what| ParseJoinError { what };
        let rest = text
            .trim()
            .strip_prefix("larder1.")
            .ok_or_else(|| failed("it does not begin with larder1."))?;
        let (secret, addresses) = rest
            .split_once('@')
            .ok_or_else(|| failed("it has no @ before the address"))?;
        let (pin, token) = match secret.split_once('.') {
            None => (secret, None),
            Some((pin, token)) => (
                pin,
                Some(
                    Token::parse(token)
                        .ok_or_else(|| failed("its token is not 16 bytes of base64url"))?,
                ),
            ),
        };
        let pin = BASE64.decode(pin).ok().and_then(|pin| pin.try_into().ok());
        let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        if addresses.len() > ADDRESSES_MAX || !addresses.iter().all(|address| is_address(address)) {
            return Err(failed(
                "its addresses are not 1 to 8 of HOST:PORT, with commas between",
            ));
        }
        Ok(Self {
            pin: pin.ok_or_else(|| failed("its pin is not 32 bytes of base64url"))?,
            token,
            addresses,
        })
    }
}

/// Whether `text` looks like `HOST:PORT`.
pub(crate) fn is_address(text: &str) -> bool {
    text.len() <= 260
        && text.rsplit_once(':').is_some_and(|(host, port)| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
            // What parses as a number may bear a sign, which no connector would take.
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            !host.is_empty() && host.bytes().all(plain) && digits && port.parse::<u16>().is_ok()
        })
}

/// A text that is no join string. The text itself is not shown: it may hold a token.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("not a join string: {what}; copy all of it, from larder1. to the port")]
pub struct ParseJoinError {
    what: &'static str,
}

/// As many as a device would try before its user gives up.
const ADDRESSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let got = match text.parse::<Join>() {
            Ok(join) => {
                assert_eq!(join.reveal(), text.trim());
                format!("{join:?}")
            }
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&got);
    }

    #[test]
    fn a_join_string_comes_back_and_shows_no_secret() {
        let pin = BASE64.encode([7; 32]);
        let token = Token::new([9; 16]).reveal();
        check(
            &format!("larder1.{pin}.{token}@larder.example:8444"),
            expect![[
                r#"Join(pin BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc with a token, ["larder.example:8444"])"#
            ]],
        );
        check(
            &format!(" larder1.{pin}@10.0.0.1:1,[::1]:2\n"),
            expect![[
                r#"Join(pin BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc, ["10.0.0.1:1", "[::1]:2"])"#
            ]],
        );
        check(
            "",
            expect![
                "not a join string: it does not begin with larder1.; copy all of it, from larder1. to the port"
            ],
        );
        check(
            "larder1.x",
            expect![
                "not a join string: it has no @ before the address; copy all of it, from larder1. to the port"
            ],
        );
        check(
            &format!("larder1.{pin}.{}@h:1", &token[1..]),
            expect![
                "not a join string: its token is not 16 bytes of base64url; copy all of it, from larder1. to the port"
            ],
        );
        check(
            &format!("larder1.{}@h:1", &pin[1..]),
            expect![
                "not a join string: its pin is not 32 bytes of base64url; copy all of it, from larder1. to the port"
            ],
        );
        check(
            &format!("larder1.{pin}@h"),
            expect![
                "not a join string: its addresses are not 1 to 8 of HOST:PORT, with commas between; copy all of it, from larder1. to the port"
            ],
        );
        check(
            &format!("larder1.{pin}@h:99999"),
            expect![
                "not a join string: its addresses are not 1 to 8 of HOST:PORT, with commas between; copy all of it, from larder1. to the port"
            ],
        );
        check(
            &format!("larder1.{pin}@h:+80"),
            expect![
                "not a join string: its addresses are not 1 to 8 of HOST:PORT, with commas between; copy all of it, from larder1. to the port"
            ],
        );
        check(
            &format!("larder1.{pin}@h/x:1"),
            expect![
                "not a join string: its addresses are not 1 to 8 of HOST:PORT, with commas between; copy all of it, from larder1. to the port"
            ],
        );
        check(
            &format!("larder1.{pin}@{}", ["h:1"; 9].join(",")),
            expect![
                "not a join string: its addresses are not 1 to 8 of HOST:PORT, with commas between; copy all of it, from larder1. to the port"
            ],
        );
    }
}
