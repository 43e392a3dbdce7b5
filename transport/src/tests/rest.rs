//! Connections on which nothing happens, and requests that wait for each other.

use std::sync::atomic::Ordering;

use certs::Role;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use service::Drained;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::Listener;
use crate::listen::Limits;
use crate::testing::{Bed, Recorder, SOON, data};

/// A listener whose answers are the paths that it is asked for, and a connection to it.
async fn scene(alpn: &[u8]) -> (Listener, TlsStream<TcpStream>) {
    let bed = Bed::new();
    let (booster, client) = (bed.own(Role::Booster, "oslo"), bed.own(Role::Client, "a"));
    let first = Arc::new(Notify::new());
    let handler = move |request: Request<Incoming>, _| {
        let first = Arc::clone(&first);
        async move {
            match request.uri().path() {
                "/waits" => first.notified().await,
                "/frees" => first.notify_one(),
                "/panics" => panic!("as it was asked to"),
                "/parts" => {
                    let parts = ["one", "two"].map(|part| Ok(Bytes::from(part)));
                    let parts = futures_util::stream::iter(parts);
                    return Response::new(Body::stream(parts, None));
                }
                _ => {}
            }
            Response::new(Body::full(request.uri().path().to_owned()))
        }
    };
    let (limits, recorder) = (Limits::default(), Arc::new(Recorder::default()));
    let listener = bed.listen(&booster, data(), limits, &recorder, handler);
    let listener = listener.await;
    let addr = listener.local_addr();
    let stream = bed.dial(addr, &booster, &client, alpn).await;
    (listener, stream)
}

/// Waits until connections have been put away so many times.
async fn rested(listener: &Listener, times: u64) {
    let rests = &listener.metrics().rests;
    let until = async {
        while rests.load(Ordering::Relaxed) < times {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, until).await.unwrap();
}

async fn say(stream: &mut TlsStream<TcpStream>, words: &str) {
    stream.write_all(words.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads an answer, which has to end with `path`.
async fn hear(stream: &mut TlsStream<TcpStream>, path: &str) {
    let mut heard = Vec::new();
    let read = async {
        while !heard.ends_with(path.as_bytes()) {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "{path}");
        }
    };
    timeout(SOON, read).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_put_away_goes_on_where_it_was() {
    let (listener, mut stream) = scene(b"http/1.1").await;
    for time in 1..3 {
        say(&mut stream, "GET /one HTTP/1.1\r\nhost: x\r\n\r\n").await;
        hear(&mut stream, "/one").await;
        rested(&listener, time).await;
    }
    // The end of an answer whose length nobody knew is part of it.
    say(&mut stream, "GET /parts HTTP/1.1\r\nhost: x\r\n\r\n").await;
    hear(&mut stream, "0\r\n\r\n").await;
    rested(&listener, 3).await;
    // What came together with the request before is not lost.
    say(
        &mut stream,
        "GET /two HTTP/1.1\r\nhost: x\r\n\r\nGET /three HT",
    )
    .await;
    hear(&mut stream, "/two").await;
    rested(&listener, 4).await;
    say(&mut stream, "TP/1.1\r\nhost: x\r\n\r\n").await;
    hear(&mut stream, "/three").await;
    rested(&listener, 5).await;
    // Nobody waits for it at the end, and it is told.
    assert_eq!(listener.drain(SOON).await, Drained::InTime);
    let mut rest = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut rest)).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn an_answer_may_wait_for_another_of_the_same_connection_and_nobody_for_one_that_panics() {
    let (_listener, stream) = scene(b"h2").await;
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let ask = |path: &'static str| {
        let mut sender = sender.clone();
        let request = Request::get(format!("https://oslo{path}")).body(Empty::<Bytes>::new());
        async move {
            let answer = sender.send_request(request.unwrap()).await?;
            Ok::<_, hyper::Error>(answer.collect().await?.to_bytes())
        }
    };
    let asked = async {
        let many = futures_util::future::join_all((0..100).map(|_| ask("/one")));
        tokio::join!(ask("/waits"), ask("/panics"), many, ask("/frees"))
    };
    let (waited, panicked, many, freed) = tokio::select! {
        ended = connection => panic!("{ended:?}"),
        asked = timeout(SOON, asked) => asked.unwrap(),
    };
    assert_eq!(waited.unwrap(), "/waits");
    assert!(panicked.is_err());
    assert_eq!(freed.unwrap(), "/frees");
    assert!(many.into_iter().all(|answer| answer.unwrap() == "/one"));
}
