//! `device`: seeing devices, and deciding about them.

use certs::DeviceId;
use clap::Subcommand;
use service::Output;

use super::Place;
use crate::admin::AdminClient;
use crate::fleet::{DeviceView, Devices, PAGE, Verdict};

#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    /// List devices
    List {
        /// Only those in this state
        #[arg(long, value_parser = ["pending", "approved", "enrolled", "denied", "revoked"])]
        state: Option<String>,
    },
    /// Show one device with its certificates
    Show {
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
    Revoke {
        /// Its name
        id: DeviceId,
    },
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
            return Ok(output.result(&device)?);
        }
        DeviceCommand::Approve { id } => (id, Verdict::Approve),
        DeviceCommand::Deny { id } => (id, Verdict::Deny),
        DeviceCommand::Revoke { id } => (id, Verdict::Revoke),
    };
    let path = format!("/devices/{id}/{}", verdict.as_str());
    let device: DeviceView = admin.post(&path, &()).await?;
    Ok(output.result(&device)?)
}

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
