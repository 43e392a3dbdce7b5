//! Many ask for what the booster has not got: it asks once.

use certs::Role;
use content::pack::PackHeader;
use content::{FilesetName, PackId};
use tests::fixture::{self, locator, rest_of};
use tests::link::{Fate, Link};
use tests::scrape::metric;
use tests::testbed::{Party, Testbed};
use tokio::task::JoinSet;
use transport::{PackBody, Source};

const CLIENTS: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_and_one_cold_fileset_cost_each_pack_once() {
    let line = Link::open(([127, 0, 0, 1], 1).into(), Fate::Pass)
        .await
        .unwrap();
    let bed = Testbed::start_at(&[line.address()]).await.unwrap();
    line.lead_to(bed.origin().addresses().content);
    fixture::tree(&bed.path("tree"), 6).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    let booster = bed.booster("booster").await.unwrap();
    let data = bed.enrol_client("one").await.unwrap();
    let join = bed.join(Role::Client).await.unwrap();
    let party = Party::of(&data, &join, &bed.clock()).await.unwrap();
    let address = booster.local_addr().to_string();
    let calls = || {
        party
            .source(Role::Booster, "booster", address.clone())
            .unwrap()
    };
    let found = locator(&calls(), party.trust(), "tools").await.unwrap();
    let packs = found.packs.clone();
    let first = packs[found.index_packs as usize];
    let ops = bed.origin().addresses().ops;
    let asked = async || {
        metric(ops, "larder_origin_http_requests_total", "route=\"pack\"")
            .await
            .unwrap_or(0)
    };
    let before = asked().await;

    // Two frames of noise are 2 MiB: the line stops in the second.
    line.set(Fate::HoldAfter {
        bytes: line.bytes() + (3 << 19),
    });
    let fileset: FilesetName = "tools".parse().unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..CLIENTS {
        let (source, fileset) = (calls(), fileset.clone());
        waiting.spawn(async move {
            let (body, bytes) = first_frame(&source, &fileset, first.id).await;
            (source, body, bytes)
        });
    }
    let mut holding = Vec::new();
    while let Some(held) = waiting.join_next().await {
        holding.push(held.unwrap());
    }
    assert_eq!(
        holding.len(),
        CLIENTS,
        "each holds a verified frame while the line stands still"
    );
    // On a line as fast as this one was, what comes behind it may be under way by now.
    let once = asked().await - before;
    assert!(matches!(once, 1 | 2), "one of them asked for all: {once}");

    line.set(Fate::Pass);
    let mut reading = JoinSet::new();
    for (source, body, bytes) in holding {
        let (packs, fileset) = (packs.clone(), fileset.clone());
        reading.spawn(async move {
            rest_of(body, bytes, first.id).await.unwrap();
            for pack in packs.iter().filter(|pack| pack.id != first.id) {
                let body = source.pack(&fileset, &pack.id, None, false).await.unwrap();
                rest_of(body, Vec::new(), pack.id).await.unwrap();
            }
        });
    }
    while let Some(read) = reading.join_next().await {
        read.unwrap();
    }
    assert_eq!(
        asked().await - before,
        packs.len() as u64,
        "each pack was asked for once"
    );
}

/// Reads a pack until its first frame is here, and verifies.
async fn first_frame(source: &Source, fileset: &FilesetName, id: PackId) -> (PackBody, Vec<u8>) {
    let mut body = source.pack(fileset, &id, None, false).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        bytes.extend_from_slice(&body.next().await.unwrap().unwrap());
        let length = PackHeader::length(&bytes).unwrap().unwrap_or(usize::MAX);
        if bytes.len() < length {
            continue;
        }
        let header = PackHeader::verify(&bytes[..length], id).unwrap();
        let range = header.frame_range(0);
        if let Some(stored) = bytes.get(range.start as usize..range.end as usize) {
            content::frame::Frame::verify(&header.frames()[0], stored).unwrap();
            return (body, bytes);
        }
    }
}
