//! Lets certificates decide which statements count.

use std::sync::Arc;

use certs::Trust;
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
