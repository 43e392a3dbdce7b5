//! The timestamp: the only statement that is judged at the present time.

use super::Payload;
use crate::cbor::{self, CborError, Fields, Writer, need};
use crate::digest::Digest;

/// What holds now. All other statements count only if they hang from a fresh one of these.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timestamp {
    /// The deployment that it belongs to.
    pub deployment: String,
    /// Raised when the origin was restored from a backup.
    pub epoch: u64,
    /// Rises with every timestamp.
    pub version: u64,
    /// When it was made, in Unix seconds.
    pub issued: i64,
    /// When it ends, in Unix seconds.
    pub expires: i64,
    /// The digest of the snapshot's envelope.
    pub snapshot: Digest,
    /// The digest of the deployment document's envelope.
    pub deployment_document: Digest,
    /// The least CRL number to accept from each issuer, in order of issuers.
    pub crl_minimums: Vec<IssuerMinimum>,
}

/// The least CRL number to accept from one issuer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct IssuerMinimum {
    /// The issuer: SHA-256 of its public key info.
    pub issuer: [u8; 32],
    /// The number.
    pub number: u64,
}

impl Payload for Timestamp {
    const TYPE: &'static str = "application/vnd.larder.timestamp+cbor";
    const BYTES_MAX: usize = 16 << 10;

    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judged_at(&self) -> Option<i64> {
        None
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(8);
        writer.u64(DEPLOYMENT).text(&self.deployment);
        writer.u64(EPOCH).u64(self.epoch);
        writer.u64(VERSION).u64(self.version);
        writer.u64(ISSUED).i64(self.issued);
        writer.u64(EXPIRES).i64(self.expires);
        writer.u64(SNAPSHOT).digest(&self.snapshot);
        writer.u64(DOCUMENT).digest(&self.deployment_document);
        writer.u64(CRL_MINIMUMS).array(self.crl_minimums.len() * 2);
        for minimum in &self.crl_minimums {
            writer.bytes(&minimum.issuer).u64(minimum.number);
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut deployment, mut epoch, mut version, mut issued) = (None, None, None, None);
        let (mut expires, mut snapshot, mut document, mut minimums) = (None, None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                DEPLOYMENT => deployment = Some(fields.text(64)?.to_owned()),
                EPOCH => epoch = Some(fields.u64()?),
                VERSION => version = Some(fields.u64()?),
                ISSUED => issued = Some(fields.i64()?),
                EXPIRES => expires = Some(fields.i64()?),
                SNAPSHOT => snapshot = Some(fields.digest()?),
                DOCUMENT => document = Some(fields.digest()?),
                CRL_MINIMUMS => minimums = Some(read_minimums(&mut fields)?),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let timestamp = Self {
            deployment: need(deployment, DEPLOYMENT)?,
            epoch: need(epoch, EPOCH)?,
            version: need(version, VERSION)?,
            issued: need(issued, ISSUED)?,
            expires: need(expires, EXPIRES)?,
            snapshot: need(snapshot, SNAPSHOT)?,
            deployment_document: need(document, DOCUMENT)?,
            crl_minimums: need(minimums, CRL_MINIMUMS)?,
        };
        cbor::same(bytes, &timestamp.encode())?;
        Ok(timestamp)
    }
}

fn read_minimums(fields: &mut Fields<'_>) -> Result<Vec<IssuerMinimum>, CborError> {
    let items = fields.array(ISSUERS_MAX * 2)?;
    let mut minimums: Vec<IssuerMinimum> = Vec::with_capacity(items / 2);
    for _ in 0..items / 2 {
        let issuer = fields.bytes(32)?;
        let issuer = issuer
            .try_into()
            .map_err(|_| fields.bounds("an issuer's length"))?;
        let number = fields.u64()?;
        if minimums.last().is_some_and(|last| last.issuer >= issuer) {
            return Err(fields.bounds("issuers out of order"));
        }
        minimums.push(IssuerMinimum { issuer, number });
    }
    if items % 2 == 0 {
        Ok(minimums)
    } else {
        Err(fields.bounds("an odd count"))
    }
}

/// Root and three issuing CAs, for two generations at once, and room to spare.
const ISSUERS_MAX: usize = 64;

const DEPLOYMENT: u64 = 0;
const EPOCH: u64 = 1;
const VERSION: u64 = 2;
const ISSUED: u64 = 3;
const EXPIRES: u64 = 4;
const SNAPSHOT: u64 = 5;
const DOCUMENT: u64 = 6;
const CRL_MINIMUMS: u64 = 7;
