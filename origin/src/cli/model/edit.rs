//! `model set` and `model unset`: what goes into a draft.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::Period;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use certs::DeviceId;
use clap::{Args, Subcommand};
use content::statement::{InstallMode, Manifest, Script, Stage};
use content::{FilesetName, RevisionNumber};
use http::{Method, Request};
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::Value as Json;
use service::Output;

use crate::admin::{AdminClient, BODY_BYTES_MAX};
use crate::model::key::{GroupName, Key, Whom};
use crate::model::view::{DraftView, Edit, ScriptKept};
use crate::model::{Association, FilesetSpec, GroupSpec, Rule, Value};
use crate::publish::serve::FilesetRow;

#[derive(Args, Debug)]
pub(in super::super) struct SetArgs {
    /// The draft
    draft: String,

    #[command(subcommand)]
    what: SetWhat,
}

#[derive(Debug, Subcommand)]
enum SetWhat {
    /// Say which revision of a fileset counts and how it is installed; what is not named stays as
    /// it is
    Fileset(FilesetArgs),
    /// Say that there is a group, and by which rule devices are in
    Group {
        /// Its name
        group: GroupName,

        /// Which devices are in besides those that are named, such as `os = debian and os.version >=
        /// 12`; without it, none are
        #[arg(long)]
        rule: Option<Rule>,
    },
    /// Say that devices belong to a group
    Member(MemberArgs),
    /// Say that a device, or the devices of a group, hold a fileset, and when
    Associate(AssociateArgs),
}

#[derive(Args, Debug)]
pub(in super::super) struct UnsetArgs {
    /// The draft
    draft: String,

    #[command(subcommand)]
    what: UnsetWhat,
}

#[derive(Debug, Subcommand)]
enum UnsetWhat {
    /// Take a fileset out of the model
    Fileset {
        /// Its name
        fileset: FilesetName,
    },
    /// Take a group out of the model
    Group {
        /// Its name
        group: GroupName,
    },
    /// Take devices out of a group
    Member(MemberArgs),
    /// Let a device, or the devices of a group, no longer hold a fileset
    Associate(WhomArgs),
}

#[derive(Args, Debug)]
struct FilesetArgs {
    /// The fileset
    fileset: FilesetName,

    /// Its number, or `latest`, which stands for the number that is the latest now
    #[arg(long)]
    revision: Option<String>,

    /// The folder on the device
    #[arg(long)]
    target: Option<String>,

    /// Whether the folder is wholly its own (tree), or shared (merge)
    #[arg(long, value_parser = InstallMode::ALL.iter().map(|mode| mode.word()).collect::<Vec<_>>())]
    mode: Option<String>,

    /// How paths are healed; the first rule that fits counts
    #[arg(long, value_name = "PATTERN=MODE")]
    heal: Vec<String>,

    /// What must be active before
    #[arg(long, value_name = "FILESET")]
    depends: Vec<FilesetName>,

    /// What to run, and when
    #[arg(long, value_name = "STAGE=FILE")]
    script: Vec<String>,

    /// How long each of these scripts may run
    #[arg(long, default_value = "10m")]
    script_time: Period,

    /// What to empty
    #[arg(long, value_parser = ["heal", "depends", "scripts"])]
    clear: Vec<String>,
}

#[derive(Args, Debug)]
struct MemberArgs {
    /// The group
    group: GroupName,

    /// The devices
    #[arg(required_unless_present = "from")]
    devices: Vec<DeviceId>,

    /// A file that names devices, one on a line: what follows # does not count
    #[arg(long)]
    from: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct WhomArgs {
    /// The fileset
    fileset: FilesetName,

    /// The device
    #[arg(long, required_unless_present = "group", conflicts_with = "group")]
    device: Option<DeviceId>,

    /// The group; every device is in `all`
    #[arg(long)]
    group: Option<GroupName>,
}

/// All of it is said anew: what is not named has no bound.
#[derive(Args, Debug)]
struct AssociateArgs {
    #[command(flatten)]
    whom: WhomArgs,

    /// Another revision than the fileset's: its number, or `latest`
    #[arg(long)]
    revision: Option<String>,

    /// Not before then (such as 2026-12-01T08:00Z) is it downloaded
    #[arg(long, value_name = "TIME", value_parser = time)]
    download_from: Option<i64>,

    /// Not before then is it active
    #[arg(long, value_name = "TIME", value_parser = time)]
    activate_from: Option<i64>,

    /// Then it is taken away; what was downloaded stays
    #[arg(long, value_name = "TIME", value_parser = time)]
    deactivate_at: Option<i64>,

    /// Then it is removed
    #[arg(long, value_name = "TIME", value_parser = time)]
    delete_at: Option<i64>,
}

pub(super) async fn set(args: SetArgs, admin: &AdminClient, output: Output) -> anyhow::Result<()> {
    let draft = args.draft;
    let entries = match args.what {
        SetWhat::Fileset(args) => vec![fileset(args, &draft, admin).await?],
        SetWhat::Group { group, rule } => {
            vec![(Key::Group(group), Some(Value::Group(GroupSpec { rule })))]
        }
        SetWhat::Member(args) => args.entries(&Value::Member)?,
        SetWhat::Associate(args) => vec![associate(args, admin).await?],
    };
    hand_in(&draft, entries, admin, output).await
}

pub(super) async fn unset(
    args: UnsetArgs,
    admin: &AdminClient,
    output: Output,
) -> anyhow::Result<()> {
    let entries = match args.what {
        UnsetWhat::Fileset { fileset } => vec![(Key::Fileset(fileset), None)],
        UnsetWhat::Group { group } => vec![(Key::Group(group), None)],
        UnsetWhat::Member(args) => {
            let entries = args.entries(&Value::Member)?.into_iter();
            entries.map(|(key, _)| (key, None)).collect()
        }
        UnsetWhat::Associate(whom) => vec![(whom.key()?, None)],
    };
    hand_in(&args.draft, entries, admin, output).await
}

async fn hand_in(
    draft: &str,
    entries: Vec<(Key, Option<Value>)>,
    admin: &AdminClient,
    output: Output,
) -> anyhow::Result<()> {
    let edit = |(key, value): (Key, Option<Value>)| -> anyhow::Result<Edit> {
        let says = value.map(|value| serde_json::from_str::<Json>(&value.encode()));
        let says = says.transpose()?;
        Ok(Edit {
            key: key.to_string(),
            says,
        })
    };
    let edits = entries.into_iter().map(edit);
    let edits = edits.collect::<anyhow::Result<Vec<_>>>()?;
    let path = format!("/model/drafts/{draft}/edits");
    let draft: DraftView = admin.post_within(&path, &edits, BULK_DEADLINE).await?;
    Ok(output.result(&draft)?)
}

async fn fileset(
    args: FilesetArgs,
    draft: &str,
    admin: &AdminClient,
) -> anyhow::Result<(Key, Option<Value>)> {
    let key = Key::Fileset(args.fileset.clone());
    let path = format!("/model/drafts/{draft}/says?key={key}");
    let said: Option<Edit> = admin.get(&path).await?;
    let known: Option<FilesetSpec> = said
        .and_then(|edit| edit.says)
        .map(serde_json::from_value)
        .transpose()?;
    let revision = match (&args.revision, &known) {
        (Some(revision), _) => number(revision, &args.fileset, admin).await?,
        (None, Some(known)) => known.revision,
        (None, None) => number(LATEST, &args.fileset, admin).await?,
    };
    let mut spec = match known {
        Some(known) => known,
        None => FilesetSpec {
            revision,
            target: args.target.clone().context("say where: --target DIR")?,
            mode: InstallMode::Tree,
            heal: Vec::new(),
            depends: Vec::new(),
            scripts: Vec::new(),
        },
    };
    spec.revision = revision;
    if let Some(target) = args.target {
        spec.target = target;
    }
    if let Some(mode) = args.mode.as_deref().and_then(InstallMode::from_word) {
        spec.mode = mode;
    }
    let clears = |what: &str| args.clear.iter().any(|clear| clear == what);
    if clears("heal") || !args.heal.is_empty() {
        let rules = args.heal.iter().map(|rule| heal_rule(rule));
        spec.heal = rules.collect::<anyhow::Result<_>>()?;
    }
    if clears("depends") || !args.depends.is_empty() {
        spec.depends = args.depends;
    }
    if clears("scripts") || !args.script.is_empty() {
        spec.scripts = Vec::new();
        for script in &args.script {
            spec.scripts
                .push(upload(script, args.script_time, admin).await?);
        }
    }
    // Whatever order it was typed in, and within bounds.
    let value = Value::decode(&key, &Value::Fileset(spec).encode())?;
    Ok((key, Some(value)))
}

fn heal_rule(text: &str) -> anyhow::Result<content::statement::HealRule> {
    let (pattern, mode) = text.rsplit_once('=').context("want PATTERN=MODE")?;
    let modes = content::statement::HealMode::ALL.iter();
    let mode = content::statement::HealMode::from_word(mode).with_context(|| {
        let words: Vec<&str> = modes.map(|mode| mode.word()).collect();
        format!("{mode:?} is no heal mode: want one of {}", words.join(", "))
    })?;
    Ok(content::statement::HealRule {
        pattern: pattern.parse()?,
        mode,
    })
}

/// Hands a script in.
async fn upload(text: &str, time: Period, admin: &AdminClient) -> anyhow::Result<Script> {
    let (stage, file) = text.split_once('=').context("want STAGE=FILE")?;
    let stage = Stage::from_word(stage).with_context(|| {
        let words: Vec<&str> = Stage::ALL.iter().map(|stage| stage.word()).collect();
        format!("{stage:?} is no stage: want one of {}", words.join(", "))
    })?;
    let file = Path::new(file);
    let bytes = read(file, Manifest::SCRIPT_BYTES_MAX)?;
    let name = file.file_name().context("a script needs a name")?;
    let request = Request::builder()
        .method(Method::PUT)
        .uri("/model/scripts")
        .body(Full::new(Bytes::from(bytes)))?;
    let kept = admin.send(request, DEADLINE).await?;
    let kept: ScriptKept = serde_json::from_slice(&kept)?;
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    Ok(Script {
        stage,
        name: name.to_string_lossy().chars().take(SCRIPT_NAME).collect(),
        digest: kept.digest.parse()?,
        bytes: kept.bytes,
        seconds,
    })
}

async fn associate(
    args: AssociateArgs,
    admin: &AdminClient,
) -> anyhow::Result<(Key, Option<Value>)> {
    let key = args.whom.key()?;
    let revision = match &args.revision {
        Some(revision) => Some(number(revision, &args.whom.fileset, admin).await?),
        None => None,
    };
    let times = content::statement::Times {
        download_from: args.download_from,
        activate_from: args.activate_from,
        deactivate_at: args.deactivate_at,
        delete_at: args.delete_at,
    };
    let said = Value::Association(Association { revision, times });
    // Times that are out of order are refused here, with what is wrong.
    let value = Value::decode(&key, &said.encode())?;
    Ok((key, Some(value)))
}

/// The number that an operator means: a rolling name would let a publish change devices.
async fn number(
    text: &str,
    fileset: &FilesetName,
    admin: &AdminClient,
) -> anyhow::Result<RevisionNumber> {
    if text != LATEST {
        let number = text
            .parse()
            .context("want a revision's number, or latest")?;
        return Ok(RevisionNumber(number));
    }
    let rows: Vec<FilesetRow> = admin.get(&format!("/filesets/{fileset}")).await?;
    let current = rows.first().and_then(|row| row.current);
    match current {
        Some(number) => Ok(RevisionNumber(number)),
        None => bail!("{fileset} has no revision yet"),
    }
}

impl WhomArgs {
    fn key(&self) -> anyhow::Result<Key> {
        let whom = match (&self.device, &self.group) {
            (Some(device), _) => Whom::Device(device.clone()),
            (None, Some(group)) => Whom::Group(group.clone()),
            (None, None) => bail!("say whom: --device ID or --group NAME"),
        };
        Ok(Key::Association(self.fileset.clone(), whom))
    }
}

impl MemberArgs {
    fn entries(self, value: &Value) -> anyhow::Result<Vec<(Key, Option<Value>)>> {
        let mut devices = self.devices;
        if let Some(file) = &self.from {
            let text = String::from_utf8(read(file, BODY_BYTES_MAX as u64)?)?;
            let names = super::super::device::names(&text);
            devices.extend(
                names
                    .map(str::parse)
                    .collect::<Result<Vec<DeviceId>, _>>()?,
            );
        }
        let entry = |device| {
            let key = Key::Member(self.group.clone(), device);
            (key, Some(value.clone()))
        };
        Ok(devices.into_iter().map(entry).collect())
    }
}

/// The bytes of a file, of which there may be `max`.
fn read(file: &Path, max: u64) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(cannot)?;
    opened
        .take(max + 1)
        .read_to_end(&mut bytes)
        .with_context(cannot)?;
    if bytes.len() as u64 > max {
        bail!(
            "cannot use {}: it has more than {max} bytes",
            file.display()
        );
    }
    Ok(bytes)
}

/// A time as people write it, or in Unix seconds.
fn time(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let at: Result<Timestamp, _> = text.parse();
    at.map(Timestamp::as_second)
        .map_err(|_| "want a time such as 2026-12-01T08:00:00Z".to_owned())
}

/// What stands for the latest number there is.
const LATEST: &str = "latest";
/// The longest name of a script, in characters that people type.
const SCRIPT_NAME: usize = 64;
const DEADLINE: Duration = Duration::from_secs(60);
/// Long enough for a hundred thousand members on a slow disk.
const BULK_DEADLINE: Duration = Duration::from_secs(600);
