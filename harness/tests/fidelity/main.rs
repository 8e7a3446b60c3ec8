//! The model (`sim`) against real kube-apiservers: what they send, what they store.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod client;
mod compare;
mod demo;
mod http2;
mod plugin;
mod program;
mod record;
mod recorded;
mod recording;
mod replay;
mod script;
mod values;
mod world;

/// The versions that are recorded and compared with.
const VERSIONS: [&str; 3] = kleidi_harness::components::KUBE_APISERVERS;

/// Name of the `kms` entry where there is one.
const PROVIDER: &str = "kms";

/// Secrets that are in etcd before a start, each with another seed.
const DIFFERENT_SEEDS: usize = 30;

/// Seconds after its first Status when an apiserver's health begins to be looked at from outside.
const HEALTH_FROM: u64 = 125;

/// When its file is replaced.
const CHANGED_AT: u64 = 150;

/// When Secrets are read after that.
const READ_AT: u64 = 250;
