//! Larder and programs of other people: curl, nginx, OpenSSL, strongSwan, GnuTLS, pkilint, sslyze,
//! testssl.sh, SoftHSM2 with OpenSC, NIST's test suite for certificates, and schemathesis; and a
//! second client, in Python.
//!
//! `.ci/interop-install` installs them. One that is missing is a failure, never a skip.

mod answer;
mod caches;
mod curl;
mod der;
mod enrolment;
mod fetching;
mod nginx;
mod nine;
mod openssl;
mod papers;
mod pkilint;
mod pkits;
mod program;
mod python;
mod renewal;
mod scanners;
mod schemathesis;
mod shop;
mod softhsm;
mod strongswan;
mod tickets;
mod tools;
mod trusting;
