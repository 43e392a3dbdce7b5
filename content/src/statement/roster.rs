//! The head of a roster: what holds now for the devices of one booster.

use super::Payload;
use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::digest::Digest;

/// What holds now for the devices that come to one booster. It is judged at the present time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RosterHead {
    /// The deployment that it belongs to.
    pub deployment: String,
    /// The id of the booster.
    pub booster: String,
    /// The number of the model that is in force; 0 if none was ever committed.
    pub model: u64,
    /// How many entries there are.
    pub count: u64,
    /// The root of the tree over them; see [`crate::Roster`].
    pub root: Digest,
    /// The digest of the list of all entries.
    pub list: Digest,
    /// How often a device is to come, in seconds; about a tenth to either side.
    pub every: u64,
    /// When it was made, in Unix seconds.
    pub issued: i64,
    /// When it ends, in Unix seconds.
    pub expires: i64,
}

impl Payload for RosterHead {
    const TYPE: &'static str = "application/vnd.larder.roster+cbor";
    const BYTES_MAX: usize = 4 << 10;

    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judged_at(&self) -> Option<i64> {
        None
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(9);
        writer.u64(DEPLOYMENT).text(&self.deployment);
        writer.u64(BOOSTER).text(&self.booster);
        writer.u64(MODEL).u64(self.model);
        writer.u64(COUNT).u64(self.count);
        writer.u64(ROOT).digest(&self.root);
        writer.u64(LIST).digest(&self.list);
        writer.u64(EVERY).u64(self.every);
        writer.u64(ISSUED).i64(self.issued);
        writer.u64(EXPIRES).i64(self.expires);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut deployment, mut booster, mut model) = (None, None, None);
        let (mut count, mut root, mut list) = (None, None, None);
        let (mut every, mut issued, mut expires) = (None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                DEPLOYMENT => deployment = Some(fields.text(64)?.to_owned()),
                BOOSTER => booster = Some(fields.text(63)?.to_owned()),
                MODEL => model = Some(fields.u64()?),
                COUNT => count = Some(fields.u64()?),
                ROOT => root = Some(fields.digest()?),
                LIST => list = Some(fields.digest()?),
                EVERY => every = Some(fields.u64()?),
                ISSUED => issued = Some(fields.i64()?),
                EXPIRES => expires = Some(fields.i64()?),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let head = Self {
            deployment: need(deployment, DEPLOYMENT)?,
            booster: need(booster, BOOSTER)?,
            model: need(model, MODEL)?,
            count: need(count, COUNT)?,
            root: need(root, ROOT)?,
            list: need(list, LIST)?,
            every: need(every, EVERY)?,
            issued: need(issued, ISSUED)?,
            expires: need(expires, EXPIRES)?,
        };
        cbor::same(bytes, &head.encode())?;
        Ok(head)
    }
}

const DEPLOYMENT: u64 = 0;
const BOOSTER: u64 = 1;
const MODEL: u64 = 2;
const COUNT: u64 = 3;
const ROOT: u64 = 4;
const LIST: u64 = 5;
const EVERY: u64 = 6;
const ISSUED: u64 = 7;
const EXPIRES: u64 = 8;
