//! A TCP link that can be broken on purpose, and mended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to the bytes that come back over a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// They arrive.
    Pass,
    /// Every connection ends once this many bytes have come back over it.
    CutAfter {
        /// Bytes of one connection.
        bytes: u64,
    },
    /// They wait, and the connections stay open, until the fate changes.
    Hold,
    /// As soon as so many bytes have come back over all connections, those after them wait.
    HoldAfter {
        /// Bytes of all connections together.
        bytes: u64,
    },
    /// No connection is accepted, and those that are open end.
    Down,
}

/// A link to one address. It ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    fate: watch::Sender<Fate>,
    target: watch::Sender<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// A link to `target`.
    ///
    /// # Errors
    ///
    /// Fails if no port is to be had.
    pub async fn open(target: SocketAddr, fate: Fate) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (fate, fates) = watch::channel(fate);
        let (target, targets) = watch::channel(target);
        let bytes = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, targets, fates, Arc::clone(&bytes)));
        Ok(Self {
            address,
            bytes,
            fate,
            target,
            _tasks: tasks,
        })
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that have come back so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Changes the fate of all that comes back from now on.
    pub fn set(&self, fate: Fate) {
        self.fate.send_replace(fate);
    }

    /// Leads new connections to another address.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

async fn accept(
    listener: TcpListener,
    target: watch::Receiver<SocketAddr>,
    fate: watch::Receiver<Fate>,
    bytes: Arc<AtomicU64>,
) {
    let mut links = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while links.try_join_next().is_some() {}
        if *fate.borrow() != Fate::Down {
            let target = *target.borrow();
            links.spawn(carry(near, target, fate.clone(), Arc::clone(&bytes)));
        }
    }
}

/// Carries one connection. A broken link is what we are here to make: its errors are no news.
async fn carry(
    mut near: TcpStream,
    target: SocketAddr,
    mut fate: watch::Receiver<Fate>,
    bytes: Arc<AtomicU64>,
) {
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    let (mut near_read, mut near_write) = near.split();
    let (mut far_read, mut far_write) = far.split();
    let there = tokio::io::copy(&mut near_read, &mut far_write);
    let back = async {
        let mut carried = 0;
        let mut buffer = vec![0; 16 << 10];
        loop {
            let now = *fate.borrow_and_update();
            let room = match now {
                Fate::Pass => buffer.len(),
                Fate::CutAfter { bytes } => buffer.len().min((bytes - carried.min(bytes)) as usize),
                Fate::Down => return,
                Fate::HoldAfter { bytes: limit } => {
                    let left = limit.saturating_sub(bytes.load(Ordering::Relaxed));
                    if left == 0 {
                        if fate.changed().await.is_err() {
                            return;
                        }
                        continue;
                    }
                    buffer.len().min(left as usize)
                }
                Fate::Hold => {
                    if fate.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            if room == 0 {
                return;
            }
            let read = tokio::select! {
                read = far_read.read(&mut buffer[..room]) => read.unwrap_or(0),
                changed = fate.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            if read == 0 || near_write.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            carried += read as u64;
            bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
    };
    // When the near side has said all, the far side may still answer.
    let there = async {
        let _ended = there.await.is_ok();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = back => {}
        () = there => {}
    }
}
