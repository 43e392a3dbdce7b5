//! The manifest: which revisions one device should hold, where, and when.

mod item;
mod pattern;
mod read;

use super::Payload;
use crate::cbor::{self, CborError, Fields, Writer, need};

pub use item::{HealMode, HealRule, InstallMode, Item, Script, Stage, Times};
pub use pattern::{PathPattern, PatternError};

/// What one device should hold. A newer one has a higher number, even if it says the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// The deployment that it belongs to.
    pub deployment: String,
    /// The id of the device that it is for.
    pub device: String,
    /// Its number: for one device it only rises.
    pub number: u64,
    /// The model that it was made from. A group by a rule may change the manifest under one model.
    pub model: u64,
    /// When it was made, in Unix seconds.
    pub created: i64,
    /// The filesets, in order of their names, each once.
    pub items: Vec<Item>,
}

impl Manifest {
    /// The most filesets that one device can be told to hold.
    pub const ITEMS_MAX: usize = 1024;
    /// The most other filesets that one depends on.
    pub const DEPENDS_MAX: usize = 64;
    /// The most heal rules of one fileset.
    pub const RULES_MAX: usize = 64;
    /// The most scripts of one fileset.
    pub const SCRIPTS_MAX: usize = 32;
    /// The longest script, in bytes.
    pub const SCRIPT_BYTES_MAX: u64 = 1 << 20;
    /// The longest time that a script can be given, in seconds.
    pub const SCRIPT_SECONDS_MAX: u32 = 24 * 3600;

    /// What it says of the fileset called `name`.
    #[must_use]
    pub fn item(&self, name: &crate::FilesetName) -> Option<&Item> {
        let found = self.items.binary_search_by(|item| item.fileset.cmp(name));
        self.items.get(found.ok()?)
    }
}

impl Payload for Manifest {
    const TYPE: &'static str = "application/vnd.larder.manifest+cbor";
    const BYTES_MAX: usize = 4 << 20;

    fn deployment(&self) -> &str {
        &self.deployment
    }

    fn judged_at(&self) -> Option<i64> {
        Some(self.created)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::map(6);
        writer.u64(DEPLOYMENT).text(&self.deployment);
        writer.u64(DEVICE).text(&self.device);
        writer.u64(NUMBER).u64(self.number);
        writer.u64(MODEL).u64(self.model);
        writer.u64(CREATED).i64(self.created);
        writer.u64(ITEMS).array(self.items.len());
        for item in &self.items {
            read::put_item(&mut writer, item);
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut fields = Fields::new(bytes)?;
        let (mut deployment, mut device, mut number) = (None, None, None);
        let (mut model, mut created, mut items) = (None, None, None);
        while let Some(key) = fields.next_key()? {
            match key {
                DEPLOYMENT => deployment = Some(fields.text(64)?.to_owned()),
                DEVICE => device = Some(fields.text(DEVICE_BYTES_MAX)?.to_owned()),
                NUMBER => number = Some(fields.u64()?),
                MODEL => model = Some(fields.u64()?),
                CREATED => created = Some(fields.i64()?),
                ITEMS => items = Some(read::items(&mut fields)?),
                unknown => return Err(CborError::UnknownKey { key: unknown }),
            }
        }
        let manifest = Self {
            deployment: need(deployment, DEPLOYMENT)?,
            device: need(device, DEVICE)?,
            number: need(number, NUMBER)?,
            model: need(model, MODEL)?,
            created: need(created, CREATED)?,
            items: need(items, ITEMS)?,
        };
        cbor::same(bytes, &manifest.encode())?;
        Ok(manifest)
    }
}

/// The longest id of a device: a DNS label.
const DEVICE_BYTES_MAX: usize = 63;

const DEPLOYMENT: u64 = 0;
const DEVICE: u64 = 1;
const NUMBER: u64 = 2;
const MODEL: u64 = 3;
const CREATED: u64 = 4;
const ITEMS: u64 = 5;
