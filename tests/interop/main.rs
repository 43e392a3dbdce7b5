//! Larder and programs of other people: curl, nginx, OpenSSL, strongSwan.
//!
//! `.ci/interop-install` installs them. One that is missing is a failure, never a skip.

mod answer;
mod caches;
mod curl;
mod enrolment;
mod fetching;
mod nginx;
mod openssl;
mod program;
mod shop;
mod strongswan;
mod trusting;
