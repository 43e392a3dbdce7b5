//! The play: who does what, in which order.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use booster::Booster;
use certs::{RefusalReason, Role};
use client::PullReport;
use service::Output;

use super::change::{self, Changes};
use super::report::{Report, Step, Update};
use crate::fixture;
use crate::testbed::{Party, Testbed, until};
use crate::tree;

/// Origin, booster and two clients, at work.
pub(super) struct Stage {
    bed: Testbed,
    booster: Booster,
    clients: [PathBuf; 2],
    folder: PathBuf,
    output: Output,
}

impl Stage {
    /// Brings everybody up.
    pub(super) async fn set(folder: &Path, output: Output) -> anyhow::Result<Self> {
        output.note("bringing up origin, booster and two clients, with fresh keys");
        let bed = Testbed::start().await?;
        let booster = bed.booster("booster").await?;
        let clients = [
            bed.enrol_client("one").await?,
            bed.enrol_client("two").await?,
        ];
        Ok(Self {
            bed,
            booster,
            clients,
            folder: folder.to_owned(),
            output,
        })
    }

    /// Plays it all, and tells what was measured.
    pub(super) async fn play(&self) -> anyhow::Result<Report> {
        let [one, two] = &self.clients;
        let [tree_one, tree_two] = ["tree-one", "tree-two"].map(|name| self.bed.path(name));
        self.output
            .note(format_args!("publishing {}", self.folder.display()));
        let begun = Instant::now();
        let first = self.bed.publish(FILESET, &self.folder).await?;
        let publish_seconds = begun.elapsed().as_secs_f64();

        self.output
            .note("client one pulls, and the booster has nothing yet");
        let cold = self.pull(one, &tree_one).await?;
        self.output
            .note("client two pulls, and the booster has it all");
        let hot = self.pull(two, &tree_two).await?;
        let folder = self.folder.clone();
        let mut verified = same(&folder, &tree_one).await? && same(&folder, &tree_two).await?;

        self.output.note("making the second revision on a copy");
        let (copy, changes) = self.second_revision().await?;
        let second = self.bed.publish(FILESET, &copy).await?;
        self.output.note("client one pulls the second revision");
        let update = self.pull(one, &tree_one).await?;
        verified &= same(&copy, &tree_one).await?;

        let renamed = copy.clone();
        tokio::task::spawn_blocking(move || change::rename_only(&renamed)).await??;
        let third = self.bed.publish(FILESET, &copy).await?;

        self.output.note("revoking client two");
        let revoked_refused = self.revoke_two().await?;
        Ok(Report {
            folder: self.folder.display().to_string(),
            files: first.files,
            bytes: first.bytes,
            entries: first.entries,
            chunks: first.chunks,
            packs_bytes: first.new_packs_bytes + first.new_index_bytes,
            metadata_bytes: first.metadata_bytes,
            publish_seconds,
            cold,
            hot,
            update: Update {
                step: update,
                packs_bytes: second.new_packs_bytes + second.new_index_bytes,
                index_bytes: second.new_index_bytes,
                changed: (changes.replaced + changes.edited + changes.renamed + changes.deleted)
                    as u64,
            },
            renames_alone_pack_bytes: third.new_packs_bytes,
            revoked_refused,
            verified,
        })
    }

    /// One pull through the booster, with what it cost on each line.
    async fn pull(&self, client: &Path, target: &Path) -> anyhow::Result<Step> {
        self.booster_has_heard().await?;
        let before = self.upstream();
        let report: PullReport = self.bed.pull(client, FILESET, target).await?;
        ensure!(
            report.bypasses.is_empty(),
            "the booster was gone round: {:?}",
            report.bypasses
        );
        let after = self.upstream();
        Ok(Step::new(
            &report,
            after.0 + after.1 - before.0 - before.1,
            after.0 - before.0,
        ))
    }

    /// Waits until the booster goes by what is current: it asks every five seconds.
    async fn booster_has_heard(&self) -> anyhow::Result<()> {
        let join = self.bed.join(Role::Client).await?;
        let one = Party::of(&self.clients[0], &join, &self.bed.clock()).await?;
        let origin = self.bed.origin().addresses().content.to_string();
        let origin = one.source(Role::Origin, "origin", origin)?;
        let booster = one.source(
            Role::Booster,
            "booster",
            self.booster.local_addr().to_string(),
        )?;
        let current = fixture::snapshot(&origin).await?;
        let heard = async || fixture::snapshot(&booster).await.ok();
        until(heard, |heard| *heard == Some(current)).await;
        Ok(())
    }

    /// Bytes that the booster has received: of packs, and of everything else.
    fn upstream(&self) -> (u64, u64) {
        let counted = self.booster.counted();
        (counted.upstream_pack_bytes, counted.upstream_other_bytes)
    }

    async fn second_revision(&self) -> anyhow::Result<(PathBuf, Changes)> {
        let (from, to) = (self.folder.clone(), self.bed.path("copy"));
        let work = tokio::task::spawn_blocking(move || {
            tree::copy(&from, &to).context("cannot copy the folder")?;
            let changes = change::change(&to)?;
            Ok((to, changes))
        });
        work.await?
    }

    /// Revokes client two, which has just pulled with success; whether booster and origin both
    /// refuse it from then on, and say why.
    async fn revoke_two(&self) -> anyhow::Result<bool> {
        let clock = self.bed.clock();
        let join = self.bed.join(Role::Client).await?;
        let two = Party::of(&self.clients[1], &join, &clock).await?;
        let origin = self.bed.origin().addresses().content.to_string();
        let booster = self.booster.local_addr().to_string();
        let doors = [
            two.source(Role::Booster, "booster", booster)?,
            two.source(Role::Origin, "origin", origin)?,
        ];
        for door in &doors {
            ensure!(
                Party::refusal(door).await?.is_none(),
                "client two was refused too early"
            );
        }
        self.bed.revoke("two").await?;
        for door in &doors {
            // The booster hears of it with its next look at the list.
            let heard = async || Party::refusal(door).await.ok().flatten();
            let refused = tokio::time::timeout(PATIENCE, until(heard, Option::is_some)).await?;
            if refused != Some(RefusalReason::Revoked) {
                return Ok(false);
            }
        }
        let target = self.bed.path("tree-refused");
        let pulled = self.bed.pull(&self.clients[1], FILESET, &target).await;
        Ok(pulled.is_err() && !target.exists())
    }

    /// What can be tried while everybody stays up.
    pub(super) fn what_to_try(&self) -> impl fmt::Display + use<> {
        let data = self.bed.path("origin");
        let (data, one) = (data.display(), self.clients[0].display());
        let ops = self.booster.addresses().ops;
        format!(
            "\neverybody stays up until you press ctrl-c; try, in another terminal:\n\
             \n  cargo run --release -p origin -- fileset show {FILESET} --data {data}\
             \n  cargo run --release -p origin -- device list --data {data}\
             \n  cargo run --release -p origin -- publish mine SOME_FOLDER --data {data}\
             \n  cargo run --release -p client -- pull mine {}/mine --data {one}\
             \n  curl -s http://{ops}/metrics | grep larder_booster\n",
            self.bed.folder.path().display(),
        )
    }

    /// Ends everybody.
    pub(super) async fn strike(self) {
        let _drained = self.booster.drain(GRACE).await;
        self.bed.stop().await;
    }
}

/// Whether both trees hold the same. What differs is told on the way.
async fn same(wanted: &Path, got: &Path) -> anyhow::Result<bool> {
    let (wanted, got) = (wanted.to_owned(), got.to_owned());
    let compared = tokio::task::spawn_blocking(move || tree::compare(&wanted, &got)).await?;
    if let Err(difference) = &compared {
        tracing::error!(%difference, "the trees differ");
    }
    Ok(compared.is_ok())
}

const FILESET: &str = "demo";
const GRACE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
