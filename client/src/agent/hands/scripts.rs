//! Scripts of filesets: fetched, run, and what they said kept.

use std::sync::Arc;

use content::Digest;
use content::statement::{Item, Manifest, Script, Stage};
use service::Report;
use tracing::{info, warn};

use super::Hands;
use crate::agent::ended::Outcome;
use crate::agent::script::{Call, OUTPUT_BYTES_MAX, run};
use crate::fetch::off_the_runtime;

impl Hands {
    /// Runs the scripts of `item` for `stage`, in their order, until one of them ends with
    /// something else than 0.
    pub(super) async fn run_scripts(&mut self, item: &Item, stage: Stage) -> Outcome {
        if let Err(note) = self
            .fetch_scripts(item, |script| script.stage == stage)
            .await
        {
            return Outcome::Failed { note };
        }
        let mut log = Vec::new();
        let mut outcome = Outcome::Done;
        for script in item.scripts.iter().filter(|script| script.stage == stage) {
            let call = Call {
                program: self.files.script(script.digest),
                item,
                script,
                mark: self.files.running(),
            };
            let ran = run(&call).await;
            let told = ran.end.told(script);
            log.extend_from_slice(told.as_bytes());
            log.push(b'\n');
            log.extend_from_slice(&ran.output);
            let code = ran.end.code();
            if code == Some(0) {
                info!(fileset = %item.fileset, %stage, script = script.name, "ran a script");
                continue;
            }
            warn!(fileset = %item.fileset, %told, "a script did not end with 0");
            let note = told;
            outcome = Outcome::Exit { code, note };
            break;
        }
        let over = log.len().saturating_sub(OUTPUT_BYTES_MAX);
        log.drain(..over);
        let (files, fileset) = (self.files.clone(), item.fileset.clone());
        let kept = off_the_runtime(move || files.put_log(&fileset, stage, &log));
        kept.await.unwrap_or_default();
        outcome
    }

    /// Has those scripts of `item` on disk that are `wanted`.
    pub(super) async fn fetch_scripts(
        &mut self,
        item: &Item,
        wanted: impl Fn(&Script) -> bool,
    ) -> Result<(), String> {
        for script in item.scripts.iter().filter(|script| wanted(script)) {
            let (files, digest) = (self.files.clone(), script.digest);
            let has = off_the_runtime(move || files.has_script(digest)).await;
            if !has.unwrap_or(false) {
                let fetched = self.fetch_script(script).await;
                fetched.map_err(|error| {
                    let Script { stage, name, .. } = script;
                    format!("cannot fetch the {stage} script {name}: {error}")
                })?;
            }
        }
        Ok(())
    }

    async fn fetch_script(&mut self, script: &Script) -> Result<(), String> {
        let told = |error: &(dyn std::error::Error + 'static)| Report(error).to_string();
        self.session
            .catch_up()
            .await
            .map_err(|error| told(&error))?;
        let origin = self.session.origin_source();
        let origin = Arc::new(origin.map_err(|error| told(&error))?);
        let (boosters, _) = self.through.boosters();
        let boosters = boosters.iter().map(|booster| Arc::clone(&booster.source));
        let most = script.bytes.min(Manifest::SCRIPT_BYTES_MAX);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut fetched = Err("there is nobody to ask".to_owned());
        for source in boosters.chain([origin]) {
            fetched = match source.statement(&script.digest, most).await {
                Ok(bytes) if Digest::of(&bytes) == script.digest => Ok(bytes),
                Ok(_) => Err("it is not what the manifest names".to_owned()),
                Err(error) => Err(told(&error)),
            };
            if fetched.is_ok() {
                break;
            }
        }
        let bytes = fetched?;
        let (files, digest) = (self.files.clone(), script.digest);
        let kept = off_the_runtime(move || files.put_script(digest, &bytes)).await;
        let kept = kept.map_err(|error| told(&error))?;
        kept.map_err(|error| told(&error))
    }
}
