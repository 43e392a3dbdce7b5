//! What is fetched ahead of somebody who reads in order.

use content::RevisionNumber;

use super::*;
use crate::testing::{pack_of, until};

/// A revision of so many packs, of which some are in an older one, too.
struct Line {
    entries: Vec<PackEntry>,
    old: Vec<usize>,
}

impl Order for Line {
    fn place(&self, _: &FilesetName, id: PackId) -> Option<Place> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        let old = self.old.iter().filter(|old| **old < at).count();
        Some(Place {
            number: RevisionNumber(2),
            at: at as u32,
            new_at: (!self.old.contains(&at)).then(|| (at - old) as u32),
        })
    }

    fn after(&self, _: &FilesetName, place: Place, on: Course, count: usize) -> Vec<PackEntry> {
        let behind = place.at as usize + 1..self.entries.len();
        let behind = behind.filter(|at| on == Course::All || !self.old.contains(at));
        behind.take(count).map(|at| self.entries[at]).collect()
    }
}

/// A cache that knows the order of its packs, and what it was asked for so far.
struct Read {
    bed: Bed,
    _folder: TempDir,
    packs: Vec<BuiltPack>,
    source: Arc<Fake>,
}

impl Read {
    async fn open(count: u64, old: &[usize], limits: Limits) -> Self {
        let folder = folder();
        let packs: Vec<BuiltPack> = (0..count).map(|seed| pack_of(seed, 4)).collect();
        let source = Fake::new("origin").with(&packs.iter().collect::<Vec<_>>());
        let bed = Bed::with(folder.path(), &[&source], limits).await;
        bed.cache.ask_order(Box::new(Line {
            entries: packs.iter().map(entry).collect(),
            old: old.to_vec(),
        }));
        Self {
            bed,
            _folder: folder,
            packs,
            source,
        }
    }

    /// Asks for a pack as a device of that name.
    async fn ask(&self, at: usize, who: &str, extent: Extent) -> Served {
        let (fileset, entry) = (fileset(), entry(&self.packs[at]));
        let asker = Asker::device(who);
        let served = self.bed.cache.pack(&fileset, entry, extent, asker);
        soon(served).await.unwrap()
    }

    /// Reads a pack to its end.
    async fn read(&self, at: usize, who: &str) {
        let served = self.ask(at, who, Extent::Whole).await;
        let got = soon(all(served.reader(0, u64::MAX))).await.unwrap();
        assert!(got == self.packs[at].bytes);
    }

    /// Which packs the source was asked for, by their places, in order, each once.
    fn asked(&self) -> Vec<usize> {
        let asks = self.source.asks();
        let place = |id| self.packs.iter().position(|pack| pack.header.id() == id);
        let mut asked = Vec::new();
        for at in asks.iter().filter_map(|ask| place(ask.id)) {
            if !asked.contains(&at) {
                asked.push(at);
            }
        }
        asked
    }

    /// What is fetched if one reads these, one after the other.
    async fn check(old: &[usize], reads: &[usize], expected: &[usize]) {
        let read = Self::open(12, old, limits()).await;
        for at in reads {
            read.read(*at, "laptop-7").await;
        }
        read.bed.settled().await;
        let mut asked = read.asked();
        asked.sort_unstable();
        assert_eq!(asked, expected, "old {old:?}, read {reads:?}");
        assert_eq!(read.source.asks().len(), expected.len(), "each once");
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_in_order_finds_the_next_packs_on_their_way() {
    // Two at a time are under way, so two are fetched ahead.
    Read::check(&[], &[1, 2], &[1, 2]).await;
    Read::check(&[], &[1, 2, 3], &[1, 2, 3, 4, 5]).await;
    // Whoever begins at the beginning is known by his second step.
    Read::check(&[], &[0], &[0]).await;
    Read::check(&[], &[0, 1], &[0, 1, 2, 3]).await;
    Read::check(&[], &[0, 2], &[0, 2]).await;
    Read::check(&[], &[5, 7, 6], &[5, 6, 7, 8, 9]).await;
    // All of it, and no pack twice.
    let all: Vec<usize> = (0..12).collect();
    Read::check(&[], &all, &all).await;
}

#[tokio::test(start_paused = true)]
async fn an_update_that_takes_single_packs_fetches_no_other() {
    for reads in [&[0, 3, 6, 9][..], &[1, 2, 5, 6, 9, 10], &[11, 7, 3]] {
        let mut expected = reads.to_vec();
        expected.sort_unstable();
        Read::check(&[], reads, &expected).await;
    }
    // One that takes all that is new takes nothing that is not.
    let (old, new) = ([1, 2, 4, 5, 6, 8, 10], [0, 3, 7, 9, 11]);
    Read::check(&old, &new, &new).await;
    Read::check(&old, &new[..4], &new).await;
    Read::check(&old, &new[..3], &new).await;
    // Who takes all packs is known by an old one.
    Read::check(&old, &[3, 4, 5], &[3, 4, 5, 6, 7]).await;
}

#[tokio::test(start_paused = true)]
async fn who_wants_parts_of_packs_is_not_read_ahead_for() {
    let read = Read::open(8, &[], limits()).await;
    for at in 0..4 {
        let served = read.ask(at, "laptop-7", Extent::Part).await;
        soon(all(served.reader(0, 100_000))).await.unwrap();
    }
    read.bed.settled().await;
    assert!(read.asked().iter().all(|at| *at < 4));
}

/// Which packs have been asked for when so many devices have asked for one, and most of it has come.
async fn check_many(old: &[usize], who: &[&str], extent: Extent, at: usize, expected: &[usize]) {
    let read = Read::open(8, old, limits()).await;
    read.source.gate_at(start(&read.packs[0], 0));
    let mut served = Vec::new();
    for who in who {
        served.push(read.ask(at, who, extent).await);
    }
    read.source.gate_at(start(&read.packs[0], 3) + 10);
    let frames = async || read.bed.metrics.upstream_bytes.get();
    let most = start(&read.packs[0], 3) * expected.len() as u64;
    until(frames, |bytes| *bytes > most).await;
    let mut asked = read.asked();
    asked.sort_unstable();
    assert_eq!(asked, expected, "old {old:?}, {who:?} {extent:?} of {at}");
    read.source.gate_at(u64::MAX);
    for served in served {
        let got = soon(all(served.reader(0, u64::MAX))).await.unwrap();
        assert!(got == read.packs[at].bytes);
    }
    read.bed.settled().await;
    assert_eq!(read.source.asks().len(), expected.len(), "each once");
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_pack_that_many_take_is_begun_before_they_have_it() {
    let many = ["laptop-1", "laptop-2", "laptop-3"];
    for (at, behind) in [(0, 1), (3, 4)] {
        check_many(&[], &many, Extent::Whole, at, &[at, behind]).await;
    }
    check_many(&[2, 5], &many, Extent::Whole, 3, &[3, 4]).await;
    // An update goes on with another pack than a whole revision does.
    check_many(&[4, 5], &many, Extent::Whole, 3, &[3]).await;
    check_many(&[3, 5], &many, Extent::Whole, 3, &[3]).await;
    // Two are few; parts are for those who mend something; behind the last comes nothing.
    check_many(&[], &many[..2], Extent::Whole, 3, &[3]).await;
    check_many(&[], &many, Extent::Part, 3, &[3]).await;
    check_many(&[], &many, Extent::Whole, 7, &[7]).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_behind_a_pack_ends_if_nobody_asks_for_it() {
    let read = Read::open(8, &[], limits()).await;
    read.source.gate_at(start(&read.packs[0], 0));
    let mut served = Vec::new();
    for who in ["laptop-1", "laptop-2", "laptop-3"] {
        served.push(read.ask(3, who, Extent::Whole).await);
    }
    read.source.gate_at(start(&read.packs[0], 3) + 10);
    let bytes = async || read.bed.metrics.upstream_bytes.get();
    until(bytes, |bytes| *bytes > 2 * start(&read.packs[0], 3)).await;
    assert_eq!(read.asked(), [3, 4]);
    drop(served);
    // However much of it is there; of the other, which was asked for, half is worth the rest.
    let began = tokio::time::Instant::now();
    until(async || read.bed.metrics.fills_running.get(), |it| *it == 1).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    read.source.gate_at(u64::MAX);
    read.bed.settled().await;
    let fills = |how| read.bed.metrics.fills.with_label_values(&[how]).get();
    assert_eq!((fills("stored"), fills("cancelled")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_ahead_ends_when_the_reader_has_gone() {
    let read = Read::open(8, &[], limits()).await;
    read.read(1, "laptop-7").await;
    read.read(2, "laptop-7").await;
    read.source.gate_at(start(&read.packs[0], 1) + 10);
    let served = read.ask(3, "laptop-7", Extent::Whole).await;
    until(async || read.asked().len(), |asked| *asked == 5).await;
    let mut asked = read.asked();
    // Those that are begun ahead are begun together.
    asked.sort_unstable();
    // The line bears two at a time, and one more when they have little left.
    assert_eq!(asked, [1, 2, 3, 4, 5]);
    // As long as he reads, they go on.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(read.bed.metrics.fills_running.get(), 3);
    drop(served);
    // What he read ends at once; he may be about to ask for the next.
    until(async || read.bed.metrics.fills_running.get(), |it| *it == 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(read.bed.metrics.fills_running.get(), 2);
    let began = tokio::time::Instant::now();
    read.bed.settled().await;
    assert!(began.elapsed() < Duration::from_secs(3));
    let cancelled = read.bed.metrics.fills.with_label_values(&["cancelled"]);
    assert_eq!(cancelled.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_ahead_is_held_by_whoever_comes_when_nobody_has_for_a_moment() {
    let read = Read::open(8, &[], limits()).await;
    for at in 1..3 {
        read.read(at, "laptop-7").await;
    }
    read.source.gate_at(start(&read.packs[0], 1) + 10);
    let first = read.ask(3, "laptop-7", Extent::Whole).await;
    until(async || read.asked().len(), |asked| *asked == 5).await;
    drop(first);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One who reads what is here, and is not followed.
    let other = read.ask(2, "laptop-8", Extent::Whole).await;
    assert_eq!(other.how(), How::Disk);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(read.bed.metrics.fills_running.get(), 2);
    drop(other);
    let began = tokio::time::Instant::now();
    read.bed.settled().await;
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_ahead_goes_on_for_whoever_reads_that_fileset() {
    let read = Read::open(8, &[], limits()).await;
    read.read(1, "laptop-7").await;
    read.read(2, "laptop-7").await;
    read.source.gate_at(start(&read.packs[0], 1) + 10);
    let first = read.ask(3, "laptop-7", Extent::Whole).await;
    // For this one, who comes new, nothing would be begun.
    let second = read.ask(3, "laptop-8", Extent::Whole).await;
    until(async || read.asked().len(), |asked| *asked == 5).await;
    drop(first);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(read.bed.metrics.fills_running.get(), 3);
    read.source.gate_at(u64::MAX);
    let got = soon(all(second.reader(0, u64::MAX))).await.unwrap();
    assert!(got == read.packs[3].bytes);
    for at in 4..6 {
        read.read(at, "laptop-8").await;
    }
    read.bed.settled().await;
    let asks = read.source.asks().len();
    assert_eq!(asks, read.asked().len(), "nothing is asked for twice");
    let cancelled = read.bed.metrics.fills.with_label_values(&["cancelled"]);
    assert_eq!(cancelled.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_asked_for_makes_way_and_is_gone_on_from() {
    let limits = Limits {
        // Whoever waits is let in by what makes way, and not since a source is given up.
        stall: Duration::from_secs(3600),
        ..limits()
    };
    let read = Read::open(8, &[], limits).await;
    for at in 1..3 {
        read.read(at, "laptop-7").await;
    }
    // A frame comes, and no more until another has come.
    read.source.gate_at(start(&read.packs[0], 1) + 10);
    let first = read.ask(3, "laptop-7", Extent::Whole).await;
    // As many as may, since all of them seem to have little left.
    until(async || read.asked().len(), |asked| *asked == 5).await;
    let wanted = read.ask(7, "other", Extent::Whole);
    let mut wanted = Box::pin(wanted);
    assert!(futures_util::poll!(&mut wanted).is_pending());
    let waiting = async || read.bed.metrics.fills_waiting.get();
    until(waiting, |waiting| *waiting == 1).await;
    read.source.gate_at(start(&read.packs[0], 2) + 10);
    // The third frame of what is asked for stays out: only what is read ahead can make room.
    let wanted = soon(wanted).await;
    read.source.gate_at(u64::MAX);
    for (served, at) in [(first, 3), (wanted, 7)] {
        let got = soon(all(served.reader(0, u64::MAX))).await.unwrap();
        assert!(got == read.packs[at].bytes);
    }
    read.read(4, "laptop-7").await;
    read.bed.settled().await;
    assert!(read.bed.metrics.resumed_bytes.get() > 0);
    assert!(read.bed.metrics.read_ahead_bytes.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_is_not_fetched_ahead() {
    let limits = Limits {
        disk_bytes_max: 1000,
        ..limits()
    };
    let read = Read::open(8, &[], limits).await;
    for at in 0..4 {
        read.read(at, "laptop-7").await;
    }
    read.bed.settled().await;
    assert_eq!(read.asked(), [0, 1, 2, 3]);
}
