//! A booster with a certificate in order, and bad intentions.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use certs::Role;
use http::{Request, Response, StatusCode};
use protocol::{Code, Fault, Hello, PROTOCOL_VERSION, Route};
use transport::{Body, Fetched, Listener, Source, respond};

use crate::testbed::Party;

/// What a liar does to what it passes on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Lie {
    /// Flips one bit in the last byte of each pack.
    FlipByte,
    /// Nothing.
    #[default]
    None,
    /// Serves this instead of each revision's statement and locator.
    OldRevision(Bytes),
    /// Serves this instead of each snapshot.
    OldSnapshot(Bytes),
    /// Serves this timestamp, which was good once.
    OldTimestamp(Bytes),
    /// Serves this instead of each pack.
    OtherPack(Bytes),
    /// Says at each check-in that nothing has changed, and proves it by this.
    Proof(Bytes),
    /// Ends each pack in its middle.
    Truncate,
}

/// The liar.
pub struct Liar {
    lie: Arc<Mutex<Lie>>,
    listener: Listener,
}

impl Liar {
    /// Starts one as `party`, which passes on what `origin` says, but for the lie.
    ///
    /// # Errors
    ///
    /// Fails if it cannot listen.
    pub async fn start(party: &Party, origin: Source) -> anyhow::Result<Self> {
        let lie = Arc::new(Mutex::new(Lie::None));
        let (told, origin) = (Arc::clone(&lie), Arc::new(origin));
        let deployment = party.trust().deployment().to_string();
        let handler = move |request: Request<hyper::body::Incoming>, _session| {
            let (lie, origin) = (Arc::clone(&told), Arc::clone(&origin));
            let deployment = deployment.clone();
            async move {
                let lie = lie.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if matches!(lie, Lie::Proof(_)) && request.uri().path() == "/v1/check-in" {
                    return respond::status(StatusCode::NO_CONTENT);
                }
                match answer(&lie, &origin, &deployment, request.uri().path()).await {
                    Ok(bytes) => Response::new(Body::full(bytes)),
                    Err(error) => respond::fault(&Fault::new(Code::NotFound, error.to_string())),
                }
            }
        };
        let settings = party.listen_settings(&[Role::Booster, Role::Client])?;
        let address = ([127, 0, 0, 1], 0).into();
        let listener = Listener::bind(address, settings, handler, Arc::new(())).await?;
        Ok(Self { lie, listener })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.listener.local_addr().to_string()
    }

    /// Lies like this from now on.
    pub fn set(&self, lie: Lie) {
        *self.lie.lock().unwrap_or_else(PoisonError::into_inner) = lie;
    }
}

/// What `origin` says to a request for `path`, but for the lie.
pub(crate) async fn answer(
    lie: &Lie,
    origin: &Source,
    deployment: &str,
    path: &str,
) -> anyhow::Result<Bytes> {
    let whole = |fetched| match fetched {
        Fetched::New { bytes, .. } => Ok(bytes),
        Fetched::Unchanged => anyhow::bail!("nothing was asked that could be unchanged"),
    };
    let route = Route::parse(path)?;
    if let Some(old) = instead(lie, &route) {
        return Ok(old);
    }
    let bytes = match route {
        Route::Hello => hello(deployment).encode().into(),
        Route::Timestamp => whole(origin.timestamp(None).await?)?,
        Route::Snapshot(digest) => origin.snapshot(&digest).await?,
        Route::Statement(digest) => origin.statement(&digest, STATEMENT_BYTES_MAX).await?,
        Route::Deployment => whole(origin.deployment(None).await?)?,
        Route::Crl(issuer) => whole(
            origin
                .crl(certs::IssuerId::from_bytes(issuer), None)
                .await?,
        )?,
        Route::Pack(fileset, id) => {
            let mut pack = origin.pack(&fileset, &id, None, false).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = pack.next().await? {
                bytes.extend_from_slice(&piece);
            }
            twisted(lie, bytes)
        }
        Route::CaCerts
        | Route::CheckIn
        | Route::Crls
        | Route::Enrol(_)
        | Route::Inventory
        | Route::Log
        | Route::Reenrol(_)
        | Route::Relayed
        | Route::Reports
        | Route::Roster
        | Route::Wait => {
            anyhow::bail!("a liar does not enrol")
        }
    };
    Ok(bytes)
}

/// The old words that stand in for the answer, if this is a lie about it.
fn instead(lie: &Lie, route: &Route) -> Option<Bytes> {
    match (lie, route) {
        (Lie::OldTimestamp(old), Route::Timestamp)
        | (Lie::OldSnapshot(old), Route::Snapshot(_))
        | (Lie::OldRevision(old), Route::Statement(_))
        | (Lie::Proof(old), Route::Roster) => Some(old.clone()),
        (_, _) => None,
    }
}

fn twisted(lie: &Lie, mut pack: Vec<u8>) -> Bytes {
    match lie {
        Lie::FlipByte => {
            if let Some(last) = pack.last_mut() {
                *last ^= 1;
            }
        }
        Lie::Truncate => pack.truncate(pack.len() / 2),
        Lie::OtherPack(other) => return other.clone(),
        Lie::None
        | Lie::OldRevision(_)
        | Lie::OldSnapshot(_)
        | Lie::OldTimestamp(_)
        | Lie::Proof(_) => {}
    }
    pack.into()
}

fn hello(deployment: &str) -> Hello {
    Hello {
        deployment: deployment.to_owned(),
        role: "booster".to_owned(),
        id: "liar".to_owned(),
        protocol_min: PROTOCOL_VERSION,
        protocol_max: PROTOCOL_VERSION,
        time: 0,
    }
}

const STATEMENT_BYTES_MAX: usize = 64 << 20;
