//! The nine certificates without any of our programs: OpenSSL and GnuTLS judge them by our root and
//! our lists.

use std::path::Path;

use anyhow::Context as _;

use super::guests;
use crate::papers::Papers;
use crate::program::{Ended, Program};

/// What either says to whom: OpenSSL, GnuTLS.
const VERDICTS: [(&str, &str, &str); 8] = [
    ("in order", ": OK", "Verified. The certificate is trusted."),
    ("revoked", "certificate revoked", "chain is revoked"),
    (
        "of another CA",
        "unable to get local issuer certificate",
        "issuer is unknown",
    ),
    (
        "of a CA of that name with another key",
        "unable to get local issuer certificate",
        "issuer is unknown",
    ),
    (
        "the same, with that CA's certificate",
        "unable to get local issuer certificate",
        "issuer is unknown",
    ),
    ("expired", "certificate has expired", "chain uses expired"),
    (
        "not yet valid",
        "certificate is not yet valid",
        "not yet valid certificate",
    ),
    (
        "for servers",
        "unsuitable certificate purpose",
        "does not match the intended purpose",
    ),
];

/// GnuTLS, whose Debian version goes by the system's clock alone.
async fn certtool(papers: &Papers, lists: &Path, chain: &Path) -> anyhow::Result<Ended> {
    Program::new("certtool")
        .args(["--verify", "--verify-profile", "medium"])
        // Client authentication (RFC 5280 §4.2.1.12).
        .args(["--verify-purpose", "1.3.6.1.5.5.7.3.2"])
        .arg("--load-ca-certificate")
        .arg(&papers.roots)
        .arg("--load-crl")
        .arg(lists)
        .arg("--infile")
        .arg(chain)
        .run()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_certificates_as_openssl_and_gnutls_judge_them() -> anyhow::Result<()> {
    let (bed, _) = super::bed().await?;
    let papers = Papers::of(&bed, &bed.path("c1"))?;
    let lists = papers.crls(&bed).await?;
    let guests = guests::all(&bed).await?;
    let lists_text = lists.display().to_string();
    for (name, openssl, gnutls) in VERDICTS {
        let guest = guests.iter().find(|guest| guest.name == name);
        let pair = guest.and_then(|guest| guest.pair.as_ref());
        let chain = &pair.context(name)?.cert;
        let by_list = ["-crl_check_all", "-CRLfile", &lists_text];
        let ended = papers.verify(chain, "sslclient", &by_list).await?;
        ended.must_say(openssl).context(name)?;
        let ended = certtool(&papers, &lists, chain).await?;
        ended.must_say(gnutls).context(name)?;
    }
    // The ninth: in order, but by lists that are too old.
    let at = bed.clock().now() + super::WEEK_AND_DAY;
    let chain = bed.path("c1/identity/cert.pem");
    let by_list = [
        "-crl_check_all",
        "-CRLfile",
        &lists_text,
        "-attime",
        &at.to_string(),
    ];
    let ended = papers.verify(&chain, "sslclient", &by_list).await?;
    ended.must_say("CRL has expired")
}
