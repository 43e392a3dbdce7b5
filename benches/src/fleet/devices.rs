//! The devices, and what they do together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::device::{Device, Place};
use super::enrol;
use super::ground::Ground;
use crate::load::Histogram;

/// All devices.
pub(super) struct Fleet {
    pub(super) devices: Vec<Device>,
    pub(super) place: Place,
}

impl Fleet {
    pub(super) async fn enrol(ground: &Ground, devices: u32) -> anyhow::Result<Self> {
        let devices = enrol::many(ground, "d", devices).await?;
        let place = ground.content()?;
        Ok(Self { devices, place })
    }

    /// Everybody comes once, as many at a time as `at_a_time`; gives how long each took.
    pub(super) async fn all_come(&mut self, at_a_time: usize) -> anyhow::Result<Histogram> {
        let places = Arc::new(Semaphore::new(at_a_time));
        let mut visits = JoinSet::new();
        for mut device in std::mem::take(&mut self.devices) {
            let (places, place) = (Arc::clone(&places), self.place.clone());
            visits.spawn(async move {
                let _place = places.acquire_owned().await;
                let began = Instant::now();
                let heard = device.visit(&place).await;
                let heard = heard.with_context(|| format!("{} is turned away", device.id));
                heard.map(|_| (device, began.elapsed()))
            });
        }
        let mut took = Histogram::default();
        while let Some(visit) = visits.join_next().await {
            let (device, elapsed): (Device, Duration) = visit??;
            took.record(elapsed);
            self.devices.push(device);
        }
        self.devices.sort_by(|a, b| a.id.cmp(&b.id));
        let with_manifest = self.devices.iter().filter(|it| it.held.is_some()).count();
        ensure!(
            with_manifest == self.devices.len(),
            "only {with_manifest} have a manifest"
        );
        Ok(took)
    }
}
