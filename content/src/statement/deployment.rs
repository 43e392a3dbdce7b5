//! The deployment document: who is who, and where.

use super::Payload;
use crate::cbor::{self, CborError, Fields, Writer, need};

/// Who makes up a deployment. Addresses are hints; identity is in certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deployment {
    /// Its id.
    pub deployment: String,
    /// Rises with every change.
    pub version: u64,
    /// When it was made, in Unix seconds.
    pub created: i64,
    /// The root certificates to trust (DER); a new one is signed for by an old one, which signs this.
    pub roots: Vec<Vec<u8>>,
    /// The origin.
    pub origin: OriginEntry,
    /// The boosters, in order of their ids.
    pub boosters: Vec<BoosterEntry>,
    /// The oldest protocol version that is spoken.
    pub protocol_min: u32,
    /// The newest.
    pub protocol_max: u32,
}

/// The origin, as the deployment document lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OriginEntry {
    /// Its id.
    pub id: String,
    /// Where it serves content: `host:port`.
    pub addresses: Vec<String>,
    /// Where it enrols.
    pub enrol_addresses: Vec<String>,
}

/// A booster, as the deployment document lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BoosterEntry {
    /// Its id.
    pub id: String,
    /// Where it serves content: `host:port`.
    pub addresses: Vec<String>,
    /// Where it relays enrolment.
    pub enrol_addresses: Vec<String>,
    /// The site that it stands in; empty if none was named.
    pub site: String,
}

impl Payload for Deployment {
    const TYPE: &'static str = "application/vnd.larder.deployment+cbor";
    const BYTES_MAX: usize = 8 << 20;

    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judged_at(&self) -> Option<i64> {
        Some(self.created)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(7);
        writer.u64(DEPLOYMENT).text(&self.deployment);
        writer.u64(VERSION).u64(self.version);
        writer.u64(CREATED).i64(self.created);
        writer.u64(ROOTS).array(self.roots.len());
        for root in &self.roots {
            writer.bytes(root);
        }
        writer.u64(ORIGIN).array(3).text(&self.origin.id);
        put_addresses(&mut writer, &self.origin.addresses);
        put_addresses(&mut writer, &self.origin.enrol_addresses);
        writer.u64(BOOSTERS).array(self.boosters.len());
        for booster in &self.boosters {
            writer.array(4).text(&booster.id);
            put_addresses(&mut writer, &booster.addresses);
            put_addresses(&mut writer, &booster.enrol_addresses);
            writer.text(&booster.site);
        }
        writer.u64(PROTOCOL).array(2);
        writer
            .u64(u64::from(self.protocol_min))
            .u64(u64::from(self.protocol_max));
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut deployment, mut version, mut created, mut roots) = (None, None, None, None);
        let (mut origin, mut boosters, mut protocol) = (None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                DEPLOYMENT => deployment = Some(fields.text(64)?.to_owned()),
                VERSION => version = Some(fields.u64()?),
                CREATED => created = Some(fields.i64()?),
                ROOTS => roots = Some(read_roots(&mut fields)?),
                ORIGIN => origin = Some(read_origin(&mut fields)?),
                BOOSTERS => boosters = Some(read_boosters(&mut fields)?),
                PROTOCOL => {
                    exactly(&mut fields, 2)?;
                    protocol = Some((fields.u32()?, fields.u32()?));
                }
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let (protocol_min, protocol_max) = need(protocol, PROTOCOL)?;
        let document = Self {
            deployment: need(deployment, DEPLOYMENT)?,
            version: need(version, VERSION)?,
            created: need(created, CREATED)?,
            roots: need(roots, ROOTS)?,
            origin: need(origin, ORIGIN)?,
            boosters: need(boosters, BOOSTERS)?,
            protocol_min,
            protocol_max,
        };
        cbor::same(bytes, &document.encode())?;
        Ok(document)
    }
}

fn put_addresses(writer: &mut Writer, addresses: &[String]) {
    writer.array(addresses.len());
    for address in addresses {
        writer.text(address);
    }
}

fn exactly(fields: &mut Fields<'_>, items: usize) -> Result<(), CborError> {
    if fields.array(items)? == items {
        Ok(())
    } else {
        Err(fields.bounds("a list's length"))
    }
}

fn read_addresses(fields: &mut Fields<'_>) -> Result<Vec<String>, CborError> {
    let count = fields.array(ADDRESSES_MAX)?;
    (0..count)
        .map(|_| fields.text(ADDRESS_BYTES_MAX).map(str::to_owned))
        .collect()
}

fn read_roots(fields: &mut Fields<'_>) -> Result<Vec<Vec<u8>>, CborError> {
    let count = fields.array(ROOTS_MAX)?;
    (0..count)
        .map(|_| fields.bytes(ROOT_BYTES_MAX).map(<[u8]>::to_vec))
        .collect()
}

fn read_origin(fields: &mut Fields<'_>) -> Result<OriginEntry, CborError> {
    exactly(fields, 3)?;
    Ok(OriginEntry {
        id: fields.text(ID_BYTES_MAX)?.to_owned(),
        addresses: read_addresses(fields)?,
        enrol_addresses: read_addresses(fields)?,
    })
}

fn read_boosters(fields: &mut Fields<'_>) -> Result<Vec<BoosterEntry>, CborError> {
    let count = fields.array(BOOSTERS_MAX)?;
    let mut boosters: Vec<BoosterEntry> = Vec::new();
    for _ in 0..count {
        exactly(fields, 4)?;
        let booster = BoosterEntry {
            id: fields.text(ID_BYTES_MAX)?.to_owned(),
            addresses: read_addresses(fields)?,
            enrol_addresses: read_addresses(fields)?,
            site: fields.text(ID_BYTES_MAX)?.to_owned(),
        };
        if boosters.last().is_some_and(|last| last.id >= booster.id) {
            return Err(fields.bounds("boosters out of order"));
        }
        boosters.push(booster);
    }
    Ok(boosters)
}

/// The most boosters of a deployment.
const BOOSTERS_MAX: usize = 10_000;
/// The most addresses of one party, for one purpose.
const ADDRESSES_MAX: usize = 8;
/// The longest address: a DNS name (253), a colon and a port.
const ADDRESS_BYTES_MAX: usize = 260;
/// The longest id: a DNS label.
const ID_BYTES_MAX: usize = 63;
/// Two generations at once, and room to spare.
const ROOTS_MAX: usize = 4;
/// A root of ours has some 500 bytes.
const ROOT_BYTES_MAX: usize = 4 << 10;

const DEPLOYMENT: u64 = 0;
const VERSION: u64 = 1;
const CREATED: u64 = 2;
const ROOTS: u64 = 3;
const ORIGIN: u64 = 4;
const BOOSTERS: u64 = 5;
const PROTOCOL: u64 = 6;
