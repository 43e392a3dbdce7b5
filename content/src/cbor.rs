//! Deterministic CBOR (RFC 8949 §4.2.1), as far as our formats need it.
//!
//! Every document is a map with ascending integer keys. A reader decodes it and then encodes what
//! it understood: if the bytes differ, the document was not in the one form that we accept.

use minicbor::{Decoder, Encoder};
use thiserror::Error;

use crate::digest::Digest;

/// Why some bytes are not the CBOR document that was expected.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CborError {
    /// The bytes end inside a value.
    #[error("it ends too early")]
    End,
    /// A value has another type than expected, or is malformed.
    #[error("value of key {key} is malformed: {what}")]
    Malformed {
        /// The key whose value it is.
        key: u64,
        /// What the decoder says.
        what: String,
    },
    /// A key that must be understood, and is not.
    #[error("key {key} is not known here")]
    UnknownKey {
        /// The key.
        key: u64,
    },
    /// A key that must be there, and is not.
    #[error("key {key} is missing")]
    MissingKey {
        /// The key.
        key: u64,
    },
    /// A value beyond what its field allows.
    #[error("value of key {key} is out of bounds: {what}")]
    Bounds {
        /// The key whose value it is.
        key: u64,
        /// Which bound.
        what: &'static str,
    },
    /// Not the one deterministic form: keys out of order, a long integer form, trailing bytes.
    #[error("it is not in deterministic form")]
    NotDeterministic,
}

/// Reads one map with ascending integer keys.
pub(crate) struct Fields<'b> {
    decoder: Decoder<'b>,
    left: u64,
    key: u64,
    first: bool,
}

impl<'b> Fields<'b> {
    /// The map at the start of `bytes`.
    pub(crate) fn new(bytes: &'b [u8]) -> Result<Self, CborError> {
        let mut decoder = Decoder::new(bytes);
        let left = decoder.map().map_err(|error| fault(0, &error))?;
        let left = left.ok_or(CborError::NotDeterministic)?;
        Ok(Self {
            decoder,
            left,
            key: 0,
            first: true,
        })
    }

    /// The next key, if there is one.
    pub(crate) fn next_key(&mut self) -> Result<Option<u64>, CborError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let key = self
            .decoder
            .u64()
            .map_err(|error| fault(self.key, &error))?;
        if !self.first && key <= self.key {
            return Err(CborError::NotDeterministic);
        }
        self.first = false;
        self.key = key;
        Ok(Some(key))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CborError> {
        self.decoder.u64().map_err(|error| fault(self.key, &error))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CborError> {
        self.decoder.u32().map_err(|error| fault(self.key, &error))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, CborError> {
        self.decoder.i64().map_err(|error| fault(self.key, &error))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, CborError> {
        self.decoder.bool().map_err(|error| fault(self.key, &error))
    }

    pub(crate) fn bytes(&mut self, bytes_max: usize) -> Result<&'b [u8], CborError> {
        let bytes = self
            .decoder
            .bytes()
            .map_err(|error| fault(self.key, &error))?;
        self.within(bytes.len(), bytes_max).map(|()| bytes)
    }

    pub(crate) fn text(&mut self, bytes_max: usize) -> Result<&'b str, CborError> {
        let text = self
            .decoder
            .str()
            .map_err(|error| fault(self.key, &error))?;
        self.within(text.len(), bytes_max).map(|()| text)
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, CborError> {
        let binary = self.bytes(Digest::BINARY_BYTES)?;
        Digest::from_binary(binary).map_err(|error| self.malformed(error))
    }

    /// The length of an array of at most `items_max` items, each of which is at least one byte.
    pub(crate) fn array(&mut self, items_max: usize) -> Result<usize, CborError> {
        let items = self
            .decoder
            .array()
            .map_err(|error| fault(self.key, &error))?;
        let items = items.ok_or(CborError::NotDeterministic)?;
        let items = usize::try_from(items).unwrap_or(usize::MAX);
        self.within(items, items_max)?;
        // Nothing may be set aside for more than the bytes at hand can hold.
        let at_hand = self.decoder.input().len() - self.decoder.position();
        if items > at_hand {
            Err(CborError::End)
        } else {
            Ok(items)
        }
    }

    pub(crate) fn malformed(&self, what: impl ToString) -> CborError {
        CborError::Malformed {
            key: self.key,
            what: what.to_string(),
        }
    }

    pub(crate) fn bounds(&self, what: &'static str) -> CborError {
        CborError::Bounds {
            key: self.key,
            what,
        }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.decoder.position()
    }

    fn within(&self, got: usize, max: usize) -> Result<(), CborError> {
        if got <= max {
            Ok(())
        } else {
            Err(self.bounds("too long"))
        }
    }
}

/// Builds a document in the one deterministic form.
pub(crate) struct Writer(Encoder<Vec<u8>>);

impl Writer {
    /// A map of `pairs` keys, which the caller writes in ascending order.
    pub(crate) fn map(pairs: u64) -> Self {
        let mut writer = Self(Encoder::new(Vec::new()));
        writer.put(|encoder| encoder.map(pairs).map(drop));
        writer
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.put(|encoder| encoder.u64(value).map(drop))
    }

    pub(crate) fn i64(&mut self, value: i64) -> &mut Self {
        self.put(|encoder| encoder.i64(value).map(drop))
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.put(|encoder| encoder.bool(value).map(drop))
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.put(|encoder| encoder.bytes(value).map(drop))
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.put(|encoder| encoder.str(value).map(drop))
    }

    pub(crate) fn digest(&mut self, value: &Digest) -> &mut Self {
        self.bytes(&value.to_binary())
    }

    pub(crate) fn array(&mut self, items: usize) -> &mut Self {
        self.put(|encoder| encoder.array(items as u64).map(drop))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }

    fn put(
        &mut self,
        write: impl FnOnce(
            &mut Encoder<Vec<u8>>,
        ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>>,
    ) -> &mut Self {
        write(&mut self.0).expect("writing to memory does not fail");
        self
    }
}

/// Whether `encoded` is what `bytes` held: the proof that `bytes` are in deterministic form.
pub(crate) fn same(bytes: &[u8], encoded: &[u8]) -> Result<(), CborError> {
    if bytes == encoded {
        Ok(())
    } else {
        Err(CborError::NotDeterministic)
    }
}

/// The value of a field that must have been there.
pub(crate) fn need<T>(value: Option<T>, key: u64) -> Result<T, CborError> {
    value.ok_or(CborError::MissingKey { key })
}

fn fault(key: u64, error: &minicbor::decode::Error) -> CborError {
    if error.is_end_of_input() {
        CborError::End
    } else {
        CborError::Malformed {
            key,
            what: error.to_string(),
        }
    }
}
