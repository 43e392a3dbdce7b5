//! One connection, on which requests are sent.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Context as _;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, Version};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::args::HttpVersion;

/// A connection, or a share of one. Its tasks end with the last share.
pub(super) struct Line {
    authority: String,
    sender: Sender,
    tasks: Arc<Tasks>,
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

impl Line {
    pub(super) async fn new(
        stream: TlsStream<TcpStream>,
        http: HttpVersion,
        authority: String,
    ) -> anyhow::Result<Self> {
        let io = TokioIo::new(stream);
        let tasks = Arc::<Tasks>::default();
        let sender = match http {
            HttpVersion::One => {
                let (sender, connection) = http1::Builder::new()
                    .read_buf_exact_size(Some(READ_BYTES))
                    .handshake(io)
                    .await?;
                tasks.start(connection);
                Sender::One(sender)
            }
            HttpVersion::Two => {
                let (sender, connection) = http2::Builder::new(Executor(Arc::downgrade(&tasks)))
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .handshake(io)
                    .await?;
                tasks.start(connection);
                Sender::Two(sender)
            }
        };
        Ok(Self {
            authority,
            sender,
            tasks,
        })
    }

    /// Another share of the same connection: none with HTTP/1.1, which has one request at a time.
    pub(super) fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::One(_) => None,
            Sender::Two(sender) => Some(Self {
                authority: self.authority.clone(),
                sender: Sender::Two(sender.clone()),
                tasks: Arc::clone(&self.tasks),
            }),
        }
    }

    /// Whether the server has ended it.
    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => sender.is_closed(),
            Sender::Two(sender) => sender.is_closed(),
        }
    }

    /// Asks for `path`, and waits for the head of the answer.
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Response<Incoming>> {
        let authority = self.authority.as_str();
        match &mut self.sender {
            Sender::One(sender) => {
                let request = Request::get(path).header(HOST, authority);
                sender.ready().await?;
                let response = sender.send_request(request.body(Empty::new())?);
                response.await.context("no answer")
            }
            Sender::Two(sender) => {
                let request = Request::get(format!("https://{authority}{path}"));
                let request = request.version(Version::HTTP_2).body(Empty::new())?;
                sender.ready().await?;
                sender.send_request(request).await.context("no answer")
            }
        }
    }
}

/// The tasks of one connection.
#[derive(Default)]
struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    fn start<F>(&self, task: F)
    where
        F: Future + Send + 'static,
    {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A set keeps what has finished until it is asked.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            // How it ended shows in the requests that were under way.
            drop(task.await);
        });
    }
}

/// Starts tasks for a connection, as long as there is somebody to own them.
#[derive(Clone)]
struct Executor(Weak<Tasks>);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.start(task);
        }
    }
}

/// As transport's connectors have them: a fast line with some delay must not run dry.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// What one full TLS record holds: whoever reads with more room gets no more, and lets the rest of
/// the room go.
const READ_BYTES: usize = 16 << 10;
