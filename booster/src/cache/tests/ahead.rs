//! What is fetched before anybody asks for it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::task::yield_now;

use super::disk::partial;
use super::*;
use crate::testing::{pack, until};
use crate::wan::Purpose;

#[tokio::test(start_paused = true)]
async fn what_somebody_comes_to_wait_for_is_asked_for_again_as_such() {
    let (pack, folder) = (pack(1), folder());
    let origin = Fake::new("origin").with(&[&pack]);
    // It comes as a trickle, as what nobody waits for may.
    origin.gate_at(start(&pack, 1) + 10);
    let bed = Bed::open(folder.path(), &[&origin]).await;
    let ahead = bed.ahead(&pack).await.unwrap();
    let device = Asker::device("laptop-7");
    let (fileset, entry) = (fileset(), entry(&pack));
    let wanted = bed.cache.pack(&fileset, entry, Extent::Whole, device);
    let wanted = soon(wanted).await.unwrap();
    // At once, not when the next frame has trickled in, or when the source is given up: while this
    // looks, the paused clock stands still.
    let begun = Instant::now();
    while origin.asks().len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        yield_now().await;
    }
    origin.gate_at(u64::MAX);
    for served in [ahead, wanted] {
        let got = soon(all(served.reader(0, u64::MAX))).await.unwrap();
        assert!(got == pack.bytes);
    }
    let asks = origin.asks();
    let asked: Vec<_> = asks.iter().map(|ask| (ask.purpose, ask.from)).collect();
    let goes_on = start(&pack, 1);
    let expected = [(Purpose::Prefetch, 0), (Purpose::Wanted, goes_on)];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_prefetch_gives_up_no_pin_and_costs_the_line_nothing_if_there_is_no_room() {
    let (kept, other, next, folder) = (pack(1), pack(2), pack(3), folder());
    let source = Fake::new("origin").with(&[&kept, &other, &next]);
    let limits = Limits {
        disk_bytes_max: room_for(&[&kept, &other]),
        ..limits()
    };
    let bed = Bed::with(folder.path(), &[&source], limits).await;
    bed.cache.ask_standing(Box::new(|_| Standing::Pinned));
    for pack in [&kept, &other] {
        bed.get(pack).await;
    }
    bed.settled().await;
    let refused = bed.ahead(&next).await.unwrap_err();
    assert!(matches!(refused, FillError::Unkept), "{refused}");
    assert!(bed.cache.is_stored(kept.header.id()) && bed.cache.is_stored(other.header.id()));
    assert_eq!(source.asks().len(), 2);
    // Whoever waits for it gets it, and what is used is worth more than what is only pinned.
    bed.settled().await;
    assert_eq!(bed.get(&next).await, filled(true, false));
    assert!(!bed.cache.is_stored(kept.header.id()));
}

#[tokio::test]
async fn what_nobody_waits_for_leaves_the_line_between_two_frames_and_goes_on_from_there() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    let busy = Arc::new(AtomicBool::new(false));
    let must_yield = Arc::clone(&busy);
    let must_yield = move || must_yield.load(Ordering::SeqCst);
    bed.cache.ask_line(Box::new(must_yield));
    // In the midst of the third frame, somebody has been waiting for something else for long.
    source.gate_at(start(&pack, 2) + 10);
    let mut ahead = bed.ahead(&pack).await.unwrap();
    let there = async || fs::metadata(partial(&folder, &pack)).map_or(0, |it| it.len());
    until(there, |bytes| *bytes == start(&pack, 2)).await;
    busy.store(true, Ordering::SeqCst);
    source.gate_at(u64::MAX);
    let put_off = soon(ahead.arrived()).await.unwrap_err();
    assert!(matches!(put_off, FillError::PutOff), "{put_off}");
    bed.settled().await;
    assert_eq!(there().await, start(&pack, 3));
    // Nor is it begun again meanwhile.
    let put_off = bed.ahead(&pack).await.unwrap().arrived().await.unwrap_err();
    assert!(matches!(put_off, FillError::PutOff), "{put_off}");
    bed.settled().await;
    assert_eq!(source.asked_from(), [0]);
    busy.store(false, Ordering::SeqCst);
    let mut ahead = bed.ahead(&pack).await.unwrap();
    soon(ahead.arrived()).await.unwrap();
    assert_eq!(source.asked_from(), [0, start(&pack, 3)]);
    assert_eq!(bed.get(&pack).await, How::Disk);
}

#[tokio::test]
async fn who_comes_while_a_prefetch_is_about_to_leave_is_served_by_it() {
    let (pack, folder) = (pack(1), folder());
    let source = Fake::new("origin").with(&[&pack]);
    let bed = Bed::open(folder.path(), &[&source]).await;
    let (shared, id) = (Arc::downgrade(&bed.cache.shared), pack.header.id());
    let comes = Arc::new(AtomicBool::new(false));
    let has_come = Arc::clone(&comes);
    bed.cache.ask_line(Box::new(move || {
        // The device comes at the worst moment: when it has just been decided.
        let shared = shared.upgrade().unwrap();
        let fill = shared.flights().get(&id).cloned().unwrap();
        fill.ask_for(Asker::device("laptop-7"));
        has_come.store(true, Ordering::SeqCst);
        true
    }));
    let served = bed.ahead(&pack).await.unwrap();
    assert!(comes.load(Ordering::SeqCst));
    let got = soon(all(served.reader(0, u64::MAX))).await.unwrap();
    assert!(got == pack.bytes);
}
