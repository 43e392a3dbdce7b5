//! The last step of a commit: what it found is signed, and becomes the current revision.

use content::locator::{Locator, PackEntry};
use content::statement::{Payload as _, Revision, seal};
use content::{Digest, FilesetName, RevisionNumber};

use super::{CommitError, Committed, Intake, KEEP_DEFAULT, Layout};
use crate::ledger::filesets::{self, ObjectKind};
use crate::ledger::{commit, packs, publishes};

impl Intake {
    /// Signs the revision and makes it current, in one transaction.
    pub(super) async fn sign(
        &self,
        publish: i64,
        fileset: &FilesetName,
        root: &[u8],
        layout: Layout,
    ) -> Result<Committed, CommitError> {
        let authority = self.catalogue.authority();
        let (deployment, now) = (authority.deployment().id.to_string(), self.now());
        let mut tx = authority.ledger().write().await?;
        // One that ended meanwhile leases nothing: its packs may be gone by now.
        let known = publishes::seen(&mut tx, publish, now).await?;
        known.ok_or(CommitError::Gone { publish })?;
        let old = packs::of_fileset(&mut tx, fileset.as_str()).await?;
        let number = filesets::next_number(&mut tx, fileset, KEEP_DEFAULT, now).await?;
        let root_digest = Digest::of(root);
        let statement = Revision {
            deployment: deployment.clone(),
            fileset: fileset.clone(),
            number,
            root: root_digest,
            root_bytes: root.len() as u64,
            size: layout.counts.size,
            entries: layout.counts.entries,
            created: now,
        };
        let locator = locator(deployment, fileset, number, root_digest, now, &layout)?;
        let statement = seal(&statement, |message| authority.sign_content(message))?;
        let locator = seal(&locator, |message| authority.sign_content(message))?;
        let bytes = |packs: &[packs::Pack]| packs.iter().map(|it| u64::from(it.total_bytes)).sum();
        let (index, content) = layout.packs.split_at(layout.index_packs);
        let index_bytes: u64 = bytes(index);
        let revision = filesets::Revision {
            fileset: fileset.clone(),
            number,
            statement: filesets::put_object(&mut tx, ObjectKind::Revision, &statement).await?,
            locator: filesets::put_object(&mut tx, ObjectKind::Locator, &locator).await?,
            root: filesets::put_object(&mut tx, ObjectKind::Root, root).await?,
            entries: layout.counts.entries,
            files: layout.counts.files,
            chunks: layout.counts.chunks,
            size: layout.counts.size,
            packs_bytes: bytes(content),
            metadata_bytes: index_bytes + (root.len() + locator.len() + statement.len()) as u64,
            created_at: now,
        };
        let numbers: Vec<i64> = layout.packs.iter().map(|pack| pack.number).collect();
        filesets::insert(&mut tx, &revision, &numbers).await?;
        // Stock may have been taken meanwhile.
        if packs::is_wanting(&mut tx, fileset.as_str(), number.0 as i64).await? {
            return Err(CommitError::PackLost);
        }
        publishes::end(&mut tx, publish).await?;
        filesets::prune(&mut tx).await?;
        packs::mark(&mut tx, now).await?;
        commit(tx).await?;
        let new = |packs: &[packs::Pack]| {
            let new = packs.iter().filter(|pack| !old.contains(&pack.number));
            new.map(|pack| u64::from(pack.total_bytes)).sum()
        };
        Ok(Committed {
            packs: content.len() as u64,
            new_packs_bytes: new(content),
            new_index_bytes: new(index),
            ..summary(&revision, false)
        })
    }
}

fn locator(
    deployment: String,
    fileset: &FilesetName,
    number: RevisionNumber,
    root: Digest,
    created: i64,
    layout: &Layout,
) -> Result<Locator, CommitError> {
    let entry = |pack: &packs::Pack| PackEntry {
        id: pack.id,
        header_bytes: pack.header_bytes,
        total_bytes: pack.total_bytes,
    };
    let locator = Locator {
        deployment,
        fileset: fileset.clone(),
        number,
        root,
        created,
        index_packs: layout.index_packs as u32,
        packs: layout.packs.iter().map(entry).collect(),
        runs: layout.runs.clone(),
    };
    let encoded = locator.encode();
    // What nobody could read must not be signed.
    match Locator::decode(&encoded) {
        Ok(_) if encoded.len() <= Locator::BYTES_MAX => Ok(locator),
        Ok(_) | Err(_) => Err(CommitError::TooLarge {
            bytes: encoded.len(),
        }),
    }
}

pub(super) fn summary(revision: &filesets::Revision, unchanged: bool) -> Committed {
    Committed {
        fileset: revision.fileset.to_string(),
        revision: revision.number.0,
        unchanged,
        entries: revision.entries,
        files: revision.files,
        chunks: revision.chunks,
        bytes: revision.size,
        packs: 0,
        packs_bytes: revision.packs_bytes,
        new_packs_bytes: 0,
        metadata_bytes: revision.metadata_bytes,
        new_index_bytes: 0,
    }
}
