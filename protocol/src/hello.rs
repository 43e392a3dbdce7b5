//! The hello: the first answer on a connection, which proves that both sides accepted it.

use serde::{Deserialize, Serialize};

/// Who answers. A TLS 1.3 client believes itself connected before the server has looked at its
/// certificate; only this answer shows that the server has.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// The deployment.
    pub deployment: String,
    /// `origin` or `booster`.
    pub role: String,
    /// The party's id.
    pub id: String,
    /// The oldest protocol version that it speaks.
    pub protocol_min: u32,
    /// The newest.
    pub protocol_max: u32,
    /// Its clock, in Unix seconds.
    pub time: i64,
}

impl Hello {
    /// The body that carries it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always encode")
    }

    /// Reads a body; none if it is no hello.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes.get(..bytes.len().min(crate::HELLO_BYTES_MAX))?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_does_not_drift() {
        let hello = Hello {
            deployment: "d1".to_owned(),
            role: "origin".to_owned(),
            id: "o1".to_owned(),
            protocol_min: 1,
            protocol_max: 1,
            time: 1_700_000_000,
        };
        let body = hello.encode();
        assert_eq!(Hello::decode(&body), Some(hello));
        expect_test::expect![[r#"{"deployment":"d1","role":"origin","id":"o1","protocol_min":1,"protocol_max":1,"time":1700000000}"#]].assert_eq(std::str::from_utf8(&body).unwrap());
    }
}
