//! `serve`: the origin at work.

use std::fmt;

use anyhow::Context as _;
use serde::Serialize;
use service::{Clock, Output, logs, run_until_stopped};
use tracing::info;

use super::Place;
use crate::server::{Bound, Origin};

/// Printed once it listens, for programs that started it.
#[derive(Debug, Serialize)]
struct Serving<'a> {
    #[serde(flatten)]
    bound: &'a Bound,
    deployment: String,
}

pub(super) async fn run(place: &Place, output: Output) -> anyhow::Result<()> {
    let config = place.config()?;
    logs::init(config.log().format, &config.log().filter)?;
    service::raise_open_files();
    let grace = config.stop_grace();
    let origin = Origin::bind(config, Clock::system())
        .await
        .context("cannot start the origin")?;
    let bound = origin.addresses();
    info!(content = %bound.content, enrol = %bound.enrol, ops = %bound.ops, "serving");
    let deployment = origin.authority().deployment().id.to_string();
    output.result(&Serving { bound, deployment })?;
    run_until_stopped(origin, grace).await
}

impl fmt::Display for Serving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bound {
            content,
            enrol,
            ops,
            ..
        } = self.bound;
        write!(
            f,
            "serving {}: content {content}, enrolment {enrol}, operators {ops}",
            self.deployment
        )
    }
}
