//! Taking stock: holding the packs that the ledger names against those that lie on the disk.
//!
//! A restore may bring back a ledger without all of its packs. What is gone must be asked for again
//! when somebody publishes it, so the ledger forgets where its chunks lie; the pack's own row stays
//! for the revisions that need it, and is complete again once the pack comes back. The same is done
//! with a pack that is not what its header says, when somebody asks to have all of them read.

use std::io;
use std::path::Path;

use content::pack::{PackDir, PackFile, PackHeader, ReadPackError};
use service::Report;
use tracing::{info, warn};

use crate::ledger::packs::{self, Pack};
use crate::ledger::{Write, commit};
use crate::publish::check;
use crate::publish::intake::{Intake, PublishError, at_files};

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stock {
    /// Packs that the ledger names and the disk has not, or not as they should be.
    pub gone: u64,
    /// The retained revisions that need one of them, as `NAME@NUMBER`; the first few.
    pub wanting: Vec<String>,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    /// Whether it is there, and how long it is. One that comes back is read through nevertheless.
    Briefly,
    /// Every frame and every chunk.
    Through,
}

/// What is to be changed in the ledger.
enum Finding {
    /// Its file is there again.
    Back(PackHeader),
    /// Its file is not there, or cannot be used; whether `have?` still counts on it.
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
        self.look_at_all(Look::Briefly).await
    }

    /// The same, and reads every pack through: one that is not what its header says is gone, too.
    ///
    /// # Errors
    ///
    /// As [`Intake::take_stock`].
    pub async fn verify(&self) -> Result<Stock, PublishError> {
        self.look_at_all(Look::Through).await
    }

    async fn look_at_all(&self, how: Look) -> Result<Stock, PublishError> {
        let (mut stock, mut after) = (Stock::default(), 0);
        while let Some(last) = self.look_at_page(after, how, &mut stock).await? {
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

    /// Looks at some packs that are numbered above `after`; the number of the last one, if any.
    async fn look_at_page(
        &self,
        after: i64,
        how: Look,
        stock: &mut Stock,
    ) -> Result<Option<i64>, PublishError> {
        // What comes in or is removed at this moment must not be taken for gone.
        let files = self.lock_files().await;
        let ledger = self.catalogue.authority().ledger();
        let mut db = ledger.read().await?;
        let page = packs::page(&mut db, after, PAGE_PACKS).await?;
        drop(db);
        if page.is_empty() {
            return Ok(None);
        }
        let folder = self.catalogue.packs().clone();
        let look = move || look(&folder, &page, how);
        let (_files, (found, last)) = at_files(files, look).await?;
        if !found.is_empty() {
            let mut tx = ledger.write().await?;
            for finding in found {
                stock.gone += u64::from(matches!(finding, Finding::Gone(..)));
                enter(&mut tx, finding, self.now()).await?;
            }
            commit(tx).await?;
        }
        Ok(last)
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
            let pack = pack.id;
            warn!(%pack, "a pack is missing or bad: what it holds will be asked for again");
        }
        Finding::Gone(_, false) => {}
    }
    Ok(())
}

/// Holds packs against their files, up to the one whose number is returned. A disk that cannot say is
/// an error: nothing is forgotten then.
fn look(
    folder: &PackDir,
    page: &[(Pack, bool)],
    how: Look,
) -> io::Result<(Vec<Finding>, Option<i64>)> {
    let (mut found, mut last, mut read) = (Vec::new(), None, 0);
    for &(pack, is_known) in page {
        let path = folder.path(pack.id);
        let length = match path.metadata() {
            Ok(meta) => Some(meta.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if length != Some(u64::from(pack.total_bytes)) {
            found.push(Finding::Gone(pack, is_known));
        } else if how == Look::Through || !is_known {
            found.extend(read_through(&path, pack, is_known)?);
            read += pack.total_bytes as usize;
        }
        last = Some(pack.number);
        if read >= PAGE_BYTES {
            break;
        }
    }
    Ok((found, last))
}

/// Reads a pack; what is to be changed, if anything is.
fn read_through(path: &Path, pack: Pack, is_known: bool) -> io::Result<Option<Finding>> {
    let opened = PackFile::open(path, pack.id);
    let checked = opened.and_then(|file| check::file(&file).map(|()| file));
    match checked {
        Ok(_) if is_known => Ok(None),
        Ok(file) => Ok(Some(Finding::Back(file.header().clone()))),
        Err(ReadPackError::Io { source }) if is_known => Err(source),
        Err(error) => {
            warn!(pack = %pack.id, error = %Report(&error), "cannot use a pack");
            Ok(Some(Finding::Gone(pack, is_known)))
        }
    }
}

/// Packs looked at in one go, while nothing can be published: a fraction of a second.
const PAGE_PACKS: u32 = 256;
/// Bytes read in one go, while nothing can be published: a second on a slow disk.
const PAGE_BYTES: usize = 64 << 20;
/// Revisions that are named: an operator who sees so many needs no more.
const WANTING_MAX: u32 = 16;
