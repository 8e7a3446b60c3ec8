//! The KMS of a run: a simple one behind the backend's trait, or a cluster with transit behind the product's
//! real client.

pub mod memory;
pub mod transit;

use std::collections::BTreeMap;
use std::sync::Arc;

use kleidi::backend::{Backend, Scheme};
use kleidi::key_id::KeyId;
use kleidi::random::Random;

use super::history::History;
use super::mutant::Mutant;
use super::plan::{self, Plan, What};

/// What a plan does to a KMS, and the truth about it, which no plugin gets to see.
pub trait Kms: Send + Sync {
    /// Makes it so, where it is about the KMS.
    fn happen(&self, what: &What);

    /// Ends all faults.
    fn heal(&self);

    /// All keys but the current one are gone, for good.
    fn destroy_old(&self);

    /// How its payloads are to be read.
    fn scheme(&self) -> Scheme;

    /// The number of the current key; no two keys have the same.
    fn current(&self) -> u64;

    /// Which key wrapped that payload.
    fn who_wrapped(&self, payload: &[u8]) -> Option<u64>;

    /// All keys that are there, and whether they may be used.
    fn keys(&self) -> BTreeMap<u64, bool>;

    /// Whether what this key wrapped can be unwrapped at all.
    fn is_usable(&self, key: u64) -> bool {
        self.keys().get(&key).copied().unwrap_or(false)
    }

    /// The id under which a plugin has to know that key.
    fn id_of(&self, key: u64) -> Option<KeyId>;

    /// For a process that starts on this node now, and draws from `random`; with another client than the
    /// product's if it is that which is broken.
    fn process(
        self: Arc<Self>,
        node: usize,
        random: Arc<dyn Random>,
        mutant: Option<Mutant>,
    ) -> Arc<dyn Process>;
}

/// Something else than was wrapped, as long as it.
fn another(seed: &mut [u8]) {
    for byte in seed {
        *byte = !*byte;
    }
}

/// A KMS as one process sees it.
pub trait Process: Backend {
    /// The process dies: what it asked for is not answered any more.
    fn die(&self);
}

/// The one that the plan wants.
#[must_use]
pub fn new(plan: &Plan, history: Arc<History>) -> Arc<dyn Kms> {
    match plan.kms {
        plan::Kms::Simulated => memory::Memory::new(plan.seed, plan.nodes, history),
        plan::Kms::Transit | plan::Kms::TransitForwarding => transit::Cluster::new(plan, history),
    }
}
