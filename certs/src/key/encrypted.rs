//! Private keys under a passphrase: PKCS#8 with scrypt (RFC 5958, RFC 7914 §7, PBES2 of
//! RFC 8018).
//!
//! For keys that are seldom needed and lie where a thief may find them, like the root's. The
//! format is one that other programs read too: `openssl pkey -in FILE`.

use std::fmt;

use pkcs8::der::asn1::OctetStringRef;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, SecretDocument};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use super::{Key, KeyError, random};

/// What a key is encrypted under. Wiped from memory when dropped; never printed.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes a passphrase, without the line's end that editors put after it.
    ///
    /// # Errors
    ///
    /// Fails if nothing is left, or if it is longer than 1024 bytes, which is no passphrase
    /// but the wrong file.
    pub fn new(text: impl Into<Zeroizing<Vec<u8>>>) -> Result<Self, PassphraseError> {
        let mut text = text.into();
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        if text.is_empty() || text.len() > PASSPHRASE_BYTES_MAX {
            return Err(PassphraseError);
        }
        Ok(Self(text))
    }

    #[cfg(feature = "pkcs11")]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// A text that is no passphrase.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot use a passphrase that is empty or over {PASSPHRASE_BYTES_MAX} bytes")]
pub struct PassphraseError;

impl Key {
    /// Reads a PKCS#8 key in PEM that is encrypted under `passphrase`. Takes some
    /// tenths of a second on purpose.
    ///
    /// # Errors
    ///
    /// Fails if it is anything but one P-256 key, if it is encrypted in another way than
    /// with scrypt, if decrypting it would take more than 128 MiB or eight times the work
    /// that we spend, or if the passphrase is wrong.
    pub fn from_encrypted_pem(text: &str, passphrase: &Passphrase) -> Result<Self, KeyError> {
        let (label, document) = SecretDocument::from_pem(text).map_err(|_| KeyError::Encryption)?;
        if label != LABEL {
            return Err(KeyError::NotEncrypted);
        }
        let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
            .map_err(|_| KeyError::Encryption)?;
        let parameters = info.encryption_algorithm.pbes2();
        let parameters = parameters.ok_or(KeyError::Encryption)?;
        check_cost(&parameters.kdf)?;
        let mut buffer = Zeroizing::new(info.encrypted_data.as_bytes().to_vec());
        let plain = parameters
            .decrypt_in_place(&passphrase.0, &mut buffer)
            .map_err(|_| KeyError::Passphrase)?;
        // A wrong passphrase leaves noise, which one time in 256 looks well padded.
        if pkcs8::PrivateKeyInfoRef::try_from(plain).is_err() {
            return Err(KeyError::Passphrase);
        }
        Self::from_pkcs8(&PrivatePkcs8KeyDer::from(plain))
    }

    /// The key as PKCS#8 in PEM, encrypted under `passphrase`.
    ///
    /// # Errors
    ///
    /// Fails only if there is no randomness to be had.
    pub fn to_encrypted_pem(&self, passphrase: &Passphrase) -> Result<String, KeyError> {
        let cost = pbes2::Parameters {
            kdf: scrypt(&random::<SALT_BYTES>()?).into(),
            encryption: pbes2::EncryptionScheme::Aes256Cbc { iv: random()? },
        };
        let plain = Zeroizing::new(self.pair.serialize_der());
        let data = cost
            .encrypt(&passphrase.0, &plain)
            .expect("our parameters are in range");
        let info = EncryptedPrivateKeyInfoRef {
            encryption_algorithm: cost.into(),
            encrypted_data: OctetStringRef::new(&data).expect("a key is short"),
        };
        let document = SecretDocument::try_from(info).expect("a key is short");
        let pem = document.to_pem(LABEL, LineEnding::LF);
        Ok(pem.expect("a key is short").to_string())
    }
}

fn scrypt(salt: &[u8; SALT_BYTES]) -> pbes2::ScryptParams {
    pbes2::ScryptParams {
        salt: pbes2::Salt::new(salt).expect("a short salt fits"),
        cost_parameter: COST,
        block_size: BLOCK_SIZE,
        parallelization: PARALLELIZATION,
        key_length: None,
    }
}

/// Refuses to spend what a file asks for, if that is too much. Whoever could put such a file
/// in our way could do worse, but a slip of the pen should not stop the origin either.
fn check_cost(kdf: &pbes2::Kdf) -> Result<(), KeyError> {
    let scrypt = kdf.scrypt().ok_or(KeyError::Encryption)?;
    let (n, r, p) = (
        scrypt.cost_parameter,
        u64::from(scrypt.block_size),
        u64::from(scrypt.parallelization),
    );
    // RFC 7914 §2: N is a power of two and more than one.
    if !n.is_power_of_two() || n < 2 || r == 0 || p == 0 {
        return Err(KeyError::Encryption);
    }
    let memory = n.saturating_mul(r).saturating_mul(128);
    let work = memory.saturating_mul(p);
    if memory > MEMORY_MAX || work > WORK_MAX {
        return Err(KeyError::Cost);
    }
    Ok(())
}

/// RFC 7468 §11.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";
const PASSPHRASE_BYTES_MAX: usize = 1024;
const SALT_BYTES: usize = 16;
/// N = 2^14, r = 8, p = 5: of the settings that OWASP's Password Storage Cheat Sheet holds to
/// be of equal strength (N = 2^17 with p = 1 is another), the one that takes 16 MiB. OpenSSL
/// refuses more than 32, and an operator whose origin is broken must be able to read the root
/// key without it.
const COST: u64 = 1 << 14;
const BLOCK_SIZE: u16 = 8;
const PARALLELIZATION: u16 = 5;
/// N = 2^17 with r = 8, as others may have chosen.
const MEMORY_MAX: u64 = 128 << 20;
/// 128·N·r·p, which is 80 MiB with our settings: some seconds at eight times as much.
const WORK_MAX: u64 = 640 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_key_survives_its_encrypted_pem() {
        let key = Key::generate().unwrap();
        let right = passphrase("correct horse");
        let pem = key.to_encrypted_pem(&right).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        let again = Key::from_encrypted_pem(&pem, &right).unwrap();
        assert_eq!(key.spki_der(), again.spki_der());
        let wrong = Key::from_encrypted_pem(&pem, &passphrase("correct house"));
        assert!(matches!(wrong, Err(KeyError::Passphrase)), "{wrong:?}");
        assert_ne!(
            pem,
            key.to_encrypted_pem(&right).unwrap(),
            "salt and IV are fresh"
        );
        assert!(matches!(Key::from_pem(&pem), Err(KeyError::Encrypted)));
    }

    #[test]
    fn what_is_not_encrypted_as_we_want_is_refused() {
        let key = Key::generate().unwrap();
        let any = passphrase("x");
        let read = |text: &str| Key::from_encrypted_pem(text, &any).map(drop).unwrap_err();
        assert!(matches!(read(&key.to_pem()), KeyError::NotEncrypted));
        assert!(matches!(read("nonsense"), KeyError::Encryption));
        // Made by: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256
        // | openssl pkcs8 -topk8 -v2 aes-256-cbc -passout pass:x
        let pbkdf2 = include_str!("../../tests/data/key/pbkdf2.pem");
        assert!(matches!(read(pbkdf2), KeyError::Encryption));
    }

    #[test]
    fn a_key_that_openssl_encrypted_is_read() {
        // The same with -scrypt instead of -v2 aes-256-cbc, and pass:larder.
        let pem = include_str!("../../tests/data/key/scrypt.pem");
        assert!(Key::from_encrypted_pem(pem, &passphrase("larder\n")).is_ok());
    }

    #[test]
    fn a_file_cannot_make_us_spend_more_than_we_mean_to() {
        let check = |cost: u64, block_size: u16, parallelization: u16, want: Option<KeyError>| {
            let mut kdf = scrypt(&[0; SALT_BYTES]);
            kdf.cost_parameter = cost;
            kdf.block_size = block_size;
            kdf.parallelization = parallelization;
            let got = check_cost(&kdf.into()).map_err(|error| error.to_string());
            let want = want.map_or(Ok(()), |error| Err(error.to_string()));
            assert_eq!(got, want, "{cost} {block_size} {parallelization}");
        };
        check(1 << 14, 8, 5, None);
        check(1 << 17, 8, 1, None);
        check(1 << 18, 8, 1, Some(KeyError::Cost));
        check(1 << 17, 8, 6, Some(KeyError::Cost));
        check(u64::MAX / 2 + 1, u16::MAX, u16::MAX, Some(KeyError::Cost));
        check(0, 8, 1, Some(KeyError::Encryption));
        check(1, 8, 1, Some(KeyError::Encryption));
        check(3, 8, 1, Some(KeyError::Encryption));
        check(1 << 14, 0, 1, Some(KeyError::Encryption));
        check(1 << 14, 8, 0, Some(KeyError::Encryption));
    }

    #[test]
    fn a_passphrase_is_a_line_and_not_a_file() {
        let check = |text: &[u8], want: Option<&[u8]>| {
            let got = Passphrase::new(text.to_vec()).ok();
            assert_eq!(got.as_ref().map(|it| it.0.as_slice()), want, "{text:?}");
        };
        check(b"a b", Some(b"a b"));
        check(b"a b\n", Some(b"a b"));
        check(b"a b\r\n", Some(b"a b"));
        check(b" a \n\n", Some(b" a \n"));
        check(b"", None);
        check(b"\n", None);
        check(&[b'a'; 1025], None);
        assert_eq!(format!("{:?}", passphrase("secret")), "Passphrase");
    }
}
