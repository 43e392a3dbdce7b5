//! What HTTP writes, on its way through TLS.

use std::sync::atomic::Ordering;

use certs::Role;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::*;
use crate::listen::Limits;
use crate::testing::{Bed, Recorder, SOON, data};

/// Pieces of these lengths, in which a byte out of its place would be seen.
fn pieces(lengths: &[usize]) -> Vec<Bytes> {
    let mut all = (0..).map(|at: usize| (at % 65_521 * 31 % 256) as u8);
    let piece = |length: &usize| all.by_ref().take(*length).collect();
    lengths.iter().map(piece).collect()
}

/// Serves the pieces as one body. Gives it back as it came, with the bytes that went over TCP
/// beside it.
async fn fetch(is_http2: bool, lengths: &'static [usize]) -> (Bytes, u64) {
    let bed = Bed::new();
    let (booster, client) = (bed.own(Role::Booster, "oslo"), bed.own(Role::Client, "a"));
    let handler = move |_, _| async move {
        let length = lengths.iter().map(|length| *length as u64).sum();
        let all = pieces(lengths).into_iter().map(Ok);
        Response::new(Body::stream(futures_util::stream::iter(all), Some(length)))
    };
    let (limits, recorder) = (Limits::default(), Arc::new(Recorder::default()));
    let listener = bed.listen(&booster, data(), limits, &recorder, handler);
    let listener = listener.await;
    let alpn: &[u8] = if is_http2 { b"h2" } else { b"http/1.1" };
    let stream = bed.dial(listener.local_addr(), &booster, &client, alpn);
    let io = TokioIo::new(stream.await);
    let request = Request::get("https://oslo/").body(Empty::<Bytes>::new());
    let request = request.unwrap();
    let response = async {
        if is_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1 << 20);
            let (mut sender, connection) = builder.handshake(io).await.unwrap();
            tokio::select! {
                ended = connection => panic!("{ended:?}"),
                body = async {
                    sender.send_request(request).await.unwrap().collect().await.unwrap()
                } => body.to_bytes(),
            }
        } else {
            let (mut sender, connection) = http1::handshake(io).await.unwrap();
            tokio::select! {
                ended = connection => panic!("{ended:?}"),
                body = async {
                    sender.send_request(request).await.unwrap().collect().await.unwrap()
                } => body.to_bytes(),
            }
        }
    };
    let body = timeout(SOON, response).await.unwrap();
    let sent = listener
        .metrics()
        .traffic
        .sent_bytes
        .load(Ordering::Relaxed);
    let beside = sent - body.len() as u64;
    (body, beside)
}

#[tokio::test]
async fn a_body_comes_whole_however_it_is_cut() {
    // Around the lengths at which it is decided what is sealed now and what waits.
    const LENGTHS: &[usize] = &[
        1, 9, 1015, 1024, 1025, 3000, 8183, 8192, 8193, 16_375, 16_383, 16_384, 16_385, 17_408,
        17_409, 100, 100, 100, 65_536, 262_143, 262_144, 262_145, 524_288, 1, 700_001, 5,
    ];
    for is_http2 in [false, true] {
        let (body, _) = fetch(is_http2, LENGTHS).await;
        assert!(body == pieces(LENGTHS).concat(), "HTTP/2: {is_http2}");
    }
}

#[tokio::test]
async fn frames_of_http2_do_not_each_cost_a_record_of_their_own() {
    const PIECES: usize = 16;
    const FRAMES: u64 = (PIECES as u64 * (256 << 10)) / (16 << 10);
    let (_, beside) = fetch(true, &[256 << 10; PIECES]).await;
    // A frame's head is 9 bytes, and a record costs 22. The handshake and the rest are some 4 KiB.
    assert!(beside < FRAMES * (9 + 22 + 3) + 5000, "{beside} bytes");
}
