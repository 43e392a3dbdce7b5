//! What a peer that is refused sees of it: the alert, as docs/protocol.md lists them.

use certs::tls::{CertCell, Expected, client_config};
use certs::trust::Revocation;
use certs::{Key, Role};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::AlertDescription as Alert;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::Listener;
use crate::call::alert_in;
use crate::listen::Limits;
use crate::testing::{Bed, DAY, Own, Recorder, SOON, data};

/// A certificate that nobody but its own key has signed, made as `how` says.
fn self_signed(how: impl FnOnce(&mut CertificateParams)) -> Arc<CertCell> {
    let key = Key::generate().unwrap();
    let pair = KeyPair::from_pem(&key.to_pem()).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    how(&mut params);
    let cert = params.self_signed(&pair).unwrap();
    Arc::new(CertCell::new(&[cert.der().to_vec()], &key).unwrap())
}

fn for_clients(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

/// A listener at whose door people knock.
struct Door {
    bed: Bed,
    listener: Listener,
    name: Expected,
}

impl Door {
    async fn new() -> Self {
        let bed = Bed::new();
        let booster = bed.own(Role::Booster, "oslo");
        let recorder = Arc::new(Recorder::default());
        let limits = Limits::default();
        let listener = bed.listen(&booster, data(), limits, &recorder, serve).await;
        let name = Expected::Exactly(booster.identity);
        Self {
            bed,
            listener,
            name,
        }
    }

    async fn check(&self, own: Option<&Arc<CertCell>>, want: Alert) {
        // Lists that we do not have are the server's trouble, not this client's.
        let (lenient, time) = (Revocation::BestEffort, self.bed.time());
        let config = client_config(&self.name, lenient, &self.bed.trust, own, &time).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (name, addr) = (self.name.server_name(), self.listener.local_addr());
        let stream = TcpStream::connect(addr).await.unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let read = timeout(SOON, stream.read(&mut [0])).await.unwrap();
        assert_eq!(alert_in(&read.unwrap_err()), Some(want));
    }
}

#[tokio::test]
async fn a_self_signed_certificate_meets_an_alert_by_what_else_is_wrong_with_it() {
    let door = Door::new().await;
    let check = async |how: fn(&mut CertificateParams), want| {
        door.check(Some(&self_signed(how)), want).await;
    };
    check(for_clients, Alert::UnknownCA).await;
    check(|_| {}, Alert::UnsupportedCertificate).await;
    let ca = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    check(ca, Alert::AccessDenied).await;
    let expired = |params: &mut CertificateParams| {
        for_clients(params);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    };
    check(expired, Alert::CertificateExpired).await;
}

#[tokio::test]
async fn a_refused_peer_meets_the_alert_that_is_documented() {
    let door = Door::new().await;
    let (bed, now) = (&door.bed, door.bed.clock.now());
    let check = async |own: &Own, want| door.check(Some(&own.cell), want).await;
    let other_deployment = Bed::called("other").own(Role::Client, "a");
    check(&other_deployment, Alert::UnknownCA).await;
    let same_name = Bed::new().own(Role::Client, "a");
    check(&same_name, Alert::DecryptError).await;
    let expired = bed.own_at(Role::Client, "a", now - 15 * DAY);
    check(&expired, Alert::CertificateExpired).await;
    let early = bed.own_at(Role::Client, "a", now + DAY);
    check(&early, Alert::CertificateExpired).await;
    let signer = bed.own(Role::Signer, "a");
    check(&signer, Alert::UnsupportedCertificate).await;
    let origin = bed.own(Role::Origin, "a");
    check(&origin, Alert::AccessDenied).await;
    door.check(None, Alert::CertificateRequired).await;
    let stolen = bed.own(Role::Client, "stolen");
    bed.publish(&bed.client, 2, &[stolen.serial]);
    check(&stolen, Alert::CertificateRevoked).await;
    let good = bed.own(Role::Client, "good");
    bed.trust.crls().require_number(bed.client.id(), 9);
    check(&good, Alert::UnknownCA).await;
}
