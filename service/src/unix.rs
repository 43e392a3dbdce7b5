//! HTTP over a Unix socket: how a program administers the one that runs.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1 as client;
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, fchmod};
use thiserror::Error;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::time::timeout;
use tracing::warn;

use crate::http1::{self, Limits};
use crate::tasks::{Drained, Tasks};

/// The body of a request as a handler gets it: reading past its bound is an error.
pub type RequestBody = Limited<Incoming>;

/// The user who connected, as the kernel vouches for it (`SO_PEERCRED`, unix(7)): among the
/// extensions of each request that came over a Unix socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerUser {
    /// The user's number.
    pub uid: u32,
}

/// The longest path of a socket, in bytes: `sun_path` has 108, the last of which is a NUL
/// (unix(7)).
pub const PATH_BYTES_MAX: usize = 107;

/// A server on a Unix socket that only this user may use.
#[derive(Debug)]
pub struct UnixServer {
    path: PathBuf,
    tasks: Tasks,
}

/// Why the socket cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody answers there.
    #[error("cannot listen on {path}: another program answers there", path = path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on {path}", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The path does not fit into a socket's address.
    #[error(transparent)]
    TooLong(#[from] PathTooLong),
}

/// A socket's path is longer than [`PATH_BYTES_MAX`].
#[derive(Debug, Error)]
#[error(
    "cannot use the socket {path}: its path is {length} bytes long, and a socket's may have at \
     most {PATH_BYTES_MAX}: use a data folder with a shorter path",
    path = path.display()
)]
pub struct PathTooLong {
    path: PathBuf,
    length: usize,
}

/// Why a call got no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody listens.
    #[error("cannot reach {path}: is the program running?", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is too long, or the connection broke in it.
    #[error("cannot read the answer from {path}", path = path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke.
    #[error("cannot talk to {path}", path = path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: hyper::Error,
    },
    /// The deadline passed.
    #[error("cannot wait any longer for {path}", path = path.display())]
    Late {
        /// The socket.
        path: PathBuf,
    },
    /// The path does not fit into a socket's address.
    #[error(transparent)]
    TooLong(#[from] PathTooLong),
}

/// What a caller puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The longest answer, in bytes.
    pub answer_bytes_max: usize,
    /// From connecting to the last byte of the answer.
    pub deadline: Duration,
}

/// Administrators are few; a connection may carry a whole pack, or wait for a long commit.
const LIMITS: Limits = Limits {
    connections_max: 64,
    life_max: Duration::from_secs(3600),
};

impl UnixServer {
    /// Listens on `path` (mode 0600) and answers with `handler`, whose requests may have bodies of
    /// at most `body_bytes_max`. A socket that nobody answers on any more is replaced.
    ///
    /// # Errors
    ///
    /// Fails if the path is too long, if somebody answers there, or if the system refuses.
    pub async fn bind<H, F, B>(
        path: &Path,
        body_bytes_max: usize,
        handler: H,
    ) -> Result<Self, BindError>
    where
        H: Fn(Request<RequestBody>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        check_length(path)?;
        let fail = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        match UnixStream::connect(path).await {
            Ok(_) => {
                return Err(BindError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(fail)?;
            }
            // Whatever else is wrong, binding will say it better.
            Err(_) => {}
        }
        let listener = listen(path).map_err(fail)?;
        let tasks = Tasks::new();
        http1::serve(
            &tasks,
            listener,
            LIMITS,
            move |request: Request<Incoming>| {
                handler(request.map(|body| Limited::new(body, body_bytes_max)))
            },
        );
        Ok(Self {
            path: path.to_owned(),
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until a part ended that should not have, and names it.
    pub async fn any_ended(&self) -> &'static str {
        self.tasks.any_ended().await
    }

    /// Stops listening and removes the socket.
    pub async fn drain(self, grace: Duration) -> Drained {
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
        self.tasks.drain(grace).await
    }
}

/// Sends `request` to the program that listens on `path`, on a connection of its own, and reads the
/// whole answer. Request and answer may be under way at the same time.
///
/// # Errors
///
/// Fails if nobody listens, the connection breaks, or `patience` ends. A refusal by the peer is an
/// answer.
pub async fn call<B>(
    path: &Path,
    request: Request<B>,
    patience: Patience,
) -> Result<Response<Bytes>, CallError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    check_length(path)?;
    match timeout(
        patience.deadline,
        exchange(path, request, patience.answer_bytes_max),
    )
    .await
    {
        Ok(answer) => answer,
        Err(_) => Err(CallError::Late {
            path: path.to_owned(),
        }),
    }
}

async fn exchange<B>(
    path: &Path,
    request: Request<B>,
    answer_bytes_max: usize,
) -> Result<Response<Bytes>, CallError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let broken = |source| CallError::Broken {
        path: path.to_owned(),
        source,
    };
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| CallError::Connect {
            path: path.to_owned(),
            source,
        })?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let talk = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        let body = Limited::new(body, answer_bytes_max).collect().await;
        let body = body.map_err(|source| CallError::Answer {
            path: path.to_owned(),
            source,
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let mut talk = pin!(talk);
    let mut connection = pin!(connection);
    tokio::select! {
        answer = talk.as_mut() => answer,
        // How the connection ended, the talk says itself.
        _ended = connection.as_mut() => talk.await,
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // Set before the socket gets its name, so that there is no instant at which others may connect
    // (on Linux the file takes the mode of the unbound socket).
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    // For systems that don't.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

fn check_length(path: &Path) -> Result<(), PathTooLong> {
    let length = path.as_os_str().as_bytes().len();
    if length > PATH_BYTES_MAX {
        return Err(PathTooLong {
            path: path.to_owned(),
            length,
        });
    }
    Ok(())
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use http::StatusCode;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    const PATIENCE: Patience = Patience {
        answer_bytes_max: 1000,
        deadline: Duration::from_secs(10),
    };

    /// Answers with the length of the body that it was sent.
    async fn count(request: Request<RequestBody>) -> Response<Full<Bytes>> {
        match request.into_body().collect().await {
            Ok(body) => Response::new(Full::from(body.to_bytes().len().to_string())),
            Err(_) => {
                let mut refusal = Response::new(Full::default());
                *refusal.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                refusal
            }
        }
    }

    #[tokio::test]
    async fn a_caller_is_known_by_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let tell = async |request: Request<RequestBody>| {
            let peer = request.extensions().get::<PeerUser>();
            let uid = peer.map_or_else(String::new, |peer| peer.uid.to_string());
            Response::new(Full::<Bytes>::from(uid))
        };
        let server = UnixServer::bind(&path, 100, tell).await.unwrap();
        let request = Request::get("/").body(Full::<Bytes>::default()).unwrap();
        let answer = call(&path, request, PATIENCE).await.unwrap();
        let uid = rustix::process::getuid().as_raw().to_string();
        assert_eq!(String::from_utf8_lossy(answer.body()), uid);
        assert_eq!(server.drain(Duration::from_secs(10)).await, Drained::InTime);
    }

    #[tokio::test]
    async fn a_streamed_body_arrives_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let server = UnixServer::bind(&path, 100, count).await.unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        for (pieces, expected) in [(0, "200 0"), (10, "200 100"), (11, "413 ")] {
            let piece = Frame::data(Bytes::from_static(b"0123456789"));
            let stream = (0..pieces)
                .map(|_| Ok::<_, io::Error>(Frame::data(piece.data_ref().unwrap().clone())));
            let body = StreamBody::new(futures_util::stream::iter(stream.collect::<Vec<_>>()));
            let request = Request::post("/").body(body).unwrap();
            let answer = call(&path, request, PATIENCE).await.unwrap();
            let shown = String::from_utf8_lossy(answer.body());
            assert_eq!(format!("{} {shown}", answer.status().as_u16()), expected);
        }
        assert_eq!(server.drain(Duration::from_secs(10)).await, Drained::InTime);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let _server = UnixServer::bind(&path, 0, count).await.unwrap();
        let second = UnixServer::bind(&path, 0, count).await;
        assert!(matches!(second, Err(BindError::InUse { .. })));
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named_with_its_limit() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
        let error = UnixServer::bind(&path, 0, count)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("its path is 108 bytes long, and a socket's may have at most 107"));
        let request = Request::get("/").body(Full::default()).unwrap();
        assert!(matches!(
            call(&path, request, PATIENCE).await,
            Err(CallError::TooLong(_))
        ));
    }

    #[tokio::test]
    async fn a_call_to_nobody_says_so() {
        let request = Request::get("/").body(Full::default()).unwrap();
        let error = call(Path::new("/nowhere/s"), request, PATIENCE)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot reach /nowhere/s: is the program running?"
        );
    }
}
