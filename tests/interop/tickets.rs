//! There is no ticket from before a revocation, and one that was had elsewhere opens nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tests::testbed::{Testbed, until};

use crate::curl::{host, roots_of};
use crate::openssl::{Pair, openssl};
use crate::program::Program;

const CALL: &str = "GET /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// OpenSSL as an enrolled client that would like to resume its sessions.
struct Caller {
    own: Pair,
    roots: PathBuf,
}

impl Caller {
    fn of(data: &Path) -> Self {
        Self {
            own: Pair::of(data),
            roots: roots_of(data),
        }
    }

    /// A call to the party `id` which keeps its session in `file`, or takes it from there.
    fn calls(&self, id: &str, at: SocketAddr, version: &str, flag: &str, file: &Path) -> Program {
        openssl("s_client -ign_eof -verify_return_error -msg -connect")
            .arg(at.to_string())
            .args(["-servername", &host(id), version, "-CAfile"])
            .arg(&self.roots)
            .arg("-cert")
            .arg(&self.own.cert)
            .arg("-cert_chain")
            .arg(&self.own.cert)
            .arg("-key")
            .arg(&self.own.key)
            .arg(flag)
            .arg(file)
            .input(CALL)
    }

    /// A session with somebody who does hand out tickets: OpenSSL's own server, in our booster's
    /// name and with its key.
    async fn ticket(&self, booster: &Path, version: &str, file: &Path) -> anyhow::Result<()> {
        let own = Pair::of(booster);
        let server = openssl("s_server -accept 127.0.0.1:0 -www -naccept 1")
            .arg(version)
            .arg("-cert")
            .arg(&own.cert)
            .arg("-cert_chain")
            .arg(&own.cert)
            .arg("-key")
            .arg(&own.key)
            .start()?;
        let place = |said: &String| Some(said.split_once("ACCEPT ")?.1.lines().next()?.to_owned());
        let said = async || server.said_in_all().unwrap_or_default();
        let said = until(said, |said| said.ends_with('\n') && place(said).is_some()).await;
        let at = place(&said).context("it says where it listens")?.parse()?;
        let had = self.calls("b1", at, version, "-sess_out", file);
        had.run().await?.must_say("New, ")?;
        let shown = openssl("sess_id -noout -text -in").arg(file).run().await?;
        shown.must_say("TLS session ticket:")
    }
}

/// A listener, the party whose it is, and a version of TLS.
type Door = (&'static str, SocketAddr, &'static str);

async fn must_get_none(caller: &Caller, door: Door, folder: &Path) -> anyhow::Result<()> {
    let (id, at, version) = door;
    let file = folder.join("none");
    let ended = caller
        .calls(id, at, version, "-sess_out", &file)
        .run()
        .await?;
    ended.must_say("HTTP/1.1 200")?;
    ended.must_not_say("NewSessionTicket")?;
    // OpenSSL writes a session as soon as it can be resumed.
    ensure!(!file.exists(), "a session was kept: {}", ended.told());
    Ok(())
}

/// Shows a ticket, which must change nothing.
async fn must_start_anew(
    caller: &Caller,
    door: Door,
    file: &Path,
    wanted: &str,
) -> anyhow::Result<()> {
    let (id, at, version) = door;
    let ended = caller
        .calls(id, at, version, "-sess_in", file)
        .run()
        .await?;
    ended.must_say(wanted)?;
    ended.must_say("CertificateVerify")?;
    ended.must_not_say("Reused, ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_from_before_a_revocation_is_useless() -> anyhow::Result<()> {
    let bed = Testbed::start().await?;
    let caller = Caller::of(&bed.enrol_client("c1").await?);
    let booster = bed.booster("b1").await?;
    let at = bed.origin().addresses().clone();
    let doors: [Door; 4] = [
        ("origin", at.content, "-tls1_3"),
        ("b1", booster.local_addr(), "-tls1_3"),
        ("origin", at.enrol, "-tls1_3"),
        ("origin", at.enrol, "-tls1_2"),
    ];
    let tickets = [("-tls1_3", bed.path("new")), ("-tls1_2", bed.path("old"))];
    for (version, file) in &tickets {
        caller.ticket(&bed.path("b1"), version, file).await?;
    }
    let ticket = |door: &Door| {
        let found = tickets.iter().find(|(version, _)| *version == door.2);
        found.map(|(_, file)| file).context("one of each version")
    };
    for door in doors {
        must_get_none(&caller, door, bed.folder.path()).await?;
        must_start_anew(&caller, door, ticket(&door)?, "HTTP/1.1 200").await?;
    }
    bed.revoke("c1").await?;
    for door in doors {
        // The booster hears of it a moment later.
        let refused = async || {
            let file = ticket(&door)?;
            must_start_anew(&caller, door, file, "SSL alert number 44").await
        };
        until(refused, Result::is_ok).await?;
    }
    Ok(())
}
