//! The CBOR form of a manifest's items.

use super::{HealMode, HealRule, InstallMode, Item, Manifest, PathPattern, Script, Stage, Times};
use crate::cbor::{CborError, Fields, Writer};
use crate::locator::read_name;
use crate::name::RevisionNumber;

/// Writes one item.
pub(super) fn put_item(writer: &mut Writer, item: &Item) {
    writer.array(9).text(item.fileset.as_str());
    writer.u64(item.revision.0).digest(&item.statement);
    writer.text(&item.target).u64(item.mode.code());
    let times = item.times.all();
    writer.array(times.iter().flatten().count() * 2);
    for (which, at) in (0..).zip(times) {
        if let Some(at) = at {
            writer.u64(which).i64(at);
        }
    }
    writer.array(item.heal.len() * 2);
    for rule in &item.heal {
        writer.text(rule.pattern.as_str()).u64(rule.mode.code());
    }
    writer.array(item.depends.len());
    for name in &item.depends {
        writer.text(name.as_str());
    }
    writer.array(item.scripts.len() * 5);
    for script in &item.scripts {
        writer.u64(script.stage.code()).text(&script.name);
        writer.digest(&script.digest).u64(script.bytes);
        writer.u64(u64::from(script.seconds));
    }
}

/// Reads all items.
pub(super) fn items(fields: &mut Fields<'_>) -> Result<Vec<Item>, CborError> {
    let count = fields.array(Manifest::ITEMS_MAX)?;
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..count {
        let item = item(fields)?;
        if items
            .last()
            .is_some_and(|last| last.fileset >= item.fileset)
        {
            return Err(fields.bounds("filesets out of order"));
        }
        items.push(item);
    }
    Ok(items)
}

fn item(fields: &mut Fields<'_>) -> Result<Item, CborError> {
    if fields.array(9)? != 9 {
        return Err(fields.bounds("an item's length"));
    }
    Ok(Item {
        fileset: read_name(fields)?,
        revision: RevisionNumber(fields.u64()?),
        statement: fields.digest()?,
        target: target(fields)?,
        mode: code(fields, InstallMode::from_code, "an install mode")?,
        times: times(fields)?,
        heal: heal(fields)?,
        depends: depends(fields)?,
        scripts: scripts(fields)?,
    })
}

fn target(fields: &mut Fields<'_>) -> Result<String, CborError> {
    let text = fields.text(Item::TARGET_BYTES_MAX)?;
    if Item::is_target(text) {
        Ok(text.to_owned())
    } else {
        Err(fields.bounds("a target that is no absolute, normal path"))
    }
}

fn code<T>(
    fields: &mut Fields<'_>,
    from: impl Fn(u64) -> Option<T>,
    what: &'static str,
) -> Result<T, CborError> {
    let code = fields.u64()?;
    from(code).ok_or_else(|| fields.bounds(what))
}

/// The number of groups of `size` items in an array of at most `max` such groups.
fn groups(fields: &mut Fields<'_>, size: usize, max: usize) -> Result<usize, CborError> {
    let items = fields.array(size * max)?;
    if items % size == 0 {
        Ok(items / size)
    } else {
        Err(fields.bounds("a list's length"))
    }
}

fn times(fields: &mut Fields<'_>) -> Result<Times, CborError> {
    let count = groups(fields, 2, 4)?;
    let mut times = Times::default();
    let mut next = 0;
    for _ in 0..count {
        let which = fields.u64()?;
        if which < next {
            return Err(fields.bounds("times out of order"));
        }
        next = which + 1;
        let slot = match which {
            0 => &mut times.download_from,
            1 => &mut times.activate_from,
            2 => &mut times.deactivate_at,
            3 => &mut times.delete_at,
            _ => return Err(fields.bounds("a kind of time")),
        };
        *slot = Some(fields.i64()?);
    }
    if times.are_in_order() {
        Ok(times)
    } else {
        Err(fields.bounds("times that do not rise"))
    }
}

fn heal(fields: &mut Fields<'_>) -> Result<Vec<HealRule>, CborError> {
    let count = groups(fields, 2, Manifest::RULES_MAX)?;
    let rule = |_| -> Result<HealRule, CborError> {
        let text = fields.text(PathPattern::BYTES_MAX)?;
        let pattern = text.parse().map_err(|error| fields.malformed(error))?;
        let mode = code(fields, HealMode::from_code, "a heal mode")?;
        Ok(HealRule { pattern, mode })
    };
    (0..count).map(rule).collect()
}

fn depends(fields: &mut Fields<'_>) -> Result<Vec<crate::FilesetName>, CborError> {
    let count = fields.array(Manifest::DEPENDS_MAX)?;
    let mut names: Vec<crate::FilesetName> = Vec::new();
    for _ in 0..count {
        let name = read_name(fields)?;
        if names.last().is_some_and(|last| *last >= name) {
            return Err(fields.bounds("filesets out of order"));
        }
        names.push(name);
    }
    Ok(names)
}

fn scripts(fields: &mut Fields<'_>) -> Result<Vec<Script>, CborError> {
    let count = groups(fields, 5, Manifest::SCRIPTS_MAX)?;
    let mut scripts: Vec<Script> = Vec::new();
    for _ in 0..count {
        let script = Script {
            stage: code(fields, Stage::from_code, "a stage")?,
            name: fields.text(NAME_BYTES_MAX)?.to_owned(),
            digest: fields.digest()?,
            bytes: fields.u64()?,
            seconds: fields.u32()?,
        };
        let fits = !script.name.is_empty()
            && script.bytes <= Manifest::SCRIPT_BYTES_MAX
            && (1..=Manifest::SCRIPT_SECONDS_MAX).contains(&script.seconds);
        if !fits {
            return Err(fields.bounds("a script"));
        }
        if scripts.last().is_some_and(|last| last.stage > script.stage) {
            return Err(fields.bounds("stages out of order"));
        }
        scripts.push(script);
    }
    Ok(scripts)
}

/// The longest name of a script, in bytes.
const NAME_BYTES_MAX: usize = 64;
