//! What happens to the KMS and to the nodes, and what a node can know of it.

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use super::super::fake::key;
use crate::key_id::KeyId;

/// Plugins, each on a node of its own.
pub(super) const NODES: usize = 2;

/// Connections of apiservers, spread over the nodes.
pub(super) const CLIENTS: usize = 3;

/// After so many seconds without a change the monitor has seen it as it is: its period, and a moment.
const SETTLED_AFTER: u64 = 11;

/// A change of the keys. Every node hears of all of them in this order, and later than they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// A key that is current from then on; keys are counted.
    Made(u8),
    /// A key that is not current is gone.
    Destroyed(u8),
}

/// How it is with a node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Of how many changes it has heard.
    heard: usize,
    /// Its KMS fails every call.
    pub(super) away: bool,
    /// Its KMS wraps with the oldest key, whatever key is asked for.
    pub(super) lies: bool,
    /// Seconds since anything of this changed, at least.
    quiet: u64,
    /// The KMS was away, and perhaps the monitor still believes it.
    sick: bool,
}

impl Node {
    /// Whether the monitor has seen it as it is now.
    pub(super) fn settled(&self) -> bool {
        self.quiet >= SETTLED_AFTER
    }

    /// Whether Status may be an error.
    pub(super) fn may_be_sick(&self) -> bool {
        self.away || self.sick
    }
}

/// What has happened.
#[derive(Debug, Clone)]
pub(super) struct Model {
    changes: Vec<Change>,
    pub(super) nodes: Vec<Node>,
    /// On which node each connection is.
    pub(super) clients: Vec<usize>,
}

impl Model {
    /// The keys that the KMS shows to this node, the current one last.
    pub(super) fn held_by(&self, node: usize) -> Vec<u8> {
        held(&self.changes[..self.nodes[node].heard])
    }

    /// Which key that is.
    pub(super) fn number_of(&self, id: &KeyId) -> u8 {
        let made = self.changes.iter().filter_map(|change| match change {
            Change::Made(number) => Some(*number),
            Change::Destroyed(_) => None,
        });
        let mut named = made.filter(|number| key(*number).id == *id);
        named.next().unwrap_or_else(|| panic!("{id} is no key of this KMS"))
    }

    /// Keys that may be destroyed.
    fn old(&self) -> Vec<u8> {
        let mut held = held(&self.changes);
        held.pop();
        held
    }

    fn made(&self) -> u8 {
        held(&self.changes).last().copied().unwrap_or(0)
    }
}

fn held(changes: &[Change]) -> Vec<u8> {
    let mut held = Vec::new();
    for change in changes {
        match change {
            Change::Made(number) => held.push(*number),
            Change::Destroyed(number) => held.retain(|key| key != number),
        }
    }
    held
}

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Rotate,
    /// One of the keys that are not current.
    Destroy(usize),
    /// A node hears of one more change.
    Hear(usize),
    /// A node's KMS goes away, or comes back.
    Away(usize, bool),
    /// A node's KMS begins to lie, or ends it.
    Lies(usize, bool),
    /// Seconds go by.
    Wait(u64),
    Status(usize),
    /// A seed of this byte.
    Encrypt(usize, u8),
    /// One of what was acknowledged, on a node.
    Decrypt(usize, usize),
    /// The same under another key's id.
    DecryptRenamed(usize, usize),
    /// A client opens another connection, to a node.
    Reconnect(usize, usize),
    Restart(usize),
}

/// The state machine.
pub(super) struct Rotation;

impl ReferenceStateMachine for Rotation {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        let node = Node { heard: 1, away: false, lies: false, quiet: 0, sick: false };
        let clients = (0..CLIENTS).map(|client| client % NODES).collect();
        Just(Model { changes: vec![Change::Made(1)], nodes: vec![node; NODES], clients }).boxed()
    }

    fn transitions(_model: &Model) -> BoxedStrategy<Step> {
        let (node, client) = (0..NODES, 0..CLIENTS);
        prop_oneof![
            2 => Just(Step::Rotate),
            1 => any::<usize>().prop_map(Step::Destroy),
            4 => node.clone().prop_map(Step::Hear),
            2 => (node.clone(), any::<bool>()).prop_map(|(node, away)| Step::Away(node, away)),
            1 => (node.clone(), any::<bool>()).prop_map(|(node, lies)| Step::Lies(node, lies)),
            3 => (1u64..=14).prop_map(Step::Wait),
            5 => client.clone().prop_map(Step::Status),
            5 => (client.clone(), any::<u8>()).prop_map(|(client, byte)| Step::Encrypt(client, byte)),
            3 => (node.clone(), any::<usize>()).prop_map(|(node, at)| Step::Decrypt(node, at)),
            1 => (node.clone(), any::<usize>()).prop_map(|(node, at)| Step::DecryptRenamed(node, at)),
            1 => (client, node.clone()).prop_map(|(client, node)| Step::Reconnect(client, node)),
            1 => node.prop_map(Step::Restart),
        ]
        .boxed()
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        match step {
            Step::Destroy(_) => !model.old().is_empty(),
            Step::Hear(node) => model.nodes[*node].heard < model.changes.len(),
            _ => true,
        }
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        match *step {
            Step::Rotate => model.changes.push(Change::Made(model.made() + 1)),
            Step::Destroy(index) => {
                let old = model.old();
                model.changes.push(Change::Destroyed(old[index % old.len()]));
            }
            Step::Hear(node) => change(&mut model.nodes[node], |node| node.heard += 1),
            Step::Away(node, away) => change(&mut model.nodes[node], |node| {
                node.away = away;
                node.sick |= away;
            }),
            Step::Lies(node, lies) => change(&mut model.nodes[node], |node| node.lies = lies),
            Step::Wait(seconds) => {
                for node in &mut model.nodes {
                    node.quiet += seconds;
                    node.sick &= node.away || !node.settled();
                }
            }
            Step::Reconnect(client, node) => model.clients[client] = node,
            Step::Restart(node) => change(&mut model.nodes[node], |node| node.sick = node.away),
            Step::Status(_) | Step::Encrypt(..) | Step::Decrypt(..) | Step::DecryptRenamed(..) => {}
        }
        model
    }
}

fn change(node: &mut Node, change: impl FnOnce(&mut Node)) {
    change(node);
    node.quiet = 0;
}
