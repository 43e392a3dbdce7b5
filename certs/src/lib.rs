//! Who the parties are: names, keys, certificates, revocation lists, and the TLS settings
//! that hold them to it.
//!
//! This room opens no socket and reads no clock: times are Unix seconds that the caller
//! passes in. Randomness is an argument too, key generation and ECDSA nonces excepted. It
//! says *how* a certificate is issued and checked, never *whether* one should be.

pub mod ca_cert;
pub mod crl;
pub mod csr;
pub mod describe;
pub mod issue;
pub mod key;
pub mod keyfile;
pub mod name;
pub mod peer;
pub mod pem;
pub mod pkcs11;
pub mod pkcs7;
pub mod refusal;
pub mod serial;
pub mod signer;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
pub mod trust;

mod chain;
mod der;
mod digest;
mod vouched;

pub use ca_cert::{CaCert, CaKind};
pub use crl::{Crl, CrlStore, IssuerId, Verdict};
pub use der::DerError;
pub use issue::Ca;
pub use key::{Key, SigningKey};
pub use name::{DeploymentId, DeviceId, Identity, Role};
pub use peer::Peer;
pub use refusal::RefusalReason;
pub use serial::Serial;
pub use signer::{ContentSigner, SignerCert};
pub use trust::Trust;
