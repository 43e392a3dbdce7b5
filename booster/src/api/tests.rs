//! Answers, as their headers and bytes.

use std::time::Duration;

use certs::{CrlStore, Key, Serial, issue};
use content::pack::BuiltPack;
use expect_test::{Expect, expect};
use http::Request;
use http_body_util::BodyExt as _;
use service::metrics::Registry;
use tempfile::TempDir;

use super::*;
use crate::cache::{Asker, Extent, How};
use crate::catalogue::tests::Bed;
use crate::catalogue::tests::author::{Author, Published};
use crate::testing::{Fake, Wrong, entry, fileset, pack, soon};

/// Nobody whose manifest bounds what it reads.
const NOBODY: From = From {
    asker: Asker::NOBODY,
    device: None,
};

/// An API over a toy catalogue.
struct Served {
    api: Api,
    bed: Bed,
    _folder: TempDir,
    pack: BuiltPack,
    phase: Phase,
    published: Published,
    source: Arc<Fake>,
}

impl Served {
    async fn start() -> Self {
        let (pack, folder) = (pack(1), tempfile::tempdir().unwrap());
        let source = Fake::new("origin").with(&[&pack]);
        let published = Author::new(&source).publish(&[&pack]);
        let bed = Bed::open(&folder, &source).await;
        let api = Api {
            cache: bed.cache.clone(),
            catalogue: bed.catalogue.clone(),
            clock: Clock::system(),
            deployment: "acme".to_owned(),
            id: "berlin".to_owned(),
            metrics: Metrics::register(&Registry::new("test")).unwrap(),
            rosters: None,
            trust: trust(),
        };
        Self {
            api,
            bed,
            _folder: folder,
            pack,
            phase: Phase::Fresh,
            published,
            source,
        }
    }

    fn pack_path(&self) -> String {
        format!("/v1/filesets/tools/packs/{}", self.pack.header.id().0.hex())
    }

    async fn ask(&self, line: &str, fields: &[(&str, &str)]) -> Response<Body> {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        soon(
            self.api
                .answer(&NOBODY, Ok(self.phase), &head, Bytes::new()),
        )
        .await
    }

    /// Holds an answer to its status, its headers, and the length and start of its body.
    async fn check(&self, line: &str, fields: &[(&str, &str)], expected: Expect) {
        let (head, body) = self.ask(line, fields).await.into_parts();
        let bytes = soon(body.collect()).await.unwrap().to_bytes();
        let mut lines = vec![head.status.as_u16().to_string()];
        let mut headers: Vec<String> = head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort_unstable();
        lines.extend(headers);
        let shown = if head.status.is_success() {
            format!("({} bytes)", bytes.len())
        } else {
            // A line for each field.
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(",\"", ",\n\"")
        };
        lines.push(shown);
        let id = self.pack.header.id().0.hex();
        let text = lines.join("\n").replace(&id, "PACK");
        expected.assert_eq(&(text + "\n"));
    }
}

fn trust() -> Arc<Trust> {
    let now = Clock::system().now();
    let (key, serial) = (Key::generate().unwrap(), Serial::from_random([7; 16]));
    let root = issue::root(&"acme".parse().unwrap(), 1, key, serial, now).unwrap();
    let store = Arc::new(CrlStore::new(Duration::ZERO));
    Arc::new(Trust::new(&[root.cert_der()], store, now).unwrap())
}

#[tokio::test]
async fn a_pack_comes_whole_and_its_head_alone() {
    let served = Served::start().await;
    let get = format!("GET {}", served.pack_path());
    let head = format!("HEAD {}", served.pack_path());
    served
        .check(
            &head,
            &[],
            expect![[r#"
                200
                accept-ranges: bytes
                cache-control: public, max-age=31536000, immutable, no-transform
                cache-status: larder-booster; fwd=miss
                content-length: 400780
                content-type: application/vnd.larder.pack
                etag: "PACK"
                x-content-type-options: nosniff
                (0 bytes)
            "#]],
        )
        .await;
    assert_eq!(served.source.asks(), [], "HEAD starts no fill");
    served
        .check(
            &get,
            &[],
            expect![[r#"
                200
                accept-ranges: bytes
                cache-control: public, max-age=31536000, immutable, no-transform
                cache-status: larder-booster; fwd=miss; stored
                content-length: 400780
                content-type: application/vnd.larder.pack
                etag: "PACK"
                x-content-type-options: nosniff
                (400780 bytes)
            "#]],
        )
        .await;
    assert_eq!(served.source.asks().len(), 1);
}

#[tokio::test]
async fn a_pack_comes_in_part_and_not_at_all_to_who_has_it() {
    let served = Served::start().await;
    let get = format!("GET {}", served.pack_path());
    let whole = served.ask(&get, &[]).await.into_body();
    soon(whole.collect()).await.unwrap();
    served.settled().await;
    served
        .check(
            &get,
            &[("range", "bytes=400000-"), ("if-range", &served.etag())],
            expect![[r#"
                206
                accept-ranges: bytes
                cache-control: public, max-age=31536000, immutable, no-transform
                cache-status: larder-booster; hit
                content-length: 780
                content-range: bytes 400000-400779/400780
                content-type: application/vnd.larder.pack
                etag: "PACK"
                x-content-type-options: nosniff
                (780 bytes)
            "#]],
        )
        .await;
    served
        .check(
            &get,
            &[("if-none-match", &served.etag())],
            expect![[r#"
                304
                accept-ranges: bytes
                cache-control: public, max-age=31536000, immutable, no-transform
                etag: "PACK"
                x-content-type-options: nosniff

            "#]],
        )
        .await;
    served
        .check(
            &get,
            &[("range", "bytes=400780-")],
            expect![[r#"
                416
                cache-control: no-store
                content-range: bytes */400780
                content-type: application/problem+json
                x-content-type-options: nosniff
                {"type":"urn:larder:fault:range-not-satisfiable",
                "status":416,
                "code":"range-not-satisfiable",
                "detail":"the range lies outside of the 400780 bytes"}
            "#]],
        )
        .await;
    let other = served.ask(&get, &[("range", "bytes=1-2"), ("if-range", "\"x\"")]);
    assert_eq!(
        other.await.status(),
        200,
        "a range of another state is not answered"
    );
    assert_eq!(served.source.asks().len(), 1);
}

impl Served {
    /// Waits until no fill is under way.
    async fn settled(&self) {
        soon(async {
            while self.bed.tasks.live() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.pack.header.id().0.hex())
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_words_of_the_protocol() {
    let served = Served::start().await;
    let unknown = format!("GET /v1/filesets/tools/packs/{}", "ab".repeat(32));
    served
        .check(
            &unknown,
            &[],
            expect![[r#"
                404
                cache-control: no-store
                content-type: application/problem+json
                x-content-type-options: nosniff
                {"type":"urn:larder:fault:unknown-pack",
                "status":404,
                "code":"unknown-pack",
                "detail":"no revision that is kept has that pack"}
            "#]],
        )
        .await;
    let codes = [
        (unknown.replace("tools", "other"), 404),
        (
            format!("GET /v1/statements/sha256:{}", "ab".repeat(32)),
            404,
        ),
        (format!("GET /v1/crl/{}", "ab".repeat(32)), 404),
        ("GET /v1/nothing".to_owned(), 404),
        ("GET /.well-known/est/cacerts".to_owned(), 404),
        ("POST /v1/check-in".to_owned(), 405),
        ("DELETE /v1/timestamp".to_owned(), 405),
    ];
    for (line, status) in codes {
        assert_eq!(served.ask(&line, &[]).await.status(), status, "{line}");
    }
    assert_eq!(served.source.asks(), []);
}

#[tokio::test]
async fn documents_come_once_and_then_only_if_they_have_changed() {
    let served = Served::start().await;
    let Published {
        locator,
        root,
        statement,
    } = served.published;
    let immutable = [
        (statement, STATEMENT_TYPE),
        (locator, STATEMENT_TYPE),
        (root, ROOT_TYPE),
    ];
    let mut lines: Vec<(String, &str, &str)> = immutable
        .iter()
        .map(|(digest, kind)| {
            (
                format!("GET /v1/statements/{digest}"),
                *kind,
                CACHE_IMMUTABLE,
            )
        })
        .collect();
    lines.push(("GET /v1/timestamp".to_owned(), STATEMENT_TYPE, CACHE_SHORT));
    lines.push(("GET /v1/deployment".to_owned(), STATEMENT_TYPE, "no-cache"));
    for (line, kind, cache) in lines {
        let (head, body) = served.ask(&line, &[]).await.into_parts();
        let bytes = soon(body.collect()).await.unwrap().to_bytes();
        assert_eq!(
            (head.status.as_u16(), head.headers["content-type"] == kind),
            (200, true)
        );
        assert_eq!(head.headers["cache-control"], cache, "{line}");
        assert_eq!(head.headers["content-length"], bytes.len().to_string());
        let etag = head.headers["etag"].to_str().unwrap();
        let again = served.ask(&line, &[("if-none-match", etag)]).await;
        assert_eq!(again.status(), 304, "{line}");
        let alone = served.ask(&line.replace("GET", "HEAD"), &[]).await;
        assert_eq!(alone.headers()["content-length"], bytes.len().to_string());
    }
    let hello = served.ask("GET /v1/hello", &[]).await.into_body();
    let hello = Hello::decode(&hello.collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&hello.role[..], &hello.id[..]), ("booster", "berlin"));
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_fails_is_a_fault_before_the_head_and_a_broken_body_after_it() {
    let served = Served::start().await;
    let get = format!("GET {}", served.pack_path());
    served.source.will([Wrong::Flip(50); 3]);
    let refused = served.ask(&get, &[]).await;
    assert_eq!(refused.status(), 502);
    let cut = served.pack.header.frame_range(1).start;
    served
        .source
        .will(std::iter::repeat_n(Wrong::CutAt(cut), 1000));
    let (head, mut body) = served.ask(&get, &[]).await.into_parts();
    assert_eq!(head.status, 200);
    let mut got = 0;
    let broken = soon(async {
        loop {
            match body.frame().await.expect("a broken body does not end") {
                Ok(frame) => got += frame.into_data().unwrap().len() as u64,
                Err(failure) => return failure,
            }
        }
    });
    let broken = broken.await;
    assert_eq!(got, cut, "{broken}");
    let sent = served
        .api
        .metrics
        .response_bytes
        .with_label_values(&["pack"]);
    assert_eq!(sent.get(), cut);
}

#[tokio::test]
async fn a_doubt_has_a_pack_checked_and_not_fetched() {
    let served = Served::start().await;
    let get = format!("GET {}", served.pack_path());
    let whole = served.ask(&get, &[]).await.into_body();
    soon(whole.collect()).await.unwrap();
    served.settled().await;
    let doubted = served
        .ask(&get, &[("cache-control", "max-age=0, no-cache")])
        .await;
    assert_eq!(doubted.headers()["cache-status"], "larder-booster; hit");
    assert_eq!(served.source.asks().len(), 1);
}

#[tokio::test]
async fn ranges_do_not_move_a_pack_into_memory_and_a_range_of_all_does() {
    let served = Served::start().await;
    let get = format!("GET {}", served.pack_path());
    let whole = served.ask(&get, &[]).await.into_body();
    soon(whole.collect()).await.unwrap();
    served.settled().await;
    // Out of memory, where the fill has put it.
    assert!(served.bed.cache.doubt(served.pack.header.id()));
    for (range, expected) in [
        ("bytes=0-9", How::Disk),
        ("bytes=1-", How::Disk),
        ("bytes=-10", How::Disk),
        ("bytes=0-", How::Memory),
    ] {
        for _ in 0..3 {
            served.ask(&get, &[("range", range)]).await;
        }
        let (name, entry) = (fileset(), entry(&served.pack));
        let found = soon(
            served
                .bed
                .cache
                .pack(&name, entry, Extent::Part, Asker::NOBODY),
        )
        .await;
        assert_eq!(found.unwrap().how(), expected, "{range}");
    }
}

#[tokio::test]
async fn in_grace_what_is_cached_is_served_and_nothing_is_fetched() {
    let mut served = Served::start().await;
    let (pack, root) = (
        format!("GET {}", served.pack_path()),
        format!("GET /v1/statements/{}", served.published.root),
    );
    served.phase = Phase::Grace;
    for line in [&pack, &root] {
        served
            .check(
                line,
                &[],
                expect![[r#"
                    502
                    cache-control: no-store
                    content-type: application/problem+json
                    x-content-type-options: nosniff
                    {"type":"urn:larder:fault:upstream-unavailable",
                    "status":502,
                    "code":"upstream-unavailable",
                    "detail":"the booster has not got it, and fetches nothing while its revocation lists are overdue"}
                "#]],
            )
            .await;
    }
    assert_eq!(served.source.asks(), [], "no fill was started");
    served.phase = Phase::Fresh;
    for line in [&pack, &root] {
        let body = served.ask(line, &[]).await.into_body();
        soon(body.collect()).await.unwrap();
    }
    served.settled().await;
    served.phase = Phase::Grace;
    for line in [&pack, &root] {
        assert_eq!(served.ask(line, &[]).await.status(), 200, "{line}");
    }
    assert_eq!(served.source.asks().len(), 1);
}
