//! What answers for content, put together.

use std::sync::Arc;

use content::durable::{self, RealDisk};
use content::pack::PackDir;
use service::Spawner;

use super::StartError;
use crate::admin::AdminContent;
use crate::api::content::ContentApi;
use crate::authority::Authority;
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::documents::Documents;
use crate::publish::intake::Intake;

/// What answers for content.
pub(super) struct Made {
    /// On the admin socket.
    pub(super) admin: Arc<dyn AdminContent>,
    /// On the listeners.
    pub(super) api: Arc<dyn ContentApi>,
    /// What it is made of, for whoever embeds an origin.
    pub(super) intake: Intake,
}

/// Opens it.
pub(super) async fn open(
    config: &Config,
    authority: &Authority,
    documents: &Documents,
    spawner: Spawner,
) -> Result<Made, StartError> {
    let packs = PackDir::new(config.data().join(PACKS_FOLDER));
    let root = packs.root().to_owned();
    let made = tokio::task::spawn_blocking(move || durable::create_folder(&RealDisk, &root, 0o700));
    made.await
        .map_err(|error| StartError::Content(error.into()))?
        .map_err(|error| StartError::Content(error.into()))?;
    let catalogue = Catalogue::new(authority.clone(), documents.clone(), packs);
    let intake = Intake::new(catalogue.clone(), spawner);
    Ok(Made {
        admin: Arc::new(intake.clone()),
        api: Arc::new(catalogue),
        intake,
    })
}

/// The packs within the data folder.
const PACKS_FOLDER: &str = "packs";
