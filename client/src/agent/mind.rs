//! The mind of the agent: what it knows, and what it makes of what it hears. It is written down
//! before anything follows from it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use content::Digest;
use content::statement::{Manifest, Statement};
use protocol::{CheckInAnswer, CommandKind, FilesetHeld, Held, Inventory};
use service::{Clock, Report};
use tracing::{error, info, warn};

use super::ended::Outcome;
use super::files::{Files, FilesError};
use super::line::{CheckInError, Heard, held};
use super::pace::Pace;
use super::state::{Holding, InForce, State};
use super::step::{Act, Next, What, earlier, next};
use crate::config::Config;
use crate::fetch::off_the_runtime;
use crate::inventory::Stock;

/// What the agent knows, and when it acts.
#[derive(Debug)]
pub(crate) struct Mind {
    pub(crate) state: State,
    pub(crate) pace: Pace,
    manifest: Option<Manifest>,
    files: Files,
    clock: Clock,
    /// Between two looks at everything, in seconds; none for never.
    verify_every: Option<i64>,
    /// What the device says of itself; it keeps none until the agent's settings are known.
    pub(crate) stock: Stock,
    /// When the log is sent again, as asked, after that has failed.
    log_at: i64,
    /// When the certificate is renewed again, as asked, after that has failed.
    renew_at: i64,
    /// Whether the check-in that is under way began under settings that are on trial.
    tries: bool,
}

impl Mind {
    /// Takes up what an earlier run left.
    pub(crate) fn wake(
        files: Files,
        manifest: Option<Statement<Manifest>>,
        clock: Clock,
        config: &Config,
    ) -> Result<Self, FilesError> {
        files.create()?;
        super::script::end_leftover(&files.running());
        let mut state = files.state()?;
        state.recover();
        // A fileset may say so where the device itself says never.
        let verify_every = state.over(config).verify_every();
        let now = clock.now();
        let pace = Pace::new(state.interval, now, fastrand::f64());
        let mut mind = Self {
            pace,
            state,
            manifest: None,
            files,
            clock,
            verify_every,
            stock: Stock::new(None, PathBuf::new()),
            log_at: 0,
            renew_at: 0,
            tries: false,
        };
        // It was kept before the state that names it.
        let known = mind.state.manifest.as_ref().map_or(0, |known| known.number);
        if let Some(manifest) = manifest.filter(|manifest| manifest.number >= known) {
            mind.go_by(manifest);
        } else if known > 0 {
            // It is got again: nothing is begun without it.
            warn!(number = known, "the manifest that was kept does not count");
        }
        mind.plan_verify(true);
        mind.settle();
        Ok(mind)
    }

    /// The time.
    pub(crate) fn now(&self) -> i64 {
        self.clock.now()
    }

    /// What is to be told to the origin by a check-in that begins now.
    pub(crate) fn held(&mut self) -> Held {
        self.tries = self.state.is_on_trial();
        let in_force = self.state.manifest.as_ref();
        Held {
            inventory: self.stock.digest(),
            ..held(&self.state, in_force.filter(|_| self.manifest.is_some()))
        }
    }

    /// The filesets that are here or have failed, as an inventory names them.
    pub(crate) fn filesets(&self) -> BTreeMap<String, FilesetHeld> {
        let all = self.state.filesets.iter();
        let held = all.filter_map(|(name, it)| Some((name.to_string(), it.settled()?)));
        held.take(Inventory::FILESETS_MAX).collect()
    }

    /// Goes by these settings from now on.
    pub(crate) fn go_by_settings(&mut self, config: &Config) {
        let now = self.now();
        let every = config.verify_every();
        if every != self.verify_every {
            let planned = self.state.verify_at.filter(|_| every.is_some());
            self.verify_every = every;
            self.plan_verify(false);
            self.state.verify_at = earlier(self.state.verify_at, planned);
        }
        self.stock.look_every(config.inventory_every());
        let said = self.state.interval;
        self.pace.set_own(config.check_in_every(), said, now);
    }

    /// Takes stock of the device, if it is time for that; whether it was.
    pub(crate) async fn take_stock(&mut self) -> bool {
        let (filesets, now) = (self.filesets(), self.now());
        if self.stock.due(&filesets).is_none_or(|at| at > now) {
            return false;
        }
        if self.stock.take(filesets, now).await {
            self.pace.has_news(now, fastrand::f64());
        }
        true
    }

    /// The model and the name of the manifest that is at hand.
    pub(crate) fn goes_by(&self) -> (u64, Option<Digest>) {
        let in_force = self.state.manifest.as_ref();
        let in_force = in_force.filter(|_| self.manifest.is_some());
        in_force.map_or((0, None), |it| (it.model, Some(it.digest)))
    }

    /// A wait has said that there is something to be heard.
    pub(crate) fn woken(&mut self) {
        let now = self.now();
        self.pace.woken(now, fastrand::f64());
    }

    /// The number below which no manifest is taken.
    pub(crate) fn least(&self) -> u64 {
        self.state
            .manifest
            .as_ref()
            .map_or(0, |manifest| manifest.number)
    }

    /// What to do now.
    pub(crate) fn next(&mut self) -> Next {
        self.settle();
        let nothing = Next {
            act: None,
            look_again_at: None,
        };
        let manifest = self.manifest.as_ref();
        manifest.map_or(nothing, |manifest| next(&self.state, manifest, self.now()))
    }

    /// How the fileset of `act` stands.
    pub(crate) fn holding(&self, act: &Act) -> Holding {
        let holding = self.state.filesets.get(&act.fileset);
        holding.cloned().unwrap_or_default()
    }

    /// Notes that `act` begins.
    pub(crate) fn begin(&mut self, act: &Act) {
        info!(%act, "begins");
        let now = self.now();
        if let Some(manifest) = &self.manifest {
            self.state.begin(act, manifest, now);
        }
    }

    /// Notes how `act` has ended.
    pub(crate) fn end(&mut self, act: &Act, outcome: Outcome) {
        match &outcome {
            Outcome::Failed { note }
            | Outcome::Exit { note, .. }
            | Outcome::Damaged { note }
            | Outcome::Unusable { note } => {
                warn!(%act, %note, "failed");
            }
            Outcome::Done
            | Outcome::Downloaded { .. }
            | Outcome::Installed { .. }
            | Outcome::WentBack { .. }
            | Outcome::Adopted { .. }
            | Outcome::BrokenOff => {
                info!(%act, ?outcome, "ended");
            }
        }
        let (now, random) = (self.now(), fastrand::f64());
        if let Some(manifest) = &self.manifest {
            self.state.end(act, outcome, manifest, now, random);
        }
        if act.what == What::Adopt && self.state.is_on_trial() {
            self.pace.has_news(now, random);
        }
        self.tell_soon();
    }

    /// Takes in what came of a check-in that told `results` and `done`.
    pub(crate) fn hear(
        &mut self,
        told: &Held,
        heard: Result<Heard, CheckInError>,
    ) -> Result<Option<CheckInAnswer>, CheckInError> {
        let (now, random) = (self.now(), fastrand::f64());
        let tries = std::mem::take(&mut self.tries);
        let heard = match heard {
            Ok(heard) => heard,
            Err(failure) => {
                self.pace.failed(failure.busy(), now, random);
                // Who asks to be left alone has answered.
                if tries && failure.busy().is_none() {
                    self.tried(Some(&Report(&failure).to_string()));
                }
                return Err(failure);
            }
        };
        if tries {
            self.tried(None);
        }
        self.state.told(&told.results, &told.done);
        let asks = heard.answer.as_ref().is_some_and(|it| it.inventory);
        self.stock
            .asked(asks && told.inventory == self.stock.digest());
        let next = heard.answer.as_ref().map(|answer| answer.next_seconds);
        self.pace.answered(next, now, random);
        if let Some(answer) = &heard.answer {
            self.state.interval = Some(answer.next_seconds);
            // A roster names none: those whom the origin has named stay.
            if !(heard.through && answer.boosters.is_empty()) {
                self.state.guide.named.clone_from(&answer.boosters);
            }
            for command in &answer.commands {
                self.state.hear(command.clone());
            }
        }
        if let Some(manifest) = heard.manifest {
            self.go_by(manifest);
        }
        self.settle();
        self.tell_soon();
        Ok(heard.answer)
    }

    /// A command to renew the certificate, if there is one, and it has not just failed.
    pub(crate) fn renewal(&self) -> Option<u64> {
        self.asked(CommandKind::Renew, self.renew_at)
    }

    /// A command to show the log, if there is one, and it has not just failed.
    pub(crate) fn log_wanted(&self) -> Option<u64> {
        self.asked(CommandKind::Log, self.log_at)
    }

    /// A command of that kind, if there is one and it is tried again by now.
    fn asked(&self, kind: CommandKind, again_at: i64) -> Option<u64> {
        // A clock that was ahead holds up nothing for long.
        let now = self.now();
        if (now + 1..=now + COMMAND_PAUSE * 2).contains(&again_at) {
            return None;
        }
        let mut commands = self.state.commands.iter();
        let found = commands.find(|(_, what)| **what == kind);
        found.map(|(id, _)| *id)
    }

    /// How a check-in went under settings that are on trial.
    fn tried(&mut self, failure: Option<&str>) {
        let now = self.now();
        if let Some(manifest) = &self.manifest {
            self.state.tried(failure, manifest, now);
        }
        if self.state.is_on_trial() {
            self.pace.is_on_trial(now, fastrand::f64());
        }
    }

    /// A command is done, which is told soon.
    pub(crate) fn command_done(&mut self, id: u64) {
        self.state.command_done(id);
        self.tell_soon();
    }

    /// The certificate could not be renewed: the command stays, and is tried again.
    pub(crate) fn renewal_failed(&mut self) {
        self.renew_at = self.again_at();
    }

    /// The log could not be sent: likewise.
    pub(crate) fn log_failed(&mut self) {
        self.log_at = self.again_at();
    }

    fn again_at(&self) -> i64 {
        let pause = COMMAND_PAUSE as f64 * (1.0 + fastrand::f64());
        self.now() + pause as i64
    }

    /// Writes down what is known. That it cannot be is told and survived: what is on the disk is
    /// found out again.
    pub(crate) async fn keep(&self) {
        let (files, state) = (self.files.clone(), self.state.clone());
        match off_the_runtime(move || files.put_state(&state)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                error!(error = %Report(&failure), "cannot write down what is known");
            }
            Err(_) => warn!("cannot write down what is known: the program is ending"),
        }
    }

    fn go_by(&mut self, manifest: Statement<Manifest>) {
        let in_force = InForce {
            number: manifest.number,
            model: manifest.model,
            digest: manifest.digest(),
        };
        if self.state.manifest.as_ref() != Some(&in_force) {
            let (number, model) = (in_force.number, in_force.model);
            info!(
                number,
                model,
                filesets = manifest.items.len(),
                "goes by a new manifest"
            );
        }
        self.state.manifest = Some(in_force);
        self.manifest = Some(manifest.into_payload());
    }

    fn settle(&mut self) {
        let now = self.now();
        self.pace.look(now);
        if self.state.verify_at.is_some_and(|at| at <= now) {
            info!("looking at all that is active");
            let active = self.state.filesets.values_mut();
            active
                .filter(|it| it.active.is_some())
                .for_each(|it| it.check = true);
            self.plan_verify(false);
        }
        if let Some(manifest) = &self.manifest {
            self.state.settle(manifest, now);
        }
    }

    /// Plans the next look at everything: soon after a start, else after the time that is set; in
    /// any case not when others do.
    fn plan_verify(&mut self, starts: bool) {
        let now = self.now();
        let Some(every) = self.verify_every else {
            self.state.verify_at = None;
            return;
        };
        if starts {
            let soon = now + (fastrand::f64() * VERIFY_SPREAD.min(every) as f64) as i64 + 1;
            let planned = self.state.verify_at;
            self.state.verify_at = Some(planned.map_or(soon, |planned| planned.min(soon)));
        } else {
            let spread = 0.9 + fastrand::f64() / 5.0;
            self.state.verify_at = Some(now + (every as f64 * spread) as i64);
        }
    }

    /// What the origin has not heard is told soon.
    fn tell_soon(&mut self) {
        use protocol::FilesetState::{Active, Damaged, Failed, Inactive, Removed};
        let counts = |state| matches!(state, Active | Damaged | Failed | Inactive | Removed);
        let mut results = self.state.results.values();
        if results.any(|result| counts(result.state)) || !self.state.done.is_empty() {
            let now = self.now();
            self.pace.has_news(now, fastrand::f64());
        }
    }
}

/// How many seconds later at least a command is tried again that has failed.
const COMMAND_PAUSE: i64 = 300;
/// Over how many seconds after a start the first look is spread: a machine that starts has other
/// things to do.
const VERIFY_SPREAD: i64 = 1800;
