//! The model (`sim`) against real kube-apiservers: what they send, what they store.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod http2;
mod plugin;
mod record;
mod recording;
mod script;
mod world;

/// The versions that are recorded and compared with.
const VERSIONS: [&str; 3] = kleidi_harness::components::KUBE_APISERVERS;

/// Name of the `kms` entry where there is one.
const PROVIDER: &str = "kms";

/// Secrets that are in etcd before a start, each with another seed.
const DIFFERENT_SEEDS: usize = 30;
