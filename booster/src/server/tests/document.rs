//! What the deployment document says is taken up without holding up anybody else.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::thread;

use certs::{Key, Serial, issue};
use content::statement::{Deployment, OriginEntry};
use member::Identity;
use service::metrics::Registry;
use transport::Refusals;

use super::super::sources::{Sources, apply};
use super::*;
use crate::metrics::WanMetrics;
use crate::wan::Wan;

/// Opens the pipe at `path` for whoever writes into it, once `free` is set or it has had long
/// enough. Whether it was set.
fn watch(path: &Path, free: &AtomicBool) -> (bool, File) {
    let patience = std::time::Instant::now() + Duration::from_secs(5);
    while !free.load(Ordering::Relaxed) && std::time::Instant::now() < patience {
        thread::yield_now();
    }
    let was_free = free.load(Ordering::Relaxed);
    // For both, so that it stays open however often the other side comes and goes.
    let pipe = File::options().read(true).write(true).open(path);
    (was_free, pipe.unwrap())
}

#[tokio::test]
async fn a_disk_that_takes_its_time_over_new_roots_holds_up_nobody() {
    let bed = Bed::start().await;
    let (now, clock) = (bed.origin.clock.now(), &bed.origin.clock);
    let folder = bed.folder.path().join("booster/identity");
    let identity = Identity::load(&folder, Kind::Booster, Duration::ZERO, now);
    let identity = Arc::new(identity.unwrap().unwrap());
    let metrics = WanMetrics::register(&Registry::new("test")).unwrap();
    let defaults = Config::with_data("/".into()).wan().clone();
    let wan = Wan::new(defaults, clock.clone(), metrics);
    let sources =
        Sources::make(&identity, &[], clock, &Refusals::new(clock.clone()), &wan).unwrap();
    let (key, serial) = (Key::generate().unwrap(), Serial::from_random([9; 16]));
    let next = issue::root(&"acme".parse().unwrap(), 2, key, serial, now).unwrap();
    let mut roots: Vec<Vec<u8>> = vec![next.cert_der().to_vec()];
    roots.extend(
        identity
            .trust
            .roots()
            .iter()
            .map(|root| root.der().to_vec()),
    );
    let document = Deployment {
        deployment: "acme".to_owned(),
        version: 2,
        created: now,
        roots,
        origin: OriginEntry {
            id: "origin".to_owned(),
            addresses: Vec::new(),
            enrol_addresses: Vec::new(),
        },
        boosters: Vec::new(),
        protocol_min: 1,
        protocol_max: 1,
    };
    // Whoever writes into a pipe that nobody reads waits.
    let pipe = folder.join(".roots.pem.new");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let free = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&free);
    let watcher = thread::spawn(move || watch(&pipe, &watched));
    let others = async { free.store(true, Ordering::Relaxed) };
    tokio::join!(apply(&document, &identity, &sources, now), others);
    let (was_free, _pipe) = watcher.join().unwrap();
    assert!(was_free, "the runtime stood still");
    assert_eq!(identity.trust.roots().len(), 2);
}
