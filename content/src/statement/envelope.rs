//! The envelope: DSSE 1.0.2 (secure-systems-lab/dsse), JSON form, one signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ENVELOPE_EXTRA_BYTES_MAX, Payload};

/// What a signer gives for a message.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The signature itself.
    pub signature: Vec<u8>,
    /// The signer's certificate and those above it up to the root, which is left out (DER).
    pub chain: Vec<Vec<u8>>,
    /// A name for the signer's key, for people and foreign tools; it decides nothing.
    pub key_id: String,
}

/// Signs `payload` and returns the envelope.
///
/// # Errors
///
/// Fails as `sign` fails.
pub fn seal<T: Payload, E>(
    payload: &T,
    sign: impl FnOnce(&[u8]) -> Result<Signature, E>,
) -> Result<Vec<u8>, E> {
    let bytes = payload.encode();
    let signature = sign(&message(T::TYPE, &bytes))?;
    let envelope = Envelope {
        payload: BASE64.encode(&bytes),
        payload_type: T::TYPE.to_owned(),
        signatures: vec![EnvelopeSignature {
            keyid: signature.key_id,
            sig: BASE64.encode(&signature.signature),
            chain: signature
                .chain
                .iter()
                .map(|der| BASE64.encode(der))
                .collect(),
        }],
    };
    Ok(serde_json::to_vec(&envelope).expect("strings and lists always encode"))
}

/// An envelope that has been read, and not judged.
pub(super) struct Opened {
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) chain: Vec<Vec<u8>>,
}

impl Opened {
    /// What the signature covers.
    pub(super) fn message(&self, payload_type: &str) -> Vec<u8> {
        message(payload_type, &self.payload)
    }
}

pub(super) fn open(
    bytes: &[u8],
    payload_type: &str,
    payload_bytes_max: usize,
) -> Result<Opened, EnvelopeError> {
    let bytes_max = payload_bytes_max / 3 * 4 + 4 + ENVELOPE_EXTRA_BYTES_MAX;
    if bytes.len() > bytes_max {
        return Err(EnvelopeError::TooLong { bytes_max });
    }
    let envelope: Envelope =
        serde_json::from_slice(bytes).map_err(|source| EnvelopeError::Json { source })?;
    if envelope.payload_type != payload_type {
        return Err(EnvelopeError::Type {
            got: envelope.payload_type,
        });
    }
    let [signature] = &envelope.signatures[..] else {
        return Err(EnvelopeError::Signatures {
            got: envelope.signatures.len(),
        });
    };
    if !(1..=CHAIN_MAX).contains(&signature.chain.len()) {
        return Err(EnvelopeError::Chain {
            got: signature.chain.len(),
        });
    }
    let decode = |text: &str| {
        BASE64
            .decode(text)
            .map_err(|source| EnvelopeError::Base64 { source })
    };
    let payload = decode(&envelope.payload)?;
    if payload.len() > payload_bytes_max {
        return Err(EnvelopeError::TooLong { bytes_max });
    }
    Ok(Opened {
        payload,
        signature: decode(&signature.sig)?,
        chain: signature
            .chain
            .iter()
            .map(|der| decode(der))
            .collect::<Result<_, _>>()?,
    })
}

/// DSSE's pre-authentication encoding.
pub(super) fn message(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let lengths = payload.len().to_string();
    let mut message =
        format!("DSSEv1 {} {payload_type} {lengths} ", payload_type.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

#[derive(Deserialize, Serialize)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize, Serialize)]
struct EnvelopeSignature {
    keyid: String,
    sig: String,
    chain: Vec<String>,
}

/// Why some bytes are no envelope.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// A field is not base64.
    #[error("a field is not base64")]
    Base64 {
        /// Why.
        source: base64::DecodeError,
    },
    /// Too few or too many certificates.
    #[error("it holds {got} certificates, want 1 to {CHAIN_MAX}")]
    Chain {
        /// How many.
        got: usize,
    },
    /// It is not the JSON of an envelope.
    #[error("it is not the JSON of an envelope")]
    Json {
        /// Why.
        source: serde_json::Error,
    },
    /// Not exactly one signature.
    #[error("it holds {got} signatures, want 1")]
    Signatures {
        /// How many.
        got: usize,
    },
    /// Longer than its type allows.
    #[error("it is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// It holds something else.
    #[error("it holds {got:?}")]
    Type {
        /// What.
        got: String,
    },
}

/// Signer and issuing CA, and room for one more level.
const CHAIN_MAX: usize = 3;

#[cfg(test)]
mod tests {
    /// The vector of the DSSE specification (protocol.md, "Test Vectors").
    #[test]
    fn the_signed_message_is_that_of_the_specification() {
        let message = super::message("http://example.com/HelloWorld", b"hello world");
        assert_eq!(
            message,
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
