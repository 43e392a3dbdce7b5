//! A TCP link that can be broken on purpose, and mended.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

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
    /// No connection is accepted, and those that are open go on.
    Full,
}

impl Fate {
    /// How many bytes may come back next over a connection that has `carried` some, of `all` over all
    /// connections: 0 ends it, none has it wait.
    fn room(self, carried: u64, all: u64) -> Option<u64> {
        match self {
            Self::Full | Self::Pass => Some(u64::MAX),
            Self::CutAfter { bytes } => Some(bytes.saturating_sub(carried)),
            Self::Down => Some(0),
            Self::Hold => None,
            Self::HoldAfter { bytes } => Some(bytes.saturating_sub(all)).filter(|left| *left > 0),
        }
    }
}

/// A link to one address. It ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    fate: watch::Sender<Fate>,
    pace: Arc<Pace>,
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
        let (bytes, pace) = (Arc::new(AtomicU64::new(0)), Arc::new(Pace::default()));
        let mut tasks = JoinSet::new();
        let line = Line {
            bytes: Arc::clone(&bytes),
            fate: fates,
            pace: Arc::clone(&pace),
        };
        tasks.spawn(accept(listener, targets, line));
        Ok(Self {
            address,
            bytes,
            fate,
            pace,
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

    /// Lets no more than so many bytes a second come back, over all connections together, and what
    /// goes there arrive after `delay`. 0 bytes are no limit.
    pub fn slow_down(&self, bytes_per_second: u64, delay: Duration) {
        *self.pace.lock() = (bytes_per_second, delay, Instant::now());
    }

    /// Leads new connections to another address.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

/// What all connections of a link share.
#[derive(Clone, Debug)]
struct Line {
    bytes: Arc<AtomicU64>,
    fate: watch::Receiver<Fate>,
    pace: Arc<Pace>,
}

/// How many bytes a second it carries back, how long it takes there, and until when it is busy.
#[derive(Debug)]
struct Pace(Mutex<(u64, Duration, Instant)>);

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new((0, Duration::ZERO, Instant::now())))
    }
}

impl Pace {
    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, Duration, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When so many bytes have been carried; none if that takes no time.
    fn after(&self, bytes: usize) -> Option<Instant> {
        let mut pace = self.lock();
        let (rate, _, free) = *pace;
        if rate == 0 {
            return None;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        // Sleeping takes a little longer than asked for, which is made up for.
        let late = Instant::now().checked_sub(LATE_MAX).unwrap_or(free);
        pace.2 = free.max(late) + takes;
        Some(pace.2)
    }
}

async fn accept(listener: TcpListener, target: watch::Receiver<SocketAddr>, line: Line) {
    let mut links = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while links.try_join_next().is_some() {}
        if !matches!(*line.fate.borrow(), Fate::Down | Fate::Full) {
            let target = *target.borrow();
            links.spawn(carry(near, target, line.clone()));
        }
    }
}

/// Carries what goes there.
async fn forward(near: &mut ReadHalf<'_>, far: &mut WriteHalf<'_>, pace: &Pace) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = near.read(&mut buffer).await {
        let delay = pace.lock().1;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        far.write_all(&buffer[..read]).await?;
    }
    far.shutdown().await
}

/// Carries one connection. A broken link is what we are here to make: its errors are no news.
async fn carry(mut near: TcpStream, target: SocketAddr, line: Line) {
    let Line {
        bytes,
        mut fate,
        pace,
    } = line;
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    let (mut near_read, mut near_write) = near.split();
    let (mut far_read, mut far_write) = far.split();
    let there = forward(&mut near_read, &mut far_write, &pace);
    let back = async {
        let mut carried = 0;
        let mut buffer = vec![0; 16 << 10];
        loop {
            let now = *fate.borrow_and_update();
            let Some(room) = now.room(carried, bytes.load(Ordering::Relaxed)) else {
                if fate.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let room = buffer
                .len()
                .min(usize::try_from(room).unwrap_or(usize::MAX));
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
            if read == 0 {
                return;
            }
            if let Some(carried) = pace.after(read) {
                sleep_until(carried).await;
            }
            if near_write.write_all(&buffer[..read]).await.is_err() {
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

/// How much of the time that it was late a slow link makes up for.
const LATE_MAX: Duration = Duration::from_millis(20);
