//! Our own booster, as it comes.

use super::super::child::Running;
use super::super::ground::{Ground, copy, start_booster};

/// Starts it; gives the port of its content listener and that of its operators' listener.
pub(super) fn start(ground: &Ground, entries: u32) -> anyhow::Result<(Vec<Running>, u16, u16)> {
    let place = ground.place("booster")?;
    let data = place.join("data");
    copy(&ground.booster(), &data)?;
    if entries > 0 {
        copy(&ground.state(entries)?, &data.join("state"))?;
    }
    let (running, port, ops) = start_booster(ground, &data, &place, "")?;
    Ok((vec![running], port, ops))
}
