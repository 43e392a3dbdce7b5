//! The agent's life: one task, which checks in, acts, and waits.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use protocol::CheckInAnswer;
use service::logs::Recent;
use service::{CancellationToken, Clock, Component, Drained, Report, Tasks};
use tokio::time::sleep;
use tracing::{info, warn};
use transport::{CallError, Source};

use super::AgentError;
use super::files::Files;
use super::hands::Hands;
use super::line::{CheckInError, Heard, Line};
use super::mind::Mind;
use super::step::{Act, What};
use super::through::Through;
use super::wake::Wake;
use crate::choose::View;
use crate::config::Config;
use crate::fetch::off_the_runtime;
use crate::inventory::Stock;
use crate::session::Session;

/// The agent of a device, at work until it is drained.
#[derive(Debug)]
pub struct Agent {
    tasks: Tasks,
}

impl Agent {
    /// Starts the agent of the device that `config` names.
    ///
    /// # Errors
    ///
    /// Fails if the device has not enrolled, if another program is at work on its data folder, or
    /// if what lies there cannot be used. That the origin is out of reach is no reason.
    pub async fn start(config: &Config, clock: &Clock) -> Result<Self, AgentError> {
        Self::start_logging(config, clock, Recent::default()).await
    }

    /// The same, which shows `log` if an operator asks for it.
    ///
    /// # Errors
    ///
    /// Fails as [`Agent::start`] does.
    pub async fn start_logging(
        config: &Config,
        clock: &Clock,
        log: Recent,
    ) -> Result<Self, AgentError> {
        let (hands, mind, line) = wake(config, clock).await?;
        let life = Life {
            config: config.clone(),
            hands,
            mind,
            line,
            log,
            wake: Wake::default(),
        };
        let tasks = Tasks::new();
        tasks.start("agent", |stop| life.live(stop));
        Ok(Self { tasks })
    }
}

impl Component for Agent {
    async fn any_ended(&self) -> &'static str {
        self.tasks.any_ended().await
    }

    async fn drain(self, grace: Duration) -> Drained {
        self.tasks.drain(grace).await
    }
}

/// Opens the data folder, alone on it, and takes up what an earlier run left.
pub(super) async fn wake(
    config: &Config,
    clock: &Clock,
) -> Result<(Hands, Mind, Line), AgentError> {
    let (own_config, clock) = (config.clone(), clock.clone());
    let opened = off_the_runtime(move || {
        let config = own_config;
        let session = Session::open(config.data(), config.grace(), &clock)?;
        let files = Files::new(config.data());
        let kept = files.manifest(&session.judge(), session.clock.now());
        let own = session.identity.name.id.as_str();
        let kept = kept.filter(|manifest| manifest.device == own);
        let mind = Mind::wake(files.clone(), kept, session.clock.clone(), &config)?;
        Ok::<_, AgentError>((session, files, mind))
    });
    let (session, files, mut mind) = opened.await.map_err(|_| AgentError::Stopped)??;
    mind.stock = Stock::new(config.inventory_every(), config.fields().to_owned());
    mind.state.settings_at = config.settings().map(str::to_owned);
    let line = Line {
        origin: Arc::new(session.origin_source()?),
        judge: session.judge(),
        files: files.clone(),
        device: session.identity.name.id.to_string(),
        through: Through::new(&session, config.through_boosters()),
    };
    let mut hands = Hands {
        through: line.through.clone(),
        courier: session.courier(),
        session,
        files,
        site: config.site().map(str::to_owned),
        sources: config.sources().to_vec(),
        verify_rate: config.verify_rate(),
    };
    go_by(config, &mut hands, &mut mind);
    Ok((hands, mind, line))
}

/// Has everybody go by `config`, and over it by the settings of a fileset that are in force.
fn go_by(config: &Config, hands: &mut Hands, mind: &mut Mind) {
    let config = mind.state.over(config);
    hands.site = config.site().map(str::to_owned);
    hands.sources = config.sources().to_vec();
    hands.verify_rate = config.verify_rate();
    mind.go_by_settings(&config);
}

/// Has check-ins go through the boosters that `hands` would fetch from.
fn follow(hands: &Hands, mind: &Mind, line: &Line) {
    let (site, guide) = (hands.site.as_deref(), &mind.state.guide);
    let view = View::of(&hands.session, &hands.sources, site, guide);
    line.through.follow(&hands.session, &view);
}

/// Checks in once; what is heard is written down.
pub(super) async fn check_in_once(
    hands: &mut Hands,
    mind: &mut Mind,
    line: &Line,
) -> Result<Option<CheckInAnswer>, CheckInError> {
    if let Err(error) = hands.session.catch_up().await {
        warn!(error = %Report(&error), "cannot catch up with the deployment");
    }
    line.origin.set_addresses(hands.session.origin_addresses());
    follow(hands, mind, line);
    let held = mind.held();
    let heard = line.clone().check_in(held.clone(), mind.least()).await;
    let heard = mind.hear(&held, heard);
    mind.keep().await;
    heard
}

/// A check-in under way, and what it tells.
struct Talk {
    held: protocol::Held,
    heard: Pin<Box<dyn Future<Output = Result<Heard, CheckInError>> + Send>>,
}

struct Life {
    /// What the device says itself, under all that a fileset says.
    config: Config,
    hands: Hands,
    mind: Mind,
    line: Line,
    /// The end of its log.
    log: Recent,
    wake: Wake,
}

impl Life {
    async fn live(mut self, stop: CancellationToken) {
        self.mind.keep().await;
        while !stop.is_cancelled() {
            go_by(&self.config, &mut self.hands, &mut self.mind);
            // Whatever is done next: it may last, and check-ins go on beside it.
            follow(&self.hands, &self.mind, &self.line);
            let now = self.mind.now();
            self.wake.hold(&self.line, &self.mind);
            if self.mind.pace.due() <= now {
                self.check_in(&stop).await;
            } else if let Some(id) = self.mind.renewal() {
                self.renew(id).await;
            } else if let Some(id) = self.mind.log_wanted() {
                tokio::select! {
                    () = self.show_log(id) => {}
                    () = stop.cancelled() => {}
                }
            } else if let Some(body) = self.mind.stock.wanted() {
                let sent = send_inventory(&self.line.origin, &self.hands.session, &body);
                tokio::select! {
                    () = sent => {}
                    () = stop.cancelled() => {}
                }
            } else if let Some(act) = self.mind.next().act {
                self.act(act, &stop).await;
            } else if self.take_stock(&stop).await {
                // There may be something to tell.
            } else {
                let next = self.mind.next().look_again_at.unwrap_or(i64::MAX);
                let next = next.min(self.mind.pace.due());
                tokio::select! {
                    woken = self.wake.ended() => if woken { self.mind.woken() },
                    () = sleep(until(next, now)) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        self.mind.keep().await;
    }

    /// Checks in while nothing else is done.
    async fn check_in(&mut self, stop: &CancellationToken) {
        let before = self.mind.least();
        let checked = tokio::select! {
            checked = check_in_once(&mut self.hands, &mut self.mind, &self.line) => checked,
            () = stop.cancelled() => return,
        };
        tell(checked, &mut self.wake, self.mind.least() > before);
    }

    /// Takes stock of the device, if it is time for that; whether it was.
    async fn take_stock(&mut self, stop: &CancellationToken) -> bool {
        tokio::select! {
            taken = self.mind.take_stock() => taken,
            () = stop.cancelled() => false,
        }
    }

    async fn show_log(&mut self, id: u64) {
        let text = self.log.text();
        let log = |source: Arc<Source>| {
            let text = text.clone();
            async move { source.log(text).await }
        };
        match tell_origin(&self.line.origin, &self.hands.session, log).await {
            Ok(()) => {
                info!(bytes = text.len(), "sent the log, as asked");
                self.mind.command_done(id);
            }
            Err(error) => {
                warn!(error = %Report(&error), "cannot send the log, as asked");
                self.mind.log_failed();
            }
        }
        self.mind.keep().await;
    }

    async fn renew(&mut self, id: u64) {
        match self.hands.session.renew_now().await {
            Ok(()) => {
                info!("renewed the certificate, as asked");
                self.mind.command_done(id);
            }
            Err(error) => {
                warn!(error = %Report(&error), "cannot renew the certificate, as asked");
                self.mind.renewal_failed();
            }
        }
        self.mind.keep().await;
    }

    /// Does `act`, and checks in meanwhile. A download is broken off when something else falls due.
    async fn act(&mut self, act: Act, stop: &CancellationToken) {
        self.mind.begin(&act);
        self.mind.keep().await;
        let holding = self.mind.holding(&act);
        self.hands.session.guide = self.mind.state.guide.clone();
        let Self {
            hands,
            mind,
            line,
            wake,
            ..
        } = self;
        let break_off = CancellationToken::new();
        let outcome = {
            let mut doing = pin!(hands.perform(&act, &holding, &break_off));
            let mut talk: Option<Talk> = None;
            loop {
                let now = mind.now();
                if talk.is_none() && mind.pace.due() <= now {
                    let held = mind.held();
                    let heard = Box::pin(line.clone().check_in(held.clone(), mind.least()));
                    talk = Some(Talk { held, heard });
                }
                wake.hold(line, mind);
                let due = if talk.is_some() {
                    i64::MAX
                } else {
                    mind.pace.due()
                };
                tokio::select! {
                    outcome = &mut doing => break outcome,
                    heard = listen(&mut talk) => {
                        if let Some(talk) = talk.take() {
                            let before = mind.least();
                            let heard = mind.hear(&talk.held, heard);
                            tell(heard, wake, mind.least() > before);
                            mind.keep().await;
                        }
                    }
                    woken = wake.ended() => if woken { mind.woken() },
                    () = sleep(until(due, now)) => {}
                    // What has begun is brought to its end, downloads apart.
                    () = stop.cancelled(), if !break_off.is_cancelled() => break_off.cancel(),
                }
                if act.what == What::Download && is_overtaken(mind, &act) {
                    break_off.cancel();
                }
            }
        };
        self.line
            .origin
            .set_addresses(self.hands.session.origin_addresses());
        // Whom the origin names may have changed meanwhile.
        let rests = std::mem::take(&mut self.hands.session.guide.rests);
        self.mind.state.guide.rests = rests;
        self.mind.end(&act, outcome);
        self.mind.keep().await;
        let scripts = self.mind.state.scripts();
        let files = self.hands.files.clone();
        let tidied = off_the_runtime(move || files.tidy_scripts(&scripts));
        tidied.await.unwrap_or_default();
    }
}

/// Tells the origin something, through a booster's relay if there is no other way.
async fn tell_origin<F>(
    origin: &Arc<Source>,
    session: &Session,
    tell: impl Fn(Arc<Source>) -> F,
) -> Result<(), CallError>
where
    F: Future<Output = Result<(), CallError>>,
{
    let told = tell(Arc::clone(origin)).await;
    let is_answered = matches!(told, Ok(()) | Err(CallError::Fault { .. }));
    match session.known_source() {
        Ok(relayed) if !is_answered => tell(Arc::new(relayed)).await,
        Ok(_) | Err(_) => told,
    }
}

/// Sends what the origin has asked for. What does not arrive is asked for again.
async fn send_inventory(origin: &Arc<Source>, session: &Session, body: &[u8]) {
    let inventory = |source: Arc<Source>| async move { source.inventory(body.to_vec()).await };
    match tell_origin(origin, session, inventory).await {
        Ok(()) => info!(bytes = body.len(), "sent the inventory"),
        Err(error) => warn!(error = %Report(&error), "cannot send the inventory"),
    }
}

/// Whether something else should be done than the download `act` that is under way.
fn is_overtaken(mind: &mut Mind, act: &Act) -> bool {
    mind.next().act.as_ref() != Some(act)
}

/// What a talk hears; nothing ever while there is none.
async fn listen(talk: &mut Option<Talk>) -> Result<Heard, CheckInError> {
    match talk {
        Some(talk) => talk.heard.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Takes note of how a check-in has ended; whether it brought another manifest.
pub(super) fn tell(
    checked: Result<Option<CheckInAnswer>, CheckInError>,
    wake: &mut Wake,
    is_new: bool,
) {
    match checked {
        Ok(answer) => {
            let asks = answer.is_some_and(|answer| !answer.commands.is_empty());
            wake.answered(is_new || asks);
        }
        Err(error) => {
            warn!(error = %Report(&error), "cannot check in");
            wake.failed();
        }
    }
}

/// How long to wait for a time, at most until the clock should be looked at again: it may be set,
/// and the machine may sleep.
fn until(at: i64, now: i64) -> Duration {
    let seconds = u64::try_from(at.saturating_sub(now)).unwrap_or_default();
    Duration::from_secs(seconds).clamp(LOOK_MIN, LOOK_MAX)
}

/// Seconds are all that the clock tells: the end of one is not missed by more.
pub(super) const LOOK_MIN: Duration = Duration::from_millis(200);
const LOOK_MAX: Duration = Duration::from_secs(30);
