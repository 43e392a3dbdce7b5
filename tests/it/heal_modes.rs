//! What becomes of installed files that somebody corrupts, deletes, changes or replaces, by the heal
//! mode that the model gives them: from an operator's commit, through a booster, to the disk.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use booster::Booster;
use content::pack::{PackDir, PackHeader};
use content::statement::HealMode;
use content::{Chunk, ChunkId, Digest};
use origin::manifests::view::{CommandView, Holds};
use serde_json::json;
use tests::fixture;
use tests::testbed::{Testbed, until};

use crate::fleet::{Scene, start, stop};

/// What happens to an installed file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Damage {
    /// One byte changes, and nothing tells by its look.
    Corrupt,
    Delete,
    Chmod,
    /// Somebody writes another one in its place, and that is newer.
    Replace,
    /// The same with one that is older.
    ReplaceByOlder,
}

/// What verifying and healing make of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Healed,
    Kept,
}
use Damage::{Chmod, Corrupt, Delete, Replace, ReplaceByOlder};
use Fate::{Healed, Kept};

/// What docs/operating.md says under "Verify and heal".
const TABLE: [(HealMode, [(Damage, Fate); 5]); 5] = [
    (
        HealMode::SelfHeal,
        [
            (Corrupt, Healed),
            (Delete, Healed),
            (Chmod, Healed),
            (Replace, Healed),
            (ReplaceByOlder, Healed),
        ],
    ),
    (
        HealMode::IfMissing,
        [
            (Corrupt, Kept),
            (Delete, Healed),
            (Chmod, Kept),
            (Replace, Kept),
            (ReplaceByOlder, Kept),
        ],
    ),
    (
        HealMode::LeaveBehind,
        [
            (Corrupt, Kept),
            (Delete, Kept),
            (Chmod, Kept),
            (Replace, Kept),
            (ReplaceByOlder, Kept),
        ],
    ),
    (
        HealMode::NeverOverwrite,
        [
            (Corrupt, Kept),
            (Delete, Healed),
            (Chmod, Kept),
            (Replace, Kept),
            (ReplaceByOlder, Kept),
        ],
    ),
    (
        HealMode::OverwriteIfOlder,
        [
            (Corrupt, Kept),
            (Delete, Healed),
            (Chmod, Kept),
            (Replace, Kept),
            (ReplaceByOlder, Healed),
        ],
    ),
];
/// The two ways to install, and the fileset of each.
const INSTALLS: [&str; 2] = ["tree", "merge"];
/// Files of so many bytes are one chunk each.
const FILE_BYTES: usize = 9000;
/// Files beside those, which nobody touches: packs of their own.
const MEGABYTES: usize = 24;

/// The path of one case within a fileset.
fn name(mode: HealMode, damage: Damage) -> String {
    format!("{}/{damage:?}", mode.word())
}

fn cases() -> impl Iterator<Item = (HealMode, Damage, Fate)> {
    let rows = TABLE.into_iter();
    rows.flat_map(|(mode, row)| row.map(|(damage, fate)| (mode, damage, fate)))
}

impl Damage {
    fn befalls(self, path: &Path) {
        let date = |time| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(time).unwrap();
        };
        // Another file under its name: what it is linked to stays as it is.
        let put = |bytes: &[u8]| {
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let modified = path.metadata().unwrap().modified().unwrap();
        let mode = path.metadata().unwrap().permissions();
        let hour = Duration::from_secs(3600);
        match self {
            Corrupt => {
                let mut bytes = fs::read(path).unwrap();
                bytes[FILE_BYTES / 2] ^= 1;
                put(&bytes);
                fs::set_permissions(path, mode).unwrap();
                date(modified);
            }
            Delete => fs::remove_file(path).unwrap(),
            Chmod => fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap(),
            Replace => {
                put(b"mine");
                date(SystemTime::now() + hour);
            }
            ReplaceByOlder => {
                put(b"an old one");
                date(modified - hour);
            }
        }
    }
}

/// What a file is, as far as healing goes; none if there is none.
type Look = Option<(Vec<u8>, u32, i64, i64)>;

fn look(path: &Path) -> Look {
    let meta = path.symlink_metadata().ok()?;
    let bytes = fs::read(path).ok()?;
    Some((bytes, meta.mode(), meta.mtime(), meta.mtime_nsec()))
}

struct Bench {
    scene: Scene,
    booster: Booster,
    data: PathBuf,
}

impl Bench {
    async fn set() -> Self {
        let bed = Testbed::start().await.unwrap();
        let booster = bed.booster("b1").await.unwrap();
        let data = bed.enrol_client("one").await.unwrap();
        let folder = bed.path("published");
        fixture::tree(&folder, MEGABYTES).unwrap();
        for (number, (mode, damage, _)) in cases().enumerate() {
            fs::create_dir_all(folder.join(mode.word())).unwrap();
            let bytes = fixture::noise(FILE_BYTES, 1000 + number as u64);
            fs::write(folder.join(name(mode, damage)), bytes).unwrap();
        }
        for fileset in INSTALLS {
            bed.publish(fileset, &folder).await.unwrap();
        }
        let scene = Scene { bed };
        Self {
            scene,
            booster,
            data,
        }
    }

    /// Gives the device both filesets, each with a rule for each mode.
    async fn commit(&self) {
        let rule = |(mode, _): (HealMode, _)| {
            let word = mode.word();
            json!({ "pattern": format!("{word}/**"), "mode": word })
        };
        let heal: Vec<_> = TABLE.into_iter().map(rule).collect();
        let spec = |install: &str| {
            let target = self.target(install);
            Some(json!({ "revision": 1, "target": target, "mode": install, "heal": heal }))
        };
        let edits = [
            ("fileset/merge", spec("merge")),
            ("fileset/tree", spec("tree")),
            ("association/merge/group/all", Some(json!({}))),
            ("association/tree/group/all", Some(json!({}))),
        ];
        self.scene.commit(&edits).await;
    }

    fn target(&self, install: &str) -> PathBuf {
        self.scene.bed.path("installed").join(install)
    }

    async fn holds(&self) -> Holds {
        let admin = self.scene.bed.admin();
        admin.get("/devices/one/holds").await.unwrap()
    }

    /// Has an operator ask the device to look at everything, and waits until it has.
    async fn verify(&self) {
        let admin = self.scene.bed.admin();
        let asked: CommandView = admin.post("/devices/one/command", &"verify").await.unwrap();
        let is_done = |holds: &Holds| {
            let found = holds.commands.iter().find(|command| command.id == asked.id);
            found.is_some_and(|command| command.done_at.is_some())
        };
        until(async || self.holds().await, is_done).await;
    }

    /// Bytes of packs that devices have had from the booster.
    fn sent(&self) -> u64 {
        let sent = &self.booster.metrics().response_bytes;
        sent.with_label_values(&["pack"]).get()
    }

    /// The bytes of the packs that hold the chunks of `files`, and of all packs.
    fn packs_of(&self, files: &BTreeSet<ChunkId>) -> (u64, u64) {
        let packs = PackDir::new(self.scene.bed.path("origin").join("packs"));
        let (mut theirs, mut all) = (0_u64, 0_u64);
        for id in packs.list().unwrap() {
            let bytes = fs::read(packs.path(id)).unwrap();
            let length = PackHeader::length(&bytes).unwrap().unwrap();
            let header = PackHeader::verify(&bytes[..length], id).unwrap();
            all += u64::from(header.total_bytes());
            if header
                .chunks()
                .iter()
                .any(|chunk| files.contains(&chunk.id))
            {
                theirs += u64::from(header.total_bytes());
            }
        }
        (theirs, all)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_heal_mode_does_to_each_damage_what_its_definition_says() {
    let bench = Bench::set().await;
    bench.commit().await;
    let agent = start(&bench.scene, &bench.data).await;
    bench.scene.hears("one", 1).await;
    let all_active = |holds: &Holds| {
        let active = |it: &origin::manifests::view::ResultView| it.said.state.word() == "active";
        holds.results.len() == 2 && holds.results.iter().all(active)
    };
    until(async || bench.holds().await, all_active).await;

    let (mut before, mut after) = (Vec::new(), Vec::new());
    for install in INSTALLS {
        for (mode, damage, _) in cases() {
            let path = bench.target(install).join(name(mode, damage));
            before.push(look(&path));
            damage.befalls(&path);
            after.push(look(&path));
        }
    }
    let sent = bench.sent();
    bench.verify().await;
    let mut broken = BTreeSet::new();
    let mut looks = before.into_iter().zip(after);
    for install in INSTALLS {
        for (mode, damage, fate) in cases() {
            let (right, wrong) = looks.next().unwrap();
            if fate == Healed && damage != Chmod {
                let bytes = right.as_ref().map(|it| it.0.clone());
                broken.insert(Chunk::name(&bytes.unwrap()).id());
            }
            check(&bench.target(install), mode, damage, fate, [right, wrong]);
        }
    }
    // Each fileset gets its own frames, of packs that the booster has.
    let (theirs, all) = bench.packs_of(&broken);
    let fetched = bench.sent() - sent;
    println!("{fetched} bytes of packs fetched, {theirs} in the packs of broken chunks, of {all}");
    assert!(theirs < all / 2, "{theirs} of {all} bytes tell nothing");
    assert!(
        fetched > 0 && fetched <= theirs * 2,
        "{fetched} bytes of {theirs}"
    );
    // Who has healed is well, and what may differ is no damage.
    let holds = bench.holds().await;
    assert!(all_active(&holds), "{:?}", holds.results);
    stop(agent).await;
    bench.scene.bed.stop().await;
}

/// Holds one file against what should have become of it.
fn check(target: &Path, mode: HealMode, damage: Damage, fate: Fate, [right, wrong]: [Look; 2]) {
    let path = target.join(name(mode, damage));
    assert_ne!(right, wrong, "nothing has befallen {}", path.display());
    let wanted = match fate {
        Healed => right,
        Kept => wrong,
    };
    let found = look(&path);
    let told = |look: &Look| {
        let told = look.as_ref();
        told.map(|(bytes, mode, at, _)| (bytes.len(), *mode, *at, Digest::of(bytes)))
    };
    assert_eq!(told(&found), told(&wanted), "{fate:?}: {}", path.display());
    assert_eq!(found, wanted, "{fate:?}: {}", path.display());
}
