//! OpenSSL reads and believes our certificates, revocation lists and listeners.

use std::path::Path;

use anyhow::ensure;

use crate::curl::{host, roots_of};
use crate::openssl::s_client;
use crate::papers::Papers;
use crate::shop::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn openssl_accepts_every_partys_certificate_for_its_purpose_alone() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let booster = shop.bed.enrol_booster("b1").await?;
    let papers = Papers::of(&shop.bed, &shop.client)?;
    let enrol = shop.bed.origin().addresses().enrol;
    let origin = papers.shown_by("origin", enrol).await?;
    let client = shop.client.join("identity/cert.pem");
    let booster = booster.join("identity/cert.pem");
    let table: [(&Path, &str, bool); 6] = [
        (&client, "sslclient", true),
        (&client, "sslserver", false),
        (&booster, "sslclient", true),
        (&booster, "sslserver", true),
        (&origin, "sslserver", true),
        (&origin, "smimesign", false),
    ];
    for (leaf, purpose, good) in table {
        let ended = papers.verify(leaf, purpose, &[]).await?;
        let as_wanted = ended.status.success() == good;
        ensure!(as_wanted, "want {good} for {purpose}: {}", ended.told());
    }
    let named = ["-verify_hostname", &host("b1")];
    let ended = papers.verify(&booster, "sslserver", &named).await?;
    ended.must_say(": OK")?;
    let ended = papers.verify(&client, "sslclient", &named).await?;
    ended.must_say("hostname mismatch")
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_reads_every_revocation_list_and_goes_by_it() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let papers = Papers::of(&shop.bed, &shop.client)?;
    let client = shop.client.join("identity/cert.pem");
    let checks = async || {
        let crls = papers.crls(&shop.bed).await?.display().to_string();
        let args = ["-crl_check_all", "-CRLfile", &crls];
        papers.verify(&client, "sslclient", &args).await
    };
    checks().await?.must_say(": OK")?;
    shop.bed.revoke("c1").await?;
    checks().await?.must_say("certificate revoked")
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_no_word_without_a_certificate_and_never_a_ticket() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let booster = shop.bed.booster("b1").await?;
    let origin = shop.bed.origin().addresses().clone();
    let identity = shop.client.join("identity");
    let roots = roots_of(&shop.client);
    let call = "GET /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (id, address) in [("origin", origin.content), ("b1", booster.local_addr())] {
        let calls = |version: &str| {
            s_client(address, &roots)
                // Reads until the other side has ended, and says what comes.
                .args(["-servername", &host(id), "-ign_eof", "-msg", version])
                .input(call)
        };
        let stranger = calls("-tls1_3").run().await?;
        stranger.must_say("alert certificate required")?;
        stranger.must_not_say("HTTP/1.1")?;
        stranger.must_not_say("NewSessionTicket")?;
        let old = calls("-tls1_2").run().await?;
        old.must_say("alert protocol version")?;
        old.must_not_say("HTTP/1.1")?;
        let known = calls("-tls1_3")
            .arg("-cert")
            .arg(identity.join("cert.pem"))
            .arg("-cert_chain")
            .arg(identity.join("cert.pem"))
            .arg("-key")
            .arg(identity.join("key.pem"))
            .run()
            .await?;
        known.must_say("HTTP/1.1 200")?;
        known.must_say(r#""deployment":"bed""#)?;
        known.must_say("CertificateVerify")?;
        known.must_not_say("NewSessionTicket")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_no_ticket_on_the_enrolment_listener_either() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let enrol = shop.bed.origin().addresses().enrol;
    let roots = roots_of(&shop.client);
    let call = "GET /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let ended = s_client(enrol, &roots)
            .args([
                "-servername",
                "enrol.larder.internal",
                "-ign_eof",
                "-msg",
                version,
            ])
            .input(call)
            .run()
            .await?;
        ended.must_say("HTTP/1.1 200")?;
        ended.must_not_say("NewSessionTicket")?;
    }
    Ok(())
}
