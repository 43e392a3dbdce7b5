//! sslyze and testssl.sh look at both listeners, with a client's certificate: without one, a
//! scanner takes a TLS 1.3 server that refuses everybody for one that accepts everything (P24).

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;
use tests::scrape::metric;
use tests::testbed::Testbed;

use crate::curl::{host, roots_of};
use crate::openssl::Pair;
use crate::program::Program;
use crate::tools::python_tool;

/// testssl.sh takes half a minute for a listener on a machine that has nothing else to do.
const SCAN_DEADLINE: Duration = Duration::from_secs(240);

/// What is scanned, and what must come out.
struct Target {
    address: SocketAddr,
    /// The origin's name for it in its metrics.
    listener: &'static str,
    /// Whether TLS 1.2 is spoken here.
    old: bool,
}

impl Target {
    fn all(bed: &Testbed) -> [Self; 2] {
        let at = bed.origin().addresses();
        [
            Self {
                address: at.content,
                listener: "content",
                old: false,
            },
            Self {
                address: at.enrol,
                listener: "enrol",
                old: true,
            },
        ]
    }
}

async fn bed() -> anyhow::Result<(Testbed, PathBuf)> {
    let bed = Testbed::start().await?;
    let client = bed.enrol_client("c1").await?;
    Ok((bed, client))
}

/// Fails unless the listener has let the scanner in, and refused nobody over his certificate.
async fn must_have_let_in(bed: &Testbed, target: &Target) -> anyhow::Result<()> {
    let ops = bed.origin().addresses().ops;
    let counted = async |result: &str| {
        let labels = format!("listener=\"{}\",result=\"{result}\"", target.listener);
        let counted = metric(ops, "larder_origin_tls_handshakes_total", &labels).await;
        // Nothing is told of what never was.
        counted.unwrap_or(0)
    };
    ensure!(counted("accepted").await > 0, "it was never let in");
    for reason in ["no_certificate", "unknown_issuer", "revoked", "expired"] {
        let refused = counted(reason).await;
        let excused = reason == "no_certificate" && target.listener == "content";
        ensure!(refused == 0 || excused, "{reason}: {refused} times");
    }
    Ok(())
}

/// What sslyze must find, for either listener: a place in its results, and what stands there.
const SSLYZE: &[(&str, &str)] = &[
    ("ssl_3_0_cipher_suites/accepted_cipher_suites", "[]"),
    ("tls_1_0_cipher_suites/accepted_cipher_suites", "[]"),
    ("tls_1_1_cipher_suites/accepted_cipher_suites", "[]"),
    ("tls_compression/supports_compression", "false"),
    ("tls_1_3_early_data/supports_early_data", "false"),
    (
        "openssl_ccs_injection/is_vulnerable_to_ccs_injection",
        "false",
    ),
    ("heartbleed/is_vulnerable_to_heartbleed", "false"),
    ("robot/robot_result", "\"NOT_VULNERABLE_RSA_NOT_SUPPORTED\""),
    (
        "session_renegotiation/is_vulnerable_to_client_renegotiation_dos",
        "false",
    ),
    (
        "session_resumption/session_id_successful_resumptions_count",
        "0",
    ),
    (
        "session_resumption/tls_ticket_successful_resumptions_count",
        "0",
    ),
    ("tls_extended_master_secret/supports_ems_extension", "true"),
];

/// Its scans. Not `--sslv2`: its OpenSSL for that cannot read our keys; testssl.sh looks for it.
const SSLYZE_SCANS: &str = "--sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 --compression \
    --early_data --resum --reneg --heartbleed --robot --openssl_ccs --fallback --ems --certinfo \
    --elliptic_curves --mozilla_config=disable";

/// Runs sslyze, and returns the results of its scans.
async fn sslyze(target: &Target, client: &Path, report: &Path) -> anyhow::Result<Value> {
    let own = Pair::of(client);
    let ended = python_tool("sslyze")
        .arg("--cert")
        .arg(&own.cert)
        .arg("--key")
        .arg(&own.key)
        .arg("--certinfo_ca_file")
        .arg(roots_of(client))
        .args(["--sni", &host("origin"), "--json_out"])
        .arg(report)
        .args(SSLYZE_SCANS.split_whitespace())
        .arg(target.address.to_string())
        .within(SCAN_DEADLINE)
        .run()
        .await?;
    let read = fs::read(report).with_context(|| ended.told())?;
    let read: Value = serde_json::from_slice(&read)?;
    let scan = &read["server_scan_results"][0];
    ensure!(scan["scan_status"] == "COMPLETED", "{}", ended.told());
    Ok(scan["scan_result"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn p24_sslyze_with_a_certificate_finds_what_the_docs_say() -> anyhow::Result<()> {
    let (bed, client) = bed().await?;
    for target in Target::all(&bed) {
        let report = bed.path("sslyze.json");
        let found = sslyze(&target, &client, &report).await?;
        for (place, wanted) in SSLYZE {
            let (scan, field) = place.split_once('/').context("a scan and a field")?;
            let value = found[scan]["result"][field].to_string();
            ensure!(value == *wanted, "{}: {place}: {value}", target.listener);
        }
        let accepted = |scan: &str| {
            let suites = found[scan]["result"]["accepted_cipher_suites"].as_array();
            suites.map_or(0, Vec::len)
        };
        let suites = (
            accepted("tls_1_2_cipher_suites"),
            accepted("tls_1_3_cipher_suites"),
        );
        // AES-128-GCM, AES-256-GCM and ChaCha20-Poly1305 with forward secrecy; no more.
        let wanted = (if target.old { 3 } else { 0 }, 3);
        ensure!(suites == wanted, "{}: {suites:?}", target.listener);
        let trusted = &found["certificate_info"]["result"]["certificate_deployments"][0];
        let trusted = trusted["verified_certificate_chain"].is_array();
        ensure!(trusted, "{}: the chain does not hold", target.listener);
        must_have_let_in(&bed, &target).await?;
    }
    Ok(())
}

/// One finding of testssl.sh.
#[derive(Debug, Deserialize)]
struct Finding {
    finding: String,
    id: String,
    severity: String,
}

/// What testssl.sh holds against us, and why it stays so.
const EXPECTED: &[(&str, &str)] = &[
    (
        "engine_problem",
        "it would like OpenSSL's GOST engine for ciphers that nobody has",
    ),
    (
        "cert_expirationStatus",
        "certificates live for 30 days and renew at half of that",
    ),
    ("cert_notAfter", "the same"),
    (
        "cert_revocation",
        "our parties know where lists are, and nobody else is to look for them",
    ),
    ("DNS_CAArecord", "our names resolve nowhere"),
];

/// What it must find at either listener: an id, and the beginning of the finding.
const TESTSSL: &[(&str, &str)] = &[
    ("SSLv2", "not offered"),
    ("SSLv3", "not offered"),
    ("TLS1", "not offered"),
    ("TLS1_1", "not offered"),
    ("TLS1_3", "offered with final"),
    ("ALPN_HTTP2", "h2"),
    ("cipherlist_NULL", "not offered"),
    ("cipherlist_aNULL", "not offered"),
    ("cipherlist_EXPORT", "not offered"),
    ("cipherlist_LOW", "not offered"),
    ("cipherlist_3DES_IDEA", "not offered"),
    ("cipherlist_AVERAGE", "not offered"),
    ("cipherlist_STRONG", "offered"),
    ("PFS", "offered"),
    ("TLS_session_ticket", "no"),
    ("SSL_sessionID_support", "no"),
    ("sessionresumption_ticket", "not supported"),
    ("sessionresumption_ID", "No Session ID, no resumption"),
    ("cert_chain_of_trust", "passed"),
    ("ticketbleed", "no session ticket extension"),
];

/// An `openssl` for testssl.sh, whose Debian version cannot show a certificate: this one always
/// does.
fn showing(bed: &Testbed, client: &Path) -> anyhow::Result<PathBuf> {
    let own = Pair::of(client);
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = s_client ]; then\n  shift\n  \
         exec openssl s_client -cert '{cert}' -cert_chain '{cert}' -key '{key}' \"$@\"\nfi\n\
         exec openssl \"$@\"\n",
        cert = own.cert.display(),
        key = own.key.display(),
    );
    let path = bed.path("openssl-with-certificate");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

async fn testssl(bed: &Testbed, target: &Target, client: &Path) -> anyhow::Result<Vec<Finding>> {
    let report = bed.path(&format!("testssl-{}.json", target.listener));
    let (host, address) = (host("origin"), target.address);
    let ended = Program::new("testssl")
        .arg("--openssl")
        .arg(showing(bed, client)?)
        .args(["--quiet", "--warnings", "off", "--color", "0"])
        // Nobody but us is asked anything.
        .args(["--nodns", "none", "--ip", &address.ip().to_string()])
        .arg("--add-ca")
        .arg(roots_of(client))
        // Protocols, kinds of ciphers, forward secrecy, the server's ways, known weaknesses.
        .args(["-p", "-s", "-f", "-S", "-U", "--jsonfile"])
        .arg(&report)
        .arg(format!("{host}:{}", address.port()))
        .within(SCAN_DEADLINE)
        .run()
        .await?;
    let read = fs::read(&report).with_context(|| ended.told())?;
    serde_json::from_slice(&read).with_context(|| ended.told())
}

#[tokio::test(flavor = "multi_thread")]
async fn p24_testssl_with_a_certificate_finds_what_the_docs_say() -> anyhow::Result<()> {
    let (bed, client) = bed().await?;
    let targets = Target::all(&bed);
    let [content, enrol] = &targets;
    let (of_content, of_enrol) = tokio::try_join!(
        testssl(&bed, content, &client),
        testssl(&bed, enrol, &client)
    )?;
    for (target, findings) in targets.iter().zip([of_content, of_enrol]) {
        let name = target.listener;
        let old = if target.old { "offered" } else { "not offered" };
        for (id, wanted) in TESTSSL.iter().chain(&[("TLS1_2", old)]) {
            let found = findings.iter().find(|found| found.id == *id);
            let found = found.with_context(|| format!("{name}: no {id}"))?;
            let as_wanted = found.finding.starts_with(wanted);
            ensure!(as_wanted, "{name}: want {wanted}: {found:?}");
        }
        for found in &findings {
            let fine = ["OK", "INFO"].contains(&found.severity.as_str());
            let expected = EXPECTED.iter().any(|(id, _)| *id == found.id);
            ensure!(fine || expected, "{name}: {found:?}");
        }
        for (id, why) in EXPECTED {
            let found = findings.iter().any(|found| found.id == *id);
            ensure!(found, "{name}: no more {id}: {why}");
        }
        must_have_let_in(&bed, target).await?;
    }
    Ok(())
}
