//! A throw-away deployment for this room's tests.
