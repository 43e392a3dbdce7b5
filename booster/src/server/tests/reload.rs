//! A long revocation list takes the place of another while the booster has its hands full.

use certs::Serial;

use super::*;
use crate::testing::pack_of;

/// As many as are signed, verified and written in a few seconds by a build that is not optimised. A
/// million, and what they cost, is the business of the bench `trust`.
const ENTRIES: u32 = 100_000;

/// Numbers that no device of the test has.
fn strangers() -> Vec<Serial> {
    let serial = |number: u32| {
        let mut bytes = [0x40; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        Serial::from_random(bytes)
    };
    (0..ENTRIES).map(serial).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_comes_into_force_and_not_a_connection_is_lost() {
    // As long as packs are: more than lies in the sockets between us.
    let bed = Bed::with(pack_of(1, 41)).await;
    let (device, other) = (bed.origin.device("laptop"), bed.origin.device("desk"));
    let booster = bed.boost().await;
    let live = bed.client(&device, &booster);
    bed.get(&live).await;
    let id = bed.pack.header.id();
    let transfer = bed.client(&other, &booster);
    let mut body = soon(transfer.pack(&fileset(), &id, None, false))
        .await
        .unwrap();
    let mut got = soon(body.next()).await.unwrap().unwrap().to_vec();

    bed.origin.revoke(2, &strangers());
    let list = booster.metrics().crl_number.with_label_values(&["client"]);
    let mut begun = 0;
    while list.get() != 2 {
        bed.get(&live).await;
        let fresh = bed.client(&device, &booster);
        bed.get(&fresh).await;
        begun += 1;
    }
    assert!(begun > 0, "nobody came while the list was taken");
    bed.get(&live).await;
    while let Some(piece) = soon(body.next()).await.unwrap() {
        got.extend_from_slice(&piece);
    }
    assert!(got == bed.pack.bytes);
    // Not one was lost and opened anew.
    assert_eq!(live.meter().connections.load(Ordering::Relaxed), 1);
    let ended = &booster.metrics().handshakes_refused;
    for reason in ["revoked", "crl_stale"] {
        assert_eq!(ended.with_label_values(&[reason]).get(), 0, "{reason}");
    }
    // And it is in force.
    bed.origin.revoke(3, &[device.serial]);
    until(async || list.get(), |number| *number == 3).await;
    assert!(bed.read(&live).await.is_err());
}
