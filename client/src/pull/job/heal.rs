//! Healing what is installed: only what is damaged is made anew, and only the chunks that are
//! nowhere on disk are fetched.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ATTEMPTS_MAX, Job, with};
use crate::fetch::supply::Supply;
use crate::install::examine::{Findings, Pace};
use crate::plan::{Old, Scope};
use crate::pull::PullError;
use crate::steps::Steps;

impl<S: Supply> Job<S> {
    /// Heals what `findings` says is damaged; without them, examines what is installed first,
    /// which takes the index that is fetched if need be.
    pub(crate) async fn heal(
        &self,
        findings: Option<Findings>,
        mut pace: Pace,
    ) -> Result<(Findings, u64), PullError> {
        let mut target = self.open(false).await?;
        let root = Arc::new(self.root(&target).await?);
        let downloads = self.downloads(&target).await?;
        target = self.index(target, &root, &downloads).await?;
        let (target, found) = with(target, move |target| {
            target.look_at_index();
            findings.map_or_else(|| target.examine(&mut pace), Ok)
        })
        .await?;
        let mut findings = found?;
        let scope = Scope {
            only: Some(Arc::new(findings.make.clone())),
            doubt: true,
        };
        let (mut target, mut distrusted) = (target, BTreeSet::new());
        for attempt in 1..=ATTEMPTS_MAX {
            if findings.make.is_empty() {
                break;
            }
            let old = target.old().map(|old| Old {
                distrusted: distrusted.clone(),
                ..old
            });
            let made;
            (target, made) = self
                .make(target, &root, &downloads, old, scope.clone())
                .await?;
            match made {
                Ok((_, damaged)) if damaged.is_empty() => break,
                Ok((_, damaged)) if attempt < ATTEMPTS_MAX => distrusted.extend(damaged),
                Ok(_) => return Err(self.give_up_healing(target, PullError::Damaged).await),
                Err(error) => return Err(self.give_up_healing(target, error).await),
            }
        }
        let lock = Arc::clone(&self.lock);
        let (_, healed) = with(target, move |target| {
            let _lock = lock;
            let healed = target.heal(&findings)?;
            healed.tell(&mut findings);
            // What is left over costs room and nothing else.
            downloads.remove().unwrap_or_default();
            Ok::<_, PullError>((findings, healed.count))
        })
        .await?;
        healed
    }

    async fn give_up_healing(&self, target: crate::install::Target, error: PullError) -> PullError {
        if Steps::is_crash(&error) {
            return error;
        }
        match with(target, crate::install::Target::clear_healing).await {
            Ok((_, Ok(()))) => {}
            Ok((_, Err(left))) => {
                tracing::warn!(error = %service::Report(&left), "cannot tidy up");
            }
            Err(left) => tracing::warn!(error = %service::Report(&left), "cannot tidy up"),
        }
        error
    }
}
