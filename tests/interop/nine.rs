//! The nine client certificates, shown by OpenSSL, GnuTLS and curl to every listener: what each
//! program is told, and what the listener counts.

mod guests;
mod offline;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certs::RefusalReason;
use content::Digest;
use origin::reports::{ReportView, ReportsView};
use tests::scrape::metric;
use tests::testbed::{Testbed, until};

use crate::curl::{Curl, host, roots_of};
use crate::openssl::{Pair, certs_in, openssl};
use crate::program::Program;
use guests::Guest;

/// A listener, as somebody sees it who is to find it.
#[derive(Clone)]
struct Door {
    name: &'static str,
    /// The party whose it is.
    id: &'static str,
    address: SocketAddr,
    roots: PathBuf,
    ops: SocketAddr,
    /// What it counts, and the labels before the reason.
    counter: &'static str,
    labels: &'static str,
    /// Whether it lets in those who show nothing.
    for_all: bool,
    /// TLS 1.3, or 1.2.
    old: bool,
}

/// A program that can show a certificate.
#[derive(Clone, Copy, Debug)]
enum Visitor {
    Curl,
    GnuTls,
    OpenSsl,
}

const VISITORS: [Visitor; 3] = [Visitor::Curl, Visitor::GnuTls, Visitor::OpenSsl];
const PATH: &str = "/v1/hello";
const CALL: &str = "GET /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// A week, after which every list of a testbed is stale, and a day.
const WEEK_AND_DAY: i64 = 8 * 86_400;

impl Door {
    fn origins(bed: &Testbed, roots: &Path) -> Vec<Self> {
        let at = bed.origin().addresses();
        let content = Self {
            name: "the origin's content",
            id: "origin",
            address: at.content,
            roots: roots.to_owned(),
            ops: at.ops,
            counter: "larder_origin_tls_handshakes_total",
            labels: "listener=\"content\",result=",
            for_all: false,
            old: false,
        };
        let enrol = Self {
            name: "enrolment",
            address: at.enrol,
            labels: "listener=\"enrol\",result=",
            for_all: true,
            ..content.clone()
        };
        let old = Self {
            name: "enrolment by TLS 1.2",
            old: true,
            ..enrol.clone()
        };
        vec![content, enrol, old]
    }

    fn boosters(booster: &booster::Booster, roots: &Path) -> Self {
        let at = booster.addresses();
        Self {
            name: "a booster's content",
            id: "b1",
            address: at.content,
            roots: roots.to_owned(),
            ops: at.ops,
            counter: "larder_booster_handshakes_refused_total",
            labels: "reason=",
            for_all: false,
            old: false,
        }
    }

    /// Whom this door turns away, and why.
    fn refuses(&self, guest: &Guest) -> Option<RefusalReason> {
        guest
            .reason
            .filter(|_| guest.pair.is_some() || !self.for_all)
    }

    async fn counted(&self, reason: RefusalReason) -> u64 {
        let label = format!("{}\"{reason}\"", self.labels);
        // Nothing is told of what never was.
        metric(self.ops, self.counter, &label).await.unwrap_or(0)
    }

    async fn must_treat(&self, guest: &Guest, visitor: Visitor) -> anyhow::Result<()> {
        let program = match visitor {
            Visitor::Curl => self.curl(guest.pair.as_ref()),
            Visitor::GnuTls => self.gnutls(guest.pair.as_ref()),
            Visitor::OpenSsl => self.openssl(guest.pair.as_ref()),
        };
        let Some(reason) = self.refuses(guest) else {
            let ended = program.run().await?;
            return ended.must_say(r#""deployment":"bed""#);
        };
        let before = self.counted(reason).await;
        let ended = program.run().await?;
        ended.must_say(&visitor.word_for(reason, self.old))?;
        ended.must_not_say("HTTP/1.1")?;
        let counted = until(async || self.counted(reason).await, |now| *now > before).await;
        ensure!(counted == before + 1, "counted {counted} after {before}");
        Ok(())
    }

    fn curl(&self, pair: Option<&Pair>) -> Program {
        let mut curl = Curl::to(self.id, self.address, &self.roots).and(["--http1.1"]);
        if self.old {
            curl = curl.and(["--tls-max", "1.2"]);
        }
        if let Some(pair) = pair {
            curl = curl.showing(&pair.cert, &pair.key);
        }
        curl.program(PATH)
    }

    fn gnutls(&self, pair: Option<&Pair>) -> Program {
        let (name, port) = (host(self.id), self.address.port());
        let version = if self.old { "1.2" } else { "1.3" };
        let mut program = Program::new("gnutls-cli")
            .arg("--x509cafile")
            .arg(&self.roots)
            .arg(format!("--sni-hostname={name}"))
            .arg(format!("--verify-hostname={name}"))
            .arg(format!("--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}"))
            .args(["--port", &port.to_string(), &self.address.ip().to_string()])
            // It leaves as soon as its input has ended.
            .open_input(CALL);
        if let Some(pair) = pair {
            program = program.arg("--x509certfile").arg(&pair.cert);
            program = program.arg("--x509keyfile").arg(&pair.key);
        }
        program
    }

    fn openssl(&self, pair: Option<&Pair>) -> Program {
        let mut program = openssl("s_client -ign_eof -verify_return_error -connect")
            .arg(self.address.to_string())
            .args(["-servername", &host(self.id), "-CAfile"])
            .arg(&self.roots)
            .arg(if self.old { "-tls1_2" } else { "-tls1_3" })
            .input(CALL);
        if let Some(pair) = pair {
            program = program.arg("-cert").arg(&pair.cert);
            program = program.arg("-cert_chain").arg(&pair.cert);
            program = program.arg("-key").arg(&pair.key);
        }
        program
    }
}

impl Visitor {
    /// How it says which alert it was sent, by TLS 1.2 if that is `old`.
    fn word_for(self, reason: RefusalReason, old: bool) -> String {
        let (number, name) = alert(reason);
        match self {
            // It takes this alert within a handshake for a finding of its own.
            Self::Curl if old && number == 45 => "certificate verification failed".to_owned(),
            Self::Curl => format!("alert {name}"),
            Self::GnuTls => format!("Received alert [{number}]"),
            Self::OpenSsl => format!("SSL alert number {number}"),
        }
    }
}

/// The alert of docs/protocol.md for a reason: its number (RFC 8446 §6) and OpenSSL's name.
fn alert(reason: RefusalReason) -> (u8, &'static str) {
    match reason {
        RefusalReason::NameMismatch | RefusalReason::Protocol => (42, "bad certificate"),
        RefusalReason::WrongEku => (43, "unsupported certificate"),
        RefusalReason::Revoked => (44, "certificate revoked"),
        RefusalReason::Expired | RefusalReason::NotYetValid => (45, "certificate expired"),
        RefusalReason::UnknownIssuer | RefusalReason::CrlStale => (48, "unknown ca"),
        RefusalReason::WrongRole => (49, "access denied"),
        RefusalReason::BadSignature => (51, "decrypt error"),
        RefusalReason::NoCertificate => (116, "certificate required"),
    }
}

async fn must_treat_all(door: &Door, guests: &[Guest]) -> anyhow::Result<()> {
    for guest in guests {
        for visitor in VISITORS {
            let treated = door.must_treat(guest, visitor).await;
            treated.with_context(|| format!("{}: {}: {visitor:?}", door.name, guest.name))?;
        }
    }
    Ok(())
}

/// Each of `guests` that `doors` refused is one report of `reporter` at the origin. It counts the
/// visitors, and those of the last minute may not have been told yet.
async fn must_be_reported(
    bed: &Testbed,
    reporter: &str,
    doors: &[Door],
    guests: &[Guest],
) -> anyhow::Result<()> {
    let mut expected = Vec::new();
    for guest in guests {
        let refusing = doors.iter().filter(|door| door.refuses(guest).is_some());
        let count = refusing.count() * VISITORS.len();
        let cert = guest.pair.as_ref().map(|pair| certs_in(&pair.cert));
        let cert = cert.transpose()?.map(|chain| Digest::of(&chain[0]).hex());
        if let (Some(reason), 1..) = (guest.reason, count) {
            expected.push((cert, reason.to_string(), count as u64));
        }
    }
    expected.sort();
    let path = format!("/reports?within=3600&limit=1000&reporter={reporter}");
    let look = async || {
        let view: Option<ReportsView> = bed.admin().get(&path).await.ok();
        let reports = view.map(|view| view.reports).unwrap_or_default();
        let line = |it: ReportView| (it.cert_sha256, it.reason.unwrap_or_default(), it.count);
        let mut lines: Vec<_> = reports.into_iter().map(line).collect();
        lines.sort();
        lines
    };
    let as_expected = |lines: &Vec<(Option<String>, String, u64)>| {
        let mut both = lines.iter().zip(&expected);
        let is_one = |(line, most): (&(_, _, u64), &(_, _, u64))| {
            (&line.0, &line.1) == (&most.0, &most.1) && (1..=most.2).contains(&line.2)
        };
        lines.len() == expected.len() && both.all(is_one)
    };
    until(look, as_expected).await;
    Ok(())
}

/// A deployment with the clients `c1` and `c2`, of which `c2` is revoked.
async fn bed() -> anyhow::Result<(Testbed, PathBuf)> {
    let bed = Testbed::start().await?;
    let roots = roots_of(&bed.enrol_client("c1").await?);
    bed.enrol_client("c2").await?;
    bed.revoke("c2").await?;
    Ok((bed, roots))
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_certificates_at_the_origins_listeners() -> anyhow::Result<()> {
    let (bed, roots) = bed().await?;
    let guests = guests::all(&bed).await?;
    let doors = Door::origins(&bed, &roots);
    for door in &doors {
        must_treat_all(door, &guests).await?;
    }
    must_be_reported(&bed, "origin/origin", &doors, &guests).await?;
    bed.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_certificates_at_a_booster() -> anyhow::Result<()> {
    let (mut bed, roots) = bed().await?;
    let booster = bed.booster("b1").await?;
    let door = Door::boosters(&booster, &roots);
    let mut guests = guests::all(&bed).await?;
    let other = bed.enrol_booster("b2").await?;
    guests.push(Guest {
        name: "a booster's",
        pair: Some(Pair::of(&other)),
        reason: Some(RefusalReason::WrongRole),
    });
    must_treat_all(&door, &guests).await?;
    must_be_reported(&bed, "booster/b1", std::slice::from_ref(&door), &guests).await?;
    // The ninth: nothing is wrong with the client, but the list is too old to say so.
    bed.kill_origin();
    bed.pass(WEEK_AND_DAY);
    let stale = Guest {
        name: "in order, under a stale list",
        pair: Some(Pair::of(&bed.path("c1"))),
        reason: Some(RefusalReason::CrlStale),
    };
    must_treat_all(&door, &[stale]).await?;
    let _drained = booster.drain(Duration::from_secs(5)).await;
    Ok(())
}
