//! Sessions: who is connected, and when that has to end.

use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use certs::crl::CrlWatcher;
use certs::trust::Basis;
use certs::{IssuerId, Peer, RefusalReason, Trust};
use service::CancellationToken;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::in_flight::{InFlight, Progress, Verdict};
use super::{Handshake, Limits, Refused, Shared};
use crate::io::{Activity, Call, own_end};

/// One connection that has been accepted.
#[derive(Debug)]
pub struct Session {
    activity: Arc<Activity>,
    cut: CancellationToken,
    given_up_max: u32,
    http2: bool,
    id: u64,
    judged: Mutex<Option<Judged>>,
    kept: OnceLock<Arc<dyn Any + Send + Sync>>,
    peer: Option<Peer>,
    remote: SocketAddr,
    /// Whether its end has been told of.
    reported: AtomicBool,
    /// Asked for when nothing has been asked of us for a while.
    rest: Call,
    retire: CancellationToken,
    /// Only the housekeeper and the start and end of requests touch it.
    watch: Mutex<Watch>,
}

/// That the peer might stay, in which second and by what.
#[derive(Debug)]
struct Judged {
    at: i64,
    basis: Basis,
}

/// What the housekeeper looks at.
#[derive(Debug)]
struct Watch {
    /// Whether the last request came soon after the one before.
    brisk: bool,
    /// Requests given up by the peer since the housekeeper came by.
    given_up: u32,
    /// Since when there has been no request; over HTTP/2 as far as the housekeeper has seen.
    idle_since: Option<Instant>,
    /// Since when a head has been arriving.
    head_since: Option<Instant>,
    /// The requests under way, in the order in which they came: there is mostly one.
    in_flight: Vec<(u64, Arc<Progress>)>,
    /// What had been received when the last request was over; over HTTP/1.1 alone.
    received: u64,
    /// How many requests there have been.
    requests: u64,
    /// Whether it has been told to rest since the last one.
    rests: bool,
}

impl Session {
    /// Who is at the other end; `None` on a listener that does not insist.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// From where it came.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// A number that no other session of this listener has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the listener's handler wants to know with every request, made when it asks first. A
    /// listener keeps one kind of thing: another one is made each time.
    #[must_use]
    pub fn keep<T: Any + Send + Sync>(&self, make: impl Fn(&Self) -> T) -> Arc<T> {
        let kept = self.kept.get_or_init(|| Arc::new(make(self)));
        let kept = Arc::clone(kept).downcast();
        kept.unwrap_or_else(|_| Arc::new(make(self)))
    }

    /// Bytes received and sent over TCP so far.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        (self.activity.received(), self.activity.sent())
    }

    /// Cancelled when the session is put out: revoked, run out, or broken off.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Asks for the session's end once the requests under way have been answered.
    pub fn retire(&self) {
        self.retire.cancel();
    }

    /// Whether that the session has to end is news, since nobody has told of it before; from now
    /// on somebody has. Whoever is refused and asks on and on is one refusal.
    #[must_use]
    pub fn ends_unheard(&self) -> bool {
        !self.reported.swap(true, Ordering::Relaxed)
    }

    pub(super) fn retiring(&self) -> CancellationToken {
        self.retire.clone()
    }

    /// Ends the session now: nothing more is sent, and what the kernel still holds is dropped.
    pub(super) fn cut(&self) {
        self.activity.reset_on_close();
        self.cut.cancel();
    }

    /// Ready once, whenever the session is idle and may be for a while: things can be put away.
    pub(super) fn poll_rest(&self, cx: &Context<'_>) -> Poll<()> {
        if self.rest.is_made(cx) && self.watch().in_flight.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Counts a request as under way until what is returned is dropped. To be called on the
    /// request's own task.
    pub(super) fn request(self: &Arc<Self>) -> Arc<InFlight> {
        let progress = Arc::new(Progress::new(own_end()));
        let mut watch = self.watch();
        watch.head_since = None;
        watch.rests = false;
        if watch.in_flight.is_empty() && !self.http2 {
            let is_soon = |idle_since: Instant| idle_since.elapsed() < REST_AFTER;
            watch.brisk = watch.requests > 0 && watch.idle_since.is_some_and(is_soon);
        }
        let id = watch.requests;
        watch.requests += 1;
        watch.in_flight.push((id, Arc::clone(&progress)));
        InFlight::new(self, id, progress)
    }

    /// A request is over, and nothing of its answer is left: because all has been sent if
    /// `whole`.
    pub(super) fn over(&self, request: u64, whole: bool) {
        let mut watch = self.watch();
        watch.in_flight.retain(|(id, _)| *id != request);
        if !whole {
            watch.given_up += 1;
            if watch.given_up > self.given_up_max {
                self.cut();
            }
        }
        if watch.in_flight.is_empty() {
            if self.http2 {
                watch.idle_since = None;
                return;
            }
            watch.idle_since = Some(Instant::now());
            watch.received = self.activity.received();
            // Who asks once, or now and then, leaves nothing behind.
            watch.rests = !watch.brisk;
            if watch.rests {
                self.rest.make();
            }
        }
    }

    /// What is wrong with its pace at `now`, if anything. Ends requests that stand still.
    fn judge_pace(&self, limits: &Limits, now: Instant) -> Pace {
        let mut watch = self.watch();
        watch.given_up = 0;
        if !watch.in_flight.is_empty() {
            let all = watch.in_flight.iter();
            let mut verdicts = all.map(|(_, one)| one.judge(limits, now));
            let stuck = verdicts.any(|verdict| verdict == Verdict::Stuck);
            return if stuck { Pace::Stalled } else { Pace::Good };
        }
        let since = *watch.idle_since.get_or_insert(now);
        let idle = now.saturating_duration_since(since);
        if idle > limits.idle_timeout * 2 {
            // It was asked to leave, and does not: it takes no farewell, or never said a word.
            return Pace::Stalled;
        }
        if idle > limits.idle_timeout {
            return Pace::Idle;
        }
        // HTTP/2 peers exchange settings and pings when they ask for nothing.
        if !self.http2 && self.activity.received() != watch.received {
            let head_since = *watch.head_since.get_or_insert(now);
            if now.duration_since(head_since) > limits.header_timeout {
                return Pace::Stalled;
            }
            return Pace::Good;
        }
        if idle > REST_AFTER && !watch.rests && !self.http2 {
            watch.rests = true;
            return Pace::Resting;
        }
        Pace::Good
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pace {
    Good,
    Idle,
    /// Has had nothing to do for a while.
    Resting,
    Stalled,
}

/// Every session of one listener.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    changed: Arc<Changed>,
    next_id: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Session>>>,
}

#[derive(Debug, Default)]
struct Changed(Notify);

impl CrlWatcher for Changed {
    fn crl_changed(&self, _: IssuerId) {
        self.0.notify_one();
    }
}

/// A session's place among the others, which it loses when this is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    session: Arc<Session>,
    sessions: Arc<Sessions>,
}

impl Registered {
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.session.id);
        // Whoever waits for the session's end hears of it, however it ended.
        self.session.cut.cancel();
    }
}

impl Sessions {
    /// Hears of new revocation lists from now on.
    pub(super) fn watch(&self, trust: &Trust) {
        let watcher: Weak<Changed> = Arc::downgrade(&self.changed);
        trust.crls().watch(watcher);
    }

    pub(super) fn register(
        self: &Arc<Self>,
        peer: Option<Peer>,
        remote: SocketAddr,
        http2: bool,
        limits: &Limits,
        activity: Arc<Activity>,
    ) -> Registered {
        let now = Instant::now();
        let received = activity.received();
        let session = Arc::new(Session {
            activity,
            cut: CancellationToken::new(),
            given_up_max: limits.given_up_max,
            http2,
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            judged: Mutex::default(),
            kept: OnceLock::new(),
            peer,
            remote,
            reported: AtomicBool::new(false),
            rest: Call::default(),
            retire: CancellationToken::new(),
            watch: Mutex::new(Watch {
                brisk: false,
                idle_since: Some(now),
                // The first head is due from the start.
                head_since: Some(now),
                given_up: 0,
                in_flight: Vec::new(),
                received,
                requests: 0,
                rests: false,
            }),
        });
        self.lock().insert(session.id, Arc::clone(&session));
        Registered {
            session,
            sessions: Arc::clone(self),
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts out who must not stay: at once when a revocation list changes, and within
/// [`HOUSE_INTERVAL`] when a certificate or somebody's time runs out. When it is a list that runs
/// out, nobody is put out before the next request.
pub(super) async fn keep_house(shared: Arc<Shared>, stop: CancellationToken) {
    let changed = Arc::clone(&shared.sessions.changed);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // Both are safe to drop: a permit that was not taken stays.
            _ = timeout(HOUSE_INTERVAL, changed.0.notified()) => {}
        }
        let (now, instant) = (shared.settings.clock.now(), Instant::now());
        for session in shared.sessions.all() {
            match shared.judge(&session, now) {
                // That our lists are old is our own trouble: what is under way may end, and the
                // next request is refused.
                Ok(()) | Err(RefusalReason::CrlStale) => {}
                Err(reason) => {
                    shared.put_out(&session, reason, Handshake::InSession);
                    continue;
                }
            }
            match session.judge_pace(&shared.settings.limits, instant) {
                Pace::Good => {}
                Pace::Idle => session.retire(),
                Pace::Resting => session.rest.make(),
                Pace::Stalled => session.cut(),
            }
        }
    }
}

impl Shared {
    /// Whether the session's peer may stay at `now`. It is judged once a second, and whenever a
    /// root, an issuer or a list is another: a busy session asks some thousand times in between.
    pub(super) fn judge(&self, session: &Session, now: i64) -> Result<(), RefusalReason> {
        let Some(peer) = &session.peer else {
            return Ok(());
        };
        let trust = &self.settings.trust;
        let mut judged = session
            .judged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let stands = |it: &Judged| it.at == now && trust.stands_on(&it.basis);
        if judged.as_ref().is_some_and(stands) {
            return Ok(());
        }
        // Taken first: what changes meanwhile counts at the next request.
        let basis = trust.basis();
        trust.check(peer, now)?;
        *judged = Some(Judged { at: now, basis });
        Ok(())
    }

    /// Ends a session now, and tells of it.
    pub(super) fn put_out(&self, session: &Session, reason: RefusalReason, stage: Handshake) {
        session.cut();
        self.report(session, reason, stage);
    }

    /// Tells, once, that a session has to end.
    pub(super) fn report(&self, session: &Session, reason: RefusalReason, stage: Handshake) {
        if !session.ends_unheard() {
            return;
        }
        self.refuse(&Refused {
            remote: session.remote,
            by_peer: false,
            reason,
            stage,
            possession_proved: true,
            evidence: None,
            peer: session.peer.clone(),
        });
    }

    pub(super) fn refuse(&self, refused: &Refused) {
        self.metrics.count_refused(refused.reason);
        self.sink.refused(refused);
    }
}

/// How often sessions are looked through: half of the second that a revoked one may live on,
/// should the news of a list get lost. Ten thousand sessions take some ten milliseconds.
const HOUSE_INTERVAL: Duration = Duration::from_millis(500);
/// Within less than this, a peer that has more to ask for asks. Whoever did so keeps his buffers
/// for as long again; to make them anew for each request would cost some hundredths of it.
const REST_AFTER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_made_once() {
        let remote = SocketAddr::from(([127, 0, 0, 1], 1));
        let (sessions, limits) = (Arc::new(Sessions::default()), Limits::default());
        let registered = sessions.register(None, remote, true, &limits, Arc::default());
        let session = registered.session();
        let first = session.keep(|session| session.remote().to_string());
        let again = session.keep(|_| String::from("another"));
        assert_eq!(*first, "127.0.0.1:1");
        assert!(Arc::ptr_eq(&first, &again));
        // Of another kind, it is made for who asks.
        assert_eq!(*session.keep(|_| 7), 7);
    }

    #[tokio::test]
    async fn whoever_asks_over_http2_is_idle_only_after_that() {
        let remote = SocketAddr::from(([127, 0, 0, 1], 1));
        let (sessions, limits) = (Arc::new(Sessions::default()), Limits::default());
        let registered = sessions.register(None, remote, true, &limits, Arc::default());
        let session = registered.session();
        let nearly = limits.idle_timeout.saturating_sub(Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(session.judge_pace(&limits, start + nearly), Pace::Good);
        drop(session.request());
        for at in [nearly, nearly * 2] {
            assert_eq!(session.judge_pace(&limits, start + at), Pace::Good);
        }
        let late = start + nearly + limits.idle_timeout + Duration::from_secs(1);
        assert_eq!(session.judge_pace(&limits, late), Pace::Idle);
    }
}
