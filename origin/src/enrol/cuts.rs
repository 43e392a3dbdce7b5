//! What is left after a power cut at any write, and after a call that is given up anywhere.
//!
//! SQLite keeps what it commits in its write-ahead log, which is synced at each commit and copied
//! into the database much later. So the disk after a cut is the database as it was, and some
//! beginning of the log, at least as long as it was when somebody was last told something: what
//! had not been synced may be lost or torn. Frames carry a running checksum (SQLite's "WAL Format"
//! §4.1), so a hole in the log is its end.

use std::collections::BTreeSet;
use std::fs;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::task::Poll;

use certs::{IssuerId, Key, Serial, Verdict};
use content::Digest;
use service::Clock;
use sqlx::{Row as _, query};

use crate::LEDGER_FILE;
use crate::authority::Authority;
use crate::ledger::devices::State;
use crate::ledger::{Ledger, Read};
use crate::testing::{Bed, config, request};

/// The header of the log, and what stands before each page in it.
const LOG_HEADER: usize = 32;
const FRAME: usize = 24 + 4096;
/// Longer than a list stays the newest.
const HOURS: i64 = 7200;

/// What somebody has been told, and what the disk held by then.
struct Told {
    certificates: Vec<(IssuerId, Serial)>,
    lists: Vec<(IssuerId, u64, [u8; 32])>,
    log_len: usize,
    published: Vec<u8>,
    revoked: Vec<(IssuerId, Serial)>,
}

/// A deployment in which something happens, and what it has told so far.
struct Story {
    bed: Bed,
    database: Vec<u8>,
    told: Vec<Told>,
}

impl Story {
    async fn begin() -> Self {
        let bed = Bed::new().await;
        let database = fs::read(bed.folder.path().join(LEDGER_FILE)).unwrap();
        let mut story = Self {
            bed,
            database,
            told: Vec::new(),
        };
        story.tell(None, false);
        story
    }

    /// Notes what everybody can know now, and that `key` has, or had, a certificate.
    fn tell(&mut self, held: Option<(IssuerId, Serial)>, is_revoked: bool) {
        let data = self.bed.folder.path();
        let last = self.told.last();
        let mut told = Told {
            certificates: last.map_or(Vec::new(), |last| last.certificates.clone()),
            lists: Vec::new(),
            log_len: fs::read(log(data)).unwrap().len(),
            published: fs::read(data.join("published.cbor")).unwrap(),
            revoked: last.map_or(Vec::new(), |last| last.revoked.clone()),
        };
        told.certificates.extend(held);
        told.revoked.extend(held.filter(|_| is_revoked));
        let served = self.bed.authority.trust().crls().all();
        let served = served
            .iter()
            .map(|crl| (crl.issuer(), crl.number(), *crl.digest()));
        told.lists.extend(served);
        self.told.push(told);
    }

    async fn enrol(&mut self, key: &Key, id: &str, token: Option<&protocol::Token>) {
        let asked = self.bed.enrolment.enrol(request(key, id, token.cloned()));
        let held = match asked.await.unwrap() {
            super::Decision::Issued(held) => Some((IssuerId::from_bytes(held.issuer), held.serial)),
            super::Decision::Pending => None,
        };
        self.tell(held, false);
    }

    /// Two devices come in two ways, one has to go, and lists are signed anew.
    async fn unfold(&mut self) {
        let (one, two) = (Key::generate().unwrap(), Key::generate().unwrap());
        let token = self.bed.token(true).await;
        self.tell(None, false);
        self.enrol(&one, "one", Some(&token)).await;
        self.enrol(&two, "two", None).await;
        self.bed.decide("two", State::Approved).await;
        self.enrol(&two, "two", None).await;
        let gone = self.told.last().unwrap().certificates[0];
        self.bed.revoke("one").await;
        self.tell(Some(gone), true);
        self.bed.pass(HOURS);
        self.bed.authority.refresh_crls().await.unwrap();
        self.tell(None, false);
    }

    /// The disk after a cut that left `log_len` bytes of the log, and `published` beside it.
    fn image(&self, log_len: usize, published: &[u8]) -> tempfile::TempDir {
        let (data, image) = (self.bed.folder.path(), tempfile::tempdir().unwrap());
        let keys = image.path().join("keys");
        fs::create_dir(&keys).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&keys, private).unwrap();
        for key in fs::read_dir(data.join("keys")).unwrap() {
            let key = key.unwrap();
            fs::copy(key.path(), keys.join(key.file_name())).unwrap();
        }
        let whole = fs::read(log(data)).unwrap();
        fs::write(image.path().join(LEDGER_FILE), &self.database).unwrap();
        fs::write(log(image.path()), &whole[..log_len]).unwrap();
        fs::write(image.path().join("published.cbor"), published).unwrap();
        image
    }

    /// Starts from the disk after a cut, and holds what it knows against what was told.
    async fn check(&self, log_len: usize, told: &Told, published: &[u8]) {
        let image = self.image(log_len, published);
        let ledger = Ledger::open(&image.path().join(LEDGER_FILE)).await.unwrap();
        let mut db = ledger.read().await.unwrap();
        for (issuer, serial) in &told.certificates {
            let known = query("SELECT 1 FROM certificates WHERE issuer = $1 AND serial = $2")
                .bind(issuer.as_bytes().as_slice())
                .bind(serial.as_bytes().as_slice())
                .fetch_optional(&mut *db);
            assert!(known.await.unwrap().is_some(), "{serial} at {log_len}");
        }
        check_sense(&mut db).await;
        drop(db);
        // All lists are old by now, so that each is signed anew, under a number of its own.
        let now = self.bed.authority.clock().now() + HOURS;
        let offset = now - Clock::system().now();
        let clock = Clock::fixed_offset(Arc::new(AtomicI64::new(offset)));
        let lives = config(image.path()).certificates().clone();
        let opened = Authority::open(image.path(), ledger.clone(), lives, clock);
        let authority = opened.await.unwrap();
        let crls = authority.trust().crls();
        for (issuer, number, digest) in &told.lists {
            let current = crls.current(*issuer).unwrap();
            let same = current.digest() == digest;
            assert_eq!(current.number() > *number, !same, "at {log_len}");
        }
        for (issuer, serial) in &told.revoked {
            let verdict = crls.lookup(*issuer, *serial, now);
            assert!(matches!(verdict, Verdict::Revoked { .. }), "at {log_len}");
        }
        ledger.close().await;
    }
}

/// What must hold whenever nobody is in the middle of something: a token's uses are those who came
/// with it, and each certificate of a device is that of a device, which knows it.
async fn check_sense(db: &mut Read) {
    for nonsense in [
        "SELECT 1 FROM tokens AS t WHERE uses - uses_left <> (SELECT count(*) FROM devices AS d \
         WHERE d.token_id = substr(t.token_sha256, 1, 8))",
        "SELECT 1 FROM certificates AS c WHERE role = 'client' AND NOT EXISTS \
         (SELECT 1 FROM devices AS d WHERE d.id = c.holder AND state IN ('enrolled', 'revoked'))",
        "SELECT 1 FROM devices AS d WHERE state = 'enrolled' AND NOT EXISTS \
         (SELECT 1 FROM certificates AS c WHERE c.spki_sha256 = d.spki_sha256)",
        "SELECT 1 FROM devices AS d WHERE state = 'revoked' AND EXISTS \
         (SELECT 1 FROM certificates AS c WHERE c.holder = d.id AND c.role = d.role \
          AND NOT EXISTS (SELECT 1 FROM revocations AS r \
                          WHERE r.issuer = c.issuer AND r.serial = c.serial))",
        "SELECT 1 FROM crls JOIN counters ON name = 'crl:' || lower(hex(issuer)) \
         WHERE number > value",
    ] {
        let found = query(nonsense).fetch_optional(&mut **db).await.unwrap();
        assert!(found.is_none(), "{nonsense}");
    }
}

#[tokio::test]
async fn a_power_cut_at_any_write_forgets_nothing_that_was_told() {
    let mut story = Story::begin().await;
    story.unfold().await;
    let data = story.bed.folder.path();
    let whole = fs::read(log(data)).unwrap().len();
    assert_eq!(story.told.last().unwrap().log_len, whole);
    assert_eq!(
        Digest::of(&fs::read(data.join(LEDGER_FILE)).unwrap()),
        Digest::of(&story.database),
        "the log has not been copied into the database"
    );
    let first = story.told[0].log_len;
    let mut cuts = 0;
    for end in (LOG_HEADER..=whole)
        .step_by(FRAME)
        .filter(|end| *end >= first)
    {
        let at = story
            .told
            .iter()
            .rposition(|told| told.log_len <= end)
            .unwrap();
        let told = &story.told[at];
        story.check(end, told, &told.published).await;
        // The last page of the log only half there.
        let torn = (end + FRAME / 2).min(whole);
        story.check(torn, told, &told.published).await;
        // Committed, and cut off before the numbers were noted beside the ledger.
        if let Some(before) = at.checked_sub(1).filter(|_| told.log_len == end) {
            let before = &story.told[before];
            story.check(end, before, &before.published).await;
        }
        cuts += 1;
    }
    assert!(cuts > 20, "{cuts}");
}

#[tokio::test]
#[should_panic(expected = " at ")]
async fn the_check_sees_when_something_is_missing() {
    let mut story = Story::begin().await;
    story.unfold().await;
    let [_, before, told, ..] = &story.told[..] else {
        panic!("the story is short");
    };
    story.check(before.log_len, told, &told.published).await;
}

#[tokio::test]
async fn a_call_that_is_given_up_anywhere_does_all_or_nothing() {
    let bed = Bed::new().await;
    let mut outcomes = BTreeSet::new();
    for steps in 0_usize.. {
        let (key, token) = (Key::generate().unwrap(), bed.token(true).await);
        let id = format!("d{steps}");
        let enrolled = {
            let asked = bed.enrolment.enrol(request(&key, &id, Some(token)));
            give_up_after(steps, asked).await.is_some()
        };
        let revoked = give_up_after(steps, bed.revoke(&id)).await.is_some();
        let mut db = bed.authority.ledger().read().await.unwrap();
        check_sense(&mut db).await;
        let state = query("SELECT state FROM devices WHERE id = $1").bind(&id);
        let state = state.fetch_optional(&mut *db).await.unwrap();
        outcomes.insert(state.map(|row| row.get::<String, _>("state")));
        drop(db);
        // What is signed next goes on from whatever was committed.
        bed.pass(HOURS);
        bed.authority.refresh_crls().await.unwrap();
        bed.reopen().await.unwrap();
        if enrolled && revoked {
            break;
        }
    }
    let outcomes: Vec<_> = outcomes.iter().map(Option::as_deref).collect();
    assert_eq!(outcomes.first(), Some(&None));
    assert_eq!(outcomes.last(), Some(&Some("revoked")));
}

/// Polls `work` so many times, and drops it.
async fn give_up_after<T>(steps: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = steps;
    poll_fn(move |context| {
        let Some(rest) = left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        left = rest;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

fn log(data: &Path) -> PathBuf {
    data.join(format!("{LEDGER_FILE}-wal"))
}
