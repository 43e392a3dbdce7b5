//! What is installed is verified and healed through a booster, and whoever is killed at it goes on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use booster::Booster;
use client::{PullRequest, SourceAddress, Verified, VerifyReport, VerifyRequest};
use content::statement::InstallMode;
use tests::testbed::{Testbed, until};
use tests::{fixture, tree};

/// A device with two revisions of a fileset at hand, in a tree and in a folder that is shared.
struct Scene {
    bed: Testbed,
    booster: Booster,
    data: PathBuf,
}

const MODES: [InstallMode; 2] = [InstallMode::Tree, InstallMode::Merge];

impl Scene {
    async fn set() -> Self {
        let bed = Testbed::start().await.unwrap();
        fixture::tree(&bed.path("1"), 6).unwrap();
        bed.publish("tools", &bed.path("1")).await.unwrap();
        tree::copy(&bed.path("1"), &bed.path("2")).unwrap();
        fs::write(bed.path("2/large/000"), fixture::noise(1 << 20, 77)).unwrap();
        fs::remove_dir_all(bed.path("2/small/deep")).unwrap();
        fs::write(bed.path("2/small/deep"), b"a file now").unwrap();
        bed.publish("tools", &bed.path("2")).await.unwrap();
        let booster = bed.booster("booster").await.unwrap();
        let data = bed.enrol_client("one").await.unwrap();
        let scene = Self { bed, booster, data };
        for mode in MODES {
            fs::create_dir(scene.target(mode)).unwrap();
            if mode == InstallMode::Merge {
                fs::write(scene.target(mode).join("theirs"), b"mine").unwrap();
            }
            let mut request = scene.request(mode, 1);
            request.sources = vec![scene.source().parse::<SourceAddress>().unwrap()];
            Box::pin(client::pull(request, &scene.bed.clock()))
                .await
                .unwrap();
        }
        scene
    }

    fn target(&self, mode: InstallMode) -> PathBuf {
        self.bed.path(&format!("target-{}", mode.word()))
    }

    fn source(&self) -> String {
        format!("booster@{}", self.booster.local_addr())
    }

    fn request(&self, mode: InstallMode, revision: u64) -> PullRequest {
        let fileset = "tools".parse().unwrap();
        let mut request = PullRequest::new(self.data.clone(), fileset, self.target(mode));
        request.number = Some(content::RevisionNumber(revision));
        request.mode = mode;
        request
    }

    async fn verify(&self, heal: bool) -> VerifyReport {
        let mut request = VerifyRequest::new(self.data.clone());
        request.heal = heal;
        request.sources = vec![self.source().parse().unwrap()];
        let clock = self.bed.clock();
        Box::pin(client::verify(request, &clock)).await.unwrap()
    }

    /// Starts the real program.
    fn start(&self, words: &[&str]) -> Child {
        let mut client = Command::new(env!("CARGO_BIN_EXE_party"));
        client.arg("client").args(words).stdin(Stdio::null());
        client.arg("--data").arg(&self.data);
        client.stdout(Stdio::null()).stderr(Stdio::null());
        client.spawn().unwrap()
    }
}

/// Changes one byte of a file so that nothing tells by its look.
fn corrupt(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 500_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 500_000).unwrap();
    file.set_modified(modified).unwrap();
}

fn sum(report: &VerifyReport, what: impl Fn(&Verified) -> u64) -> u64 {
    report.filesets.iter().map(what).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_healed_through_the_booster_and_costs_its_frames_alone() {
    let scene = Scene::set().await;
    let well = scene.verify(false).await;
    assert_eq!((well.filesets.len(), well.is_left()), (2, false), "{well}");
    for mode in MODES {
        corrupt(&scene.target(mode).join("large/003"));
        fs::remove_file(scene.target(mode).join("small/9.txt")).unwrap();
    }
    let told = scene.verify(false).await;
    assert_eq!(sum(&told, |it| it.damaged), 4, "{told}");
    assert_eq!(sum(&told, |it| it.left), 4, "{told}");
    // By hand the same is an exit status.
    let mut by_hand = scene.start(&["verify"]);
    assert_eq!(by_hand.wait().unwrap().code(), Some(1));

    let healed = scene.verify(true).await;
    assert_eq!(sum(&healed, |it| it.healed), 4, "{healed}");
    assert!(!healed.is_left(), "{healed}");
    for verified in &healed.filesets {
        // Two chunks are broken: two frames of 1 MiB at the most, and the headers of their packs.
        let fetched = verified.pack_bytes;
        assert!(fetched > 0 && fetched < (2 << 20) + (64 << 10), "{healed}");
        assert!(verified.bypasses.is_empty(), "{healed}");
    }
    tree::compare(&scene.bed.path("1"), &scene.target(InstallMode::Tree)).unwrap();
    let mut by_hand = scene.start(&["verify", "tools"]);
    assert_eq!(by_hand.wait().unwrap().code(), Some(0));
    let mut unknown = scene.start(&["verify", "nothing"]);
    assert_eq!(unknown.wait().unwrap().code(), Some(1));
    scene.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_leave_trees_whole_and_merges_rolled_one_way() {
    let scene = Scene::set().await;
    let moments = fixture::noise(50, 4);
    let source = scene.source();
    let (mut ended, mut revisions) = (0, [1u64, 1]);
    for (kill, moment) in moments.into_iter().enumerate() {
        let which = kill % 2;
        let mode = MODES[which];
        let target = scene.target(mode).display().to_string();
        let heals = kill % 4 >= 2;
        let wanted = format!("tools@{}", 3 - revisions[which]);
        let mut words = if heals {
            corrupt(&scene.target(mode).join("large/003"));
            vec!["verify", &target, "--heal"]
        } else {
            vec!["pull", &wanted, &target]
        };
        words.extend(["--source", &source]);
        if mode == InstallMode::Merge && !heals {
            words.push("--merge");
        }
        let mut client = scene.start(&words);
        // Somewhere in the time that it takes, or a little later.
        let moment = Duration::from_millis(20 + 3 * u64::from(moment));
        let exited = until(
            async || client.try_wait().unwrap().is_some(),
            |exited| *exited,
        );
        let by_itself = tokio::time::timeout(moment, exited).await.is_ok();
        ended += u32::from(by_itself);
        client.kill().unwrap();
        client.wait().unwrap();

        let case = format!("kill {kill} of {words:?}");
        if heals {
            let healed = scene.verify(true).await;
            assert!(!healed.is_left(), "{case}: {healed}");
        }
        let whole = scene.verify(false).await;
        assert_eq!(sum(&whole, |it| it.damaged), 0, "{case}: {whole}");
        assert_eq!(sum(&whole, |it| it.foreign), 0, "{case}: {whole}");
        for verified in &whole.filesets {
            let merged = verified.target == scene.target(InstallMode::Merge);
            revisions[usize::from(merged)] = verified.revision;
        }
        let theirs = fs::read(scene.target(InstallMode::Merge).join("theirs"));
        assert_eq!(theirs.unwrap(), b"mine", "{case}");
    }
    assert!((1..50).contains(&ended), "{ended} of 50 came to their end");
    for mode in MODES {
        let request = scene.request(mode, 2);
        Box::pin(client::pull(request, &scene.bed.clock()))
            .await
            .unwrap();
    }
    fs::remove_file(scene.target(InstallMode::Merge).join("theirs")).unwrap();
    for mode in MODES {
        let (got, wanted) = (scene.target(mode), scene.bed.path("2"));
        // Nothing of ours is left beside it or in it.
        let names = |path: &Path| fs::read_dir(path).unwrap().count();
        assert_eq!(names(&got), names(&wanted), "{mode:?}");
        tree::compare(&wanted.join("large"), &got.join("large")).unwrap();
    }
    scene.bed.stop().await;
}
