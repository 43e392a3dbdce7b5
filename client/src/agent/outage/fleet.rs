//! A fleet of agents, and the origin that dies and comes back.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use content::Digest;
use content::statement::{Judge, JudgeError, Manifest, Signature, Statement, seal};
use protocol::{CheckInAnswer, FilesetState, Held};
use service::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use transport::CallError;

use super::{ACTIVATE, COMMIT, DEACTIVATE, DEVICES, DOWN, DOWNLOAD, END, INTERVAL, UP, WINDOW};
use crate::agent::ended::Outcome;
use crate::agent::files::Files;
use crate::agent::line::{CheckInError, Heard};
use crate::agent::mind::Mind;
use crate::agent::run::{LOOK_MIN, tell};
use crate::agent::step::tests::manifest;
use crate::agent::step::{Act, What};
use crate::agent::wake::{Answer, Wake};
use crate::config::Config;

/// How the origin dies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Death {
    /// It stops: some waits are answered with nothing, all others break, and calls are refused.
    Stopped,
    /// Waits and calls end when their time is over.
    Silent,
}

impl Death {
    /// How long a call takes that fails.
    pub(super) fn call_seconds(self) -> u64 {
        match self {
            Self::Stopped => 0,
            Self::Silent => 15,
        }
    }
}

/// What was counted. Times are seconds from the beginning.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Check-ins that were answered.
    pub(super) answered: Tally,
    /// Check-ins, answered or not.
    pub(super) asked: Tally,
    /// Check-ins, waits and downloads, answered or not.
    pub(super) requests: Tally,
    /// When each device was answered first after the outage.
    pub(super) back: Vec<u64>,
    /// When each device tried to check in during the outage.
    pub(super) tries: Vec<Vec<u64>>,
    /// How often each device tried to download during the outage.
    pub(super) downloads: Vec<u32>,
    /// Waits that were begun while nobody was there.
    pub(super) waits_in_vain: u32,
    /// When the one was installed, the other removed, the third downloaded, on each device.
    pub(super) installed: Vec<u64>,
    pub(super) removed: Vec<u64>,
    pub(super) fetched: Vec<u64>,
    /// When the one was installed, by what each device told the origin.
    pub(super) told: Vec<u64>,
}

/// How many, second by second.
#[derive(Debug)]
pub(super) struct Tally(Vec<u32>);

impl Default for Tally {
    fn default() -> Self {
        Self(vec![0; usize::try_from(END + 1).unwrap()])
    }
}

impl Tally {
    fn count(&mut self) {
        self.0[usize::try_from(seconds()).unwrap()] += 1;
    }

    fn within(&self, range: Range<u64>) -> &[u32] {
        &self.0[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
    }

    /// In a window of that time, on average.
    pub(super) fn mean(&self, range: Range<u64>) -> f64 {
        let windows = (range.end - range.start) as f64 / WINDOW as f64;
        f64::from(self.within(range).iter().sum::<u32>()) / windows
    }

    /// In the fullest window, wherever it begins; and where that is.
    pub(super) fn peak(&self, range: Range<u64>) -> (f64, u64) {
        let start = range.start;
        let windows = self.within(range).windows(usize::try_from(WINDOW).unwrap());
        let sums = windows.map(|window| window.iter().sum::<u32>());
        let (at, most) = (start..).zip(sums).max_by_key(|(_, sum)| *sum).unwrap();
        (f64::from(most), at)
    }
}

/// Seconds from the beginning.
fn seconds() -> u64 {
    BEGUN.with(|begun| begun.get().unwrap().elapsed().as_secs())
}

thread_local! {
    static BEGUN: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

/// What the origin is at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// It has one manifest for all.
    Early,
    /// It has another.
    Committed,
    Dead,
    Back,
}

#[derive(Debug)]
struct Origin {
    death: Death,
    phase: watch::Sender<Phase>,
    manifests: [Statement<Manifest>; 2],
    seen: Mutex<Seen>,
}

/// Has the fleet live until the end.
pub(super) async fn live(death: Death) -> Seen {
    BEGUN.with(|begun| begun.set(Some(Instant::now())));
    let folder = tempfile::tempdir().unwrap();
    let origin = Arc::new(Origin {
        death,
        phase: watch::Sender::new(Phase::Early),
        manifests: manifests(),
        seen: Mutex::default(),
    });
    let mut agents = JoinSet::new();
    for index in 0..DEVICES {
        let agent = Agent::new(index, &origin, folder.path().to_owned());
        agents.spawn(agent.live());
    }
    let begun = Instant::now();
    for (at, phase) in [
        (COMMIT, Phase::Committed),
        (DOWN, Phase::Dead),
        (UP, Phase::Back),
    ] {
        sleep_until(begun + Duration::from_secs(at)).await;
        origin.phase.send_replace(phase);
    }
    sleep_until(begun + Duration::from_secs(END)).await;
    assert_eq!(agents.len(), DEVICES);
    drop(agents);
    std::mem::take(&mut *origin.seen())
}

/// One that names nothing, and one that names something for each time of the outage.
fn manifests() -> [Statement<Manifest>; 2] {
    let unix = |at: u64| START + i64::try_from(at).unwrap();
    let (activate, deactivate) = (unix(ACTIVATE), unix(DEACTIVATE));
    let second = format!(
        "ready@1 a{activate}; old@1 o{deactivate}; late@1 d{}",
        unix(DOWNLOAD)
    );
    [(1, String::new()), (2, second)].map(|(number, text)| {
        let mut manifest = manifest(&text);
        (manifest.number, manifest.model) = (number, number);
        let sign = |message: &[u8]| Ok::<_, std::convert::Infallible>(signature(message));
        let envelope = seal(&manifest, sign).unwrap();
        Statement::open(&envelope, &Toy, START).unwrap()
    })
}

fn signature(message: &[u8]) -> Signature {
    Signature {
        signature: Digest::of(message).as_raw().to_vec(),
        chain: vec![b"leaf".to_vec()],
        key_id: String::new(),
    }
}

/// A judge for whom the right signature is the message's digest.
struct Toy;

impl Judge for Toy {
    fn deployment(&self) -> &'static str {
        "d1"
    }

    fn judge(&self, message: &[u8], sig: &[u8], _: &[Vec<u8>], _: i64) -> Result<(), JudgeError> {
        let is_right = sig == Digest::of(message).as_raw();
        let source = "bad signature".into();
        is_right.then_some(()).ok_or(JudgeError { source })
    }
}

impl Origin {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The manifest that counts.
    fn current(&self) -> &Statement<Manifest> {
        let is_first = self.phase() == Phase::Early;
        &self.manifests[usize::from(!is_first)]
    }

    fn answer(&self) -> CheckInAnswer {
        CheckInAnswer {
            next_seconds: u32::try_from(INTERVAL).unwrap(),
            manifest: None,
            boosters: Vec::new(),
            commands: Vec::new(),
            inventory: false,
        }
    }

    async fn unreachable<T>(&self) -> Result<T, CallError> {
        sleep(Duration::from_secs(self.death.call_seconds())).await;
        Err(CallError::Timeout { step: "connect" })
    }

    /// `POST /v1/check-in`. Who is not known yet is answered in full, as by an origin that has
    /// just started.
    async fn check_in(&self, held: &Held, is_known: bool) -> Result<Heard, CheckInError> {
        {
            let mut seen = self.seen();
            seen.asked.count();
            seen.requests.count();
        }
        if self.phase() == Phase::Dead {
            let failed = self.unreachable().await;
            return failed.map_err(|source| CheckInError::Call { source });
        }
        sleep(LATENCY).await;
        self.seen().answered.count();
        let current = self.current();
        let is_new = held.manifest != Some(current.digest());
        Ok(Heard {
            answer: (is_new || !is_known).then(|| self.answer()),
            manifest: is_new.then(|| current.clone()),
            through: false,
        })
    }

    /// `GET /v1/wait` of a device that goes by the manifest `held`.
    async fn wait(self: Arc<Self>, index: usize, held: Option<Digest>) -> Answer {
        let mut phase = self.phase.subscribe();
        self.seen().requests.count();
        if self.phase() == Phase::Dead {
            self.seen().waits_in_vain += 1;
            return self.unreachable().await;
        }
        let whole = sleep(Duration::from_secs(55));
        let broken = phase.wait_for(|phase| *phase == Phase::Dead);
        let news = async {
            let mut phase = self.phase.subscribe();
            let is_new = |_: &Phase| held != Some(self.current().digest());
            phase.wait_for(is_new).await.map(drop)
        };
        tokio::select! {
            biased;
            _ = broken => {}
            _ = news => return Ok(Some(self.answer())),
            () = whole => return Ok(None),
        }
        match self.death {
            Death::Stopped if index.is_multiple_of(2) => Ok(None),
            Death::Stopped => self.unreachable().await,
            Death::Silent => {
                // As long as a wait may be held, and a call may take beyond that.
                sleep(Duration::from_secs(75)).await;
                self.unreachable().await
            }
        }
    }
}

struct Agent {
    index: usize,
    mind: Mind,
    wake: Wake,
    origin: Arc<Origin>,
    offset: Arc<AtomicI64>,
    /// Whether this life of the origin has heard it.
    heard_in: Option<Phase>,
}

impl Agent {
    fn new(index: usize, origin: &Arc<Origin>, folder: PathBuf) -> Self {
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::fixed_offset(Arc::clone(&offset));
        set(&offset);
        let config = Config::with_data(folder.clone());
        // Nobody writes anything down, so that all can have one folder.
        let mind = Mind::wake(Files::new(&folder), None, clock, &config).unwrap();
        let mut seen = origin.seen();
        seen.tries.push(Vec::new());
        seen.downloads.push(0);
        drop(seen);
        Self {
            index,
            mind,
            wake: Wake::default(),
            origin: Arc::clone(origin),
            offset,
            heard_in: None,
        }
    }

    /// As `run::Life` has it.
    async fn live(mut self) {
        // They were not all set up in one moment.
        sleep(Duration::from_secs_f64(fastrand::f64() * INTERVAL as f64)).await;
        loop {
            set(&self.offset);
            let now = self.mind.now();
            let (origin, index) = (Arc::clone(&self.origin), self.index);
            let wait = |_, manifest| -> _ { Box::pin(origin.wait(index, manifest)) as _ };
            self.wake.hold_by(wait, &self.mind);
            if self.mind.pace.due() <= now {
                self.check_in().await;
                continue;
            }
            let next = self.mind.next();
            if let Some(act) = next.act {
                self.mind.begin(&act);
                let outcome = self.perform(&act);
                self.mind.end(&act, outcome);
            } else {
                let next = next.look_again_at.unwrap_or(i64::MAX);
                let next = next.min(self.mind.pace.due());
                // Nobody sets this clock: there is no need to look at it in between.
                let pause = Duration::from_secs(u64::try_from(next - now).unwrap_or_default());
                tokio::select! {
                    woken = self.wake.ended() => {
                        set(&self.offset);
                        if woken {
                            self.mind.woken();
                        }
                    }
                    () = sleep(pause.max(LOOK_MIN)) => {}
                }
            }
        }
    }

    async fn check_in(&mut self) {
        let life = match self.origin.phase() {
            Phase::Early | Phase::Committed => Phase::Early,
            Phase::Dead => {
                self.origin.seen().tries[self.index].push(seconds());
                Phase::Dead
            }
            Phase::Back => Phase::Back,
        };
        let before = self.mind.least();
        let held = self.mind.held();
        let heard = self
            .origin
            .check_in(&held, self.heard_in == Some(life))
            .await;
        set(&self.offset);
        if heard.is_ok() && self.heard_in.replace(life) != Some(life) && life == Phase::Back {
            self.is_back(&held);
        }
        let heard = self.mind.hear(&held, heard);
        tell(heard, &mut self.wake, self.mind.least() > before);
    }

    /// What it tells the origin that is there again.
    fn is_back(&self, held: &Held) {
        let mut seen = self.origin.seen();
        seen.back.push(seconds());
        let ready = held
            .results
            .iter()
            .find(|result| result.fileset.as_str() == "ready");
        let ready = ready.filter(|result| result.state == FilesetState::Active);
        seen.told
            .extend(ready.map(|result| u64::try_from(result.at - START).unwrap()));
    }

    fn perform(&self, act: &Act) -> Outcome {
        let is_dead = self.origin.phase() == Phase::Dead;
        let mut seen = self.origin.seen();
        match (act.what, act.fileset.as_str()) {
            (What::Download, name) => {
                seen.requests.count();
                if is_dead {
                    seen.downloads[self.index] += 1;
                    let note = "nobody is there".to_owned();
                    return Outcome::Failed { note };
                }
                if name == "late" {
                    seen.fetched.push(seconds());
                }
                return Outcome::Downloaded {
                    locator: Digest::of(b"locator"),
                    sources: Vec::new(),
                };
            }
            (What::Install, "ready") => seen.installed.push(seconds()),
            (What::Uninstall, "old") => seen.removed.push(seconds()),
            (_, _) => {}
        }
        Outcome::Done
    }
}

/// Sets a clock to the time of tokio's.
fn set(offset: &AtomicI64) {
    let now = START + i64::try_from(seconds()).unwrap();
    offset.store(now - Clock::system().now(), Ordering::Relaxed);
}

const START: i64 = 1_700_000_000;
const LATENCY: Duration = Duration::from_millis(50);
