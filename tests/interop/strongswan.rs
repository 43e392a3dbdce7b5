//! strongSwan's `pki`: an EST client that speaks TLS 1.2 alone and needs base64 in one line.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use certs::Role;
use origin::Origin;
use origin::config::Config;
use origin::fleet::{DeviceView, Devices};
use protocol::Join;
use tests::testbed::{Testbed, until};

use crate::curl::host;
use crate::enrolment::Foreigner;
use crate::openssl::{certs_in, openssl, public_key, write_certs};
use crate::program::Program;
use crate::renewal::later;

/// Lets one program resolve names by a file of ours: Debian's libnss-wrapper.
const WRAPPER: &str = "libnss_wrapper.so";
/// The device that asks.
const ID: &str = "swan";
/// How long the origin may take to end.
const END_GRACE: Duration = Duration::from_secs(5);

/// A request that is ready to be sent.
struct Swan {
    foreigner: Foreigner,
    key: PathBuf,
    request: Vec<u8>,
}

impl Swan {
    async fn hatch(bed: &Testbed, join: Join) -> anyhow::Result<Self> {
        let foreigner = Foreigner::told(bed, join).await?;
        let (key, hosts) = (foreigner.at("swan.key"), foreigner.at("hosts"));
        fs::write(hosts, format!("127.0.0.1 {}\n", host("origin")))?;
        let made = pki("--gen --type ecdsa --size 256 --outform pem");
        fs::write(&key, made.succeed().await?)?;
        let request = pki("--req --type ecdsa --in")
            .arg(&key)
            .args(["--dn", &format!("CN={ID}")])
            .succeed()
            .await?;
        Ok(Self {
            foreigner,
            key,
            request,
        })
    }

    /// Asks, once a second as long as it is told to wait.
    fn asks(&self, token: &str) -> Program {
        self.est().args(["--userpass", &format!("larder:{token}")])
    }

    /// Asks for a new certificate, showing the one in `cert`.
    fn renews(&self, cert: &Path) -> Program {
        let program = self.est().arg("--cert").arg(cert);
        program.arg("--key").arg(&self.key)
    }

    fn est(&self) -> Program {
        let port = self.foreigner.origin.port();
        pki("--est --interval 1 --maxpolltime 20 --outform pem --cacert")
            .arg(self.foreigner.at("roots.pem"))
            .args(["--url", &format!("https://{}:{port}", host("origin"))])
            .env("LD_PRELOAD", WRAPPER)
            .env("NSS_WRAPPER_HOSTS", self.foreigner.at("hosts"))
            .input(self.request.clone())
    }

    /// The file of the certificate, if it is a good one for our key.
    async fn must_be_issued(&self, pem: Vec<u8>, name: &str) -> anyhow::Result<PathBuf> {
        let cert = self.foreigner.at(name);
        fs::write(&cert, pem)?;
        let certs = certs_in(&cert)?;
        ensure!(certs.len() == 1, "want one, got {}", certs.len());
        write_certs(cert.clone(), &certs)?;
        let own = openssl("pkey -pubout -in").arg(&self.key).succeed().await?;
        let same = public_key("x509", &cert).await? == own;
        ensure!(same, "the certificate is for another key");
        self.foreigner.must_verify(&cert).await?;
        Ok(cert)
    }
}

fn pki(words: &str) -> Program {
    Program::new("pki").args(words.split_whitespace())
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_enrols_with_a_token() -> anyhow::Result<()> {
    let bed = Testbed::start().await?;
    let swan = Swan::hatch(&bed, bed.token(Role::Client, true).await?).await?;
    let pem = swan.asks(&swan.foreigner.token()?).succeed().await?;
    swan.must_be_issued(pem, "swan.pem").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_renews_with_its_old_certificate() -> anyhow::Result<()> {
    let mut bed = Testbed::start().await?;
    let mut swan = Swan::hatch(&bed, bed.token(Role::Client, true).await?).await?;
    let pem = swan.asks(&swan.foreigner.token()?).succeed().await?;
    let old = swan.must_be_issued(pem, "old.pem").await?;
    later(&mut bed, &mut swan.foreigner).await?;
    let pem = swan.renews(&old).succeed().await?;
    let new = swan.must_be_issued(pem, "new.pem").await?;
    ensure!(certs_in(&old)? != certs_in(&new)?, "got the old one again");
    // A certificate that was revoked renews nothing.
    bed.revoke(ID).await?;
    let refused = swan.renews(&new).run().await?;
    ensure!(!refused.status.success(), "{}", refused.told());
    refused.must_say("received fatal TLS alert 'certificate revoked'")
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_hears_that_an_operator_denies() -> anyhow::Result<()> {
    let mut bed = Testbed::start().await?;
    let origin = patient_origin(&mut bed).await?;
    let swan = Swan::hatch(&bed, bed.token(Role::Client, false).await?).await?;
    let program = swan.asks(&swan.foreigner.token()?);
    let (ended, denied) = tokio::join!(program.run(), decide(&bed, "deny"));
    denied?;
    let ended = ended?;
    ensure!(!ended.status.success(), "{}", ended.told());
    ended.must_say("403")?;
    let _drained = origin.drain(END_GRACE).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_polls_until_an_operator_approves() -> anyhow::Result<()> {
    let mut bed = Testbed::start().await?;
    let origin = patient_origin(&mut bed).await?;
    let swan = Swan::hatch(&bed, bed.token(Role::Client, false).await?).await?;
    let program = swan.asks(&swan.foreigner.token()?);
    let (pem, approved) = tokio::join!(program.succeed(), decide(&bed, "approve"));
    approved?;
    swan.must_be_issued(pem?, "swan.pem").await?;
    let _drained = origin.drain(END_GRACE).await;
    Ok(())
}

/// The bed's origin anew, telling those who wait to come back in a second: strongSwan keeps to
/// `Retry-After`, whose usual minute is too long for a test.
async fn patient_origin(bed: &mut Testbed) -> anyhow::Result<Origin> {
    let (data, any) = (bed.path("origin"), "127.0.0.1:0");
    let settings = format!(
        "data = {data:?}\nops.listen = {any:?}\ncontent.listen = {any:?}\n\
         enrol.listen = {any:?}\nenrol.retry_after = \"1s\"\n"
    );
    let path = bed.path("patient.toml");
    fs::write(&path, settings)?;
    let config = Config::load(&path)?;
    bed.kill_origin();
    // One that was killed a moment ago may still hold its socket.
    let start = async || Origin::bind(config.clone(), bed.clock()).await;
    Ok(until(start, Result::is_ok).await?)
}

/// Approves or denies the request as soon as there is one.
async fn decide(bed: &Testbed, decision: &str) -> anyhow::Result<()> {
    let pending = async || {
        let list: Option<Devices> = bed.admin().get("/devices?state=pending").await.ok();
        list.is_some_and(|list| list.devices.iter().any(|device| device.id == ID))
    };
    until(pending, |pending| *pending).await;
    let path = format!("/devices/{ID}/{decision}");
    let _decided: DeviceView = bed.admin().post(&path, &()).await?;
    Ok(())
}
