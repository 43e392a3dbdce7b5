//! Bytes that pass through.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use certs::Role;
use service::Drained;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::listen::Limits;
use crate::testing::{Bed, Recorder, SOON, data, loopback};
use crate::{Relay, RelaySettings};

fn settings(targets: &Arc<Mutex<Vec<String>>>) -> RelaySettings {
    let targets = Arc::clone(targets);
    RelaySettings::new(Arc::new(move || targets.lock().unwrap().clone()))
}

#[tokio::test]
async fn tls_passes_through_end_to_end_and_targets_may_change() {
    let bed = Bed::new();
    let origin = bed.own(Role::Origin, "origin");
    let client = bed.own(Role::Client, "laptop-7");
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&origin, data(), Limits::default(), &recorder, serve)
        .await;
    let targets = Arc::new(Mutex::new(Vec::new()));
    let relay = Relay::bind(loopback(), settings(&targets)).await.unwrap();
    let source = bed.source(relay.local_addr(), &origin.identity, Some(&client), false);
    assert!(source.hello().await.unwrap_err().is_retryable());
    *targets.lock().unwrap() = vec!["127.0.0.1:1".to_owned(), listener.local_addr().to_string()];
    source.hello().await.unwrap();
    let metrics = Arc::clone(relay.metrics());
    assert_eq!(metrics.relayed.load(Ordering::Relaxed), 1);
    assert_eq!(metrics.failed.load(Ordering::Relaxed), 1);
    drop(source);
    assert_eq!(relay.drain(SOON).await, Drained::InTime);
    assert!(metrics.traffic.sent_bytes.load(Ordering::Relaxed) > 1000);
    assert!(metrics.traffic.received_bytes.load(Ordering::Relaxed) > 1000);
}

#[tokio::test]
async fn what_does_not_move_or_lasts_too_long_is_cut_off() {
    let target = TcpListener::bind(loopback()).await.unwrap();
    let targets = Arc::new(Mutex::new(vec![target.local_addr().unwrap().to_string()]));
    let check = async |change: fn(&mut RelaySettings)| {
        let mut settings = settings(&targets);
        change(&mut settings);
        let relay = Relay::bind(loopback(), settings).await.unwrap();
        let mut near = TcpStream::connect(relay.local_addr()).await.unwrap();
        let (mut far, _) = target.accept().await.unwrap();
        near.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 4];
        far.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"ping");
        let ended = timeout(SOON, near.read(&mut buffer)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    };
    check(|settings| settings.idle_timeout = Duration::from_millis(100)).await;
    check(|settings| settings.life_max = Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_end_and_closes_who_stays() {
    let target = TcpListener::bind(loopback()).await.unwrap();
    let targets = Arc::new(Mutex::new(vec![target.local_addr().unwrap().to_string()]));
    let mut settings = settings(&targets);
    settings.farewell_max = Duration::from_secs(3);
    let relay = Relay::bind(loopback(), settings).await.unwrap();
    let addr = relay.local_addr();
    let mut near = TcpStream::connect(addr).await.unwrap();
    let (mut far, _) = target.accept().await.unwrap();
    let script = async {
        // Nobody else is let in, and who is in may still be answered.
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
        far.write_all(b"pong").await.unwrap();
        let mut answer = [0; 4];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");
        let ended = near.read(&mut answer).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    };
    let both = async { tokio::join!(relay.drain(SOON * 2), script) };
    let (drained, ()) = timeout(SOON, both).await.unwrap();
    assert_eq!(drained, Drained::InTime);
}
