//! `inventory`: what devices say of themselves.

use certs::DeviceId;
use clap::Args;
use service::Output;

use super::Place;
use super::model::Lines;
use crate::inventory::view::{Found, InventoryView, Wanted};
use crate::model::Rule;

#[derive(Args, Debug)]
pub(super) struct InventoryArgs {
    /// Show all that this device says
    #[arg(conflicts_with = "rule")]
    device: Option<DeviceId>,

    /// List only devices that fit this rule, such as `software.openssl < 3.0.15`
    #[arg(long = "where", value_name = "RULE")]
    rule: Option<Rule>,
}

pub(super) async fn run(args: InventoryArgs, place: &Place, output: Output) -> anyhow::Result<()> {
    let admin = place.admin()?;
    if let Some(id) = args.device {
        let shown: InventoryView = admin.get(&format!("/devices/{id}/inventory")).await?;
        return Ok(output.result(&shown)?);
    }
    let mut wanted = Wanted {
        rule: args.rule.map(String::from),
        ..Wanted::default()
    };
    let mut devices = Vec::new();
    loop {
        let page: Found = admin.post("/inventories", &wanted).await?;
        devices.extend(page.devices);
        match page.after {
            Some(after) => wanted.after = after,
            None => break,
        }
    }
    Ok(output.result(&Lines::new(devices, "no such devices"))?)
}
