//! Reading private keys and passphrases from files that nobody else may read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::{Key, KeyError, Passphrase, PassphraseError};

/// Refuses a key file that is readable by others, or whose folder others may enter.
///
/// # Errors
///
/// Fails if the file's mode is wider than 0600, its folder's is wider than 0700, or either
/// cannot be looked at. The message says what to do.
pub fn check_private(path: &Path) -> Result<(), KeyFileError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    check_mode(folder, FOLDER_MODE_MAX)?;
    check_mode(path, FILE_MODE_MAX)
}

/// Reads the key in `path`, once it has passed [`check_private`].
///
/// # Errors
///
/// Fails if the file is too open, too long, unreadable, or no P-256 key.
pub fn load(path: &Path) -> Result<Key, KeyFileError> {
    Key::from_pem(read(path)?.as_str()).map_err(|source| KeyFileError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Reads the encrypted key in `path`, once it has passed [`check_private`].
///
/// # Errors
///
/// Fails if the file is too open, too long, unreadable, no encrypted P-256 key, or encrypted
/// under another passphrase.
pub fn load_encrypted(path: &Path, passphrase: &Passphrase) -> Result<Key, KeyFileError> {
    Key::from_encrypted_pem(read(path)?.as_str(), passphrase).map_err(|source| KeyFileError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Reads the passphrase in `path`, once it has passed [`check_private`]: the file's whole
/// contents, but for one line's end. For credentials that a service manager hands over.
///
/// # Errors
///
/// Fails if the file is too open, too long, unreadable, or empty.
pub fn load_passphrase(path: &Path) -> Result<Passphrase, KeyFileError> {
    let mut text = read(path)?;
    let text = Zeroizing::new(std::mem::take(&mut *text).into_bytes());
    Passphrase::new(text).map_err(|source| KeyFileError::Passphrase {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    check_private(path)?;
    let unreadable = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = Zeroizing::new(String::new());
    // Room for all of it at once: growing would leave copies behind that nobody wipes.
    text.reserve_exact(FILE_BYTES_MAX as usize + 1);
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(KeyFileError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// Why a key file was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// What it holds is no key.
    #[error("cannot use the key in {path}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// What it holds is no passphrase.
    #[error("cannot use the passphrase in {path}", path = path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PassphraseError,
    },
    /// It could not be read, or not looked at.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file or its folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Longer than any key.
    #[error("cannot use {path} as a key: it is over {FILE_BYTES_MAX} bytes", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error(
        "cannot use {path}: its mode is {found:04o}, which lets others in; \
         run: chmod {wanted:04o} {path}",
        path = path.display()
    )]
    TooOpen {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        found: u32,
        /// The widest mode that is allowed.
        wanted: u32,
    },
}

fn check_mode(path: &Path, wanted: u32) -> Result<(), KeyFileError> {
    let metadata = path.metadata().map_err(|source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let found = metadata.permissions().mode() & 0o7777;
    if found & !wanted == 0 {
        Ok(())
    } else {
        Err(KeyFileError::TooOpen {
            path: path.to_owned(),
            found,
            wanted,
        })
    }
}

/// A P-256 key in PKCS#8 PEM is under 300 bytes; comments are welcome.
const FILE_BYTES_MAX: u64 = 16 << 10;
const FILE_MODE_MAX: u32 = 0o600;
const FOLDER_MODE_MAX: u32 = 0o700;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("larder-keyfile-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_that_others_could_read_is_refused() {
        let folder = folder("open");
        let file = folder.join("key.pem");
        fs::write(&file, Key::generate().unwrap().to_pem().as_bytes()).unwrap();
        let check = |folder_mode: u32, file_mode: u32, want: Option<&str>| {
            set_mode(&folder, folder_mode);
            set_mode(&file, file_mode);
            match (load(&file), want) {
                (Ok(_), None) => {}
                (Err(error), Some(part)) => {
                    assert!(error.to_string().contains(part), "{error}");
                }
                (got, want) => panic!("{folder_mode:o}/{file_mode:o}: {got:?}, not {want:?}"),
            }
        };
        check(0o700, 0o600, None);
        check(0o700, 0o400, None);
        check(
            0o700,
            0o640,
            Some("its mode is 0640, which lets others in; run: chmod 0600 "),
        );
        check(0o750, 0o600, Some("run: chmod 0700 "));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_encrypted_key_and_its_passphrase_are_read_from_files() {
        let folder = folder("encrypted");
        set_mode(&folder, 0o700);
        let (key_path, passphrase_path) = (folder.join("root.pem"), folder.join("passphrase"));
        let put = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            set_mode(path, 0o600);
        };
        put(&passphrase_path, "correct horse\n");
        let passphrase = load_passphrase(&passphrase_path).unwrap();
        let key = Key::generate().unwrap();
        put(&key_path, &key.to_encrypted_pem(&passphrase).unwrap());
        let again = load_encrypted(&key_path, &passphrase).unwrap();
        assert_eq!(again.spki_sha256(), key.spki_sha256());
        let failed = |result: Result<Key, KeyFileError>| {
            let error = result.unwrap_err();
            std::error::Error::source(&error).unwrap().to_string()
        };
        let wrong = Passphrase::new(b"wrong".to_vec()).unwrap();
        let message = failed(load_encrypted(&key_path, &wrong));
        assert!(message.contains("the passphrase is wrong"), "{message}");
        let message = failed(load(&key_path));
        assert!(message.contains("without its passphrase"), "{message}");
        put(&key_path, &key.to_pem());
        let message = failed(load_encrypted(&key_path, &passphrase));
        assert!(
            message.contains("should be encrypted and is not"),
            "{message}"
        );
        put(&passphrase_path, "\n");
        assert!(matches!(
            load_passphrase(&passphrase_path),
            Err(KeyFileError::Passphrase { .. })
        ));
        set_mode(&passphrase_path, 0o640);
        assert!(matches!(
            load_passphrase(&passphrase_path),
            Err(KeyFileError::TooOpen { .. })
        ));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let folder = folder("none");
        set_mode(&folder, 0o700);
        let file = folder.join("key.pem");
        fs::write(&file, vec![b'x'; 17 << 10]).unwrap();
        set_mode(&file, 0o600);
        assert!(matches!(load(&file), Err(KeyFileError::TooLong { .. })));
        fs::write(&file, "nothing").unwrap();
        assert!(matches!(load(&file), Err(KeyFileError::Key { .. })));
        assert!(matches!(
            load(&folder.join("none")),
            Err(KeyFileError::Read { .. })
        ));
        fs::remove_dir_all(&folder).unwrap();
    }
}
