//! What operators see of a device's manifest, and ask of a device.

use certs::{DeviceId, Role};
use content::statement::Item;
use protocol::{Code, Command, CommandKind, Fault};
use thiserror::Error;

use super::Manifests;
use super::view::{CommandView, Holds, ResultView, Wanted};
use crate::audit::{Actor, Event};
use crate::ledger::{LedgerError, commit, devices, models, results};
use crate::model::resolve::{profile, resolve};

/// Why an operator's wish about a device was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HoldsError {
    /// The ledger failed.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// Only clients hold filesets and take commands.
    #[error("cannot ask that of {id}: it is no client")]
    NoClient {
        /// The device.
        id: DeviceId,
    },
    /// There is no such device.
    #[error("cannot find a device called {id}")]
    Unknown {
        /// The name.
        id: DeviceId,
    },
}

/// How many commands of a device are shown.
const COMMANDS_SHOWN: u32 = 10;

impl Manifests {
    /// What the device `id` should hold, and what it said.
    ///
    /// # Errors
    ///
    /// Fails if there is none of that name, or the ledger does.
    pub async fn holds(&self, id: &DeviceId) -> Result<Holds, HoldsError> {
        let mut db = self.inner.authority.ledger().read().await?;
        if devices::find(&mut db, id).await?.is_none() {
            return Err(HoldsError::Unknown { id: id.clone() });
        }
        let world = models::world(&mut db).await?;
        let mut belonging = models::belonging(&mut db, std::slice::from_ref(id)).await?;
        let belongs = belonging.remove(id);
        let items = belongs.map_or_else(Vec::new, |belongs| {
            resolve(&world, &profile(&world, belongs.groups, belongs.own))
        });
        let said = results::of_device(&mut db, id).await?;
        let asked = results::commands_of(&mut db, id, COMMANDS_SHOWN).await?;
        let standing = self.inner.board.standing(id);
        let held = standing.manifest.as_ref();
        Ok(Holds {
            model: world.model,
            manifest: held.map(|held| held.number),
            digest: held.map(|held| held.digest.to_string()),
            due: standing.due,
            filesets: items.iter().map(wanted).collect(),
            results: said
                .into_iter()
                .map(|(said, received_at)| ResultView { said, received_at })
                .collect(),
            commands: asked.into_iter().map(CommandView::from).collect(),
        })
    }

    /// Asks `what` of the device `id`: it hears it at its next check-in, or at once if it waits.
    ///
    /// # Errors
    ///
    /// Fails if there is no client of that name, or the ledger does.
    pub async fn ask(&self, id: &DeviceId, what: CommandKind) -> Result<CommandView, HoldsError> {
        let authority = &self.inner.authority;
        let (actor, now) = (Actor::acting(), authority.clock().now());
        let mut tx = authority.ledger().write().await?;
        match devices::find(&mut tx, id).await? {
            None => return Err(HoldsError::Unknown { id: id.clone() }),
            Some(device) if device.role != Role::Client => {
                return Err(HoldsError::NoClient { id: id.clone() });
            }
            Some(_) => {}
        }
        let given = results::command(&mut tx, id, what, &actor.to_string(), now).await?;
        Event::Command
            .by(&actor, now)
            .with("device", id)
            .with("what", what.word())
            .with("command", given.id)
            .append(&mut tx)
            .await?;
        commit(tx).await?;
        let command = Command { id: given.id, what };
        self.command(id, &command);
        Ok(given.into())
    }
}

impl HoldsError {
    /// What the operator's program is told.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::Ledger(_) => Code::Internal,
            Self::NoClient { .. } => Code::Conflict,
            Self::Unknown { .. } => Code::NotFound,
        };
        Fault::new(code, service::Report(self).to_string())
    }
}

fn wanted(item: &Item) -> Wanted {
    Wanted {
        fileset: item.fileset.to_string(),
        revision: item.revision.0,
        target: item.target.clone(),
        mode: item.mode.word().to_owned(),
    }
}
