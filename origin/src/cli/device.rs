//! `device`: seeing devices, and deciding about them.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use certs::DeviceId;
use clap::{Args, Subcommand};
use protocol::CommandKind;
use serde::Serialize;
use service::Output;

use super::Place;
use crate::admin::{AdminClient, BODY_BYTES_MAX};
use crate::fleet::{DeviceView, Devices, PAGE, REASONS, Revocation, RevokedAll, Verdict};
use crate::inventory::log::LogView;
use crate::ledger::devices::Stage;
use crate::manifests::view::{CommandView, Holds};

#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    /// List devices
    List {
        /// Only those in this state
        #[arg(long, value_parser = Stage::ALL.map(Stage::as_str))]
        state: Option<String>,
    },
    /// Show one device with its certificates, what it should hold and what it said
    Show {
        /// Its name
        id: DeviceId,
    },
    /// Ask a client to do something at its next check-in
    Command {
        /// Its name
        id: DeviceId,
        /// Look at every file and heal (verify), get a new certificate (renew), or send the end
        /// of its log (log)
        #[arg(value_parser = CommandKind::ALL.map(CommandKind::word))]
        what: String,
    },
    /// Show the end of a client's log, as it came after `device command ID log`
    Log {
        /// Its name
        id: DeviceId,
    },
    /// Let a device have its certificate
    Approve {
        /// Its name
        id: DeviceId,
    },
    /// Turn a device's key down
    Deny {
        /// Its name
        id: DeviceId,
    },
    /// End a device's membership: its certificates are good for nothing from now on
    Revoke(RevokeArgs),
}

#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// Its name
    #[arg(required_unless_present = "from")]
    id: Option<DeviceId>,

    /// Revoke every device that this file names, one on a line, or none of them: what
    /// follows # does not count
    #[arg(long, conflicts_with = "id")]
    from: Option<PathBuf>,

    /// Why, as its entry on the list says it
    #[arg(long, default_value = "unspecified", value_parser = REASONS.map(|(name, _)| name))]
    reason: String,
}

pub(super) async fn run(
    command: DeviceCommand,
    place: &Place,
    output: Output,
) -> anyhow::Result<()> {
    let admin = place.admin()?;
    let (id, verdict) = match command {
        DeviceCommand::List { state } => {
            return Ok(output.result(&list(&admin, state.as_deref()).await?)?);
        }
        DeviceCommand::Show { id } => {
            let device: DeviceView = admin.get(&format!("/devices/{id}")).await?;
            let holds: Option<Holds> = match device.role.as_str() {
                "client" => admin.get(&format!("/devices/{id}/holds")).await?,
                _ => None,
            };
            return Ok(output.result(&Shown { device, holds })?);
        }
        DeviceCommand::Command { id, what } => {
            let what = CommandKind::from_word(&what).context("no such command")?;
            let path = format!("/devices/{id}/command");
            let given: CommandView = admin.post(&path, &what).await?;
            return Ok(output.result(&given)?);
        }
        DeviceCommand::Log { id } => {
            let shown: LogView = admin.get(&format!("/devices/{id}/log")).await?;
            return Ok(output.result(&shown)?);
        }
        DeviceCommand::Approve { id } => (id, Verdict::Approve),
        DeviceCommand::Deny { id } => (id, Verdict::Deny),
        DeviceCommand::Revoke(args) => return revoke(&admin, args, output).await,
    };
    let path = format!("/devices/{id}/{}", verdict.as_str());
    let device: DeviceView = admin.post(&path, &()).await?;
    Ok(output.result(&device)?)
}

async fn revoke(admin: &AdminClient, args: RevokeArgs, output: Output) -> anyhow::Result<()> {
    let mut wish = Revocation {
        devices: Vec::new(),
        reason: Some(args.reason),
    };
    if let Some(id) = args.id {
        let device: DeviceView = admin.post(&format!("/devices/{id}/revoke"), &wish).await?;
        return Ok(output.result(&device)?);
    }
    let file = args.from.context("name a device, or a file with --from")?;
    let text = read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    wish.devices = names(&text).map(str::to_owned).collect();
    let revoked: RevokedAll = admin
        .post_within("/revocations", &wish, BULK_DEADLINE)
        .await?;
    Ok(output.result(&revoked)?)
}

/// The text of a file that may name a million devices.
fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let limit = BODY_BYTES_MAX as u64;
    File::open(file)?.take(limit).read_to_string(&mut text)?;
    if text.len() as u64 == limit {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// A device, and for a client what it should hold.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    device: DeviceView,
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<Holds>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device.fmt(f)?;
        match &self.holds {
            Some(holds) => write!(f, "\n{holds}"),
            None => Ok(()),
        }
    }
}

/// The names in a file: one on a line, without what is said about them after `#`.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
}

/// Long enough for a hundred thousand devices on a slow disk.
const BULK_DEADLINE: Duration = Duration::from_secs(600);

/// All of them, page after page.
async fn list(admin: &AdminClient, state: Option<&str>) -> anyhow::Result<Devices> {
    let mut all = Devices {
        devices: Vec::new(),
    };
    loop {
        let after = all.devices.last().map_or("", |device| device.id.as_str());
        let state = state
            .map(|state| format!("&state={state}"))
            .unwrap_or_default();
        let page: Devices = admin.get(&format!("/devices?after={after}{state}")).await?;
        let is_last = page.devices.len() < PAGE as usize;
        all.devices.extend(page.devices);
        if is_last {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_devices_and_may_say_why() {
        let text = "# stolen in May\n\n laptop-1\r\ndesk # the old one\n";
        let found: Vec<_> = names(text).collect();
        assert_eq!(found, ["laptop-1", "desk"]);
    }
}
