//! The checks' functions, by group.

pub(crate) mod concurrency;
pub(crate) mod decrypt;
pub(crate) mod encrypt;
pub(crate) mod errors;
pub(crate) mod hardening;
pub(crate) mod limits;
pub(crate) mod outage;
pub(crate) mod replicas;
pub(crate) mod restart;
pub(crate) mod rotation;
pub(crate) mod roundtrip;
pub(crate) mod status;
pub(crate) mod transport;
