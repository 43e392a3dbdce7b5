//! A key that a token keeps and signs with.
//!
//! The token is asked for plain ECDSA over a digest that is made here: every token can do
//! that. Its signature is two numbers in a row, which become DER here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as DriverError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;
use thiserror::Error;

use super::{Pkcs11Uri, TokenName};
use crate::der;
use crate::digest::sha256;
use crate::key::{KeyError, Passphrase, SigningKey, random};
use crate::keyfile::{self, KeyFileError};

/// A private key on P-256 in a token. It cannot be had, only used.
///
/// One signature at a time; a token that was away for a while is found again.
pub struct TokenKey {
    driver: Pkcs11,
    pin: Option<Passphrase>,
    spki_der: Vec<u8>,
    state: Mutex<State>,
    uri: Pkcs11Uri,
}

#[derive(Default)]
struct State {
    open: Option<(Session, ObjectHandle)>,
    /// The token does not take our PIN. Asked again and again, it would lock itself.
    pin_refused: bool,
}

impl TokenKey {
    /// Finds the key, logs in with the PIN in the file that the URI names, and has the token
    /// sign something that its public half verifies. `driver` is loaded if the URI names no
    /// other: it is code of somebody else, and runs in this process.
    ///
    /// # Errors
    ///
    /// Fails if the driver cannot be loaded, if there is not exactly one such token with
    /// exactly one such private key on P-256 and its public key, or if the PIN file is too
    /// open or the PIN wrong.
    pub fn open(uri: &Pkcs11Uri, driver: Option<&Path>) -> Result<Self, TokenError> {
        let path = uri.module().or(driver).ok_or(TokenError::NoDriver)?;
        let pin = uri.pin_file().map(keyfile::load_passphrase).transpose();
        let mut key = Self {
            driver: load(path)?,
            pin: pin.map_err(|source| TokenError::Pin { source })?,
            spki_der: Vec::new(),
            state: Mutex::default(),
            uri: uri.clone(),
        };
        let open = key.find(&mut State::default())?;
        key.spki_der = public_half(&open.0, &key.wanted(ObjectClass::PUBLIC_KEY))?;
        key.state = Mutex::new(State {
            open: Some(open),
            pin_refused: false,
        });
        let challenge: [u8; 32] = random().map_err(|_| TokenError::Mismatch)?;
        let signature = key.sign_there(&challenge)?;
        key.verify(&challenge, &signature)?;
        Ok(key)
    }

    fn sign_there(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let digest = sha256(message);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let open = state.open.take();
        let signed = open.and_then(|open| Some((sign_with(&open, &digest).ok()?, open)));
        // Whatever it was, a token that was pulled out and put back needs a new session.
        let (signature, open) = match signed {
            Some(signed) => signed,
            None => {
                let open = self.find(&mut state)?;
                (sign_with(&open, &digest)?, open)
            }
        };
        state.open = Some(open);
        to_der(&signature).ok_or(TokenError::Signature)
    }

    fn find(&self, state: &mut State) -> Result<(Session, ObjectHandle), TokenError> {
        let slot = self.slot()?;
        let session = self.driver.open_ro_session(slot);
        let session = session.map_err(failed("open a session"))?;
        if let Some(pin) = &self.pin {
            if state.pin_refused {
                return Err(TokenError::PinRefused);
            }
            log_in(&session, pin).inspect_err(|error| {
                state.pin_refused = matches!(error, TokenError::PinRefused);
            })?;
        }
        let key = only(&session, &self.wanted(ObjectClass::PRIVATE_KEY), "private")?;
        Ok((session, key))
    }

    fn slot(&self) -> Result<Slot, TokenError> {
        let slots = self.driver.get_slots_with_token();
        let mut found = Vec::new();
        for slot in slots.map_err(failed("list its tokens"))? {
            let info = self.driver.get_token_info(slot);
            let info = info.map_err(failed("describe a token"))?;
            let is = |wanted: &Option<String>, is: &str| {
                wanted.as_deref().is_none_or(|wanted| wanted == is)
            };
            let TokenName {
                label,
                manufacturer,
                model,
                serial,
            } = &self.uri.token;
            if is(label, info.label())
                && is(manufacturer, info.manufacturer_id())
                && is(model, info.model())
                && is(serial, info.serial_number())
            {
                found.push(slot);
            }
        }
        match found[..] {
            [slot] => Ok(slot),
            _ => Err(TokenError::Token { found: found.len() }),
        }
    }

    fn wanted(&self, class: ObjectClass) -> Vec<Attribute> {
        let label = self.uri.object.as_ref();
        let mut wanted = vec![Attribute::Class(class), Attribute::KeyType(KeyType::EC)];
        wanted.extend(label.map(|label| Attribute::Label(label.clone().into_bytes())));
        wanted.extend(self.uri.id.clone().map(Attribute::Id));
        wanted
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), TokenError> {
        let point = &self.spki_der[SPKI_BEFORE_POINT.len()..];
        aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
            point,
        )
        .verify(message, signature)
        .map_err(|_| TokenError::Mismatch)
    }
}

impl SigningKey for TokenKey {
    fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sign_there(message)
            .map_err(|error| KeyError::Elsewhere {
                source: Box::new(error),
            })
    }
}

impl From<TokenKey> for Arc<dyn SigningKey> {
    fn from(key: TokenKey) -> Self {
        Arc::new(key)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.uri)
    }
}

/// Why a token's key cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not on P-256.
    #[error("cannot use a key in a token that is not on P-256")]
    Curve,
    /// The driver would not load or begin.
    #[error("cannot load the PKCS#11 driver {path}", path = path.display())]
    Driver {
        /// The driver.
        path: PathBuf,
        /// Why not.
        source: DriverError,
    },
    /// What it signed, its public key does not verify.
    #[error("cannot verify what the token signed with the public key that it shows")]
    Mismatch,
    /// Nobody said how to talk to the token.
    #[error("cannot reach a token without a driver: add module-path=/… to its URI")]
    NoDriver,
    /// The URI fits no object, or several.
    #[error("cannot find exactly one {class} key of this name in the token: found {found}")]
    Object {
        /// Private or public.
        class: &'static str,
        /// How many.
        found: usize,
    },
    /// The file with the PIN cannot be used.
    #[error("cannot use the token's PIN")]
    Pin {
        /// Why not.
        source: KeyFileError,
    },
    /// The PIN is wrong, or the token has locked itself.
    #[error("cannot log in to the token: its PIN is wrong or locked, and is not tried again")]
    PinRefused,
    /// The token did not do what was asked.
    #[error("cannot get the token to {what}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What the driver said.
        source: DriverError,
    },
    /// The signature is none on P-256.
    #[error("cannot read the token's signature")]
    Signature,
    /// The URI fits no token, or several.
    #[error("cannot find exactly one token of this name: found {found}")]
    Token {
        /// How many.
        found: usize,
    },
}

/// Loads a driver, once in a process: all keys by one driver share it.
fn load(path: &Path) -> Result<Pkcs11, TokenError> {
    static LOADED: Mutex<Vec<(PathBuf, Pkcs11)>> = Mutex::new(Vec::new());
    let failed = |source| TokenError::Driver {
        path: path.to_owned(),
        source,
    };
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, driver)) = loaded.iter().find(|(known, _)| known == path) {
        return Ok(driver.clone());
    }
    let driver = Pkcs11::new(path).map_err(failed)?;
    let threads = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    match driver.initialize(threads) {
        Ok(()) | Err(DriverError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(error)),
    }
    loaded.push((path.to_owned(), driver.clone()));
    Ok(driver)
}

fn log_in(session: &Session, pin: &Passphrase) -> Result<(), TokenError> {
    let pin = RawAuthPin::new(Box::new(pin.as_bytes().to_vec()));
    match session.login_with_raw(UserType::User, &pin) {
        // Another key's session has: it counts for all of the process.
        Ok(()) | Err(DriverError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(DriverError::Pkcs11(RvError::PinIncorrect | RvError::PinLocked, _)) => {
            Err(TokenError::PinRefused)
        }
        Err(error) => Err(failed("log in")(error)),
    }
}

fn only(
    session: &Session,
    wanted: &[Attribute],
    class: &'static str,
) -> Result<ObjectHandle, TokenError> {
    let found = session.find_objects(wanted);
    let found = found.map_err(failed("look for a key"))?;
    match found[..] {
        [object] => Ok(object),
        _ => Err(TokenError::Object {
            class,
            found: found.len(),
        }),
    }
}

/// The public key's SubjectPublicKeyInfo.
fn public_half(session: &Session, wanted: &[Attribute]) -> Result<Vec<u8>, TokenError> {
    let key = only(session, wanted, "public")?;
    let attributes =
        session.get_attributes(key, &[AttributeType::EcParams, AttributeType::EcPoint]);
    let (mut curve, mut point) = (None, None);
    for attribute in attributes.map_err(failed("show the public key"))? {
        #[expect(clippy::wildcard_enum_match_arm, reason = "we asked for two of dozens")]
        match attribute {
            Attribute::EcParams(der) => curve = Some(der),
            Attribute::EcPoint(der) => point = Some(der),
            _ => {}
        }
    }
    let (curve, point) = (curve.unwrap_or_default(), point.unwrap_or_default());
    if curve != der::write(der::OID, PRIME256V1) {
        return Err(TokenError::Curve);
    }
    // PKCS#11 §2.3.3 wraps the point in an OCTET STRING; not every driver does.
    let wrapped = der::Reader::new(&point).expect(der::OCTET_STRING);
    let point = wrapped.unwrap_or(&point);
    if point.len() != 65 || point[0] != 4 {
        return Err(TokenError::Curve);
    }
    Ok([SPKI_BEFORE_POINT, point].concat())
}

fn sign_with(
    (session, key): &(Session, ObjectHandle),
    digest: &[u8; 32],
) -> Result<Vec<u8>, TokenError> {
    session
        .sign(&Mechanism::Ecdsa, *key, digest)
        .map_err(failed("sign"))
}

fn failed(what: &'static str) -> impl Fn(DriverError) -> TokenError {
    move |source| TokenError::Refused { what, source }
}

/// Two numbers of 32 bytes as SEQUENCE { INTEGER, INTEGER } (RFC 3279 §2.2.3).
fn to_der(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = signature
        .split_at_checked(32)
        .filter(|(_, s)| s.len() == 32)?;
    let numbers = [der::write_unsigned(r), der::write_unsigned(s)].concat();
    Some(der::write(der::SEQUENCE, &numbers))
}

/// id-prime256v1, 1.2.840.10045.3.1.7.
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// A SubjectPublicKeyInfo on P-256 (RFC 5480 §2) up to the point: SEQUENCE { SEQUENCE {
/// id-ecPublicKey, id-prime256v1 }, BIT STRING …
const SPKI_BEFORE_POINT: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    #[test]
    fn a_signature_is_two_numbers_as_short_as_they_can_be() {
        let check = |r: &[u8], s: &[u8], want: &[u8]| {
            let pad = |number: &[u8]| [&vec![0; 32 - number.len()][..], number].concat();
            let der = to_der(&[pad(r), pad(s)].concat()).unwrap();
            assert_eq!(der, want);
        };
        check(&[1], &[0x7f], &[0x30, 6, 2, 1, 1, 2, 1, 0x7f]);
        check(&[0x80], &[1, 0], &[0x30, 8, 2, 2, 0, 0x80, 2, 2, 1, 0]);
        let widest = [
            &[0x30, 70, 2, 33, 0][..],
            &[0xff; 32],
            &[2, 33, 0],
            &[0xff; 32],
        ]
        .concat();
        check(&[0xff; 32], &[0xff; 32], &widest);
        assert!(to_der(&[1; 63]).is_none() && to_der(&[1; 65]).is_none() && to_der(&[]).is_none());
    }

    #[test]
    fn a_public_key_is_written_as_the_library_does() {
        let spki = Key::generate().unwrap().spki_der().to_vec();
        assert_eq!(&spki[..SPKI_BEFORE_POINT.len()], SPKI_BEFORE_POINT);
        assert_eq!(spki.len(), SPKI_BEFORE_POINT.len() + 65);
    }

    #[test]
    fn a_driver_that_is_none_is_named() {
        let uri: Pkcs11Uri = "pkcs11:token=a;object=b".parse().unwrap();
        let error = TokenKey::open(&uri, None).unwrap_err();
        assert!(matches!(error, TokenError::NoDriver));
        let error = TokenKey::open(&uri, Some(Path::new("/nowhere.so"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot load the PKCS#11 driver /nowhere.so"
        );
    }
}
