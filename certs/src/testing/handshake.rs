//! Both ends of a TLS connection in one thread, with vectors for wires.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, ServerConfig, ServerConnection,
};
use rustls_pki_types::ServerName;

use crate::tls::{Capture, Captured};

/// How a handshake went, on both sides.
#[derive(Debug)]
pub struct Outcome {
    /// How the server sees it: its own error, or the alert that it received.
    pub server: Result<HandshakeKind, Error>,
    /// How the client sees it.
    pub client: Result<HandshakeKind, Error>,
    /// What the server's verifier saw.
    pub at_server: Captured,
    /// What the client's verifier saw.
    pub at_client: Captured,
    /// What the server could read of what the client wrote as soon as it was allowed to.
    pub plaintext: Vec<u8>,
    /// What the client could read of what the server wrote as soon as it was allowed to.
    pub answer: Vec<u8>,
}

/// Runs a handshake in memory. Each side writes as soon as TLS lets it: the client `early`,
/// the server `hello`.
pub fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Outcome {
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let (mut at_server, mut at_client) = (Side::new(b"hello"), Side::new(b"early"));
    for _ in 0..ROUNDS {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        at_server.take(&mut server, &wire);
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        at_client.take(&mut client, &wire);
    }
    Outcome {
        server: at_server.result(server.handshake_kind()),
        client: at_client.result(client.handshake_kind()),
        at_server: at_server.capture.take(),
        at_client: at_client.capture.take(),
        plaintext: at_server.read,
        answer: at_client.read,
    }
}

struct Side {
    capture: Capture,
    error: Option<Error>,
    read: Vec<u8>,
    unsaid: Option<&'static [u8]>,
}

impl Side {
    fn new(unsaid: &'static [u8]) -> Self {
        Self {
            capture: Capture::default(),
            error: None,
            read: Vec::new(),
            unsaid: Some(unsaid),
        }
    }

    /// Takes what came over the wire, reads what may be read, says what may be said.
    fn take<D>(&mut self, to: &mut rustls::ConnectionCommon<D>, mut wire: &[u8]) {
        while !wire.is_empty() && self.error.is_none() {
            to.read_tls(&mut wire).unwrap();
            if let Err(found) = self.capture.enter(|| to.process_new_packets()) {
                self.error = Some(found);
            }
        }
        // Read even after an error: what must not be readable is looked for, not assumed.
        drop(to.reader().read_to_end(&mut self.read));
        if self.error.is_none()
            && !to.is_handshaking()
            && let Some(words) = self.unsaid.take()
        {
            to.writer().write_all(words).unwrap();
        }
    }

    fn result(&self, kind: Option<HandshakeKind>) -> Result<HandshakeKind, Error> {
        match (&self.error, kind) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(kind)) => Ok(kind),
            (None, None) => Err(Error::HandshakeNotComplete),
        }
    }
}

/// More flights than any handshake has, tickets and alerts included.
const ROUNDS: usize = 10;
