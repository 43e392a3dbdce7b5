//! A source that falls silent: another is asked, too, and whoever has it first goes on.

use super::*;
use crate::testing::{Wrong, pack};

/// A parent that stops in the second frame, and an origin.
struct Scene {
    bed: Bed,
    origin: Arc<Fake>,
    pack: BuiltPack,
    parent: Arc<Fake>,
    _folder: TempDir,
}

impl Scene {
    async fn set() -> Self {
        let (pack, folder) = (pack(1), folder());
        let parent = Fake::new("parent").with(&[&pack]);
        parent.gate_at(start(&pack, 1) + 10);
        let origin = Fake::new("origin").with(&[&pack]);
        let bed = Bed::open(folder.path(), &[&parent, &origin]).await;
        Self {
            bed,
            origin,
            pack,
            parent,
            _folder: folder,
        }
    }

    /// Who won, of how many.
    fn won(&self) -> Vec<(&'static str, u64)> {
        let hedges = &self.bed.metrics.hedges;
        let won = ["first", "second"].map(|it| (it, hedges.with_label_values(&[it]).get()));
        won.into_iter().filter(|it| it.1 > 0).collect()
    }

    async fn reader(&self) -> Reader {
        self.bed
            .served(&self.pack)
            .await
            .unwrap()
            .reader(0, u64::MAX)
    }

    async fn rest(&self, reader: Reader) {
        assert!(soon(all(reader)).await.unwrap() == self.pack.bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_source_falls_silent_the_next_one_goes_on_at_the_last_good_frame() {
    let scene = Scene::set().await;
    scene.rest(scene.reader().await).await;
    assert_eq!(scene.parent.asked_from(), [0]);
    assert_eq!(scene.origin.asked_from(), [start(&scene.pack, 1)]);
    assert_eq!(scene.won(), [("second", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_wakes_up_first_is_the_one_that_goes_on() {
    let scene = Scene::set().await;
    // It answers, and sends nothing.
    scene.origin.gate_at(0);
    let reader = scene.reader().await;
    while scene.origin.asks().is_empty() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    scene.parent.gate_at(u64::MAX);
    scene.rest(reader).await;
    assert_eq!(
        (scene.parent.asks().len(), scene.origin.asks().len()),
        (1, 1)
    );
    assert_eq!(scene.won(), [("first", 1)]);
}

#[tokio::test(start_paused = true)]
async fn of_two_a_liar_does_not_win() {
    let scene = Scene::set().await;
    scene.origin.will([Wrong::Flip(start(&scene.pack, 1) + 5)]);
    let reader = scene.reader().await;
    let failures = &scene.bed.metrics.verification_failures;
    let lied = failures.with_label_values(&["upstream"]);
    while lied.get() == 0 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    scene.parent.gate_at(u64::MAX);
    scene.rest(reader).await;
    assert_eq!(
        (scene.parent.asks().len(), scene.origin.asks().len()),
        (1, 1)
    );
    assert_eq!(scene.won(), []);
}

#[tokio::test(start_paused = true)]
async fn a_fill_hedges_once() {
    let scene = Scene::set().await;
    scene.origin.gate_at(start(&scene.pack, 2) + 10);
    scene.parent.will([Wrong::Nothing, Wrong::Nothing]);
    let reader = scene.reader().await;
    // The second wins one frame and falls silent, too; from then on it is one after the other.
    while scene.parent.asks().len() + scene.origin.asks().len() < 4 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(scene.won(), [("second", 1)]);
    scene.parent.gate_at(u64::MAX);
    scene.origin.gate_at(u64::MAX);
    scene.rest(reader).await;
    assert_eq!(scene.won(), [("second", 1)]);
}
