//! Certificates that were never issued, for revocation lists of any length.

use certs::Serial;
use certs::crl::{RevocationReason, RevokedCert};

/// So many with random serials, the same in every run, and a reason each: the longest form of an
/// entry. They were revoked within the life of a certificate before `now`, in Unix seconds.
#[must_use]
pub fn revoked(count: u32, now: i64) -> Vec<RevokedCert> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    let mut entry = || {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random());
        bytes[8..].copy_from_slice(&random());
        RevokedCert {
            serial: Serial::from_random(bytes),
            revoked_at: now - i64::from(bytes[8]) * 4_721,
            reason: RevocationReason::KeyCompromise,
        }
    };
    (0..count).map(|_| entry()).collect()
}
