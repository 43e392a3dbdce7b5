//! A branch whose only route is its booster.

use std::time::Duration;

use certs::Role;
use member::{Due, EnrolError, EnrolRequest, Identity, Kind, enrol};
use origin::fleet::DeviceView;
use tests::testbed::{Testbed, until};
use tests::{fixture, tree};
use tokio::net::TcpListener;

const DAY: i64 = 86_400;

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_a_branch_enrol_are_vetted_and_renew_through_its_booster() {
    // Where the deployment document says that the origin enrols, nobody in the branch gets through.
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let wall = nobody.local_addr().unwrap();
    drop(nobody);
    let bed = Testbed::start_behind(&[], &[wall]).await.unwrap();
    fixture::tree(&bed.path("tree"), 1).unwrap();
    bed.publish("tools", &bed.path("tree")).await.unwrap();
    // The booster knows a way of its own.
    let mut join = bed.join(Role::Booster).await.unwrap();
    join.addresses = vec![bed.origin().addresses().enrol.to_string()];
    let request = EnrolRequest {
        id: Some("booster".parse().unwrap()),
        ..EnrolRequest::new(Kind::Booster, bed.path("booster"), join)
    };
    enrol(request, &bed.clock(), |_| {}).await.unwrap();
    let config =
        booster::Config::on_loopback(bed.path("booster")).with_crl_poll(Duration::from_secs(1));
    let booster = bed.start_booster(config, "booster").await.unwrap();

    // A device asks through it, and waits until an operator approves.
    let mut join = bed.token(Role::Client, false).await.unwrap();
    join.addresses = vec![booster.addresses().enrol.to_string()];
    let request = EnrolRequest {
        id: Some("one".parse().unwrap()),
        patience: Duration::ZERO,
        ..EnrolRequest::new(Kind::Client, bed.path("one"), join)
    };
    let asked = enrol(request.clone(), &bed.clock(), |_| {}).await;
    assert!(
        matches!(asked, Err(EnrolError::Pending { .. })),
        "{asked:?}"
    );
    let path = "/devices/one/approve";
    let _one: DeviceView = bed.admin().post(path, &()).await.unwrap();
    let first = enrol(request, &bed.clock(), |_| {}).await.unwrap();
    assert_eq!(first.id, "one");

    let target = bed.path("target");
    let report = bed.pull(&bed.path("one"), "tools", &target).await.unwrap();
    let from: Vec<&str> = report.sources.iter().map(|it| &it.source[..]).collect();
    assert_eq!(from, ["booster booster"]);
    tree::compare(&bed.path("tree"), &target).unwrap();

    // More than half of the certificate's life is over: the next pull renews it, by the same way.
    bed.pass(9 * DAY);
    // The booster's lists are too old now, and it relays nobody until it has new ones.
    let number = || {
        booster
            .metrics()
            .crl_next_update
            .with_label_values(&["client"])
    };
    until(async || number().get(), |next| *next > bed.clock().now()).await;
    let relayed = || {
        booster
            .metrics()
            .relayed
            .with_label_values(&["relayed"])
            .get()
    };
    let before = until(async || relayed(), |count| *count > 0).await;
    bed.pull(&bed.path("one"), "tools", &target).await.unwrap();
    let folder = bed.path("one/identity");
    let now = bed.clock().now();
    let identity = Identity::load(&folder, Kind::Client, Duration::ZERO, now)
        .unwrap()
        .unwrap();
    assert!(identity.expires() > first.not_after, "renewed");
    assert_eq!(identity.due(now, 0.0), Due::NotYet);
    until(async || relayed(), |count| *count > before).await;
    let _drained = booster.drain(Duration::from_secs(5)).await;
}
