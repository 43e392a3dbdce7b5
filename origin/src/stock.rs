//! Taking stock: holding the packs that the ledger names against those that lie on the disk.
//!
//! A restore may bring back a ledger without all of its packs. What is gone must be asked for again
//! when somebody publishes it, so the ledger forgets where its chunks lie; the pack's own row stays
//! for the revisions that need it, and is complete again once the pack comes back.

use std::io;

use content::pack::{PackDir, PackFile, PackHeader};
use service::Report;
use tracing::{info, warn};

use crate::ledger::packs::{self, Pack};
use crate::ledger::{Write, commit};
use crate::publish::intake::{Intake, PublishError};

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stock {
    /// Packs that the ledger names and the disk has not.
    pub gone: u64,
    /// The retained revisions that need one of them, as `NAME@NUMBER`; the first few.
    pub wanting: Vec<String>,
}

/// What is to be changed in the ledger.
enum Finding {
    /// Its file is there again.
    Back(PackHeader),
    /// Its file is not there, or has another length; whether `have?` still counts on it.
    Gone(Pack, bool),
}

impl Intake {
    /// Looks for the file of every pack. Chunks of one that is gone are asked for again from now
    /// on; those of one that has come back are known again.
    ///
    /// # Errors
    ///
    /// Fails if ledger or disk do; what was changed by then stays changed.
    pub async fn take_stock(&self) -> Result<Stock, PublishError> {
        let (mut stock, mut after) = (Stock::default(), 0);
        while let Some(last) = self.look_at_page(after, &mut stock).await? {
            after = last;
        }
        if stock.gone > 0 {
            let mut db = self.catalogue.authority().ledger().read().await?;
            let wanting = packs::wanting(&mut db, WANTING_MAX).await?;
            let name = |(fileset, number): &(String, u64)| format!("{fileset}@{number}");
            stock.wanting = wanting.iter().map(name).collect();
        }
        Ok(stock)
    }

    /// Looks at the packs that are numbered above `after`; the number of the last one, if any.
    async fn look_at_page(
        &self,
        after: i64,
        stock: &mut Stock,
    ) -> Result<Option<i64>, PublishError> {
        // What comes in or is removed at this moment must not be taken for gone.
        let _files = self.files.lock().await;
        let ledger = self.catalogue.authority().ledger();
        let mut db = ledger.read().await?;
        let page = packs::page(&mut db, after, PAGE_PACKS).await?;
        drop(db);
        let Some(&(last, _)) = page.last() else {
            return Ok(None);
        };
        let folder = self.catalogue.packs().clone();
        let look = tokio::task::spawn_blocking(move || look(&folder, &page));
        let found = look
            .await?
            .map_err(|source| PublishError::Store { source })?;
        if !found.is_empty() {
            let mut tx = ledger.write().await?;
            for finding in found {
                stock.gone += u64::from(matches!(finding, Finding::Gone(..)));
                enter(&mut tx, finding, self.now()).await?;
            }
            commit(tx).await?;
        }
        Ok(Some(last.number))
    }
}

async fn enter(tx: &mut Write, finding: Finding, now: i64) -> Result<(), PublishError> {
    match finding {
        Finding::Back(header) => {
            packs::insert(tx, &header, now).await?;
            info!(pack = %header.id(), "a pack that was missing is there again");
        }
        Finding::Gone(pack, true) => {
            packs::forget(tx, pack.number).await?;
            warn!(pack = %pack.id, "a pack is missing: what it holds will be asked for again");
        }
        Finding::Gone(_, false) => {}
    }
    Ok(())
}

/// Holds packs against their files. A disk that cannot say is an error: nothing is forgotten then.
fn look(folder: &PackDir, page: &[(Pack, bool)]) -> io::Result<Vec<Finding>> {
    let mut found = Vec::new();
    for &(pack, is_known) in page {
        let path = folder.path(pack.id);
        let length = match path.metadata() {
            Ok(meta) => Some(meta.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if length != Some(u64::from(pack.total_bytes)) {
            found.push(Finding::Gone(pack, is_known));
        } else if !is_known {
            match PackFile::open(&path, pack.id) {
                Ok(file) => found.push(Finding::Back(file.header().clone())),
                Err(error) => {
                    warn!(pack = %pack.id, error = %Report(&error), "cannot use a pack");
                    found.push(Finding::Gone(pack, false));
                }
            }
        }
    }
    Ok(found)
}

/// Packs looked at in one go, while nothing can be published: a fraction of a second.
const PAGE_PACKS: u32 = 256;
/// Revisions that are named: an operator who sees so many needs no more.
const WANTING_MAX: u32 = 16;
