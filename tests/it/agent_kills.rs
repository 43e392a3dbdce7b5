//! The agent killed in the middle of everything that it does, in both modes of installation: a tree
//! is always one revision as a whole, a merge goes one way by its journal, and the agent gets there.
//!
//! `LARDER_KILLS` says how often it is killed (`.ci/run` asks for 50), `LARDER_KILLS_SEED` when: a
//! run prints its seed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use client::VerifyRequest;
use content::statement::{InstallMode, Item};
use protocol::CommandKind;
use serde_json::Value;
use tests::link::Fate;
use tests::testbed::until;
use tests::{fixture, tree};
use tokio::time::{sleep, timeout};

use crate::agent::{Scene, stop};

/// What the agent was at when it was killed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Phase {
    /// The origin has begun to answer it, and it does not go by what it was told yet.
    CheckIn,
    Download,
    /// It installs another revision, runs its scripts, confirms it or goes back.
    Activation,
    /// The same while one fileset takes over from another, with files that both have.
    HandOver,
    Heal,
}

const PHASES: [Phase; 5] = [
    Phase::CheckIn,
    Phase::Download,
    Phase::Activation,
    Phase::HandOver,
    Phase::Heal,
];
const MODES: [InstallMode; 2] = [InstallMode::Tree, InstallMode::Merge];

/// Kills without a wish: enough to meet each phase in each mode.
const KILLS: u32 = 16;
/// How many more there may be until each phase has been met in each mode.
const KILLS_MORE: u32 = 30;
/// How long a phase is waited for: not every start comes to each.
const PATIENCE: Duration = Duration::from_secs(8);
/// A file that all revisions of all filesets have, and that is damaged now and then.
const VICTIM: &str = "common/victim";
/// One that all of them have, too.
const STEADY: &str = "common/steady";

/// What the origin says in a check-in, in bytes, over TLS: answer and manifest.
const CHECK_IN_BYTES: u64 = 9000;
/// Small files that differ in each revision.
const MANY: u32 = 200;

/// What may be at a target.
struct Good {
    item: Item,
    folder: PathBuf,
}

struct Yard {
    scene: Scene,
    /// By mode: two revisions of one fileset, and two of another.
    goods: [Vec<Good>; 2],
    /// Which of these is to be there.
    wanted: [usize; 2],
    /// Where it was to be killed, and where it was.
    tries: BTreeMap<(Phase, usize), u32>,
    hits: BTreeMap<(Phase, usize), u32>,
    /// The merges that were in the middle of putting files in their places.
    torn: u32,
    /// Where the numbers without order are.
    random: u64,
    asked: u64,
}

/// What both filesets of a mode have, and what one revision of one of them has.
fn write(folder: &Path, seed: u64) {
    fs::create_dir_all(folder.join("common")).unwrap();
    fs::create_dir_all(folder.join("own")).unwrap();
    fs::write(folder.join(VICTIM), fixture::noise(1 << 20, 1)).unwrap();
    fs::write(folder.join(STEADY), fixture::noise(100_000, 2)).unwrap();
    for common in [VICTIM, STEADY] {
        let file = File::options().write(true).open(folder.join(common));
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        file.unwrap().set_modified(then).unwrap();
    }
    // One name with other bytes in each revision, and names that only some of them have.
    fs::write(folder.join("own/same"), fixture::noise(700_000, seed)).unwrap();
    let own = format!("own/{}", seed % 4);
    fs::write(folder.join(own), fixture::noise(600_000, seed + 100)).unwrap();
    // Many, so that it takes a while until all are in their places.
    for file in 0..MANY {
        fs::write(
            folder.join(format!("own/{file:03}")),
            format!("{file} of {seed}"),
        )
        .unwrap();
    }
}

impl Yard {
    async fn set(seed: u64) -> Self {
        let scene = Box::pin(Scene::set()).await;
        let mut goods = [Vec::new(), Vec::new()];
        for (which, mode) in MODES.into_iter().enumerate() {
            for (number, name) in ["a", "a", "b", "b"].into_iter().enumerate() {
                let fileset = format!("{}-{name}", mode.word());
                let folder = scene.bed.path(&format!("{fileset}-{number}"));
                // In a shared folder, what two filesets have of one name is the same.
                let own = format!("own-{name}");
                write(&folder, 10 + number as u64);
                if mode == InstallMode::Merge {
                    fs::rename(folder.join("own"), folder.join(own)).unwrap();
                }
                let mut item = Box::pin(scene.item_of(&fileset, &folder, mode)).await;
                item.target = scene.target(mode.word()).to_str().unwrap().to_owned();
                goods[which].push(Good { item, folder });
            }
        }
        Self {
            scene,
            goods,
            wanted: [0, 0],
            tries: BTreeMap::new(),
            hits: BTreeMap::new(),
            torn: 0,
            random: seed,
            asked: 0,
        }
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        xorshift(&mut self.random) % end
    }

    fn say(&self) {
        let items = [0, 1].map(|which| &self.goods[which][self.wanted[which]].item);
        self.scene.say(&items);
    }

    fn target(&self, which: usize) -> PathBuf {
        self.scene.target(MODES[which].word())
    }

    /// Where to kill next: where that was never met, once all had their turn.
    fn next(&mut self, is_late: bool) -> (Phase, usize) {
        let all = PHASES.into_iter();
        let all = all.flat_map(|phase| [(phase, 0), (phase, 1)]);
        let mut all: Vec<_> = all
            .filter(|it| !is_late || !self.hits.contains_key(it))
            .collect();
        if all.is_empty() {
            // No merge has been torn yet.
            all.extend([(Phase::Activation, 1), (Phase::HandOver, 1)]);
        }
        let turn = self.below(all.len() as u64) as usize;
        all.rotate_left(turn);
        let tries = |it: &(Phase, usize)| self.tries.get(it).copied().unwrap_or(0);
        let next = all.into_iter().min_by_key(tries).unwrap();
        *self.tries.entry(next).or_default() += 1;
        next
    }

    /// Gives the agent a reason to come to `phase`.
    fn lure(&mut self, phase: Phase, which: usize) {
        match phase {
            Phase::CheckIn | Phase::Download | Phase::Activation => self.wanted[which] ^= 1,
            Phase::HandOver => self.wanted[which] ^= 2,
            Phase::Heal => {
                self.damage(which);
                self.asked += 1;
                self.scene.desk.ask(protocol::Command {
                    id: self.asked,
                    what: CommandKind::Verify,
                });
                return;
            }
        }
        self.say();
    }

    /// Another file in the place of the victim: what the old one is linked to stays as it is.
    fn damage(&self, which: usize) {
        let path = self.target(which).join(VICTIM);
        if path.parent().unwrap().exists() {
            fs::remove_file(&path).unwrap_or_default();
            fs::write(path, "damaged").unwrap();
        }
    }

    fn state(&self) -> Value {
        let read = fs::read(self.scene.data.join("agent/state.json"));
        read.map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// What the agent is at, and for which mode; none if it is at nothing.
    fn phase(&self, carried: u64, which: usize) -> Option<(Phase, usize)> {
        let state = self.state();
        let current = self.scene.desk.current().unwrap().number;
        if state["manifest"]["number"].as_u64() != Some(current) {
            let is_answered = self.scene.link.bytes() > carried;
            return is_answered.then_some((Phase::CheckIn, which));
        }
        let name = state["doing"]["fileset"].as_str()?;
        let which = usize::from(name.starts_with(MODES[1].word()));
        let of_mode = |name: &&String| name.starts_with(MODES[which].word());
        let both = state["filesets"].as_object()?.keys().filter(of_mode);
        let phase = match state["doing"]["what"].as_str() {
            Some("download") => Phase::Download,
            Some("verify") => Phase::Heal,
            _ if both.count() > 1 => Phase::HandOver,
            _ => Phase::Activation,
        };
        Some((phase, which))
    }

    /// Whether the agent has done all that it was told.
    fn is_settled(&self) -> bool {
        let state = self.state();
        let current = self.scene.desk.current().unwrap().number;
        let is_there = |which: usize| {
            let item = &self.goods[which][self.wanted[which]].item;
            let holding = &state["filesets"][item.fileset.as_str()];
            holding["aim"]["reached"] == "done"
                && holding["aim"]["item"]["revision"] == item.revision.0
        };
        state["manifest"]["number"].as_u64() == Some(current)
            && state["doing"].is_null()
            && state["commands"] == serde_json::json!({})
            && state["filesets"]
                .as_object()
                .is_some_and(|all| all.len() == 2)
            && (is_there(0) && is_there(1))
    }

    /// Whether files of the merge are being put in their places.
    fn is_torn(&self) -> bool {
        let records = fs::read_dir(self.scene.data.join("installed"));
        let mut records = records.into_iter().flatten().flatten();
        records.any(|record| {
            let record = record.path();
            // Trees have none.
            let has_one = record.join("journal").exists();
            let says = fs::read(record.join("record.json")).unwrap_or_default();
            let says: Value = serde_json::from_slice(&says).unwrap_or_default();
            has_one && !says["journal"].is_null()
        })
    }

    /// Starts the agent, and kills it somewhere in `phase`, if it comes there.
    async fn kill(&mut self, phase: Phase, which: usize) {
        self.lure(phase, which);
        let link = &self.scene.link;
        let (carried, heard) = (link.bytes(), self.scene.desk.heard().len());
        let mut limit = u64::MAX;
        if phase == Phase::CheckIn {
            // It ends in the middle of what the origin says, wherever that is.
            limit = carried + 1 + xorshift(&mut self.random) % CHECK_IN_BYTES;
            link.set(Fate::HoldAfter { bytes: limit });
        }
        // Every other merge is killed while its files go to their places.
        let moves = matches!(phase, Phase::Activation | Phase::HandOver);
        let tears = which == 1 && moves && self.tries[&(phase, which)] % 2 == 1;
        let spread = if tears { 8 } else { 60 };
        let mut agent = start(&self.scene.data);
        let is_there = |yard: &Self| match (phase, tears) {
            (Phase::CheckIn, _) => yard.scene.link.bytes() >= limit,
            (_, true) => yard.is_torn(),
            (_, false) => yard.phase(carried, which) == Some((phase, which)),
        };
        let is_over = |yard: &Self| yard.scene.desk.heard().len() > heard && yard.is_settled();
        let comes = async {
            while !is_there(self) && !is_over(self) {
                tick().await;
            }
        };
        let _in_time = timeout(PATIENCE, comes).await;
        // A kill by chance: there is nothing to wait for.
        sleep(Duration::from_millis(self.below(spread))).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        if let Some(met) = self.phase(carried, which) {
            *self.hits.entry(met).or_default() += 1;
        }
        self.torn += u32::from(self.is_torn());
        self.scene.link.set(Fate::Pass);
    }

    /// What is on the disk after a kill, before anybody does anything; and after whoever comes
    /// first has recovered it.
    async fn check(&mut self, case: &str) {
        let tree = files(&self.target(0));
        let mut goods = self.goods[0].iter().map(|good| files(&good.folder));
        let is_whole = goods.any(|good| good == tree);
        assert!(is_whole, "{case}: half a tree: {:?}", tree.keys());
        // What both filesets have is never missing, not even before anybody recovers.
        for which in [0, 1] {
            let steady = fs::read(self.target(which).join(STEADY)).ok();
            let is_steady = steady.as_deref() == Some(&fixture::noise(100_000, 2)[..]);
            assert!(is_steady, "{case}: {:?}", MODES[which]);
        }
        // The agent recovers by itself the other times.
        if self.below(2) == 0 {
            return;
        }
        let request = VerifyRequest::new(self.scene.data.clone());
        let clock = self.scene.bed.clock();
        let report = Box::pin(client::verify(request, &clock)).await.unwrap();
        for it in &report.filesets {
            let known = it.differences.iter().all(|it| it.path == VICTIM);
            assert!(known && it.error.is_none(), "{case}: {report}");
        }
    }
}

/// The files below a folder by their paths, but for the one that is damaged on purpose.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(VICTIM) {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Between two looks; what is waited for is what they see. Some of it is over in a few milliseconds.
async fn tick() {
    sleep(Duration::from_millis(1)).await;
}

fn start(data: &Path) -> Child {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_party"));
    agent.args(["client", "run", "--data"]).arg(data);
    agent.stdin(Stdio::null());
    agent.stdout(Stdio::null()).stderr(Stdio::null());
    agent.spawn().unwrap()
}

/// Numbers without order, the same each time (Marsaglia 2003).
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A number that the environment says.
fn said(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_in_all_that_it_does_never_shows_half_and_gets_there() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = said("LARDER_KILLS_SEED").unwrap_or_else(|| now.unwrap().as_nanos() as u64 | 1);
    println!("LARDER_KILLS_SEED={seed}");
    let wanted = said("LARDER_KILLS").map_or(KILLS, |kills| kills as u32);
    let mut yard = Yard::set(seed).await;
    yard.say();
    let agent = yard.scene.start().await;
    until(async || yard.is_settled(), |settled| *settled).await;
    stop(agent).await;
    let begun = Instant::now();
    let mut kills = 0;
    let is_met = |yard: &Yard| yard.hits.len() == 10 && yard.torn > 0;
    while kills < wanted || (!is_met(&yard) && kills < wanted + KILLS_MORE) {
        let (phase, which) = yard.next(kills >= wanted);
        yard.kill(phase, which).await;
        kills += 1;
        let case = format!(
            "seed {seed}, kill {kills}, at {phase:?} of {:?}",
            MODES[which]
        );
        yard.check(&case).await;
    }
    let torn = yard.torn;
    println!(
        "{kills} kills in {:?}, {torn} of them in a journal: {:?}",
        begun.elapsed(),
        yard.hits
    );
    assert!(torn > 0, "seed {seed}: no merge was torn");
    assert_eq!(
        yard.hits.len(),
        10,
        "seed {seed}: not every phase was met: {:?}",
        yard.hits
    );
    get_there(yard).await;
}

/// Whoever is left alone comes to what it should hold, and heals it.
async fn get_there(mut yard: Yard) {
    yard.wanted = yard.wanted.map(|wanted| wanted ^ 1);
    yard.say();
    let agent = yard.scene.start().await;
    until(async || yard.is_settled(), |settled| *settled).await;
    yard.lure(Phase::Heal, 0);
    let id = yard.asked;
    let done = async || {
        yard.scene
            .desk
            .heard()
            .iter()
            .any(|held| held.done.contains(&id))
    };
    until(done, |done| *done).await;
    stop(agent).await;
    let folder = |which: usize| &yard.goods[which][yard.wanted[which]].folder;
    tree::compare(folder(0), &yard.target(0)).unwrap();
    assert_eq!(files(folder(1)), files(&yard.target(1)));
    for which in [0, 1] {
        let victim = fs::read(yard.target(which).join(VICTIM)).unwrap();
        assert_eq!(victim, fixture::noise(1 << 20, 1), "{which}");
    }
    yard.scene.bed.stop().await;
}
