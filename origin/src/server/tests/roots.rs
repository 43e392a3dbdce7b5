//! What an operator sees of the roots' lists, which are signed by hand.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::authority::rotate::{RootList, sign_root_lists};
use crate::testing::DAY;

#[tokio::test]
async fn a_roots_list_that_ends_is_an_alarm_a_month_before() {
    let folder = tempfile::tempdir().unwrap();
    let offset = Arc::new(AtomicI64::new(0));
    let clock = Clock::fixed_offset(Arc::clone(&offset));
    let data = folder.path();
    init(data, new_deployment(), clock.now()).await.unwrap();
    let look = async |day: i64| {
        // An hour more: what is left is no whole number of days.
        offset.store(day * DAY + 3600, Ordering::Relaxed);
        let config = Config::on_loopback(data.to_owned());
        let origin = Origin::bind(config, clock.clone()).await.unwrap();
        let found = (origin.health.degraded(), origin.health.failing());
        assert_eq!(origin.drain(GRACE).await, Drained::InTime);
        let [degraded, failing] = [found.0, found.1].map(|found| {
            let about = found.into_iter().filter(|(name, _)| *name == "root lists");
            about.map(|(_, reason)| reason).collect::<String>()
        });
        (degraded, failing)
    };
    let none = String::new;
    assert_eq!(look(365).await, (none(), none()));
    let (degraded, failing) = look(370).await;
    assert!(
        degraded.starts_with("the list of a root ends in 25 days"),
        "{degraded}"
    );
    assert_eq!(failing, none());
    let (degraded, failing) = look(397).await;
    assert_eq!(degraded, none());
    assert!(failing.contains("has ended"), "{failing}");

    let ledger = Ledger::open(&data.join(LEDGER_FILE)).await.unwrap();
    let signed = sign_root_lists(data, &ledger, None, clock.now())
        .await
        .unwrap();
    assert!(
        matches!(signed[..], [RootList { number: 2, .. }]),
        "{signed:?}"
    );
    ledger.close().await;
    assert_eq!(look(398).await, (none(), none()));
}
