//! HTTP/2 peers that keep to the letter of it and mean no good.

use certs::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::client::TlsStream;

use super::*;
use crate::Listener;
use crate::listen::Limits;
use crate::testing::{Bed, Own, Recorder, SOON, data};

/// A frame (RFC 9113 §4.1).
#[derive(Clone, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Error codes (RFC 9113 §7).
const NO_ERROR: u8 = 0;
const ENHANCE_YOUR_CALM: u8 = 11;

impl Frame {
    fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        let payload = payload.to_vec();
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// A GET of `path`, in literals of HPACK (RFC 7541) that need no table.
    fn get(stream: u32, path: &str) -> Self {
        let mut block = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(b"\x01\x01x");
        Self::new(HEADERS, END_STREAM | END_HEADERS, stream, &block)
    }

    fn get_pack(stream: u32, name: &str) -> Self {
        let path = format!("/v1/filesets/{name}/packs/{}", pack_id().0.hex());
        Self::get(stream, &path)
    }

    /// The head of a POST of `path`, whose body is to come.
    fn post(stream: u32, path: &str) -> Self {
        let mut head = Self::get(stream, path);
        (head.flags, head.payload[0]) = (END_HEADERS, 0x83);
        head
    }

    fn window(stream: u32, bytes: u32) -> Self {
        Self::new(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = u32::try_from(self.payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[self.kind, self.flags]);
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Takes a whole frame off the front of `heard`.
    fn take(heard: &mut Vec<u8>) -> Option<Self> {
        let head = heard.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (kind, flags) = (head[3], head[4]);
        let payload = heard.get(9..9 + length)?.to_vec();
        heard.drain(..9 + length);
        Some(Self {
            kind,
            flags,
            stream,
            payload,
        })
    }
}

/// A listener, and somebody who may connect to it.
struct Scene {
    bed: Bed,
    booster: Own,
    client: Own,
    listener: Listener,
}

impl Scene {
    async fn new(limits: Limits) -> Self {
        let bed = Bed::new();
        let (booster, client) = (bed.own(Role::Booster, "oslo"), bed.own(Role::Client, "a"));
        let recorder = Arc::new(Recorder::default());
        let listener = bed.listen(&booster, data(), limits, &recorder, serve).await;
        Self {
            bed,
            booster,
            client,
            listener,
        }
    }

    /// Connects, and says nothing yet.
    async fn dial(&self) -> TlsStream<TcpStream> {
        let (bed, addr) = (&self.bed, self.listener.local_addr());
        bed.dial(addr, &self.booster, &self.client, b"h2").await
    }

    /// Connects, and grants each stream `window` bytes.
    async fn line(&self, window: u32) -> Line {
        let mut line = Line {
            stream: self.dial().await,
            heard: Vec::new(),
        };
        line.stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut setting = vec![0, 4];
        setting.extend_from_slice(&window.to_be_bytes());
        line.say(&[Frame::new(SETTINGS, 0, 0, &setting)]).await;
        line
    }
}

/// An HTTP/2 connection as it is on the wire.
struct Line {
    stream: TlsStream<TcpStream>,
    heard: Vec<u8>,
}

impl Line {
    async fn say(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        // Whether it is still heard is seen by what comes back.
        self.stream.write_all(&bytes).await.unwrap_or_default();
        self.stream.flush().await.unwrap_or_default();
    }

    /// The next frame of interest; `None` once the connection has ended. Settings and pings are
    /// answered, and every few milliseconds `often` is said, as if all were well.
    async fn next(&mut self, often: &[Frame]) -> Option<Frame> {
        let mut beat = interval(Duration::from_millis(20));
        loop {
            while let Some(frame) = Frame::take(&mut self.heard) {
                match (frame.kind, frame.flags & ACK) {
                    (SETTINGS, 0) => self.say(&[Frame::new(SETTINGS, ACK, 0, &[])]).await,
                    (PING, 0) => {
                        let pong = Frame::new(PING, ACK, 0, &frame.payload);
                        self.say(&[pong]).await;
                    }
                    (SETTINGS | PING, _) => {}
                    _ => return Some(frame),
                }
            }
            tokio::select! {
                got = self.stream.read_buf(&mut self.heard) => {
                    if matches!(got, Ok(0) | Err(_)) {
                        return None;
                    }
                }
                _ = beat.tick() => {
                    self.say(&[Frame::new(PING, 0, 0, &[7; 8])]).await;
                    self.say(often).await;
                }
            }
        }
    }

    /// Waits for a frame that is as `wanted`; `None` if the connection ends first.
    async fn until(&mut self, often: &[Frame], wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let wait = async {
            loop {
                match self.next(often).await {
                    Some(frame) if !wanted(&frame) => {}
                    other => return other,
                }
            }
        };
        timeout(SOON, wait).await.expect("it goes on for ever")
    }

    async fn reset(&mut self, often: &[Frame], stream: u32) -> Option<Frame> {
        let reset = |frame: &Frame| frame.kind == RST_STREAM && frame.stream == stream;
        self.until(often, reset).await
    }
}

fn impatient() -> Limits {
    Limits {
        idle_timeout: Duration::from_millis(600),
        stall_timeout: Duration::from_millis(600),
        ..Limits::default()
    }
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_ended_whatever_else_moves() {
    let scene = Scene::new(impatient()).await;
    let mut line = scene.line(0).await;
    line.say(&[
        Frame::get_pack(1, "whole"),
        Frame::get_pack(3, "endless"),
        Frame::window(3, 1 << 30),
        Frame::window(0, 1 << 30),
    ])
    .await;
    assert!(line.reset(&[], 1).await.is_some(), "the connection ended");
    // Who takes what was asked for is not made to suffer.
    let data = line.until(&[], |frame| frame.kind == DATA && frame.stream == 3);
    assert!(data.await.is_some());
    assert_eq!(scene.listener.sessions().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_taken_byte_by_byte_is_ended() {
    let scene = Scene::new(impatient()).await;
    let mut line = scene.line(0).await;
    line.say(&[Frame::get_pack(1, "whole")]).await;
    assert!(line.reset(&[Frame::window(1, 1)], 1).await.is_some());
}

#[tokio::test]
async fn the_rest_of_an_answer_that_is_not_taken_ends_the_connection() {
    let scene = Scene::new(impatient()).await;
    // With the first byte the answer is out of the handler's hands, and of ours.
    let mut line = scene.line(1).await;
    line.say(&[Frame::get(1, "/v1/hello")]).await;
    assert!(line.until(&[], |_| false).await.is_none());
}

#[tokio::test]
async fn a_connection_that_never_begins_to_speak_is_ended() {
    let scene = Scene::new(impatient()).await;
    let mut stream = scene.dial().await;
    let mut heard = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "it goes on for ever");
}

#[tokio::test]
async fn a_reader_is_not_blamed_for_what_we_owe_it() {
    let limits = Limits {
        stall_timeout: Duration::from_millis(50),
        work_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let scene = Scene::new(limits).await;
    let mut line = scene.line(1 << 30).await;
    let began = Instant::now();
    line.say(&[Frame::get_pack(1, "slow"), Frame::window(0, 1 << 30)])
        .await;
    assert!(line.reset(&[], 1).await.is_some(), "the connection ended");
    assert!(began.elapsed() >= limits.work_timeout, "it was in a hurry");
}

#[tokio::test]
async fn little_is_kept_of_what_nobody_reads() {
    let scene = Scene::new(Limits::default()).await;
    let mut line = scene.line(0).await;
    let mut granted = (0, 0);
    let read = async {
        while granted.0 == 0 || granted.1 == 0 {
            line.stream.read_buf(&mut line.heard).await.unwrap();
            while let Some(frame) = Frame::take(&mut line.heard) {
                match (frame.kind, frame.flags) {
                    (SETTINGS, 0) => granted.0 = initial_window(&frame.payload),
                    (WINDOW_UPDATE, _) => granted.1 = 65_535 + number(&frame.payload),
                    _ => {}
                }
            }
        }
    };
    timeout(SOON, read).await.unwrap();
    assert!(granted.0 <= 64 << 10, "a stream: {}", granted.0);
    assert!(granted.1 <= 256 << 10, "a connection: {}", granted.1);
}

/// `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113 §6.5.2).
fn initial_window(settings: &[u8]) -> u32 {
    let mut settings = settings.chunks_exact(6);
    let window = settings.find(|setting| setting[..2] == [0, 4]);
    number(&window.unwrap()[2..])
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let scene = Scene::new(Limits::default()).await;
    let mut line = scene.line(0).await;
    // CVE-2023-44487: reset streams do not count as open.
    let cancel = 8u32.to_be_bytes();
    let frames: Vec<Frame> = (0..2000)
        .map(|at| at * 2 + 1)
        .flat_map(|stream| {
            let get = Frame::get_pack(stream, "endless");
            [get, Frame::new(RST_STREAM, 0, stream, &cancel)]
        })
        .collect();
    line.say(&frames).await;
    let parting = line.until(&[], |frame| frame.kind == GOAWAY).await;
    assert_eq!(
        parting.map(|frame| frame.payload[7]),
        Some(ENHANCE_YOUR_CALM)
    );
}

#[tokio::test]
async fn requests_that_are_given_up_again_and_again_end_the_connection() {
    let limits = Limits {
        given_up_max: 5,
        ..Limits::default()
    };
    let scene = Scene::new(limits).await;
    let mut line = scene.line(0).await;
    let cancel = 8u32.to_be_bytes();
    for stream in (1..2000).step_by(2) {
        line.say(&[Frame::get_pack(stream, "endless")]).await;
        // Each is answered before it is given up, so that it passes for one that was meant.
        let head = line.until(&[], |frame| frame.kind == HEADERS).await;
        if head.is_none() {
            assert!(stream > 10, "some may be given up");
            return;
        }
        line.say(&[Frame::new(RST_STREAM, 0, stream, &cancel)])
            .await;
    }
    panic!("it goes on for ever");
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let scene = Scene::new(Limits::default()).await;
    let mut line = scene.line(0).await;
    let mut frames = vec![Frame::new(HEADERS, END_STREAM, 1, &[0x82])];
    // A field without index, named "a", of 100 bytes.
    let mut field = b"\x00\x01a\x64".to_vec();
    field.extend_from_slice(&[b'x'; 100]);
    frames.extend((0..2000).map(|_| Frame::new(CONTINUATION, 0, 1, &field)));
    line.say(&frames).await;
    let parting = line.until(&[], |frame| frame.kind == GOAWAY).await;
    assert!(parting.is_some_and(|frame| frame.payload[7] != 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_that_is_followed_by_the_end_of_the_connection_arrives() {
    let bed = Bed::new();
    let (booster, client) = (bed.own(Role::Booster, "oslo"), bed.own(Role::Client, "a"));
    let farewell = async |_: Request<Incoming>, session: Arc<Session>| {
        session.retire();
        respond::fault(&Fault::new(Code::Forbidden, "not today"))
    };
    let recorder = Arc::new(Recorder::default());
    let listener = bed
        .listen(&booster, data(), Limits::default(), &recorder, farewell)
        .await;
    for _ in 0..100 {
        let own = Some(&client);
        let source = bed.source(listener.local_addr(), &booster.identity, own, true);
        let told = timeout(SOON, source.hello()).await.unwrap().unwrap_err();
        assert!(matches!(told, crate::CallError::Fault { .. }), "{told:?}");
    }
}

/// A listener that takes bodies of 64 KiB, and somebody who may connect to it.
async fn strict() -> Scene {
    let bed = Bed::new();
    let (booster, client) = (bed.own(Role::Booster, "oslo"), bed.own(Role::Client, "a"));
    let take = async |request: Request<Incoming>, _: Arc<Session>| match crate::hear(
        request.into_body(),
        64 << 10,
        SOON,
    )
    .await
    {
        Ok(_) => respond::status(StatusCode::NO_CONTENT),
        Err(_) => respond::fault(&Fault::new(Code::TooLarge, "it is too long")),
    };
    let (limits, recorder) = (Limits::default(), Arc::new(Recorder::default()));
    let listener = bed.listen(&booster, data(), limits, &recorder, take).await;
    Scene {
        bed,
        booster,
        client,
        listener,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_sends_too_much_is_told_so_over_either_http() {
    let scene = strict().await;
    let addr = scene.listener.local_addr();
    for http2 in [false, true] {
        for bytes in [65 << 10, 1 << 20] {
            for _ in 0..10 {
                let own = Some(&scene.client);
                let source = scene.bed.source(addr, &scene.booster.identity, own, http2);
                let connector = &source.connector;
                let make = || {
                    let request = connector.request("/v1/reports").method("POST");
                    crate::source::finish(request, Bytes::from(vec![b'x'; bytes]))
                };
                let answer = connector.exchange(make, Instant::now() + SOON).await;
                let status = answer.map(|(answer, _)| answer.status());
                assert!(
                    matches!(status, Ok(StatusCode::PAYLOAD_TOO_LARGE)),
                    "{bytes} bytes, HTTP/2 {http2}: {status:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn who_sends_without_end_is_answered_and_then_asked_to_stop() {
    let scene = strict().await;
    let mut line = scene.line(1 << 20).await;
    line.say(&[Frame::post(1, "/v1/reports")]).await;
    let piece = Frame::new(DATA, 0, 1, &[b'x'; 1000]);
    let mut kinds = Vec::new();
    let last = loop {
        // Said every few milliseconds: it has not come to an end when its time is up.
        let frame = timeout(SOON, line.next(std::slice::from_ref(&piece))).await;
        let frame = frame.unwrap().expect("the connection goes on");
        if frame.stream == 1 && frame.kind != WINDOW_UPDATE {
            kinds.push(frame.kind);
        }
        if frame.kind == RST_STREAM {
            break frame;
        }
    };
    // RFC 9113 §8.1: first the whole answer, then a reset that blames nobody.
    assert_eq!(kinds, [HEADERS, DATA, RST_STREAM]);
    assert_eq!(number(&last.payload), u32::from(NO_ERROR));
    line.say(&[Frame::post(3, "/v1/reports")]).await;
    let end = Frame::new(DATA, END_STREAM, 3, b"short");
    line.say(&[end]).await;
    let answered = |frame: &Frame| frame.kind == HEADERS && frame.stream == 3;
    assert!(line.until(&[], answered).await.is_some());
}
