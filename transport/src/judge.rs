//! Lets certificates decide which statements count.

use std::sync::{Arc, Mutex, PoisonError};

use certs::{Peer, Trust};
use content::statement::{Judge, JudgeError};

/// Takes a statement for the origin's word if a content signer of our deployment signed it.
#[derive(Clone, Debug)]
pub struct ContentJudge {
    trust: Arc<Trust>,
}

impl ContentJudge {
    /// Judges by `trust`.
    #[must_use]
    pub fn new(trust: Arc<Trust>) -> Self {
        Self { trust }
    }
}

impl Judge for ContentJudge {
    fn deployment(&self) -> &str {
        self.trust.deployment().as_str()
    }

    fn judge(
        &self,
        message: &[u8],
        signature: &[u8],
        chain: &[Vec<u8>],
        at: i64,
    ) -> Result<(), JudgeError> {
        certs::signer::verify_content(&self.trust, chain, message, signature, at)
            .map(drop)
            .map_err(|error| JudgeError {
                source: Box::new(error),
            })
    }
}

/// Takes a device's own certificate for what it says, at the present time, and remembers whose it
/// was.
#[derive(Debug)]
pub struct DeviceJudge {
    trust: Arc<Trust>,
    signer: Mutex<Option<Peer>>,
}

impl DeviceJudge {
    /// Goes by what `trust` knows of clients, and of those who were revoked.
    #[must_use]
    pub fn new(trust: Arc<Trust>) -> Self {
        Self {
            trust,
            signer: Mutex::default(),
        }
    }

    /// Whose signature was judged to count last.
    #[must_use]
    pub fn signer(&self) -> Option<Peer> {
        let signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        signer.clone()
    }
}

impl Judge for DeviceJudge {
    fn deployment(&self) -> &str {
        self.trust.deployment().as_str()
    }

    fn judge(
        &self,
        message: &[u8],
        signature: &[u8],
        chain: &[Vec<u8>],
        at: i64,
    ) -> Result<(), JudgeError> {
        let peer = certs::signer::verify_client(&self.trust, chain, message, signature, at);
        let peer = peer.map_err(|source| JudgeError {
            source: Box::new(source),
        })?;
        let mut signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        *signer = Some(peer);
        Ok(())
    }
}
