//! An opaque TCP relay: a branch reaches the origin's enrolment listener through its booster,
//! and TLS stays between the two ends.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use service::{CancellationToken, Drained, Spawner, Tasks};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::io::{Activity, Traffic, Watched};
use crate::listen::BindError;
use crate::places::Places;

/// Says where to relay to, at each connection: addresses as `HOST:PORT`, the best first.
pub type Targets = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What a relay needs.
#[derive(Clone)]
pub struct RelaySettings {
    /// Where to.
    pub targets: Targets,
    /// Connections at a time; more wait in the system's queue.
    pub connections_max: usize,
    /// Those of them that may come from one address (IPv6: one /64); more are turned away.
    pub per_address_max: usize,
    /// How long one target may take to answer before the next is tried.
    pub connect_timeout: Duration,
    /// How long nothing may move.
    pub idle_timeout: Duration,
    /// How long a connection may last. Enrolment takes seconds.
    pub life_max: Duration,
    /// How long one may still last once the relay has been asked to stop.
    pub farewell_max: Duration,
}

impl RelaySettings {
    /// The usual bounds.
    #[must_use]
    pub fn new(targets: Targets) -> Self {
        Self {
            targets,
            connections_max: 64,
            // Nobody alone may keep a branch from enrolling.
            per_address_max: 32,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            life_max: Duration::from_secs(600),
            // Enough for a certificate that is on its way; who waits between two questions has
            // nothing to lose.
            farewell_max: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for RelaySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelaySettings")
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

/// What a relay has counted since it began.
#[derive(Debug, Default)]
pub struct RelayMetrics {
    /// Connections that were passed on.
    pub relayed: AtomicU64,
    /// Connections for which no target answered.
    pub failed: AtomicU64,
    /// Bytes that went to and came from those who connect.
    pub traffic: Arc<Traffic>,
}

/// A relay at work.
#[derive(Debug)]
pub struct Relay {
    local_addr: SocketAddr,
    metrics: Arc<RelayMetrics>,
    tasks: Tasks,
}

impl Relay {
    /// Listens on `addr`; with port 0, on a port that the system picks.
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be listened on.
    pub async fn bind(addr: SocketAddr, settings: RelaySettings) -> Result<Self, BindError> {
        let failed = |source| BindError { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let metrics = Arc::new(RelayMetrics::default());
        let tasks = Tasks::new();
        let (spawner, shared) = (tasks.spawner(), Arc::clone(&metrics));
        tasks.start("accept", |stop| {
            accept_all(listener, settings, shared, spawner, stop)
        });
        Ok(Self {
            local_addr,
            metrics,
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its numbers.
    #[must_use]
    pub fn metrics(&self) -> &Arc<RelayMetrics> {
        &self.metrics
    }

    /// Waits until a part ended that should not have, and names it.
    pub async fn any_ended(&self) -> &'static str {
        self.tasks.any_ended().await
    }

    /// Stops accepting, waits for at most `grace`, and cuts off the rest. A connection is closed
    /// [`RelaySettings::farewell_max`] after the stop, so that one which stays does not hold it up.
    pub async fn drain(self, grace: Duration) -> Drained {
        self.tasks.drain(grace).await
    }
}

async fn accept_all(
    listener: TcpListener,
    settings: RelaySettings,
    metrics: Arc<RelayMetrics>,
    spawner: Spawner,
    stop: CancellationToken,
) {
    let places = Places::new(settings.connections_max, settings.per_address_max);
    while let Some((stream, remote, place)) = places.next(&listener, &stop).await {
        let (settings, metrics) = (settings.clone(), Arc::clone(&metrics));
        let started = spawner.start_brief("relayed", |stop| async move {
            let _place = place;
            let passed_on = timeout(settings.life_max, pass_on(stream, &settings, &metrics));
            tokio::select! {
                passed_on = passed_on => match passed_on {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(%remote, %error, "a relayed connection broke"),
                    Err(_) => debug!(%remote, "a relayed connection lasted too long"),
                },
                () = farewell(&stop, settings.farewell_max) => {
                    debug!(%remote, "closed a relayed connection: the relay stops");
                }
            }
        });
        if !started {
            return;
        }
    }
}

/// Resolves `most` after the relay has been asked to stop: TLS is not ours to end politely.
async fn farewell(stop: &CancellationToken, most: Duration) {
    stop.cancelled().await;
    sleep(most).await;
}

async fn pass_on(
    stream: TcpStream,
    settings: &RelaySettings,
    metrics: &RelayMetrics,
) -> io::Result<()> {
    let target = match connect_to_any(settings).await {
        Ok(target) => target,
        Err(error) => {
            metrics.failed.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
    };
    metrics.relayed.fetch_add(1, Ordering::Relaxed);
    stream.set_nodelay(true)?;
    target.set_nodelay(true)?;
    let activity = Arc::new(Activity::new(&metrics.traffic));
    let (mut near, mut far) = (
        Watched::new(stream, Arc::clone(&activity)),
        Watched::new(target, Arc::default()),
    );
    tokio::select! {
        copied = copy_bidirectional(&mut near, &mut far) => copied.map(drop),
        () = idle(&activity, settings.idle_timeout) => Ok(()),
    }
}

async fn connect_to_any(settings: &RelaySettings) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "there is nowhere to relay to");
    for target in (settings.targets)() {
        match timeout(settings.connect_timeout, TcpStream::connect(&target)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Resolves once nothing has moved for `most`.
async fn idle(activity: &Activity, most: Duration) {
    let mut moved = (Instant::now(), activity.moved());
    loop {
        sleep(most / 8).await;
        let now = activity.moved();
        if now != moved.1 {
            moved = (Instant::now(), now);
        } else if moved.0.elapsed() >= most {
            return;
        }
    }
}
