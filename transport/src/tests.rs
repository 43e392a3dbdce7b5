//! Connections on loopback.
