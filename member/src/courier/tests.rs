//! What is written down, what is sent, and what becomes of what is refused.

use certs::tls::Expected;
use certs::trust::Revocation;
use certs::{Key, Role, Serial, issue};
use protocol::report::Matter;
use protocol::{Code, Route};
use service::Clock;
use tokio::net::TcpListener;
use tokio::time::timeout;
use transport::SourceSettings;
use transport::source::CallLimits;

use super::*;
use crate::testing::{Office, goes_on_while, refusal};

/// Calls to an origin at the address of `listener`.
fn source(listener: &TcpListener) -> Arc<Source> {
    let (clock, key) = (Clock::system(), Key::generate().unwrap());
    let serial = Serial::from_random([1; 16]);
    let root = issue::root(&"d1".parse().unwrap(), 1, key, serial, clock.now()).unwrap();
    let trust = crate::identity::new_trust(&[root.cert_der()], clock.now()).unwrap();
    let made = Source::new(SourceSettings {
        addresses: vec![listener.local_addr().unwrap().to_string()],
        expected: Expected::AnyOf(Role::Origin),
        revocation: Revocation::BestEffort,
        trust: Arc::new(trust),
        own: None,
        clock,
        http2: false,
        limits: CallLimits::default(),
        refusals: None,
    });
    Arc::new(made.unwrap())
}

#[tokio::test]
async fn a_way_that_swallows_everything_leaves_time_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let refusals = Refusals::new(Clock::system());
    refusals.notice("clock_skew", "an hour");
    let mut courier = Courier::new(folder.path(), &refusals);
    // They take connections and never say a word.
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let next = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ways = [source(&first), source(&next)];
    courier.flush(&ways, Duration::from_millis(400)).await;
    let tried = timeout(Duration::from_secs(5), next.accept()).await;
    tried.unwrap().unwrap();
}

#[tokio::test]
async fn what_waits_is_written_down_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let refusals = Refusals::new(Clock::system());
    let mut courier = Courier::new(folder.path(), &refusals);
    courier.flush(&[], Duration::ZERO).await;
    assert!(!folder.path().join(FILE).exists(), "nothing waits");
    refusals.notice("renewal_overdue", "since Monday");
    courier.flush(&[], Duration::ZERO).await;
    let waiting = refusals.waiting();

    let next = Refusals::new(Clock::system());
    let mut courier = Courier::new(folder.path(), &next);
    assert!(courier.has_work().await);
    assert_eq!(next.waiting(), waiting);
    // It arrives.
    next.delivered(&next.batch().unwrap());
    courier.flush(&[], Duration::ZERO).await;
    assert!(!folder.path().join(FILE).exists());
}

/// Waits until the file in `folder` holds as many reports as `count`.
async fn written(folder: &Path, count: usize) {
    let holds = || read(&folder.join(FILE)).map_or(0, |kept| kept.reports.reports.len());
    let look = async {
        while holds() != count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), look).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_the_origin_is_out_of_reach_is_written_down_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let refusals = Refusals::new(Clock::system());
    let courier = Courier::new(folder.path(), &refusals);
    let stop = CancellationToken::new();
    let run = courier.run(Vec::new(), stop.clone());
    let knock = async {
        refusals.notice("clock_skew", "one");
        // By then it waits for minutes between two tries.
        sleep(BACKOFF_LONGEST * 10).await;
        refusals.notice("clock_skew", "two");
        let begun = Instant::now();
        written(folder.path(), 2).await;
        assert!(begun.elapsed() < Duration::from_millis(1500));
        stop.cancel();
    };
    tokio::join!(run, knock);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_full_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let refusals = Refusals::new(Clock::system());
    let courier = Courier::new(&state, &refusals);
    let stop = CancellationToken::new();
    refusals.notice("clock_skew", "an hour");
    let run = courier.run(Vec::new(), stop.clone());
    let later = async {
        sleep(Duration::from_secs(5)).await;
        std::fs::create_dir(&state).unwrap();
        sleep(WRITE_RETRY * 2).await;
        assert!(state.join(FILE).exists());
        stop.cancel();
    };
    tokio::join!(run, later);
}

/// An origin that knows no report with the word `wrong` in it.
async fn strict() -> Office {
    let strict = Office::answering(|route, body| {
        let is_bad = matches!(route, Route::Reports) && body.windows(5).any(|it| it == b"wrong");
        is_bad.then(|| refusal(Code::BadRequest, None))
    });
    strict.await
}

/// What a flush brings to the origin of `count` reports of which those `bad` are never taken: how
/// many arrive, how many are given up, and in how many bodies.
async fn brought(count: usize, bad: &[usize]) -> (usize, u64, usize) {
    let (folder, office) = (tempfile::tempdir().unwrap(), strict().await);
    let refusals = Refusals::new(Clock::system());
    for number in 0..count {
        let word = if bad.contains(&number) {
            "wrong"
        } else {
            "good"
        };
        refusals.notice("clock_skew", &format!("{word} {number}"));
    }
    let mut courier = Courier::new(folder.path(), &refusals);
    let ways = [office.source(None, &refusals)];
    courier.flush(&ways, Duration::from_secs(60)).await;
    assert_eq!(refusals.counts().waiting, 0);
    let kept = read(&folder.path().join(FILE));
    let kept = kept.map_or(0, |kept| kept.reports.dropped);
    assert_eq!(kept, refusals.counts().dropped);
    let mut arrived: Vec<String> = office.reports().into_iter().map(detail).collect();
    arrived.sort_unstable();
    arrived.dedup();
    assert!(arrived.iter().all(|detail| detail.starts_with("good")));
    let bodies = office.shared.asked.lock().unwrap().len();
    (arrived.len(), refusals.counts().dropped, bodies)
}

fn detail(report: Reported) -> String {
    match report.matter {
        Matter::Notice(notice) => notice.detail,
        Matter::Bypass(_) | Matter::Refusal(_) => panic!("nobody was refused"),
    }
}

#[tokio::test]
async fn of_a_body_that_is_refused_only_the_report_at_fault_is_given_up() {
    assert_eq!(brought(1, &[0]).await, (0, 1, 2));
    for bad in [0, 31, 63] {
        let (arrived, dropped, bodies) = brought(64, &[bad]).await;
        assert_eq!((arrived, dropped), (63, 1));
        assert!(bodies <= 3 * 6 + 2, "{bodies}");
    }
    assert_eq!(&brought(100, &[3, 4, 70]).await.0, &97);
    // Hopeless, and still bounded.
    let all: Vec<usize> = (0..64).collect();
    let (arrived, dropped, bodies) = brought(64, &all).await;
    assert_eq!((arrived, dropped), (0, 64));
    assert!(bodies < 2 * 64, "{bodies}");
}

#[tokio::test]
async fn how_many_were_given_up_is_told_though_nothing_else_waits_and_goes_on_from_run_to_run() {
    let (folder, office) = (tempfile::tempdir().unwrap(), strict().await);
    let told = || {
        let bodies = office.shared.reported.lock().unwrap();
        bodies.iter().map(|body| body.dropped).collect::<Vec<_>>()
    };
    for run in 0..3u64 {
        let refusals = Refusals::new(Clock::system());
        let mut courier = Courier::new(folder.path(), &refusals);
        refusals.notice("clock_skew", "wrong");
        assert!(courier.has_work().await);
        // The line is cut before the loss can be told: that is left to the next.
        let lost = Reported::clone(&refusals.batch().unwrap().reports[0]);
        refusals.give_up(&Reports {
            dropped: run,
            reports: vec![lost],
        });
        courier.flush(&[], Duration::ZERO).await;
        assert_eq!(refusals.counts().untold, 1);
        drop(courier);

        let refusals = Refusals::new(Clock::system());
        let mut courier = Courier::new(folder.path(), &refusals);
        assert!(courier.has_work().await);
        let ways = [office.source(None, &refusals)];
        courier.flush(&ways, Duration::from_secs(60)).await;
        assert_eq!(told().last(), Some(&(run + 1)));
        let bodies = told().len();
        // Once it is told, there is nothing to say, nor to write.
        let path = folder.path().join(FILE);
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        let refusals = Refusals::new(Clock::system());
        let mut courier = Courier::new(folder.path(), &refusals);
        assert!(!courier.has_work().await);
        courier.flush(&ways, Duration::from_secs(60)).await;
        assert_eq!(told().len(), bodies);
        assert_eq!(
            std::fs::metadata(&path).unwrap().modified().unwrap(),
            written
        );
    }
}

#[tokio::test]
async fn an_origin_that_will_not_hear_of_losses_alone_is_not_asked_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let office = Office::answering(|_, _| Some(refusal(Code::BadRequest, None))).await;
    let refusals = Refusals::new(Clock::system());
    refusals.notice("clock_skew", "an hour");
    let ways = [office.source(None, &refusals)];
    let mut courier = Courier::new(folder.path(), &refusals);
    courier.flush(&ways, Duration::from_secs(60)).await;
    assert_eq!(refusals.counts().untold, 0);
    assert_eq!(office.shared.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_passes_is_no_reason_to_give_up_a_report() {
    let codes = Code::ALL.into_iter();
    for code in codes.filter(|code| !matches!(code, Code::BadRequest | Code::TooLarge)) {
        let folder = tempfile::tempdir().unwrap();
        let office = Office::answering(move |_, _| Some(refusal(code, None))).await;
        let refusals = Refusals::new(Clock::system());
        refusals.notice("clock_skew", "an hour");
        let ways = [office.source(None, &refusals)];
        let mut courier = Courier::new(folder.path(), &refusals);
        courier.flush(&ways, Duration::from_secs(20)).await;
        assert_eq!(refusals.counts().dropped, 0, "{code:?}");
        assert!(folder.path().join(FILE).exists(), "{code:?}");
    }
}

#[tokio::test]
async fn a_report_that_is_never_taken_does_not_hold_up_those_behind_it() {
    let (folder, office) = (tempfile::tempdir().unwrap(), strict().await);
    let refusals = Refusals::new(Clock::system());
    refusals.notice("clock_skew", "wrong");
    refusals.notice("clock_skew", "good");
    let (courier, stop) = (
        Courier::new(folder.path(), &refusals),
        CancellationToken::new(),
    );
    let ways = vec![office.source(None, &refusals)];
    let arrival = async {
        while office.reports().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
    };
    let run = courier.run(ways, stop.clone());
    let both = async { tokio::join!(run, arrival) };
    timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!(refusals.counts().dropped, 1);
}

#[tokio::test]
async fn what_is_noted_in_the_middle_of_work_is_on_the_disk_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let refusals = Refusals::new(Clock::system());
    let mut courier = Courier::new(folder.path(), &refusals);
    let work = async {
        for (count, detail) in ["one", "two", "three"].into_iter().enumerate() {
            refusals.notice("clock_skew", detail);
            written(folder.path(), count + 1).await;
        }
        // As a process ends that is killed: nothing more is written.
    };
    courier.during(work).await;
    drop(courier);
    let next = Refusals::new(Clock::system());
    assert!(Courier::new(folder.path(), &next).has_work().await);
    assert_eq!(next.counts().waiting, 3);
}

#[tokio::test]
async fn a_disk_that_is_slow_to_read_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let refusals = Refusals::new(Clock::system());
    let courier = Courier::new(folder.path(), &refusals);
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(goes_on_while(&path, courier.run(Vec::new(), stop)).await);
}

#[tokio::test]
async fn of_a_file_only_what_is_damaged_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let refusals = Refusals::new(Clock::system());
    refusals.notice("clock_skew", "one");
    refusals.notice("clock_skew", "two");
    let mut kept = refusals.waiting();
    kept.reports[0].count = 0;
    std::fs::write(folder.path().join(FILE), kept.encode()).unwrap();
    let next = Refusals::new(Clock::system());
    assert!(Courier::new(folder.path(), &next).has_work().await);
    assert_eq!((next.counts().waiting, next.counts().dropped), (1, 1));
}

#[tokio::test]
async fn a_damaged_file_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    for damaged in ["{", r#"{"dropped":0,"reports":[{"id":"x"}]}"#] {
        std::fs::write(folder.path().join(FILE), damaged).unwrap();
        let refusals = Refusals::new(Clock::system());
        let mut courier = Courier::new(folder.path(), &refusals);
        assert!(!courier.has_work().await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_kept_when_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let refusals = Refusals::new(Clock::system());
    let courier = Courier::new(folder.path(), &refusals);
    let stop = CancellationToken::new();
    refusals.notice("clock_skew", "an hour");
    let run = courier.run(Vec::new(), stop.clone());
    let later = async {
        sleep(Duration::from_secs(60)).await;
        stop.cancel();
    };
    tokio::join!(run, later);
    assert!(folder.path().join(FILE).exists());
}
