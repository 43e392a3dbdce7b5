//! What is fetched before anybody asks for it.

use std::time::Instant;

use tokio::task::yield_now;

use super::*;
use crate::testing::pack;
use crate::wan::Purpose;

#[tokio::test(start_paused = true)]
async fn what_somebody_comes_to_wait_for_is_asked_for_again_as_such() {
    let (pack, folder) = (pack(1), folder());
    let origin = Fake::new("origin").with(&[&pack]);
    // It comes as a trickle, as what nobody waits for may.
    origin.gate_at(start(&pack, 1) + 10);
    let bed = Bed::open(folder.path(), &[&origin]).await;
    let ahead = bed.served(&pack).await.unwrap();
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
