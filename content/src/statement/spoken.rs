//! What a device says through somebody else, under its own key.

use super::Payload;
use crate::cbor::{self, CborError, Fields, Writer, need};

/// What a device says. It is the one payload whose signer is not the origin's: who takes it judges
/// it by the Client CA, and takes the name from the certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spoken {
    /// The deployment that it belongs to.
    pub deployment: String,
    /// The id of the device.
    pub device: String,
    /// Which run of its program: 128 random bits.
    pub run: [u8; 16],
    /// Rises with each message of a run.
    pub counter: u64,
    /// When it was said, in Unix seconds by the device's clock.
    pub at: i64,
    /// What: the body of a check-in.
    pub body: Vec<u8>,
}

impl Spoken {
    /// The most bytes of a body: those of a check-in.
    pub const BODY_BYTES_MAX: usize = 64 << 10;
}

impl Payload for Spoken {
    const TYPE: &'static str = "application/vnd.larder.spoken+cbor";
    const BYTES_MAX: usize = Self::BODY_BYTES_MAX + 256;

    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judged_at(&self) -> Option<i64> {
        None
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(6);
        writer.u64(DEPLOYMENT).text(&self.deployment);
        writer.u64(DEVICE).text(&self.device);
        writer.u64(RUN).bytes(&self.run);
        writer.u64(COUNTER).u64(self.counter);
        writer.u64(AT).i64(self.at);
        writer.u64(BODY).bytes(&self.body);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut deployment, mut device, mut run) = (None, None, None);
        let (mut counter, mut at, mut body) = (None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                DEPLOYMENT => deployment = Some(fields.text(64)?.to_owned()),
                DEVICE => device = Some(fields.text(63)?.to_owned()),
                RUN => {
                    let read = fields.bytes(16)?.try_into();
                    run = Some(read.map_err(|_| fields.bounds("want 16 bytes"))?);
                }
                COUNTER => counter = Some(fields.u64()?),
                AT => at = Some(fields.i64()?),
                BODY => body = Some(fields.bytes(Self::BODY_BYTES_MAX)?.to_vec()),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let spoken = Self {
            deployment: need(deployment, DEPLOYMENT)?,
            device: need(device, DEVICE)?,
            run: need(run, RUN)?,
            counter: need(counter, COUNTER)?,
            at: need(at, AT)?,
            body: need(body, BODY)?,
        };
        cbor::same(bytes, &spoken.encode())?;
        Ok(spoken)
    }
}

const DEPLOYMENT: u64 = 0;
const DEVICE: u64 = 1;
const RUN: u64 = 2;
const COUNTER: u64 = 3;
const AT: u64 = 4;
const BODY: u64 = 5;
