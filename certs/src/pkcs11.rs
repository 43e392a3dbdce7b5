//! Keys in tokens: how one is named, and, with the feature `pkcs11`, how it signs.
//!
//! A key's name is a PKCS#11 URI (RFC 7512), such as
//! `pkcs11:token=larder;object=client-ca?pin-source=file:/etc/larder/pin&module-path=/usr/lib/softhsm/libsofthsm2.so`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

#[cfg(feature = "pkcs11")]
mod token;

#[cfg(feature = "pkcs11")]
pub use token::{TokenError, TokenKey};

/// Which key, in which token, under which PIN, by which driver.
///
/// Holds no secret: a PIN is named by the file that it lies in, and a URI with the PIN itself
/// is refused, since URIs end up in settings and logs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pkcs11Uri {
    text: String,
    token: TokenName,
    object: Option<String>,
    id: Option<Vec<u8>>,
    module: Option<PathBuf>,
    pin_file: Option<PathBuf>,
}

/// What is known of a token. All that is given must agree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TokenName {
    pub(crate) label: Option<String>,
    pub(crate) manufacturer: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) serial: Option<String>,
}

impl Pkcs11Uri {
    /// Whether `text` means to be such a URI, and not the name of a file.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// The driver to load, if the URI names one.
    pub fn module(&self) -> Option<&Path> {
        self.module.as_deref()
    }

    /// The file with the PIN, if the token wants one.
    pub fn pin_file(&self) -> Option<&Path> {
        self.pin_file.as_deref()
    }

    fn set(&mut self, name: &str, value: Vec<u8>, in_query: bool) -> Result<(), Pkcs11UriError> {
        let slot = match (name, in_query) {
            ("token", false) => &mut self.token.label,
            ("manufacturer", false) => &mut self.token.manufacturer,
            ("model", false) => &mut self.token.model,
            ("serial", false) => &mut self.token.serial,
            ("object", false) => &mut self.object,
            ("id", false) if value.is_empty() => return Err(Pkcs11UriError::Value { name: "id" }),
            ("id", false) => return put(&mut self.id, "id", value),
            ("type", false) if value == b"private" => return Ok(()),
            ("type", false) => return Err(Pkcs11UriError::NotPrivate),
            ("module-path", true) => {
                let path = absolute(&value, "module-path")?;
                return put(&mut self.module, "module-path", path);
            }
            ("pin-source", true) => {
                let value = value.strip_prefix(b"file:").unwrap_or(b"");
                // RFC 8089: `file:/path` and `file:///path` are the same.
                let value = value.strip_prefix(b"//").unwrap_or(value);
                let path = absolute(value, "pin-source")?;
                return put(&mut self.pin_file, "pin-source", path);
            }
            ("pin-value", _) => return Err(Pkcs11UriError::PinValue),
            _ => {
                let name = name.chars().take(NAME_CHARS_SHOWN).collect();
                return Err(Pkcs11UriError::Unknown { name });
            }
        };
        let known = ATTRIBUTES.iter().find(|known| **known == name);
        let name = known.copied().unwrap_or("attribute");
        let text = String::from_utf8(value).map_err(|_| Pkcs11UriError::Value { name })?;
        if text.is_empty() {
            return Err(Pkcs11UriError::Value { name });
        }
        put(slot, name, text)
    }
}

impl FromStr for Pkcs11Uri {
    type Err = Pkcs11UriError;

    /// Reads at most 1024 bytes, and understands all of them or refuses.
    fn from_str(text: &str) -> Result<Self, Pkcs11UriError> {
        if text.len() > URI_BYTES_MAX {
            return Err(Pkcs11UriError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(Pkcs11UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self {
            text: text.to_owned(),
            token: TokenName::default(),
            object: None,
            id: None,
            module: None,
            pin_file: None,
        };
        let attributes = path
            .split(';')
            .map(|it| (it, false))
            .chain(query.split('&').map(|it| (it, true)))
            .filter(|(it, _)| !it.is_empty());
        for (attribute, in_query) in attributes {
            let (name, value) = attribute.split_once('=').ok_or(Pkcs11UriError::Form)?;
            uri.set(name, unescape(value)?, in_query)?;
        }
        if uri.token == TokenName::default() {
            return Err(Pkcs11UriError::NoToken);
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err(Pkcs11UriError::NoObject);
        }
        Ok(uri)
    }
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text names no key in a token.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Pkcs11UriError {
    /// Not `name=value`, or escaped wrongly.
    #[error("cannot read a PKCS#11 URI: want name=value, with % and two hexadecimal digits")]
    Form,
    /// No key is named.
    #[error("cannot tell which key a PKCS#11 URI means: name it by object or id")]
    NoObject,
    /// It names something other than a private key.
    #[error("cannot sign with what a PKCS#11 URI names unless its type is private")]
    NotPrivate,
    /// No token is named.
    #[error("cannot tell which token a PKCS#11 URI means: name it by token or serial")]
    NoToken,
    /// A secret where everybody sees it.
    #[error("cannot take a PIN from a PKCS#11 URI: put it into a file, pin-source=file:/…")]
    PinValue,
    /// Not a PKCS#11 URI at all.
    #[error("cannot read a PKCS#11 URI that does not begin with pkcs11:")]
    Scheme,
    /// Longer than any that makes sense.
    #[error("cannot take a PKCS#11 URI of more than {URI_BYTES_MAX} bytes")]
    TooLong,
    /// An attribute is given twice.
    #[error("cannot read a PKCS#11 URI that says {name} twice")]
    Twice {
        /// Which.
        name: &'static str,
    },
    /// An attribute that we do not know: passing it over might find another key.
    #[error("cannot make sense of {name:?} in a PKCS#11 URI")]
    Unknown {
        /// Its name, or how it begins.
        name: String,
    },
    /// An attribute's value is not of its kind: empty, not UTF-8, or no absolute path.
    #[error("cannot use the {name} of a PKCS#11 URI")]
    Value {
        /// Which.
        name: &'static str,
    },
}

fn put<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), Pkcs11UriError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Pkcs11UriError::Twice { name }),
    }
}

fn absolute(value: &[u8], name: &'static str) -> Result<PathBuf, Pkcs11UriError> {
    let wrong = Pkcs11UriError::Value { name };
    let text = str::from_utf8(value).map_err(|_| wrong.clone())?;
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(wrong)
    }
}

/// Resolves `%` escapes (RFC 3986 §2.1). What stands for itself must be printable ASCII.
fn unescape(value: &str) -> Result<Vec<u8>, Pkcs11UriError> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || {
                    let digit = rest.next().map(char::from)?.to_digit(16)?;
                    u8::try_from(digit).ok()
                };
                let (high, low) = (digit(), digit());
                (high.ok_or(Pkcs11UriError::Form)? << 4) | low.ok_or(Pkcs11UriError::Form)?
            }
            b'!'..=b'~' => byte,
            _ => return Err(Pkcs11UriError::Form),
        });
    }
    Ok(out)
}

/// RFC 7512 §2.2.
const SCHEME: &str = "pkcs11:";
const URI_BYTES_MAX: usize = 1024;
/// Enough to find it, too little to fill a log.
const NAME_CHARS_SHOWN: usize = 32;
/// The text attributes.
const ATTRIBUTES: [&str; 5] = ["token", "manufacturer", "model", "serial", "object"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_uri() {
        let text = "pkcs11:token=my%20token;serial=0a1B;manufacturer=X;model=m;object=client-ca;\
                    id=%00%ff;type=private?pin-source=file:///etc/pin%21&module-path=/usr/lib/m.so";
        let uri: Pkcs11Uri = text.parse().unwrap();
        assert_eq!(uri.token.label.as_deref(), Some("my token"));
        assert_eq!(uri.token.serial.as_deref(), Some("0a1B"));
        assert_eq!(uri.object.as_deref(), Some("client-ca"));
        assert_eq!(uri.id.as_deref(), Some(&[0, 0xff][..]));
        assert_eq!(uri.pin_file(), Some(Path::new("/etc/pin!")));
        assert_eq!(uri.module(), Some(Path::new("/usr/lib/m.so")));
        assert_eq!(uri.to_string(), text);
        assert!(Pkcs11Uri::is_meant(text) && !Pkcs11Uri::is_meant("/keys/root.pem"));
        let short: Pkcs11Uri = "pkcs11:token=larder;object=ca?pin-source=file:/p"
            .parse()
            .unwrap();
        assert_eq!(short.pin_file(), Some(Path::new("/p")));
        assert_eq!(short.module(), None);
    }

    #[test]
    fn what_cannot_be_understood_whole_is_refused() {
        use Pkcs11UriError as Error;
        let check = |text: &str, want: Error| {
            assert_eq!(text.parse::<Pkcs11Uri>(), Err(want), "{text}");
        };
        check("", Error::Scheme);
        check("/keys/root.pem", Error::Scheme);
        check("pkcs11:", Error::NoToken);
        check("pkcs11:object=a", Error::NoToken);
        check("pkcs11:token=a", Error::NoObject);
        check("pkcs11:token=a;object", Error::Form);
        check("pkcs11:token=a%2;object=b", Error::Form);
        check("pkcs11:token=a%zz;object=b", Error::Form);
        check("pkcs11:token=a b;object=b", Error::Form);
        check(
            "pkcs11:token=a;token=b;object=b",
            Error::Twice { name: "token" },
        );
        check("pkcs11:token=a;id=b;id=b", Error::Twice { name: "id" });
        check("pkcs11:token=%ff;object=b", Error::Value { name: "token" });
        check("pkcs11:token=;object=b", Error::Value { name: "token" });
        check("pkcs11:token=a;id=", Error::Value { name: "id" });
        check("pkcs11:token=a;object=b;type=cert", Error::NotPrivate);
        check("pkcs11:token=a;object=b?pin-value=1234", Error::PinValue);
        check("pkcs11:token=a;object=b;pin-value=1234", Error::PinValue);
        let unknown = |name: &str| Error::Unknown { name: name.into() };
        check("pkcs11:token=a;object=b;slot-id=3", unknown("slot-id"));
        check("pkcs11:token=a;object=b?object=c", unknown("object"));
        check(
            "pkcs11:token=a;object=b;pin-source=file:/p",
            unknown("pin-source"),
        );
        let pin = |_| Error::Value { name: "pin-source" };
        check("pkcs11:token=a;object=b?pin-source=/p", pin(()));
        check("pkcs11:token=a;object=b?pin-source=file:p", pin(()));
        check("pkcs11:token=a;object=b?pin-source=|cat%20/p", pin(()));
        let module = Error::Value {
            name: "module-path",
        };
        check("pkcs11:token=a;object=b?module-path=m.so", module);
        check(
            &format!("pkcs11:token={}", "a".repeat(1024)),
            Error::TooLong,
        );
        let long = format!("pkcs11:{}=1", "é".repeat(300));
        check(&long, unknown(&"é".repeat(32)));
    }
}
