//! EST with curl and OpenSSL, after the first certificate, and when there is to be none.

use std::path::Path;

use anyhow::{Context as _, ensure};
use certs::Role;
use origin::fleet::DeviceView;
use tests::testbed::Testbed;

use crate::curl::Curl;
use crate::enrolment::{Foreigner, P256, Request};
use crate::openssl::write_certs;

/// More than a third of a client's fortnight: until then the same key gets the same certificate.
const WHILE: i64 = 5 * 86_400;
const FAULT: &str = "application/problem+json";

/// A foreigner with a certificate for the name `c1`.
struct Enrolled {
    bed: Testbed,
    foreigner: Foreigner,
    request: Request,
    cert: Vec<u8>,
}

impl Enrolled {
    async fn make() -> anyhow::Result<Self> {
        let bed = Testbed::start().await?;
        let join = bed.token(Role::Client, true).await?;
        let foreigner = Foreigner::told(&bed, join).await?;
        let token = foreigner.token()?;
        let request = foreigner.request("c1", P256).await?;
        let answer = foreigner.enrol(&request, Some(&token)).await?;
        let cert = foreigner.issued(&answer, &request).await?;
        Ok(Self {
            bed,
            foreigner,
            request,
            cert,
        })
    }

    /// curl showing this certificate.
    fn showing(&self, cert: &[u8], key: &Path) -> anyhow::Result<Curl> {
        let file = write_certs(self.foreigner.at("shown.pem"), &[cert])?;
        Ok(self.foreigner.curl().showing(&file, key))
    }
}

/// Lets time pass until a certificate is due. The origin starts anew and signs new lists: those that
/// it has would be signed again hour by hour.
pub(crate) async fn later(bed: &mut Testbed, foreigner: &mut Foreigner) -> anyhow::Result<()> {
    bed.pass(WHILE);
    bed.kill_origin();
    bed.restart_origin().await?;
    foreigner.origin = bed.origin().addresses().enrol;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_renews_with_the_old_key_and_with_a_new_one() -> anyhow::Result<()> {
    let mut enrolled = Enrolled::make().await?;
    later(&mut enrolled.bed, &mut enrolled.foreigner).await?;
    let foreigner = &enrolled.foreigner;
    let shows = enrolled.showing(&enrolled.cert, &enrolled.request.key)?;
    let answer = Foreigner::send(&shows, "simplereenroll", &enrolled.request).await?;
    let cert = foreigner.issued(&answer, &enrolled.request).await?;
    ensure!(cert != enrolled.cert, "got the old certificate again");
    let new = foreigner.request("c1", P256).await?;
    let shows = enrolled.showing(&cert, &enrolled.request.key)?;
    let answer = Foreigner::send(&shows, "simplereenroll", &new).await?;
    let newer = foreigner.issued(&answer, &new).await?;
    let shows = enrolled.showing(&newer, &new.key)?;
    let answer = Foreigner::send(&shows, "simplereenroll", &new).await?;
    foreigner.issued(&answer, &new).await?;
    enrolled.bed.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_renews_nothing_that_is_not_its_own() -> anyhow::Result<()> {
    let enrolled = Enrolled::make().await?;
    let foreigner = &enrolled.foreigner;
    let nobody = foreigner.curl();
    let known = enrolled.showing(&enrolled.cert, &enrolled.request.key)?;
    let other = foreigner.request("c2", P256).await?;
    let table = [
        ("without a certificate", &nobody, &enrolled.request, 403),
        ("another name", &known, &other, 409),
    ];
    for (what, curl, request, wanted) in table {
        let answer = Foreigner::send(curl, "simplereenroll", request).await?;
        answer.must_be(wanted).context(what)?;
        answer.must_have("content-type", FAULT)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_hears_that_an_operator_denies() -> anyhow::Result<()> {
    let bed = Testbed::start().await?;
    let join = bed.token(Role::Client, false).await?;
    let foreigner = Foreigner::told(&bed, join).await?;
    let token = foreigner.token()?;
    let request = foreigner.request("unwanted", P256).await?;
    let answer = foreigner.enrol(&request, Some(&token)).await?;
    answer.must_be(202)?;
    let deny = "/devices/unwanted/deny";
    let _denied: DeviceView = bed.admin().post(deny, &()).await?;
    for token in [Some(token.as_str()), None] {
        let answer = foreigner.enrol(&request, token).await?;
        answer.must_be(403)?;
        answer.must_have("content-type", FAULT)?;
        let code = br#""code":"denied""#;
        let told = answer.body.windows(code.len()).any(|part| part == code);
        ensure!(told, "{answer:?}");
    }
    Ok(())
}
