//! Rotations, outages, lagging nodes, restarts and lies in any order, with several clients, against a model
//! that says what must hold.
//!
//! What must hold, after every step:
//!
//! * Encrypt uses the key that Status last told this connection, and says which it was.
//! * No node goes back to a key that came before one that it has named: A, B, A is never seen.
//! * What was acknowledged can be read on every node whose KMS holds the key, whatever happened since.
//! * A call fails when it has to, and only when it may: an outage that is over for a period is over.

mod model;

use std::sync::Arc;
use std::time::Duration;

use proptest::test_runner::Config;
use proptest_state_machine::{StateMachineTest, prop_state_machine};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fake::{FakeKms, key, outage};
use super::{HEALTH, soon, stored};
use crate::key_id::KeyId;
use crate::provider::{Announced, Error, Provider, Stored};
use crate::random::OsRandom;
use crate::secret::Secret;
use model::{CLIENTS, Model, NODES, Rotation, Step};

/// A plugin on a node, and the KMS as that node sees it.
struct Node {
    kms: Arc<FakeKms>,
    provider: Arc<Provider>,
    monitor: JoinHandle<()>,
    /// The latest key that it has named, over restarts.
    named: u8,
}

impl Node {
    fn new() -> Self {
        let kms = FakeKms::new(&[1]);
        let (provider, monitor) = start(&kms);
        Self { kms, provider, monitor, named: 0 }
    }

    fn restart(&mut self) {
        self.monitor.abort();
        (self.provider, self.monitor) = start(&self.kms);
    }

    /// What the node is told of the KMS.
    fn show(&self, model: &Model, node: usize) {
        let mut script = self.kms.script.lock();
        script.keys = model.held_by(node);
        script.fails = model.nodes[node].away.then(|| outage("unplugged"));
        script.wraps_with = model.nodes[node].lies.then(|| model.held_by(node)[0]);
    }

    /// Takes note of a key that was named; it may not come before one that was named earlier.
    fn name(&mut self, id: &KeyId, model: &Model) -> u8 {
        let number = model.number_of(id);
        assert!(number >= self.named, "back from key {} to key {number}", self.named);
        self.named = number;
        number
    }
}

fn start(kms: &Arc<FakeKms>) -> (Arc<Provider>, JoinHandle<()>) {
    let (provider, monitor) = Provider::new(Arc::clone(kms) as _, Arc::new(OsRandom), HEALTH);
    (provider, tokio::spawn(monitor.run()))
}

/// An apiserver's connection.
#[derive(Default)]
struct Client {
    announced: Announced,
    /// What Status said last.
    told: Option<KeyId>,
}

/// A seed that an apiserver relies on.
struct Acknowledged {
    stored: Stored,
    key: u8,
    seed: [u8; 32],
}

/// The product on two nodes, and what its clients know.
struct System {
    runtime: Runtime,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    acknowledged: Vec<Acknowledged>,
}

impl System {
    fn status(&mut self, model: &Model, client: usize) {
        let node = model.clients[client];
        let Self { runtime, nodes, clients, .. } = self;
        let (node_here, client) = (&mut nodes[node], &mut clients[client]);
        let (provider, announced) = (&node_here.provider, &client.announced);
        let answer = runtime.block_on(async { provider.status(announced, soon()).await });
        let state = &model.nodes[node];
        match answer {
            Ok(id) => {
                assert!(!(state.away && state.settled()), "all is well in an outage");
                let number = node_here.name(&id, model);
                let held = model.held_by(node);
                let latest = held.last().copied();
                assert!(Some(number) <= latest, "the node has not heard of key {number}");
                if state.settled() {
                    assert_eq!(Some(number), latest, "a period after it has heard of it");
                }
                client.told = Some(id);
            }
            Err(error) => {
                assert!(state.may_be_sick(), "{error}");
                let outage = matches!(error, Error::Outage { .. } | Error::Starting);
                assert!(outage, "{error}");
            }
        }
    }

    fn encrypt(&mut self, model: &Model, client: usize, byte: u8) {
        let node = model.clients[client];
        let Self { runtime, nodes, clients, acknowledged } = self;
        let (node_here, client) = (&mut nodes[node], &clients[client]);
        let seed = [byte; 32];
        let plaintext = Secret::from(seed.to_vec());
        let (provider, announced) = (&node_here.provider, &client.announced);
        let answer =
            runtime.block_on(async { provider.encrypt(announced, plaintext, soon()).await });
        let (state, held) = (&model.nodes[node], model.held_by(node));
        let told = client.told.as_ref().map(|id| model.number_of(id));
        match answer {
            Ok(encrypted) => {
                assert!(!state.away, "no KMS has wrapped that");
                let number = match told {
                    Some(_) => model.number_of(&encrypted.key_id),
                    None => node_here.name(&encrypted.key_id, model),
                };
                assert!(told.is_none_or(|told| told == number), "{told:?} was told, not {number}");
                assert!(held.contains(&number), "the KMS does not hold key {number}");
                let lie = state.lies && number != held[0];
                assert!(!lie, "another key has wrapped it");
                acknowledged.push(Acknowledged { stored: stored(&encrypted), key: number, seed });
            }
            Err(error) => {
                let gone = told.is_some_and(|told| !held.contains(&told));
                // Without a Status before it, it goes by the keys that the monitor has seen last.
                let outdated = told.is_none() && !state.settled();
                let may = state.away || state.lies || gone || outdated;
                assert!(may, "{error}");
            }
        }
    }

    /// Whether this node's KMS can read it.
    fn readable(model: &Model, node: usize, acknowledged: &Acknowledged) -> bool {
        !model.nodes[node].away && model.held_by(node).contains(&acknowledged.key)
    }

    fn decrypt(&self, model: &Model, node: usize, acknowledged: &Acknowledged) {
        let stored = acknowledged.stored.clone();
        let answer = self
            .runtime
            .block_on(async { self.nodes[node].provider.decrypt(stored, soon()).await });
        match answer {
            Ok(seed) => {
                assert!(Self::readable(model, node, acknowledged), "no KMS has unwrapped that");
                assert_eq!(seed.expose(), acknowledged.seed, "a wrong seed");
            }
            Err(error) => {
                let key = acknowledged.key;
                let lost = Self::readable(model, node, acknowledged);
                assert!(!lost, "node {node} holds key {key} and cannot read: {error}");
                if !model.nodes[node].away {
                    assert!(matches!(error, Error::KeyUnknown { .. }), "whose fault: {error}");
                }
            }
        }
    }

    /// Under another key's id nothing can be read.
    fn decrypt_renamed(&self, node: usize, acknowledged: &Acknowledged) {
        let key_id = key(acknowledged.key + 1).id.to_string();
        let stored = Stored { key_id, ..acknowledged.stored.clone() };
        let provider = &self.nodes[node].provider;
        let answer = self.runtime.block_on(async { provider.decrypt(stored, soon()).await });
        assert!(answer.is_err(), "it was read under another key's id");
    }

    fn one_of(&self, index: usize) -> Option<&Acknowledged> {
        self.acknowledged.get(index % self.acknowledged.len().max(1))
    }
}

impl StateMachineTest for Rotation {
    type SystemUnderTest = System;
    type Reference = Self;

    fn init_test(_model: &Model) -> System {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let nodes = runtime.block_on(async { (0..NODES).map(|_| Node::new()).collect() });
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        System { runtime, nodes, clients, acknowledged: Vec::new() }
    }

    fn apply(mut system: System, model: &Model, step: Step) -> System {
        for (number, node) in system.nodes.iter().enumerate() {
            node.show(model, number);
        }
        match step {
            Step::Rotate | Step::Destroy(_) | Step::Hear(_) | Step::Away(..) | Step::Lies(..) => {}
            Step::Wait(seconds) => {
                system.runtime.block_on(async { sleep(Duration::from_secs(seconds)).await });
            }
            Step::Status(client) => system.status(model, client),
            Step::Encrypt(client, byte) => system.encrypt(model, client, byte),
            Step::Decrypt(node, index) => {
                if let Some(acknowledged) = system.one_of(index) {
                    system.decrypt(model, node, acknowledged);
                }
            }
            Step::DecryptRenamed(node, index) => {
                if let Some(acknowledged) = system.one_of(index) {
                    system.decrypt_renamed(node, acknowledged);
                }
            }
            Step::Reconnect(client, _) => system.clients[client] = Client::default(),
            Step::Restart(node) => {
                let System { runtime, nodes, clients, .. } = &mut system;
                runtime.block_on(async { nodes[node].restart() });
                let lost = clients.iter_mut().zip(&model.clients).filter(|(_, at)| **at == node);
                lost.for_each(|(client, _)| *client = Client::default());
            }
        }
        system
    }

    fn check_invariants(system: &System, model: &Model) {
        for node in 0..NODES {
            for acknowledged in &system.acknowledged {
                if System::readable(model, node, acknowledged) {
                    system.decrypt(model, node, acknowledged);
                }
            }
        }
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 96, failure_persistence: None, ..Config::default() })]

    #[test]
    fn rotations_outages_and_restarts_in_any_order(sequential 1..60 => Rotation);
}
